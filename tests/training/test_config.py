"""The recipe as data."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from geomkit.errors import UsageError
from geomkit.training.config import PRESETS, TrainConfig


def test_the_default_is_the_published_text_only_recipe() -> None:
    recipe = TrainConfig.of("lco-text")
    assert (recipe.rank, recipe.alpha, recipe.dropout) == (64, 16.0, 0.05)
    assert (recipe.learning_rate, recipe.epochs, recipe.batch) == (4e-4, 2.0, 768)
    assert recipe.temperature == 0.03
    assert recipe.scale == pytest.approx(1 / 0.03)


@pytest.mark.parametrize("preset", PRESETS)
def test_any_field_overrides_a_preset(preset: str) -> None:
    assert TrainConfig.of(preset, rank=3).rank == 3
    assert TrainConfig.of(preset).preset == preset


def test_every_field_has_a_help_line() -> None:
    assert all(f.metadata["help"] for f in fields(TrainConfig))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rank": 0}, "rank above 0"),
        ({"temperature": -1.0}, "temperature above 0"),
        ({"learning_rate": float("nan")}, "learning_rate above 0"),
        ({"batch": 1}, "batch of 2"),
        ({"dropout": 1.0}, "dropout in"),
        ({"targets": ()}, "at least one layer"),
        ({"ranks": 4}, "Unknown training option 'ranks'"),
    ],
)
def test_impossible_values_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig.of("sandbox", **overrides)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="preset of lco-text, lco-released, e5v, sandbox"):
        TrainConfig.of("lco")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("schedule", "foo", "a schedule of cosine, linear"),
        ("warmup_steps", -3, "warmup_steps of 0 or more"),
        ("weight_decay", -1.0, "weight_decay of 0 or more"),
        ("steps", -5, "steps of 0 or more"),
        ("workers", -1, "workers of 0 or more"),
        ("seed", -1, "seed of 0 or more"),
        ("seed", 2**32, "seed of 4294967295 or less"),
        ("temperature", math.inf, "a finite temperature"),
        ("learning_rate", math.inf, "a finite learning_rate"),
        ("epochs", math.inf, "a finite epochs"),
        ("max_grad_norm", math.inf, "a finite max_grad_norm"),
        ("spike", math.inf, "a finite spike"),
        ("spike", 0.5, "spike above 1, or 0 for off"),
        ("collapse", 1.5, r"collapse in \[0, 1\]"),
    ],
)
def test_values_that_a_library_would_refuse_later_are_refused_now(field, value, told):
    with pytest.raises(UsageError, match=told):
        TrainConfig.of("lco-text", **{field: value})
