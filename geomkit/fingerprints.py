"""What a model's weights are, as sha256: all of them, the decoder, the towers, the adapter.

Names inside a part are relative to it, so a decoder keeps its fingerprint when the model around it
is renamed. Towers are everything that is neither decoder nor head: equal towers see equal media.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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


def with_adapter(base: Fingerprint, state: Mapping[str, Tensor], *, outside: bool) -> Fingerprint:
    """The fingerprint of base and adapter together; `outside`: it touches more than the decoder."""
    adapter = adapter_sha(state)
    return replace(
        base,
        weights=_sha((base.weights, adapter)),
        decoder=_sha((base.decoder, adapter)),
        towers=_sha((base.towers, adapter)) if outside else base.towers,
        adapter=adapter,
    )


def adapter_sha(state: Mapping[str, Tensor]) -> str:
    """sha256 of an adapter file's tensors by their names."""
    return _join({name: tensor_sha(tensor) for name, tensor in state.items()})


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
