"""A training as its own trainer sees it: losses, gradients and batches of each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from geomkit.training import fitting


@dataclass(slots=True)
class Live:
    """What was seen of a training."""

    trainer: Any = None
    losses: list[torch.Tensor] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def seen() -> Iterator[Live]:
    """Look over the shoulder of the next training."""
    found = Live()
    honest = fitting._Trainer.training_step

    def step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        found.trainer = self
        found.inputs.append(dict(inputs))
        loss = honest(self, model, inputs, *rest)
        found.losses.append(loss.detach().clone())
        own = self.job.arm.trainable()
        found.gradients.append({name: p.grad.clone() for name, p in own.items()})
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting._Trainer, "training_step", step)
        yield found
