"""Jobs for actors that load no model: made-up states, and whatever may happen to a process.

They stand in a module of their own because actors, which are other processes, import it: every
import here is paid again by each of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from geomkit import errors
from geomkit.store import Run
from tests import small_run


@dataclass(frozen=True)
class FakeSpec:
    name: str = "base"


@dataclass(frozen=True)
class FakeConfig:
    device: str = "cpu"
    device_map: str = ""


@dataclass(frozen=True)
class FakeJob:
    """A job of one checkpoint; `happens` says what happens at a shard besides its capture."""

    out: Path
    happens: Mapping[int, str] = field(default_factory=dict)
    weights: str = "w"
    config: FakeConfig = FakeConfig()

    def groups(self) -> tuple[tuple[FakeSpec, ...], ...]:
        return ((FakeSpec(),),)

    def session(self, run: Run) -> Run:
        return run

    def worker(self, session: Run, _group: int) -> FakeWorker:
        session.write_checkpoint(replace(small_run.record("base"), weights_sha=self.weights))
        return FakeWorker(self, session)


@dataclass(frozen=True)
class FakeWorker:
    job: FakeJob
    run: Run

    def capture(self, numbers: Sequence[int]) -> None:
        (number,) = numbers  # they come one at a time
        note = self.job.out.with_suffix(".pids")
        with note.open("a") as pids:
            pids.write(f"{number} {os.getpid()}\n")
        happening = self.job.happens.get(number, "")
        if happening == "sleep":
            time.sleep(600)
        elif happening == "bug":
            raise ZeroDivisionError("a bug")
        elif happening.startswith("die"):
            before = sum(line.split()[0] == str(number) for line in note.read_text().splitlines())
            if happening != "die once" or before == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        elif happening:
            raise getattr(errors, happening)(f"shard {number}: {happening}")
        rows = small_run.shard_rows(self.run, number)
        self.run.write_shard("base", number, rows, small_run.SITES)
