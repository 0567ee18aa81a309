"""One forward pass of one checkpoint over one batch: inputs to pooled states.

The head is never run. Towers whose weights are equal in several checkpoints run once a batch: the
first checkpoint's tower outputs are handed to the others.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomkit.checkpoints import Checkpoint
from geomkit.errors import CaptureError
from geomkit.hooks import tap
from geomkit.pooling import pooler

Outputs = dict[str, list[Any]]
"""Tower name -> what it put out, call by call."""


class Towers:
    """Tower outputs of one batch, by the towers' weights and settings."""

    def __init__(self) -> None:
        """Nothing has run yet."""
        self._seen: dict[str, Outputs] = {}

    @contextmanager
    def shared(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Inside, towers that already ran on this batch give their output again."""
        known = self._seen.setdefault(_towers_key(checkpoint), {})
        modules = towers(checkpoint)
        before: dict[str, Any] = {
            name: vars(module).get("forward") for name, module in modules.items()
        }
        for name, module in modules.items():
            module.forward = _remembered(module.forward, known.setdefault(name, []))
        try:
            yield
        finally:
            for name, module in modules.items():
                if before[name] is None:
                    del module.forward
                else:
                    module.forward = before[name]


def _towers_key(checkpoint: Checkpoint) -> str:
    """What a tower's output depends on beside its input: weights, precision and settings.

    Settings are the whole configuration but the decoder's: which layer of a tower is read stands
    in the model's own part of it.
    """
    config = checkpoint.model.config
    text, named = config.get_text_config(), config.to_dict()
    settings = {k: v for k, v in named.items() if getattr(config, k, None) is not text}
    for about in ("_name_or_path", "architectures", "transformers_version"):
        settings.pop(about, None)
    dtype = next(checkpoint.decoder.parameters()).dtype
    told = json.dumps(settings, sort_keys=True, default=str)
    return f"{checkpoint.fingerprint.towers} {dtype} {told}"


def towers(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """The children of the body that stand beside the decoder."""
    if checkpoint.body is checkpoint.decoder:
        return {}
    return {
        name: module
        for name, module in checkpoint.body.named_children()
        if not any(inner is checkpoint.decoder for inner in module.modules())
    }


def _remembered(forward: Any, outputs: list[Any]) -> Any:
    calls = iter(range(1_000_000))

    def run(*args: Any, **kwargs: Any) -> Any:
        call = next(calls)
        if call == len(outputs):
            outputs.append(copy.copy(forward(*args, **kwargs)))
        # A copy each time: models hang further fields on the output they are given.
        return copy.copy(outputs[call])

    return run


@torch.inference_mode()
def states(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Tensor],
    sites: Sequence[str],
    poolings: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """Pooled states of every row: pooling -> float32 `(rows, sites, dim)`.

    Raises:
        CaptureError: out of memory, or a site that does not fire as it should.
    """
    given = to_model(checkpoint, inputs)
    pool = pooler(poolings, given["attention_mask"])
    try:
        with checkpoint.active() as body, tap(checkpoint.decoder, sites, pool) as seen:
            body(**given, use_cache=False)
    except torch.OutOfMemoryError as cause:
        raise CaptureError(
            f"'{checkpoint.name}' ran out of memory on {len(given['input_ids'])} rows of"
            f" {given['input_ids'].shape[1]} tokens: use a smaller batch size."
        ) from cause
    return {
        name: torch.stack([seen[site][name].cpu() for site in sites], dim=1).numpy()
        for name in poolings
    }


def to_model(checkpoint: Checkpoint, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs on the model's device, media in its precision."""
    one = next(checkpoint.decoder.parameters())
    return {
        name: tensor.to(one.device, one.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
