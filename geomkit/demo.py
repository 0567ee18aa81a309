"""The whole thread on the embedded sandbox: train -> merge -> capture -> analyze -> report.

It says what was found, whatever it is; nothing here decides how the numbers come out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from geomkit import glance, stages, summary
from geomkit.errors import UsageError
from geomkit.progress import progress
from geomkit.store import overview
from geomkit.types import Analysis

PARTS = ("lco", "lco-merged", "run")


def demonstrate(folder: Path, out: Console, err: Console) -> None:
    """Run every stage into `folder` and print what was found.

    Raises:
        UsageError: `folder` holds something that this demo did not make.
    """
    _clear(folder)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str, what: str) -> Iterator[None]:
        err.rule(f"{name}: {what}", align="left", style="dim")
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started

    from geomkit import sandbox

    mastery = json.loads((sandbox.checkpoint_path("base") / "mastery.json").read_text())
    with stage("train", "text pairs only, adapter in the decoder only"):
        with progress(err) as report:
            trained = stages.train("base", "sandbox", folder / "lco", report, preset=None)
        _say(err, summary.training_lines(trained))
    with stage("merge", "the decoder goes back into the full model"):
        merged = stages.merge(folder / "lco", "", folder / "lco-merged")
        _say(err, summary.merge_lines(merged))
    with stage("capture", "text, image and audio, before and after, in one pass"):
        with progress(err) as report:
            names = ["base", f"lco={folder / 'lco'}"]
            run = stages.capture(names, "sandbox", folder / "run", report)
        _say(err, glance.run_lines(overview(run)))
    told = "geometry and probes, each with an interval and its chance"
    with stage("analyze", told), progress(err) as report:
        analysis = stages.analyze(run, report)
    with stage("report", "one offline page"):
        page = stages.report(run, analysis, stages.report_path([run]), embed_media=True)
    out.print(summary.mastery_table(mastery))
    out.print()
    conclude(analysis, out)
    out.print()
    times = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    out.print(f"time: {times}; together {sum(seconds.values()):.0f} s", markup=False)
    out.print(f"report: {page}", markup=False)


def conclude(analysis: Analysis, out: Console) -> None:
    """The verdict table and the sentence that sums it up."""
    out.print(summary.verdict_table(analysis))
    _say(out, summary.findings(analysis))
    out.print()
    out.print(analysis.headline, style="bold", markup=False)


def _say(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        console.print(line, markup=False)


def _clear(folder: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    import shutil

    strange = [p.name for p in folder.iterdir() if p.name not in PARTS] if folder.is_dir() else []
    if strange or (folder.exists() and not folder.is_dir()):
        raise UsageError(
            f"Expected {folder} to be new or an earlier demo, got {', '.join(strange) or 'a file'}:"
            " choose another folder with --out."
        )
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
