"""Sounds in one batch as if each were alone.

transformers pads the sounds of a batch to the longest before it computes their spectrograms. Where
the window is not of fixed length that moves the last frames of every shorter sound: of a Gemma3n
row by far more than training does. So each sound's features are computed apart and padded after.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

Inputs = Mapping[str, Tensor]


def beside(rows: Sequence[Inputs], pad: int) -> dict[str, Tensor]:
    """Inputs of rows that were encoded one by one as one batch, padded on the right."""
    return {
        name: _stacked([row[name] for row in rows], pad if name == "input_ids" else 0)
        for name in rows[0]
    }


def _stacked(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Along the first axis; the others grow to the largest."""
    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    grown = [t.new_full((len(t), *shape), fill) for t in tensors]
    for large, small in zip(grown, tensors, strict=True):
        large[tuple(slice(n) for n in small.shape)] = small
    return torch.cat(grown)


def longest(extractor: Any, processor: type[Any]) -> float:
    """Seconds of a sound that are read; the rest is cut off. 0 when all of it is read."""
    usual = inspect.signature(extractor.__call__).parameters
    asked = {name: one.default for name, one in usual.items()}
    asked |= dict(getattr(processor, "audio_kwargs", {}))
    if not asked.get("truncation"):
        return 0.0
    samples = getattr(extractor, "n_samples", None) or asked.get("max_length") or 0
    return float(samples / extractor.sampling_rate)


def keep_apart(model: nn.Module) -> None:
    """Let towers that cut sounds into chunks read a short sound as they read it alone.

    Qwen3-Omni's encoder pads all chunks of a batch to the longest, and its convolutions see that:
    a sound shorter than one chunk would depend on the sounds beside it.
    """
    towers: list[Any] = [m for m in model.modules() if hasattr(m, "n_window_infer")]
    for tower in towers:
        tower.forward = _one_by_one(tower.forward, 2 * tower.n_window)


def _one_by_one(forward: Any, chunk: int) -> Any:
    def run(features: Tensor, feature_lens: Tensor, **more: Any) -> Any:
        lengths = feature_lens.tolist()
        if min(lengths) >= chunk or len(set(lengths)) == 1:
            return forward(features, feature_lens=feature_lens, **more)
        parts = zip(torch.split(features, lengths, dim=1), feature_lens, strict=True)
        each = [forward(part, feature_lens=n[None], **more).last_hidden_state for part, n in parts]
        states = torch.cat(each)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states)

    return run
