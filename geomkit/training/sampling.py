"""Batches of distinct texts, as many in every epoch, and a count of the rows that none of them had.

The library's sampler puts a row off whose text is in the batch already. Where texts repeat much,
some rows are put off until the epoch is over; it then draws others again, twice at most. Here it
draws until the epoch is as long as the schedule counts on, and says what that did to the rows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from transformers import TrainerCallback

from geomkit.errors import TrainingError
from geomkit.training.guards import Notice

MANY = 0.03  # share of an epoch's rows that may be left out without a warning
AGAIN = 1_000_003  # what is added to an epoch's number where it is drawn once more
LOGGED = "rows"

log = logging.getLogger("geomkit.training")
logging.getLogger("sentence_transformers.base.sampler").setLevel(logging.ERROR)  # said here


@dataclass(frozen=True, slots=True)
class Epoch:
    """How a whole pass over the rows went: rows that no batch had, and rows drawn once more."""

    epoch: int
    rows: int
    left_out: int
    repeated: int


class DistinctTexts(NoDuplicatesBatchSampler):  # type: ignore[misc]  # untyped
    """The library's sampler, which never gives fewer batches than its length.

    `done` has of each whole epoch how often each row was drawn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done: dict[int, tuple[int, int]] = {}

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of an epoch.

        Raises:
            TrainingError: not even one batch of distinct texts can be filled.
        """
        epoch, number = self.epoch, 0
        drawn = np.zeros(len(self.dataset), dtype=np.int64)
        for turn in count():
            again = copy.copy(self)
            again.epoch = epoch + turn * AGAIN
            before = number
            for batch in NoDuplicatesBatchSampler.__iter__(again):
                number += 1
                drawn[batch] += 1
                if number == len(self):
                    self.done[epoch] = (int((drawn == 0).sum()), int((drawn - 1).clip(0).sum()))
                yield batch
                if number == len(self):
                    return
            if number == before:
                raise TrainingError(
                    f"Expected batches of {self.batch_size} distinct texts, not one could be "
                    f"filled from {len(self.dataset)} rows: lower batch or bring more varied pairs."
                )


class Coverage(TrainerCallback):  # type: ignore[misc]  # untyped
    """Counts of every epoch's rows, in the trainer's log so that they outlast an interruption."""

    def __init__(self) -> None:
        self.samplers: list[DistinctTexts] = []

    def sampler(self, *args: Any, **kwargs: Any) -> DistinctTexts:
        """A sampler that is counted."""
        self.samplers.append(DistinctTexts(*args, **kwargs))
        return self.samplers[-1]

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Log the epochs that are whole by now."""
        known = {row[LOGGED]["epoch"] for row in state.log_history if LOGGED in row}
        length = sum(map(len, self.samplers))
        for epoch in range(state.global_step // length):
            if epoch + 1 not in known and all(epoch in one.done for one in self.samplers):
                found = self._epoch(epoch)
                state.log_history.append({LOGGED: asdict(found), "step": int(state.global_step)})
                for notice in few([found], state.global_step):
                    log.warning("%s", notice.message)

    def _epoch(self, epoch: int) -> Epoch:
        rows = sum(len(one.dataset) for one in self.samplers)
        left_out, repeated = (sum(n) for n in zip(*(s.done[epoch] for s in self.samplers)))  # noqa: B905  # pairs
        return Epoch(epoch + 1, rows, left_out, repeated)


def covered(log_history: Sequence[Mapping[str, Any]]) -> tuple[Epoch, ...]:
    """What a trainer's log history holds of whole epochs."""
    found = (Epoch(**row[LOGGED]) for row in log_history if LOGGED in row)
    return tuple(sorted(found, key=lambda one: one.epoch))


def few(epochs: Sequence[Epoch], step: int) -> tuple[Notice, ...]:
    """A warning where an epoch left many rows out."""
    worst = max(epochs, key=lambda one: one.left_out, default=None)
    if worst is None or worst.left_out <= MANY * worst.rows:
        return ()
    told = (
        f"epoch {worst.epoch} left out {worst.left_out} of {worst.rows} rows and drew "
        f"{worst.repeated} again: rows that fill no batch, or whose texts others of their batch "
        "have; lower batch or bring more varied pairs"
    )
    return (Notice(step, "rows", told),)
