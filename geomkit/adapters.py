"""Adapters on a model in memory: put on, told apart, and seen to be whole.

A prefix that does not match, or a second adapter on one model, can leave random or zero weights
with no more than a warning: so every tensor of the file is looked for in the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from geomkit.architectures import quiet
from geomkit.errors import CheckpointError, MissingExtra
from geomkit.fingerprints import adapter_sha, tensor_sha
from geomkit.vetting import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object

ALONE = ("modules_to_save", "trainable_token_indices", "target_parameters")
"""Settings that wrap modules, so that another adapter on the same model finds no place there."""

PLAIN_STARTS = (None, True, False, "gaussian")
"""Values of init_lora_weights that leave the base as it is; others take a part out of it."""


PROJECTION = "GEOMKIT_PROJECTION"
PROJECTION_WEIGHT = "projection.weight"
"""An adapter of our own kind, one matrix after the final norm: its type and its tensor."""


def is_projection(folder: Path) -> bool:
    """True for a matrix that is applied to what leaves the final norm; PEFT has no such kind."""
    return bool(read_object(folder / ADAPTER_CONFIG).get("peft_type") == PROJECTION)


def projection(folder: Path, dim: int) -> torch.Tensor:
    """The matrix of a projection, `(dim, dim)`.

    Raises:
        CheckpointError: it is no matrix of the decoder's width.
    """
    found = weights(folder).get(PROJECTION_WEIGHT)
    if found is None or tuple(found.shape) != (dim, dim):
        shape = "none" if found is None else str(tuple(found.shape))
        raise CheckpointError(
            f"Expected a matrix {PROJECTION_WEIGHT} of shape {(dim, dim)} in {folder}, got {shape}:"
            " it was trained on another base."
        )
    return found


def shareable(folder: Path) -> bool:
    """True when the adapter can be switched on and off beside others on one model.

    Raises:
        CheckpointError: it cannot be put on any model in memory.
    """
    if is_projection(folder):
        return True
    check_kind(folder)
    settings = read_object(folder / ADAPTER_CONFIG)
    plain = settings.get("peft_type") == "LORA" and not any(settings.get(key) for key in ALONE)
    return plain and settings.get("init_lora_weights") in PLAIN_STARTS


def sha(folder: Path) -> str:
    """sha256 of what the adapter in `folder` does: its tensors and its settings."""
    return adapter_sha(weights(folder), read_object(folder / ADAPTER_CONFIG))


def check_kind(folder: Path) -> None:
    """Raise CheckpointError for an adapter that transformers would load wrongly or in part."""
    settings = read_object(folder / ADAPTER_CONFIG)
    if kind := _unsupported(settings, weights(folder)):
        raise CheckpointError(
            f"Expected an adapter that can be put on a model in memory in {folder}, got {kind},"
            " which is not supported: merge it first (PEFT: merge_and_unload, then"
            " save_pretrained) and capture the merged model."
        )


def _unsupported(settings: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """What of an adapter stands in the way, "" when nothing does."""
    if settings.get("use_dora"):  # its magnitudes would be set anew from the base
        return "DoRA (use_dora)"
    if settings.get("bias") not in (None, "none"):
        return f"trained biases (bias={settings['bias']!r})"
    if any(".base_layer." in name and "lora_" not in name for name in state):
        return "LoRA on an embedding, saved with the embedding itself"
    later = ("layer_replication", "alora_invocation_tokens", "arrow_config")
    return next((key for key in later if settings.get(key)), "")


def attach(model: Any, folder: Path, number: int) -> str:
    """Load the adapter in `folder` onto the model, as its `number`-th; returns its name there.

    Raises:
        CheckpointError: it cannot be loaded.
        MissingExtra: PEFT is not installed.
    """
    # transformers tells adapters' tensors apart by substring, so no name may be part of another.
    name = f"geomkit_{number:03d}"
    try:
        with quiet(), warnings.catch_warnings():
            # Several adapters on one model are meant here; transformers reports the others'
            # tensors as missing, which `check_whole` answers by looking at every one.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            model.load_adapter(str(folder), adapter_name=name, use_safetensors=True)
    except ImportError as cause:
        raise MissingExtra(f"An adapter needs PEFT: pip install peft ({cause}).") from cause
    except Exception as cause:  # PEFT's own, and what odd values set off inside
        raise CheckpointError(f"The adapter in {folder} cannot be loaded: {cause}") from cause
    return name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's file.

    Raises:
        CheckpointError: there is no such file, or nothing in it.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"Expected {ADAPTER_WEIGHTS} in {folder}: only safetensors are read.")
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except Exception as cause:
        raise CheckpointError(f"Expected safetensors in {path}: {cause}.") from cause
    if not state:
        raise CheckpointError(f"Expected adapter weights in {path}, got an empty file.")
    return state


def outside(model: Any, adapter: str, decoder_path: str) -> bool:
    """True when the adapter touches more than the decoder."""
    return any(not name.startswith(f"{decoder_path}.") for name in _placed(model, adapter))


def check_whole(model: Any, adapter: str, folder: Path) -> None:
    """Every tensor of the adapter's file stands in the model, unchanged.

    Raises:
        CheckpointError: a tensor is missing, or another one stands in its place.
    """
    state, placed = weights(folder), _placed(model, adapter)
    dtype = next(iter(placed.values())).dtype if placed else torch.float32
    want = sorted(tensor_sha(t.to(dtype)) for t in state.values())
    have = sorted(tensor_sha(t) for t in placed.values())
    if want != have:
        right = len(set(want) & set(have))
        raise CheckpointError(
            f"Expected all {len(want)} tensors of the adapter in {folder} in the model, found"
            f" {right}: was it trained on another base or another version?"
        )


def _placed(model: Any, adapter: str) -> dict[str, torch.Tensor]:
    return {n: p for n, p in model.named_parameters() if f".{adapter}" in n}
