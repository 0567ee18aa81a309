"""Token states to one state a row: `(rows, tokens, dim)` and a mask to `(rows, dim)`.

Both read the real attention mask, so the side of the padding does not matter. They accumulate in
float32 and return new tensors: a view would keep every token of the batch alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from geomkit.errors import CaptureError, UsageError

Pooling = Callable[[Tensor, Tensor], Tensor]


def last(states: Tensor, mask: Tensor) -> Tensor:
    """State of the last token that is no padding, float32 `(rows, dim)`."""
    keep = _keep(states, mask)
    position = torch.arange(keep.shape[1], device=keep.device)
    at = (keep * position).amax(dim=1)
    # Indexing with tensors copies; `states[:, -1]` would be a view that holds all the tokens.
    return states[torch.arange(len(states), device=states.device), at].float()


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean state of the tokens that are no padding, float32 `(rows, dim)`."""
    keep = _keep(states, mask)
    total = states.float().masked_fill(~keep.unsqueeze(-1), 0.0).sum(dim=1)
    return total / keep.sum(dim=1, keepdim=True)


def _keep(states: Tensor, mask: Tensor) -> Tensor:
    """The mask as booleans on the states' device; a row of padding only has no state."""
    if states.ndim != 3 or mask.shape != states.shape[:2]:
        raise CaptureError(
            f"Expected states (rows, tokens, dim) and a mask (rows, tokens), got"
            f" {tuple(states.shape)} and {tuple(mask.shape)}: this decoder's states cannot be"
            " pooled."
        )
    keep = mask.to(states.device).bool()
    if not bool(keep.any(dim=1).all()):
        raise CaptureError("Expected at least one real token in every row, got a row of padding.")
    return keep


POOLINGS: Mapping[str, Pooling] = MappingProxyType({"last": last, "mean": mean})


def pooler(names: Sequence[str], mask: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
    """The function that pools one site's states in every named way.

    Raises:
        UsageError: an unknown pooling.
    """
    for name in names:
        if name not in POOLINGS:
            raise UsageError(f"Expected a pooling ({', '.join(POOLINGS)}), got '{name}'.")
    return lambda states: {name: POOLINGS[name](states, mask) for name in names}
