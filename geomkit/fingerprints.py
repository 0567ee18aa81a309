"""What a model's weights are, as sha256: all of them, the decoder, the towers, the adapter.

Names inside a part are relative to it, so a decoder keeps its fingerprint when the model around it
is renamed. Towers are everything that is neither decoder nor head: equal towers see equal media.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WITHOUT_EFFECT = frozenset({
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version",
    "revision", "runtime_config", "task_type",
})  # fmt: skip
"""Settings of an adapter that change no state: where it came from, and how it was trained."""

ABOUT = frozenset({
    "_name_or_path", "_commit_hash", "architectures", "transformers_version", "dtype",
    "torch_dtype", "_attn_implementation", "_attn_implementation_autoset",
})  # fmt: skip
"""Keys of a configuration that say nothing of what is computed, or that a record has by itself."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """sha256 of each part of a checkpoint's weights; `adapter` is "" without one."""

    weights: str
    decoder: str
    towers: str
    adapter: str = ""


def fingerprint(model: Any, decoder_path: str) -> Fingerprint:
    """The fingerprint of a model without adapters, in the dtype it is loaded in."""
    shas = {name: tensor_sha(tensor) for name, tensor in model.state_dict().items()}
    head = next((n for n, m in model.named_modules() if m is model.get_output_embeddings()), None)
    inside = decoder_path + "." if decoder_path else ""
    decoder = {n.removeprefix(inside): s for n, s in shas.items() if n.startswith(inside)}
    towers = {
        n: s
        for n, s in shas.items()
        if not n.startswith(inside) and not (head and n.startswith(f"{head}."))
    }
    return Fingerprint(weights=_join(shas), decoder=_join(decoder), towers=_join(towers))


def with_adapter(base: Fingerprint, adapter: str, *, outside: bool) -> Fingerprint:
    """The fingerprint of base and adapter together; `outside`: it touches more than the decoder."""
    return replace(
        base,
        weights=_sha((base.weights, adapter)),
        decoder=_sha((base.decoder, adapter)),
        towers=_sha((base.towers, adapter)) if outside else base.towers,
        adapter=adapter,
    )


def config_sha(config: Any) -> str:
    """sha256 of what a configuration says of the computation; names and versions are left out."""
    return _sha([json.dumps(_settings(config.to_dict()), sort_keys=True, default=str)])


def _settings(told: Any) -> Any:
    if isinstance(told, Mapping):
        return {k: _settings(v) for k, v in told.items() if k not in ABOUT}
    return [_settings(v) for v in told] if isinstance(told, list | tuple) else told


def adapter_sha(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """sha256 of an adapter's tensors by their names, and of the settings that put them to use.

    Lists of names were sets, which PEFT writes in any order. Others keep theirs, as patterns do:
    there the first that matches counts.
    """
    named = sorted((k, _ordered(v)) for k, v in settings.items() if k not in WITHOUT_EFFECT)
    tensors = _join({name: tensor_sha(tensor) for name, tensor in state.items()})
    return _sha((tensors, json.dumps(named)))


def _ordered(value: Any) -> Any:
    names = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return sorted(value) if names else value


def tensor_sha(tensor: Tensor) -> str:
    """sha256 of dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)} ".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def file_sha(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _join(shas: Mapping[str, str]) -> str:
    return _sha(f"{name} {sha}" for name, sha in sorted(shas.items()))


def _sha(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
