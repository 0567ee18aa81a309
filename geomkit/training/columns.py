"""Pairs as the table the trainer reads: one column of text a side, and codes of what is equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from geomkit.training.pairs import TextPair


def dataset(pairs: Sequence[TextPair], *, mask_equal: bool) -> Dataset:
    """Columns anchor, positive, maybe negative, and `label`: codes of group and texts.

    Equal codes mean equal group or equal text. Without `mask_equal` every code is different.
    """
    columns: dict[str, list[Any]] = {
        "anchor": [pair.anchor for pair in pairs],
        "positive": [pair.positive for pair in pairs],
    }
    if all(pair.negative is not None for pair in pairs):
        columns["negative"] = [pair.negative for pair in pairs]
    groups = [pair.group or f"\0{row}" for row, pair in enumerate(pairs)]
    keys = list(zip(groups, *columns.values(), strict=True))
    if not mask_equal:
        keys = [tuple(f"{row}.{part}" for part in range(len(key))) for row, key in enumerate(keys)]
    codes: dict[str, int] = {}
    columns["label"] = [[codes.setdefault(part, len(codes)) for part in key] for key in keys]
    return Dataset.from_dict(columns)
