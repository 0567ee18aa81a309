"""Who runs which shard.

A shard is the unit of work: any engine may run any of them, in any order, more than once, and the
run folder is the same. Processes share nothing but that folder; no process group is needed.

    inline      all shards, in this process
    slice i/n   every n-th shard from the i-th on: Slurm arrays, torchrun, two terminals
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from geomkit.errors import UsageError

if TYPE_CHECKING:
    from geomkit.capture import Job
    from geomkit.progress import Progress
    from geomkit.store import Run

Engine = Callable[["Job", "Run", "Progress"], None]
"""Captures the shards that a run lacks."""

ENGINES = ("inline", "ray")
ENVIRONMENTS = (  # where schedulers say which of how many processes this is, the most exact first
    ("RANK", "WORLD_SIZE"),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Who runs which shard."""

    engine: str = field(
        default="inline",
        metadata={"help": "Who captures the shards: inline (this process), ray (an actor a GPU)."},
    )
    workers: int = field(default=0, metadata={"help": "Actors of the ray engine; 0 is one a GPU."})
    shard: str = field(
        default="",
        metadata={"help": "Only every n-th shard, as i/n; auto reads torchrun's or Slurm's."},
    )

    def engine_itself(self) -> Engine:
        """The engine of these names.

        Raises:
            UsageError: no such engine, or a slice of an engine that slices by itself.
        """
        if self.engine not in ENGINES:
            raise UsageError(f"Expected an engine ({', '.join(ENGINES)}), got '{self.engine}'.")
        if self.engine == "inline":
            return Slice.parse(self.shard) if self.shard else inline
        if self.shard:
            raise UsageError(f"Expected no --shard with --engine {self.engine}: it divides them.")
        from geomkit.actors import Actors

        return Actors(self.workers)


def inline(job: Job, run: Run, progress: Progress) -> None:
    """All shards, one after the other, in this process."""
    _capture(job, run, progress, range(run.shard_count()))


@dataclass(frozen=True, slots=True)
class Slice:
    """Every `count`-th shard from the `number`-th on, in this process."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Slice:
        """A slice of "i/n", or of `auto`: what torchrun or Slurm says in the environment.

        Raises:
            UsageError: not i/n with 0 <= i < n, or `auto` outside of such a job.
        """
        if text == "auto":
            text = _of_environment(environment)
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise UsageError(f"Expected --shard i/n with i from 0 to n - 1, got '{text}'.")
        return cls(int(found[1]), int(found[2]))

    def __call__(self, job: Job, run: Run, progress: Progress) -> None:
        """Capture this slice; others may run at the same time, before or after."""
        _capture(job, run, progress, range(self.number, run.shard_count(), self.count))


def _of_environment(environment: Mapping[str, str]) -> str:
    for number, count in ENVIRONMENTS:
        if number in environment and count in environment:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0")) if "ARRAY" in number else 0
            return f"{int(environment[number]) - first}/{environment[count]}"
    names = ", ".join(f"{number} and {count}" for number, count in ENVIRONMENTS)
    raise UsageError(
        f"Expected {names} in the environment for --shard auto, found none: write i/n."
    )


def _capture(job: Job, run: Run, progress: Progress, numbers: Sequence[int]) -> None:
    session = job.session(run, progress)
    for group in range(len(job.groups())):
        job.worker(session, group).capture(numbers)
