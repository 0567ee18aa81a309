"""Trainings that go wrong are stopped, or warned of, with the step and what to change.

    not finite   a loss or a gradient that is no number: stop
    spike        the loss far above its recent median: warn; when it stays there: stop
    collapse     the probe set's effective rank fell far below its highest: warn, then stop

The rank of the guard is RankMe, which is not centred: it falls to 1 when states move onto one line
and also when they move into one point. What counts is how far it is above 1.

What a guard knows follows from the trainer's log, which is kept with every kept step: a training
that is resumed has its guards read the log again, so they know what they knew, and say it once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from transformers import TrainerCallback

from geomkit.errors import TrainingError
from geomkit.training.config import TrainConfig
from geomkit.training.geometry import Geometry, GeometryCallback

WINDOW = 20  # steps that the median of the loss is over, and that a spike may last
LEAST = 0.5  # nats above the median: near zero every multiple of it is small
RANK = "rank_me"

log = logging.getLogger("geomkit.training")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something odd that a training went on after; it stands in the record."""

    step: int
    kind: str
    message: str


class LossGuard(TrainerCallback):  # type: ignore[misc]  # untyped
    """Ends a training whose loss or gradient is not finite, or whose loss spikes and stays up."""

    def __init__(self, config: TrainConfig) -> None:
        self.factor = config.spike
        self.remedy = (
            f"lower alpha / rank (now {config.alpha:g} / {config.rank}) or the learning rate"
            if config.method not in ("full", "linear")
            else "lower the learning rate or raise the temperature"
        )
        self.notices: list[Notice] = []
        self._losses: list[float] = []
        self._usual: float | None = None  # the median before the spike that lasts
        self._since = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Weigh again what a training that is resumed had logged."""
        self.notices, self._losses, self._usual = [], [], None
        for row in state.log_history:
            if "loss" in row:
                self._weigh(int(row["step"]), float(row["loss"]))

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Look at the last loss and gradient."""
        if not logs or "loss" not in logs:
            return  # the summary at the end
        step = int(state.global_step)
        for what, value in (("loss", logs["loss"]), ("gradient", logs.get("grad_norm", 0.0))):
            if not math.isfinite(value):
                raise TrainingError(
                    f"Expected a finite {what}, got {value} at step {step}: {self.remedy}, or raise"
                    " the temperature."
                )
        told = len(self.notices)
        self._weigh(step, float(logs["loss"]))
        _warn(self.notices[told:])

    def _weigh(self, step: int, loss: float) -> None:
        before, self._losses = self._losses, [*self._losses[-WINDOW + 1 :], loss]
        if not self.factor or len(before) < WINDOW // 2:
            return
        usual = self._usual if self._usual is not None else median(before)
        if loss <= max(self.factor * usual, usual + LEAST):
            self._usual = None
            return
        if self._usual is None:
            self._usual, self._since = usual, step
            told = f"the loss rose to {loss:.3g} at step {step}, from {usual:.3g} before"
            message = f"{told}: if it stays there, {self.remedy}"
            self.notices.append(Notice(step, "spike", message))
        if step - self._since >= WINDOW:
            raise TrainingError(
                f"The loss rose at step {self._since}, from {usual:.3g}, and {WINDOW} steps later "
                f"it is still {loss:.3g}: such spikes do not recover; {self.remedy}."
            )


class CollapseGuard(TrainerCallback):  # type: ignore[misc]  # untyped
    """Ends a training that pulls all of the probe set together; comes after `watched`.

    With `stops` off it only warns: InfoNCE on noise collapses, which is what a null arm shows.
    """

    def __init__(self, watched: GeometryCallback, share: float, *, stops: bool = True) -> None:
        self.watched = watched
        self.share = share
        self.stops = stops
        self.notices: list[Notice] = []
        self._seen = -1  # the last step that was weighed
        self._told: set[str] = set()

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Weigh again what a training that is resumed had measured."""
        self.notices, self._seen, self._told = [], -1, set()
        self._look()

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Look at what was measured since the last time."""
        told = len(self.notices)
        self._look()
        _warn(self.notices[told:])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at what was measured after the last step."""
        self.on_step_end(args, state, control, **given)

    def _look(self) -> None:
        ranks = [one for one in self.watched.history if one.metric == RANK]
        for now in ranks:
            if self.share and now.step > self._seen:
                self._weigh(now, [one for one in ranks if one.step <= now.step])
        self._seen = max([self._seen, *(one.step for one in ranks)])

    def _weigh(self, now: Geometry, ranks: Sequence[Geometry]) -> None:
        rank = now.value or 1.0
        best = max(one.value or 1.0 for one in ranks if one.modality == now.modality)
        told = (
            f"the effective rank of the {now.modality} probe set fell from {best:.3g} to "
            f"{rank:.3g} by step {now.step}"
        )
        if self.stops and rank - 1 < self.share * (best - 1):
            raise TrainingError(
                f"Expected the states to stay apart, but {told}: they collapse; lower the learning "
                "rate, raise the temperature or look for pairs that are all alike."
            )
        if rank - 1 < 2 * self.share * (best - 1) and now.modality not in self._told:
            self._told.add(now.modality)
            self.notices.append(Notice(now.step, "collapse", f"{told}: are the pairs all alike?"))


def _warn(notices: Sequence[Notice]) -> None:
    for notice in notices:
        log.warning("%s", notice.message)
