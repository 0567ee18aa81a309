"""What trains, by method: prepared and proven before the first step, written after the last.

    lora, joint    branches in the decoder's blocks      -> an adapter folder
    clip           the same; with towers, those in full  -> an adapter folder, or a checkpoint
    full           the decoder without its embeddings    -> a full checkpoint folder
    linear         one matrix after the final norm       -> an adapter folder of its own kind

A checkpoint, not a difference, is what `full` leaves: it is as large as the base either way, and
every tool reads it. `linear` changes no weight of the model, so it generates as it did; capture
applies the matrix to what leaves the final norm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors.torch import save
from torch import nn

from geomkit.adapters import PROJECTION, PROJECTION_WEIGHT
from geomkit.architectures import decoder
from geomkit.training.adapter import WEIGHTS, adapt, save_adapter
from geomkit.training.config import TrainConfig
from geomkit.training.naming import value_sha
from geomkit.training.scope import (
    Scope,
    absent_targets,
    assert_regions,
    assert_scope,
    by_region,
    target_pattern,
    tensor_bytes,
    thaw,
    unwrap,
)

CORE = frozenset({"decoder", "embeddings", "head"})


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """A model ready to train, and what of it may change."""

    model: nn.Module  # the whole model, with branches if the method has any
    scope: Scope
    targets: str  # what has branches, as a pattern of paths, or what else trains, in words
    free: frozenset[str] = frozenset()  # regions whose own weights may change
    projection: nn.Linear | None = None
    # Path -> sha256 of the value in float32, of the weights that may change: finds them in files.
    originals: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()  # usual targets that the decoder has no layer for

    def trainable(self) -> dict[str, torch.Tensor]:
        """What trains, by name."""
        own: dict[str, torch.Tensor] = {
            n: p for n, p in unwrap(self.model).named_parameters() if p.requires_grad
        }
        if self.projection is not None:
            own[PROJECTION_WEIGHT] = self.projection.weight
        return dict(sorted(own.items()))

    def digest(self) -> str:
        """sha256 of what trains, names included."""
        found = hashlib.sha256()
        for name, tensor in self.trainable().items():
            found.update(name.encode())
            found.update(tensor_bytes(tensor))
        return found.hexdigest()


def prepare(model: nn.Module, config: TrainConfig) -> Arm:
    """The arm of a method on a model that was just loaded.

    Raises:
        TrainingError: more would train than the method says, or nothing would.
    """
    model.requires_grad_(False)
    if config.method == "linear":
        return _linear(model)
    if config.method == "full":
        return _thawed(model, frozenset({"decoder"}), "the decoder without its embeddings")
    pattern = target_pattern(model, config.targets)
    absent = absent_targets(model, config.targets)
    adapted = adapt(model, config)
    scope = assert_scope(adapted)
    if not config.train_towers:
        return Arm(adapted, scope, pattern, absent=absent)
    towers = frozenset({region for region, *_ in by_region(model)} - CORE)
    arm = _thawed(adapted, towers, f"{pattern} and {', '.join(sorted(towers))}")
    return replace(arm, absent=absent)


def _linear(model: nn.Module) -> Arm:
    path, text = decoder(model)
    dim = int(cast("Any", text).config.hidden_size)
    projection = nn.Linear(dim, dim, bias=False, device=next(text.parameters()).device)
    nn.init.eye_(projection.weight)  # before the first step nothing is changed
    parameters = sum(p.numel() for p in model.parameters())
    scope = Scope(path, 0, (PROJECTION_WEIGHT,), 0, 0, parameters)
    return Arm(model, scope, "a matrix after the final norm", projection=projection)


def _thawed(model: nn.Module, free: frozenset[str], targets: str) -> Arm:
    thaw(model, free)
    originals = {
        path: value_sha(parameter)
        for path, parameter in unwrap(model).named_parameters()
        if parameter.requires_grad and "lora_" not in path
    }
    return Arm(model, assert_regions(model, free), targets, free, originals=originals)


def writes_checkpoint(config: TrainConfig) -> bool:
    """True when the result is a whole checkpoint and no adapter."""
    return config.method == "full" or config.train_towers


def save_small(arm: Arm, folder: Path, *, base: str) -> str:
    """Write the adapter, or the projection as one; returns the sha256 of its weights file."""
    if arm.projection is None:
        return save_adapter(cast("PeftModel", arm.model), folder, base=base)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"peft_type": PROJECTION, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=1) + "\n")
    weight = arm.projection.weight.detach().float().cpu().contiguous()
    image = save({PROJECTION_WEIGHT: weight}, metadata={"format": "pt"})
    (folder / WEIGHTS).write_bytes(image)
    return hashlib.sha256(image).hexdigest()
