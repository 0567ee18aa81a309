"""What the metrics cost beside the peers' own code, and beside what the machine could do.

Every way runs in a process of its own, one at a time, on the same data: ours first, each peer, ours
again (unless that took long), so that the two of ours say how far a ratio can be trusted. Compared
are CPU seconds: others use the machine. A peer's own package is run where it can be imported, else
its formula in plain torch, and the table says which.

    python -m venv peers
    peers/bin/pip install torch IsoScore scikit-dimension torchmetrics matplotlib tqdm
    peers/bin/pip install --no-deps torch-cka reptrix
    python benchmarks/geometry.py --peer-python peers/bin/python --threads 1
    python benchmarks/geometry.py --only mean_cosine,rank_me --rows 10000 --save some.json

Lines of the table are printed as they are found, and with `--save` what was found is in that file
from the first contest on, so that a run may be stopped.

The data: `randn(N, D) * linspace(2, .1, D) + .5` in float32; the second set is a random linear map
of the first with half as much noise, seed 0. A peer out of time counts as what it had used by then;
one out of memory is said to be so. Where it could be run on fewer rows in the same run, its time is
carried on by the power of N that its formula has, and marked "~".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from benchmarks.alone import Limits, Outcome, start
from benchmarks.contests import CONTESTS, Contest, Rival
from benchmarks.lines import processor
from benchmarks.standings import FLOORS, HEAD, Floor, Standing, lines, table

CHUNK = 2000  # rows made at a time
LONG = 30.0  # CPU seconds from which ours is run once only
MOST = 600.0  # CPU seconds that ours may take whatever the peers may
PACKAGES = ("numpy", "scipy", "torch")


def main() -> None:
    """Measure what was asked for and print it."""
    asked = _asked()
    limits = Limits(asked.threads, asked.limit, asked.memory * 1024)
    found = Found(asked.dim, Path(asked.save) if asked.save else None, not asked.json)
    counts = [int(count) for count in asked.rows.split(",")]
    named = asked.only.split(",")
    with tempfile.TemporaryDirectory(prefix="geomkit-benchmark-", dir=asked.scratch) as scratch:
        sets = made(Path(scratch), max(counts), asked.dim)
        arena = Arena(Path(asked.peer_python or sys.executable), limits, sets)
        found.rates = arena.rates()
        for contest in (one for one in CONTESTS if one.metric in named):
            arena.contest(contest, counts, found)
    if asked.json:
        print(json.dumps(found.record()))
    else:
        print("", table(FLOORS, [f.cells() for f in found.floors()]), sep="\n", end="\n\n")
        print(_provenance(asked.threads, found.rates))


def _asked() -> argparse.Namespace:
    every = ",".join(contest.metric for contest in CONTESTS)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="10000,50000", help="numbers of rows, as in 10000,50000")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--only", default=every, help=every)
    parser.add_argument("--limit", type=float, default=60, help="CPU seconds of one peer")
    parser.add_argument("--memory", type=float, default=4, help="GiB of one way beyond the data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", help="the Python that has the peers' packages")
    parser.add_argument("--scratch", help="folder for the data, 1 GB at 50000 x 2048")
    parser.add_argument("--save", help="file that has as JSON what was found so far")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    asked = parser.parse_args()
    if unknown := set(asked.only.split(",")) - set(every.split(",")):
        parser.error(f"--only: expected some of {every}; got {', '.join(sorted(unknown))}.")
    return asked


def made(folder: Path, rows: int, dim: int, seed: int = 0) -> list[Path]:
    """Both sets on the disk, a few rows at a time; fewer rows are the first ones of more."""
    rng = np.random.default_rng(seed)
    through = rng.standard_normal((dim, dim)) / dim**0.5
    paths = [folder / "x.npy", folder / "y.npy"]
    files = [np.lib.format.open_memmap(p, "w+", np.float32, (rows, dim)) for p in paths]
    for first in range(0, rows, CHUNK):
        some = slice(first, min(first + CHUNK, rows))
        x = rng.standard_normal((some.stop - first, dim)) * np.linspace(2, 0.1, dim) + 0.5
        files[0][some] = x
        files[1][some] = x @ through + 0.5 * rng.standard_normal(x.shape)
    return paths


@dataclass(slots=True)
class Found:
    """What there is so far: printed line by line, and kept in a file."""

    dim: int
    file: Path | None
    shown: bool
    rates: dict[str, float] = field(default_factory=dict)
    standings: list[Standing] = field(default_factory=list)

    def add(self, some: list[Standing]) -> None:
        """Some more standings."""
        cells = [one.cells() for one in some]
        if self.shown:
            print(lines(cells) if self.standings else table(HEAD, cells), flush=True)
        self.standings += some
        if self.file:
            self.file.write_text(json.dumps(self.record()))

    def floors(self) -> list[Floor]:
        """Of every metric at every number of rows."""
        each = {(s.contest.metric, s.rows): s for s in self.standings}
        return [Floor(s.contest, s.rows, self.dim, s.cpu, self.rates) for s in each.values()]

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"rates": self.rates, "standings": [s.record() for s in self.standings],
                "floors": [f.record() for f in self.floors()]}  # fmt: skip


class Arena:
    """Runs the ways of a contest one after the other."""

    def __init__(self, peer_python: Path, limits: Limits, sets: list[Path]) -> None:
        self.peer_python, self.limits, self.sets = peer_python, limits, sets

    def rates(self) -> dict[str, float]:
        """What the machine does, on as many threads."""
        return dict(self._run(Path(sys.executable), "machine.rates", [], 0).value)

    def contest(self, contest: Contest, counts: list[int], found: Found) -> None:
        """Every rival at every number of rows; where ours cannot be run that is told."""
        before: list[Standing] = []
        for rows in sorted(counts):
            try:
                first = self._own(contest, rows)
                theirs = [(rival, *self._rival(contest, rival, rows)) for rival in contest.rivals]
                ours = [first] if first.cpu > LONG else [first, self._own(contest, rows)]
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return
            new = [Standing(contest, rival, rows, ours, outcome, ran, _before(before, rival))
                   for rival, ran, outcome in theirs]  # fmt: skip
            before += new
            found.add(new)

    def _own(self, contest: Contest, rows: int) -> Outcome:
        done = self._run(
            Path(sys.executable), f"own.{contest.metric}", self.sets[: contest.sets], rows
        )
        if done.status != "done":
            raise RuntimeError(f"{contest.metric} at {rows} rows: {done.status}. {done.said}")
        return done

    def _rival(self, contest: Contest, rival: Rival, rows: int) -> tuple[str, Outcome]:
        """Which way was run, and what became of it."""
        sets = self.sets[: contest.sets]
        if rival.way.startswith("plain"):
            return rival.way, self._run(Path(sys.executable), rival.way, sets, rows)
        done = self._run(self.peer_python, rival.way, sets, rows)
        if done.status == "absent" and rival.instead:
            return rival.instead, self._run(Path(sys.executable), rival.instead, sets, rows)
        return rival.way, done

    def _run(self, python: Path, way: str, sets: list[Path], rows: int) -> Outcome:
        limits = self.limits
        if way.startswith("own."):
            limits = replace(limits, seconds=max(limits.seconds, MOST))
        done = start(python, way, limits, sets=sets, rows=rows)
        told = f"{way} {rows}: {done.status} {done.cpu:.2f} CPU s, {done.wall:.2f} s wall"
        print(f"{told}, {done.memory:.0f} MiB, {done.value} {done.said}", file=sys.stderr)
        return done


def _before(found: list[Standing], rival: Rival) -> tuple[int, Outcome] | None:
    """The rival on the most rows that it could be run on so far."""
    done = [one for one in found if one.rival is rival and one.theirs.status == "done"]
    return (done[-1].rows, done[-1].theirs) if done else None


def _provenance(threads: int, rates: dict[str, float]) -> str:
    """Machine, versions, rates and command."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    command = " ".join(["python", "benchmarks/geometry.py", *sys.argv[1:]])
    return (
        f"{processor()}, {os.cpu_count()} cores, {threads} threads; products at"
        f" {rates['float32'] / 1e9:.0f} GFLOP/s in float32 and {rates['float64'] / 1e9:.0f} in"
        f" float64, copies at {rates['bytes'] / 1e9:.1f} GB/s; Python"
        f" {platform.python_version()}, {packages}; `{command}`"
    )


if __name__ == "__main__":
    main()
