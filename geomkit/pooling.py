"""Token states to one state a row: `(rows, tokens, dim)` and a mask to `(rows, dim)`.

    last            the last token that is no padding: where the answer would begin
    mean            the mean of all tokens that are no padding
    mean-of-media   the mean of the tokens that stand for the image, the sound or the video;
                    of all tokens in a row that shows text only

All read real masks, so the side of the padding does not matter. They accumulate in float32 and
return new tensors: a view would keep every token of the batch alive. They run in the hook, on the
device, and never wait for it: a question put to a tensor (`if mask.any()`) would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from geomkit.errors import CaptureError, UsageError

Pooling = Callable[[Tensor, Tensor], Tensor]


def last(states: Tensor, mask: Tensor) -> Tensor:
    """State of the last token in the mask, float32 `(rows, dim)`."""
    keep = _keep(states, mask)
    position = torch.arange(keep.shape[1], device=keep.device)
    at = (keep * position).amax(dim=1)
    # Indexing with tensors copies; `states[:, -1]` would be a view that holds all the tokens.
    return states[torch.arange(len(states), device=states.device), at].float()


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean state of the tokens in the mask, float32 `(rows, dim)`."""
    keep = _keep(states, mask)
    # Filled, not multiplied by 0: what stands in the padding may be NaN.
    total = states.masked_fill(~keep.unsqueeze(-1), 0.0).sum(dim=1, dtype=torch.float32)
    return total / keep.sum(dim=1, keepdim=True)


def tokens(states: Tensor, mask: Tensor) -> Tensor:
    """States of all tokens in the mask, row after row, `(tokens of all rows, dim)`."""
    return states[_keep(states, mask)]


def _keep(states: Tensor, mask: Tensor) -> Tensor:
    """The mask as booleans on the states' device."""
    if states.ndim != 3 or mask.shape != states.shape[:2]:
        raise CaptureError(
            f"Expected states (rows, tokens, dim) and a mask (rows, tokens), got"
            f" {tuple(states.shape)} and {tuple(mask.shape)}: this decoder's states cannot be"
            " pooled."
        )
    return mask.to(states.device, torch.bool)


POOLINGS: Mapping[str, Pooling] = MappingProxyType(
    {"last": last, "mean": mean, "mean-of-media": mean}
)
OF_MEDIA = "mean-of-media"


def pooler(
    names: Sequence[str], mask: Tensor, media: Tensor | None = None
) -> Callable[[Tensor], dict[str, Tensor]]:
    """The function that pools one site's states in every named way.

    Args:
        names: poolings.
        mask: `(rows, tokens)`, 1 where a token is no padding.
        media: `(rows, tokens)`, 1 where a token stands for a media item; None without media.

    Raises:
        UsageError: an unknown pooling.
        CaptureError: a row is nothing but padding.
    """
    for name in names:
        if name not in POOLINGS:
            raise UsageError(f"Expected a pooling ({', '.join(POOLINGS)}), got '{name}'.")
    keep = mask.bool()
    if not bool(keep.any(dim=1).all()):  # asked once a batch, of a mask that is on the host
        raise CaptureError("Expected at least one real token in every row, got a row of padding.")
    masks = {name: _content(keep, media) if name == OF_MEDIA else keep for name in names}
    return lambda states: {name: POOLINGS[name](states, masks[name]) for name in names}


def _content(keep: Tensor, media: Tensor | None) -> Tensor:
    """The tokens of the media, or all of a row that has none."""
    own = torch.zeros_like(keep) if media is None else media.bool() & keep
    return torch.where(own.any(dim=1, keepdim=True), own, keep)


def media_mask(input_ids: Tensor, placeholders: Iterable[int]) -> Tensor:
    """`(rows, tokens)`, True where a token is a placeholder of a media item."""
    return torch.isin(input_ids, torch.tensor(sorted(placeholders), dtype=input_ids.dtype))
