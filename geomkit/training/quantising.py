"""The decoder's frozen linear layers in 4 bits, as QLoRA has them: a quarter of the memory.

The branches are trained on the rounded weights, so after a merge into the base the model is near
what was trained, not equal to it: the merge says how near. Reference: Dettmers et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from geomkit.errors import MissingExtra
from geomkit.training.scope import target_names, target_pattern


def quantise(model: Any, names: Sequence[str]) -> int:
    """Replace the layers that will get branches by NF4 ones, in place; returns how many.

    Raises:
        MissingExtra: bitsandbytes is not installed.
    """
    try:
        bits = import_module("bitsandbytes")
    except ImportError as cause:
        raise MissingExtra(
            "Expected bitsandbytes for --qlora, it is not installed: pip install 'geomkit[qlora]'."
        ) from cause
    paths = target_names(model, target_pattern(model, names))
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, _nf4(bits, model.get_submodule(path)))
    model.is_loaded_in_4bit = True  # what PEFT looks at to choose its branch
    return len(paths)


def _nf4(bits: Any, layer: nn.Linear) -> nn.Module:
    half = torch.bfloat16
    found = bits.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=half if layer.weight.is_cuda else layer.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    found.weight = bits.nn.Params4bit(
        layer.weight.detach(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if layer.bias is not None:
        found.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    moved: nn.Module = found.to(layer.weight.device)  # this is what rounds
    return moved
