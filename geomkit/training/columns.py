"""Pairs as the table the trainer reads: one column of cells a side, and codes of what is equal.

A cell is a text; or the name of a sample's medium, which the embedder looks up; or two texts, the
second of them to be said to the first. The last two begin with a character no text may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from datasets import Dataset

from geomkit.training.pairs import TextPair
from geomkit.types import MODALITIES, Modality, Sample

MARK = "\0"


def dataset(
    pairs: Sequence[TextPair],
    *,
    mask_equal: bool,
    speech: bool = False,
    read: Callable[[str], str] = str,
) -> Dataset:
    """Columns anchor, positive, maybe negative, maybe speech, and `label`: codes of what is equal.

    Equal codes mean equal group or equal text, as far as it is `read`: what is cut off makes no
    difference to the model. Without `mask_equal` every code is different.
    """
    columns: dict[str, list[Any]] = {
        "anchor": [pair.anchor for pair in pairs],
        "positive": [pair.positive for pair in pairs],
    }
    if all(pair.negative is not None for pair in pairs):
        columns["negative"] = [pair.negative for pair in pairs]
    codes = _codes([pair.group for pair in pairs], columns, read, mask_equal=mask_equal)
    if speech:
        columns["speech"] = [f"{MARK}{pair.anchor}{MARK}{pair.positive}" for pair in pairs]
    return Dataset.from_dict({**columns, "label": codes})


def media_datasets(
    samples: Sequence[Sample], *, mask_equal: bool, read: Callable[[str], str] = str
) -> Mapping[Modality, Dataset]:
    """Modality -> columns anchor (a medium), positive (its text) and `label`."""
    found: dict[Modality, Dataset] = {}
    for modality in MODALITIES:
        rows = [
            (number, sample)
            for number, sample in enumerate(samples)
            if modality != "text" and sample.text and modality in sample.modalities()
        ]
        if rows:
            columns: dict[str, list[Any]] = {
                "anchor": [f"{MARK}{modality}{MARK}{number}" for number, _ in rows],
                "positive": [str(sample.text) for _, sample in rows],
            }
            groups = [sample.group or "" for _, sample in rows]
            codes = _codes(groups, columns, read, mask_equal=mask_equal)
            found[modality] = Dataset.from_dict({**columns, "label": codes})
    return found


def medium(cell: str) -> tuple[Modality, int]:
    """The modality of a cell, and the number of its sample where it names one."""
    if not cell.startswith(MARK):
        return "text", -1
    _, modality, number = cell.split(MARK)
    return cast("Modality", modality), int(number)


def spoken(cell: str) -> tuple[str, str] | None:
    """The two texts of a cell that holds two."""
    if not cell.startswith(MARK):
        return None
    _, first, second = cell.split(MARK)
    return first, second


def _codes(
    named: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    read: Callable[[str], str],
    *,
    mask_equal: bool,
) -> list[list[int]]:
    """For each row the code of its group, then of each of its cells."""
    groups = [group or f"{MARK}{row}" for row, group in enumerate(named)]
    # the name of a medium is no text
    seen = [[c if c.startswith(MARK) else read(c) for c in column] for column in columns.values()]
    keys = list(zip(groups, *seen, strict=True))
    if not mask_equal:
        keys = [tuple(f"{row}.{part}" for part in range(len(key))) for row, key in enumerate(keys)]
    codes: dict[str, int] = {}
    return [[codes.setdefault(part, len(codes)) for part in key] for key in keys]
