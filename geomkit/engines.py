"""Who runs which shard.

A shard is the unit of work: any engine may run any of them, in any order, more than once, and the
run folder is the same. Processes share nothing but that folder; no process group is needed.

    inline      all shards, in this process
    slice i/n   every n-th shard from the i-th on: Slurm arrays, torchrun, two terminals
    ray         actors, one a GPU, on this machine or a cluster (`geomkit.actors`)

The bytes are the same for equal hardware, libraries and number of threads: a sum of floats depends
on the order in which it is made.
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

    def engine_itself(self, *, force: bool = False) -> Engine:
        """The engine of these names; `force` is whether a run of another plan is to be replaced.

        Raises:
            UsageError: no such engine, or options that do not go together.
        """
        if self.engine not in ENGINES:
            raise UsageError(f"Expected an engine ({', '.join(ENGINES)}), got '{self.engine}'.")
        if self.shard and force:
            raise UsageError(
                "Expected no --force with --shard: every slice would wipe what the others wrote."
                " Choose another --out, or delete the old run first."
            )
        if self.workers < 0 or (self.workers and self.engine != "ray"):
            raise UsageError(
                f"Expected --workers of at least 1, with --engine ray, got {self.workers} with"
                f" {self.engine}."
            )
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
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise UsageError(f"Expected --shard i/n with i from 0 to n - 1, got '{text}'.")
        return cls(int(found[1]), int(found[2]))

    def __call__(self, job: Job, run: Run, progress: Progress) -> None:
        """Capture this slice; others may run at the same time, before or after."""
        _capture(job, run, progress, range(self.number, run.shard_count(), self.count))


def _of_environment(environment: Mapping[str, str]) -> str:
    """i/n, as the scheduler says it; an array's numbers may start anywhere and go in steps."""
    for number, count in ENVIRONMENTS:
        if number not in environment or count not in environment:
            continue
        if number != "SLURM_ARRAY_TASK_ID":
            return f"{environment[number]}/{environment[count]}"
        first, step = (environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("MIN", "STEP"))
        try:
            place = (int(environment[number]) - int(first or 0)) // int(step or 1)
        except (ValueError, ZeroDivisionError):
            place = -1  # refused where it is read
        return f"{place}/{environment[count]}"
    names = ", ".join(f"{number} and {count}" for number, count in ENVIRONMENTS)
    raise UsageError(
        f"Expected {names} in the environment for --shard auto, found none: write i/n."
    )


def _capture(job: Job, run: Run, progress: Progress, numbers: Sequence[int]) -> None:
    session = job.session(run, progress)
    for group in range(len(job.groups())):
        job.worker(session, group).capture(numbers)
