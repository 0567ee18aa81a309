"""What a benchmark was asked for, and the lines of the table that it prints."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import Ratio, Spent, ratio

KNOBS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a ratio by both clocks, or a figure in words."""

    section: str
    what: str
    wall: Ratio | None = None
    cpu: Ratio | None = None
    device: Ratio | None = None
    figure: str = ""
    target: float | None = None  # the ratio is to be at most this

    def cells(self) -> tuple[str, ...]:
        """As the Markdown table shows it."""
        ratios = (str(one) if one else "" for one in (self.wall, self.device or self.cpu))
        wanted = "" if self.target is None else f"at most {self.target:g}"
        return (self.section, self.what, *ratios, self.figure, wanted)


@dataclass(frozen=True, slots=True)
class Setup:
    """What was asked for on the command line."""

    quick: bool
    threads: int
    device: str
    dtype: str
    size: str
    scratch: Path

    @property
    def cuda(self) -> bool:
        """True on a GPU."""
        return self.device.startswith("cuda")

    def rounds(self, full: int) -> int:
        """How often things are measured."""
        return 2 if self.quick else full

    def folder(self) -> Path:
        """A new folder for one run."""
        return Path(tempfile.mkdtemp(dir=self.scratch))


def compared(
    section: str, what: str, ours: Sequence[Spent], theirs: Sequence[Spent], **more: Any
) -> Line:
    """The line of a ratio."""
    on_device = ratio(ours, theirs, "device") if ours[0].device else None
    wall, cpu = ratio(ours, theirs, "wall"), ratio(ours, theirs, "cpu")
    return Line(section, what, wall, cpu, on_device, **more)


def figure(section: str, what: str, value: float, told: str, target: float | None = None) -> Line:
    """The line of one number, with what it was made from."""
    return Line(section, what, figure=f"ratio {value:.3f}: {told}", target=target)


def provenance(setup: Setup) -> str:
    """Machine, versions and command."""
    chip = torch.cuda.get_device_name() if setup.cuda else processor()
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft", "h5py"))
    knobs = [f"{name}={os.environ[name]}" for name in KNOBS if name in os.environ]
    command = " ".join([*knobs, "python", "benchmarks/capture.py", *sys.argv[1:]])
    return (
        f"{chip}, {os.cpu_count()} cores, {setup.threads} threads; Python"
        f" {platform.python_version()}, {packages}; `{command}`"
    )


def processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def markdown(lines: Sequence[Line], setup: Setup) -> str:
    """The table, and under it where it was made."""
    second = "GPU time" if setup.cuda else "CPU time"
    head = ("", "what", "wall", second, "figures", "target")
    rows = [head, tuple("---" for _ in head), *(line.cells() for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{provenance(setup)}"
