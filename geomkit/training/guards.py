"""Trainings that go wrong are stopped, or warned of, with the step and what to change.

    not finite   a loss or a gradient that is no number: stop
    spike        the loss far above its recent median: warn; when it stays there: stop
    collapse     the probe set's effective rank fell far below its highest: warn, then stop

The rank of the guard is RankMe, which is not centred: it falls to 1 when states move onto one line
and also when they move into one point. What counts is how far it is above 1.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from transformers import TrainerCallback

from geomkit.errors import TrainingError
from geomkit.training.config import TrainConfig
from geomkit.training.geometry import GeometryCallback

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
        self._usual: float | None = None  # the median before the spike that lasts
        self._since = 0

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
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        if self.factor and len(losses) > WINDOW // 2:
            self._weigh(step, losses)

    def _weigh(self, step: int, losses: list[float]) -> None:
        usual = self._usual if self._usual is not None else median(losses[-1 - WINDOW : -1])
        if losses[-1] <= max(self.factor * usual, usual + LEAST):
            self._usual = None
            return
        if self._usual is None:
            self._usual, self._since = usual, step
            told = f"the loss rose to {losses[-1]:.3g} at step {step}, from {usual:.3g} before"
            _notice(self.notices, step, "spike", f"{told}: if it stays there, {self.remedy}")
        if step - self._since >= WINDOW:
            raise TrainingError(
                f"The loss rose at step {self._since}, from {usual:.3g}, and {WINDOW} steps later "
                f"it is still {losses[-1]:.3g}: such spikes do not recover; {self.remedy}."
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
        self._seen = 0
        self._told: set[str] = set()

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Look at what was measured last, once."""
        history = self.watched.history
        if not self.share or not history or history[-1].step == self._seen:
            return
        self._seen = history[-1].step
        ranks = [one for one in history if one.metric == RANK]
        for now in (one for one in ranks if one.step == self._seen):
            best = max(one.value or 1.0 for one in ranks if one.modality == now.modality)
            self._weigh(now.modality, best, now.value or 1.0)

    def _weigh(self, modality: str, best: float, now: float) -> None:
        told = (
            f"the effective rank of the {modality} probe set fell from {best:.3g} to {now:.3g} by "
            f"step {self._seen}"
        )
        if self.stops and now - 1 < self.share * (best - 1):
            raise TrainingError(
                f"Expected the states to stay apart, but {told}: they collapse; lower the learning "
                "rate, raise the temperature or look for pairs that are all alike."
            )
        if now - 1 < 2 * self.share * (best - 1) and modality not in self._told:
            self._told.add(modality)
            _notice(self.notices, self._seen, "collapse", f"{told}: are the pairs all alike?")


def _notice(notices: list[Notice], step: int, kind: str, message: str) -> None:
    log.warning("%s", message)
    notices.append(Notice(step, kind, message))
