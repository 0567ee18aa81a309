"""A batch in several forward passes gives the loss and the gradients of one pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.live import Live, seen

RECIPES: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.0},
    "joint and kl": {"method": "joint", "generative": 0.5, "kl": 2.0},
    "full and kl": {"method": "full", "kl": 2.0},
    "linear": {"method": "linear"},
    "clip": {"method": "clip"},
}


def one_step(config: TrainConfig, base: Path, rows: Any, out: Path) -> Live:
    with seen() as found:
        train(config, base, rows, out)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_the_size_of_a_forward_pass_changes_nothing(
    name: str,
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    """With hard negatives, and with pictures and sounds."""
    assert all(pair.negative for pair in pairs)
    scenes = [
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {'x' * k}", group="")
        for k in range(3)
        for s in held_out
    ]
    clip = name == "clip"
    config = replace(quick, steps=2, batch=7, temperature=0.5, geometry_every=0, **RECIPES[name])
    whole, parts = (
        one_step(
            replace(config, mini_batch=size), base, scenes if clip else pairs, tmp_path / str(size)
        )
        for size in (7, 3)
    )
    assert torch.allclose(whole.losses[0], parts.losses[0], atol=1e-6, rtol=0)
    assert whole.gradients[0].keys() == parts.gradients[0].keys()
    for tensor, gradient in whole.gradients[0].items():
        assert torch.allclose(gradient, parts.gradients[0][tensor], atol=1e-6, rtol=1e-4), tensor
    assert max(float(g.abs().max()) for g in whole.gradients[0].values()) > 1e-3
