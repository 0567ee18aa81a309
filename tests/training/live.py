"""A training as its own trainer sees it: weights, losses, gradients and batches of each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from geomkit.training import fitting

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class Live:
    """What was seen of a training; `weights` are those before each step, and after the last."""

    trainer: Any = None
    weights: list[Tensors] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    gradients: list[Tensors] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # rows of each pass through the first block

    @property
    def model(self) -> Any:
        """The whole model, with its branches."""
        return self.trainer.job.arm.model

    def keep(self) -> None:
        """Note what trains, as it is."""
        own = self.trainer.job.arm.trainable()
        self.weights.append({name: p.detach().clone() for name, p in own.items()})


@contextmanager
def seen() -> Iterator[Live]:
    """Look over the shoulder of the next training."""
    found = Live()
    honest = fitting._Trainer.training_step

    def step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        found.trainer = self
        found.keep()
        found.inputs.append(dict(inputs))
        layer = self.job.checkpoint.decoder.layers[0].input_layernorm
        hook = layer.register_forward_pre_hook(lambda _, given: found.calls.append(len(given[0])))
        loss = honest(self, model, inputs, *rest)
        hook.remove()
        found.losses.append(loss.detach().clone())
        own = self.job.arm.trainable()
        found.gradients.append({n: p.grad.clone() for n, p in own.items() if p.grad is not None})
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting._Trainer, "training_step", step)
        yield found
        found.keep()
