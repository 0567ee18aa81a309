"""What the metrics cost beside the peers' own code, and beside what the machine could do.

Every way runs in a process of its own, one at a time, on the same data: ours first, each peer, ours
again (unless that took long), so that the two of ours say how far a ratio can be trusted. Compared
are CPU seconds: others use the machine. A peer's own package is run where it can be imported, else
its formula in plain torch, and the table says which.

    python -m venv peers
    peers/bin/pip install torch IsoScore scikit-dimension torchmetrics matplotlib tqdm
    peers/bin/pip install --no-deps torch-cka reptrix
    python benchmarks/geometry.py --peer-python peers/bin/python --threads 1
    python benchmarks/geometry.py --only mean_cosine,rank_me --rows 10000

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
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from benchmarks.alone import Limits, Outcome, start
from benchmarks.contests import CONTESTS, Contest, Rival
from benchmarks.lines import processor
from benchmarks.standings import FLOORS, HEAD, Floor, Standing, table

CHUNK = 2000  # rows made at a time
LONG = 30.0  # CPU seconds from which ours is run once only
PACKAGES = ("numpy", "scipy", "torch")


def main() -> None:
    """Measure what was asked for and print it."""
    asked = _asked()
    limits = Limits(asked.threads, asked.limit, asked.memory * 1024)
    counts = [int(count) for count in asked.rows.split(",")]
    named = asked.only.split(",")
    with tempfile.TemporaryDirectory(prefix="geomkit-benchmark-", dir=asked.scratch) as scratch:
        sets = made(Path(scratch), max(counts), asked.dim)
        arena = Arena(Path(asked.peer_python or sys.executable), limits, sets)
        rates = arena.rates()
        standings = arena.contests([one for one in CONTESTS if one.metric in named], counts)
    floors = {(s.contest.metric, s.rows): Floor(s.contest, s.rows, asked.dim, s.cpu, rates)
              for s in standings}  # fmt: skip
    if asked.json:
        print(json.dumps({"rates": rates, "standings": [s.record() for s in standings],
                          "floors": [f.record() for f in floors.values()]}))  # fmt: skip
        return
    print(table(HEAD, [s.cells() for s in standings]), end="\n\n")
    print(table(FLOORS, [f.cells() for f in floors.values()]), end="\n\n")
    print(_provenance(asked.threads, rates))


def _asked() -> argparse.Namespace:
    every = ",".join(contest.metric for contest in CONTESTS)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="10000,50000", help="numbers of rows, as in 10000,50000")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--only", default=every, help=every)
    parser.add_argument("--limit", type=float, default=300, help="CPU seconds of one way")
    parser.add_argument("--memory", type=float, default=4, help="GiB of one way beyond the data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", help="the Python that has the peers' packages")
    parser.add_argument("--scratch", help="folder for the data, 1 GB at 50000 x 2048")
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


class Arena:
    """Runs the ways of a contest one after the other."""

    def __init__(self, peer_python: Path, limits: Limits, sets: list[Path]) -> None:
        self.peer_python, self.limits, self.sets = peer_python, limits, sets

    def rates(self) -> dict[str, float]:
        """What the machine does, on as many threads."""
        return dict(self._run(Path(sys.executable), "machine.rates", [], 0).value)

    def contests(self, contests: list[Contest], counts: list[int]) -> list[Standing]:
        """All of them; one in which ours cannot be run is told and left out."""
        found: list[Standing] = []
        for contest in contests:
            try:
                found += self.contest(contest, counts)
            except RuntimeError as error:
                print(error, file=sys.stderr)
        return found

    def contest(self, contest: Contest, counts: list[int]) -> list[Standing]:
        """Every rival at every number of rows."""
        found: list[Standing] = []
        for rows in sorted(counts):
            first = self._own(contest, rows)
            theirs = [(rival, *self._rival(contest, rival, rows)) for rival in contest.rivals]
            ours = [first] if first.cpu > LONG else [first, self._own(contest, rows)]
            found += [Standing(contest, rival, rows, ours, outcome, ran, _before(found, rival))
                      for rival, ran, outcome in theirs]  # fmt: skip
        return found

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
        done = start(python, way, self.limits, sets=sets, rows=rows)
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
