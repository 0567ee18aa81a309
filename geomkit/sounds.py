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
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
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
    whole = tensors[0].new_full((sum(map(len, tensors)), *shape), fill)
    first = 0
    for tensor in tensors:
        inside = tuple(slice(size) for size in tensor.shape[1:])
        whole[first : first + len(tensor)][(slice(None), *inside)] = tensor
        first += len(tensor)
    return whole


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
    """Let towers whose convolutions see the padding read every sound as they read it alone.

    Gemma3n's encoder strides over frames past a sound's end, and its last state depends on whether
    there are any. Qwen3-Omni's pads all chunks of a batch to the longest, which a sound shorter
    than one chunk is without when it is alone.
    """
    for tower in model.modules():
        if not isinstance(tower, PreTrainedModel):
            continue
        if "audio_mel_mask" in inspect.signature(tower.forward).parameters:
            tower.forward = _by_length(tower.forward)
        elif hasattr(tower, "n_window_infer"):
            tower.forward = _one_by_one(tower.forward, 2 * tower.n_window)


def _by_length(forward: Any) -> Any:
    """For sounds padded to one length: those of equal length share a call."""

    def run(mel: Tensor, padding: Tensor, **more: Any) -> Any:
        lengths = (~padding).sum(dim=1)
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for length in set(lengths.tolist()):
            rows = (lengths == length).nonzero()[:, 0]
            out = forward(mel[rows, :length], padding[rows, :length], **more)
            each = zip(rows.tolist(), out.last_hidden_state, out.audio_mel_mask, strict=True)
            found.update({row: (states, mask) for row, states, mask in each})
        states, masks = zip(*(found[row] for row in range(len(mel))), strict=True)
        out.last_hidden_state = pad_sequence(list(states), batch_first=True)
        out.audio_mel_mask = pad_sequence(list(masks), batch_first=True, padding_value=True)
        return out

    return run


def _one_by_one(forward: Any, chunk: int) -> Any:
    """For sounds end to end: each has its own call when one is shorter than a chunk."""

    def run(features: Tensor, feature_lens: Tensor, **more: Any) -> Any:
        lengths = feature_lens.tolist()
        if min(lengths) >= chunk or len(set(lengths)) == 1:
            return forward(features, feature_lens=feature_lens, **more)
        parts = zip(torch.split(features, lengths, dim=1), feature_lens, strict=True)
        each = [forward(part, feature_lens=n[None], **more).last_hidden_state for part, n in parts]
        states = torch.cat(each)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states)

    return run
