"""Rows to batches: rows of one modality and of like length together, within a budget of tokens.

A batch is padded to its longest row, so unlike lengths waste the difference. How long a row will
be is guessed from the outside (bytes of text, pixels, length of sound: headers are read, nothing
decoded); the longest go first, so a batch that does not fit into memory is met at the start.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geomkit.data.sources import readable
from geomkit.types import Clip, Modality, Row, Stored, Waveform

Batches = tuple[tuple[int, ...], ...]


def grouped(rows: Sequence[Row], extents: Sequence[int], most: int) -> Batches:
    """Batches of at most `most` rows of one modality, the longest first."""
    own: dict[Modality, list[int]] = {}
    for row in rows:
        own.setdefault(row.modality, []).append(row.index)
    return tuple(
        batch
        for indexes in own.values()
        for batch in pieces(sorted(indexes, key=lambda i: (-extents[i], i)), most)
    )


def within(batches: Batches, budget: int, tokens: Callable[[int], int]) -> Batches:
    """The batches, cut where all rows at the length of the first would be over `budget` tokens.

    The first that can be shown looks longest from the outside, so only that one is measured: the
    budget is no promise. A row alone may be over it.
    """
    return tuple(
        piece
        for batch in batches
        for piece in pieces(batch, max(1, budget // max(1, longest(batch, tokens))))
    )


def longest(batch: Sequence[int], tokens: Callable[[int], int]) -> int:
    """Tokens of the first row that can be shown, the others have 0; 0 when none can."""
    return next((count for index in batch if (count := tokens(index))), 0)


def pieces(whole: Sequence[int], size: int) -> Batches:
    """`whole` cut into pieces of `size`; the last may be shorter."""
    return tuple(tuple(whole[i : i + size]) for i in range(0, len(whole), size))


def extent(content: Any, modality: Modality) -> int:
    """How much a row holds, to compare it with others of its modality; 0 when nobody can say."""
    try:
        return _extent(content, modality)
    except Exception:  # noqa: BLE001 - whatever is wrong with the file, capture records the reason
        return 0


def _extent(content: Any, modality: Modality) -> int:
    if isinstance(content, str):
        return len(content.encode())  # nearer than characters to the tokens of a byte vocabulary
    if isinstance(content, Waveform):
        return round(1000 * len(content.samples) / content.rate)
    if isinstance(content, Clip):
        return content.frames.size
    if isinstance(content, Path | Stored):
        return _of_file(readable(content), modality)
    width, height = content.size  # an image in memory
    return int(width * height)


def _of_file(file: Any, modality: Modality) -> int:
    if modality == "image":
        from PIL import Image  # no help needs the decoders

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # capture refuses it
            with Image.open(file) as image:
                return int(image.size[0] * image.size[1])
    if modality == "audio":
        import soundfile

        return int(1000 * soundfile.info(file).duration)
    return int(file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes)
