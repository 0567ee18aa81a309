"""LoRA adapters on the whole multimodal model: put one in, write it, read it back completely.

PEFT matches tensors to modules by name and only warns when none matches, so an adapter saved
relative to one class and loaded into another does nothing, silently. Here tensor names are always
relative to the full generative model, and a load that leaves one tensor behind is an error.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch import nn

from geomkit import adapters
from geomkit.architectures import decoder
from geomkit.errors import TrainingError
from geomkit.training.config import TrainConfig
from geomkit.training.scope import target_names, target_pattern, tensor_bytes, unwrap

WEIGHTS = "adapter_model.safetensors"


def adapt(model: nn.Module, config: TrainConfig) -> PeftModel:
    """`model` with fresh float32 LoRA branches in its decoder's blocks; the rest is frozen.

    Raises:
        TrainingError: no layer of the configured names in the decoder, or PEFT chose others.
    """
    pattern = target_pattern(model, config.targets)
    asked = target_names(model, pattern)
    # In a mixture of experts PEFT turns a pattern into bare names, which towers have too, and takes
    # the experts for more; whole paths it leaves alone.
    experts = any(p.ndim > 2 for p in decoder(model)[1].parameters())
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(asked) if experts else pattern,
        bias="none",
    )
    with warnings.catch_warnings():
        # peft reads a property of every model that transformers has renamed
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        adapted = cast("PeftModel", get_peft_model(model, lora))
    got = {n for n, m in unwrap(adapted).named_modules() if hasattr(m, "lora_A")}
    if got != set(asked):
        odd = sorted(got ^ set(asked))
        raise TrainingError(
            f"Expected LoRA on {len(asked)} layers of the decoder, PEFT put it on {len(got)} (the "
            f"first that differs is {odd[0]}): set targets to layers that are plain everywhere."
        )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # Adam at these learning rates loses most updates in bfloat16.
            parameter.data = parameter.data.float()
    return adapted


def save_adapter(adapted: PeftModel, folder: Path, *, base: str) -> str:
    """Write weights and config to `folder`; returns the sha256 of the weights file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules)  # a set has no order
    # Not PeftModel.save_pretrained: that asks the hub whether the vocabulary changed.
    config.save_pretrained(str(folder))
    image = save(_tensors(adapted), metadata={"format": "pt"})
    (folder / WEIGHTS).write_bytes(image)
    return hashlib.sha256(image).hexdigest()


def load_adapter(model: Any, folder: Path) -> nn.Module:
    """`model` with the adapter of `folder` in effect, every tensor of it in place.

    Names relative to the generative model or to the model without its head are both understood.

    Raises:
        TrainingError: not an adapter folder, a tensor that found no module, or a module left
            without its tensor.
    """
    if not (folder / WEIGHTS).is_file() or not (folder / "adapter_config.json").is_file():
        raise TrainingError(
            f"Expected {WEIGHTS} and adapter_config.json in {folder}: this is no adapter folder."
        )
    stored = finite_weights(folder)
    try:
        model.load_adapter(str(folder), adapter_name="default", use_safetensors=True)
    except Exception as cause:  # PEFT's own, and what odd values set off inside
        said = " ".join(str(cause).split())[:200]
        raise TrainingError(f"The adapter in {folder} cannot be loaded: {said}") from cause
    placed = {
        name.replace(".default", ""): tensor.detach().cpu()
        for name, tensor in model.named_parameters()
        if ".default" in name
    }
    missed = [name for name, tensor in stored.items() if not _stands(name, tensor, placed)]
    if missed or len(placed) != len(stored):
        raise TrainingError(
            f"Expected {len(stored)} adapter tensors to fill {len(placed)} places of the model, "
            f"{len(missed)} did not (first: {missed[0] if missed else 'none, places are left'}): "
            "the adapter is incomplete or belongs to another model."
        )
    return cast("nn.Module", model)


def finite_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's file.

    Raises:
        CheckpointError: they cannot be read.
        TrainingError: a value in them is no number.
    """
    found = adapters.weights(folder)
    for name, tensor in found.items():
        if not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise TrainingError(
                f"Expected numbers in the adapter {folder}, {name} holds {tensor.dtype} or a value "
                "that is no number: its training went wrong, or the file was changed."
            )
    return found


def _stands(name: str, tensor: torch.Tensor, placed: Mapping[str, torch.Tensor]) -> bool:
    """Whether exactly one place of that name holds the tensor."""
    tail = name.removeprefix("base_model.model.")
    found = [place for own, place in placed.items() if own.endswith(tail)]
    return len(found) == 1 and torch.equal(found[0], tensor.to(found[0].dtype))


def adapter_digest(adapted: PeftModel) -> str:
    """sha256 of the adapter's tensors, names included."""
    digest = hashlib.sha256()
    for name, tensor in _tensors(adapted).items():
        digest.update(name.encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _tensors(adapted: PeftModel) -> dict[str, torch.Tensor]:
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
