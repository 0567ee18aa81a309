"""Trainings that go wrong are stopped or warned of, with the step and what to change."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geomkit.errors import TrainingError
from geomkit.training import trainer
from geomkit.training.config import TrainConfig
from geomkit.training.fitting import Job
from geomkit.training.geometry import Geometry
from geomkit.training.guards import RANK, WINDOW, CollapseGuard, LossGuard
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train

CALM = [2.0, 2.1, 1.9] * 10


def run(losses: list[float], *, grad: float = 1.0, **given: Any) -> LossGuard:
    guard = LossGuard(TrainConfig.of("sandbox", **given))
    history: list[dict[str, float]] = []
    for step, loss in enumerate(losses, 1):
        history.append({"loss": loss, "step": step})
        state = SimpleNamespace(global_step=step, log_history=history)
        guard.on_log(None, state, None, {"loss": loss, "grad_norm": grad})
    return guard


def test_a_calm_training_has_nothing_to_say() -> None:
    falling = [4 * math.exp(-step / 20) for step in range(100)]
    assert run(CALM).notices == run(falling).notices == []


def test_a_spike_is_noted_once_with_its_step_and_forgiven_when_it_passes() -> None:
    guard = run([*CALM, 9.0, 8.0, *CALM, 7.0, *CALM])
    assert [(n.step, n.kind) for n in guard.notices] == [(31, "spike"), (63, "spike")]
    assert "from 2 before" in guard.notices[0].message
    assert "alpha / rank (now 32 / 16)" in guard.notices[0].message


def test_a_spike_that_stays_ends_the_training() -> None:
    with pytest.raises(
        TrainingError, match=r"rose at step 31.*20 steps later it is still 9.*alpha"
    ):
        run([*CALM, *[9.0] * (WINDOW + 1)])


def test_a_spike_is_measured_against_what_was_before_it() -> None:
    # the median of the last steps would soon have taken the spike in
    assert len(run([*CALM, *[9.0] * (WINDOW - 1)]).notices) == 1


def test_near_zero_a_multiple_is_no_spike() -> None:
    assert run([*[0.01] * 30, 0.3, *[0.01] * 30]).notices == []


def test_the_guard_can_be_turned_off_or_set() -> None:
    rising = [*CALM, *[9.0] * 40]
    assert run(rising, spike=0.0).notices == []
    assert run([*CALM, 3.0], spike=1.2).notices[0].step == 31


def test_full_training_is_told_of_its_own_remedy() -> None:
    guard = run([*CALM, 9.0], method="full")
    assert "alpha" not in guard.notices[0].message
    assert "learning rate" in guard.notices[0].message


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_it(loss: float) -> None:
    with pytest.raises(TrainingError, match=r"finite loss, got (nan|inf) at step 3"):
        run([2.0, 2.0, loss])


def test_a_gradient_that_is_no_number_ends_it() -> None:
    with pytest.raises(TrainingError, match="finite gradient, got nan at step 1"):
        run([2.0], grad=float("nan"))


def logged(losses: list[float]) -> SimpleNamespace:
    """The state of a trainer that has had these losses."""
    history = [{"loss": loss, "step": step} for step, loss in enumerate(losses, 1)]
    return SimpleNamespace(global_step=len(losses), log_history=history)


@pytest.mark.parametrize("cut", [12, 31, 40, 50])
def test_a_resumed_guard_knows_what_it_knew(cut: int) -> None:
    """A spike at step 31 that stays: wherever the training was cut, it ends at step 51."""
    losses = [*CALM, *[9.0] * (WINDOW + 1)]
    whole = run(losses[:-1])
    resumed = LossGuard(TrainConfig.of("sandbox"))
    resumed.on_train_begin(None, logged(losses[:cut]), None)
    for step in range(cut + 1, len(losses)):
        resumed.on_log(None, logged(losses[:step]), None, {"loss": losses[step - 1]})
    assert resumed.notices == whole.notices
    assert [n.step for n in whole.notices] == [31]
    with pytest.raises(TrainingError, match=r"rose at step 31, from 2, and 20 steps later"):
        resumed.on_log(None, logged(losses), None, {"loss": 9.0})


def test_what_was_warned_of_is_not_warned_of_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "geomkit.training")
    resumed = LossGuard(TrainConfig.of("sandbox"))
    resumed.on_train_begin(None, logged([*CALM, 9.0, *CALM]), None)
    assert (len(resumed.notices), caplog.messages) == (1, [])
    resumed.on_log(None, logged([*CALM, 9.0, *CALM, 8.0]), None, {"loss": 8.0})
    assert (len(resumed.notices), len(caplog.messages)) == (2, 1)


def collapse(
    values: list[float | None], share: float = 0.25, *, stops: bool = True
) -> CollapseGuard:
    watched = SimpleNamespace(history=[])
    guard = CollapseGuard(watched, share, stops=stops)  # type: ignore[arg-type]  # only its history is read
    for step, value in enumerate(values):
        watched.history.append(Geometry(step, "rank_me", "text", value))
        guard.on_step_end(None, None, None)
        guard.on_step_end(None, None, None)  # a step without a look changes nothing
    return guard


def test_a_falling_rank_is_noted_and_then_ends_it() -> None:
    assert collapse([3.0, 9.0, 8.0, 6.0]).notices == []
    guard = collapse([3.0, 9.0, 4.0])  # 3 of 8 above 1
    assert [(n.step, n.kind) for n in guard.notices] == [(2, "collapse")]
    with pytest.raises(TrainingError, match=r"text probe set fell from 9 to 2 by step 3.*collapse"):
        collapse([3.0, 9.0, 4.0, 2.0])


def test_states_that_are_all_equal_have_no_rank_left() -> None:
    with pytest.raises(TrainingError, match="from 9 to 1 by step 1"):
        collapse([9.0, None])


def test_the_collapse_guard_can_be_turned_off() -> None:
    assert collapse([9.0, 1.0], share=0.0).notices == []


def test_a_null_arm_is_only_warned_of_and_once() -> None:
    guard = collapse([9.0, 1.5, 1.2, None], stops=False)
    assert [(n.step, n.kind) for n in guard.notices] == [(1, "collapse")]


def test_a_resumed_guard_knows_the_highest_rank_and_what_it_said() -> None:
    history = [Geometry(step, RANK, "text", rank) for step, rank in ((0, 3.0), (1, 9.0), (2, 4.0))]
    watched = SimpleNamespace(history=[*history])
    guard = CollapseGuard(watched, 0.25)  # type: ignore[arg-type]  # only its history is read
    guard.on_train_begin(None, None, None)
    assert guard.notices == collapse([3.0, 9.0, 4.0]).notices
    watched.history.append(Geometry(3, RANK, "text", 4.1))
    guard.on_step_end(None, None, None)
    assert [n.step for n in guard.notices] == [2]
    watched.history.append(Geometry(4, RANK, "text", 2.0))
    with pytest.raises(TrainingError, match="fell from 9 to 2 by step 4"):
        guard.on_step_end(None, None, None)


def test_a_collapse_at_the_very_last_step_is_seen() -> None:
    watched = SimpleNamespace(history=[Geometry(0, RANK, "text", 9.0)])
    guard = CollapseGuard(watched, 0.25)  # type: ignore[arg-type]  # only its history is read
    guard.on_train_begin(None, None, None)
    guard.on_step_end(None, None, None)
    watched.history.append(Geometry(7, RANK, "text", 1.0))  # the callback looks after the last step
    with pytest.raises(TrainingError, match="fell from 9 to 1 by step 7"):
        guard.on_train_end(None, None, None)


def test_a_training_whose_end_is_a_collapse_leaves_nothing(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """Looked at before the first step and after the last one only."""
    config = replace(quick, steps=20, learning_rate=0.5, geometry_every=1000, spike=0.0)
    with pytest.raises(TrainingError, match=r"fell from .* by step 20"):
        train(config, base, pairs, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_no_model_are_not_written(
    weight: float,
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last update comes after the last loss."""
    honest = trainer.fit

    def exploding(job: Job, *rest: Any) -> Any:
        steps = honest(job, *rest)
        for tensor in job.arm.trainable().values():
            tensor.data.fill_(weight)
        return steps

    monkeypatch.setattr(trainer, "fit", exploding)
    with pytest.raises(TrainingError, match="finite weights and states after the last step"):
        train(quick, base, pairs, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_collapses_stops(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """A large learning rate: the states of the tiny model fall together."""
    config = replace(quick, steps=60, learning_rate=0.5, geometry_every=1, spike=0.0)
    with pytest.raises(TrainingError, match=r"effective rank of the text probe set fell.*step \d+"):
        train(config, base, pairs, tmp_path / "a")
    assert not (tmp_path / "a" / "training.json").exists()
