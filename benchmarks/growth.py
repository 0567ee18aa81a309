"""(e) Peak memory of a capture of few and of ten times as many samples on the disk."""

from __future__ import annotations

from benchmarks import children
from benchmarks.lines import Line, Setup, figure


def memory_by_rows(setup: Setup) -> list[Line]:
    """(e) Peak memory of a capture of few and of ten times as many samples on the disk."""
    counts = (32, 64) if setup.quick else (1_000, 10_000)
    few, many = (children.start("manifest", threads=1, samples=n) for n in counts)
    told = (
        f"{few.peak:.0f} MiB at {counts[0]} samples, {many.peak:.0f} MiB at {counts[1]}"
        f" (text and image each; {(many.peak - few.peak) * 1024 / (counts[1] - counts[0]):.1f} KiB"
        f" a sample); {2 * counts[1] / many.wall:.0f} rows/s"
    )
    return [figure("e", "peak memory, many samples / few", many.peak / few.peak, told, 1.1)]
