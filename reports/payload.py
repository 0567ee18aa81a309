"""Bytes -> compressed text inside the page, and the size budget.

The page unpacks it with the browser's own `DecompressionStream`. The gzip header carries no time,
so equal bytes give equal text.
"""

from __future__ import annotations

import base64
import gzip
import json
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import GeomkitError

MEGABYTE = 1_000_000
WARN_BYTES = 10 * MEGABYTE
REFUSE_BYTES = 25 * MEGABYTE
HARMLESS = str.maketrans("<>&`", ",/.:")
"""Letters of base 85 that HTML could read as its own, and what stands for them."""
DIGITS = 6
"""Significant digits of the numbers in a report: as many as any float32 holds; `analysis.json` has
them all."""
LEVELS = 65535
"""Steps of a map coordinate: the axes have no unit, and a screen has fewer pixels."""


def packed(content: bytes) -> str:
    """gzip, then base 85: a sixteenth less than base 64, in letters that mean nothing to HTML."""
    return base64.b85encode(gzip.compress(content, 9, mtime=0)).decode().translate(HARMLESS)


def unpacked(text: str) -> bytes:
    """What was packed, as the page's script reads it."""
    back = {new: old for old, new in HARMLESS.items()}
    return gzip.decompress(base64.b85decode(text.translate(back)))


@cache
def packed_plotly() -> str:
    """The plotting library of the installed wheel."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs().encode())


def quantised(coordinates: NDArray[np.float32], limit: float) -> str:
    """Coordinates in [-limit, limit] as base64 of little-endian uint16, x and y in turn."""
    share = np.clip(coordinates.astype(np.float64) / limit, -1, 1) * 0.5 + 0.5
    return base64.b64encode(np.rint(share * LEVELS).astype("<u2").tobytes()).decode()


def told(value: Any, digits: int = DIGITS) -> Any:
    """Numbers as far as float32 states can tell them: digits beyond are noise, and cost bytes."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {name: told(inner, digits) for name, inner in value.items()}
    return [told(inner, digits) for inner in value] if isinstance(value, list | tuple) else value


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """JSON without NaN or infinity, keys sorted; without an indent, without a space.

    Raises:
        GeomkitError: a number is not finite.
    """
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=indent,
            separators=(",", ":") if indent is None else None,
        )  # fmt: skip
    except ValueError as error:
        raise GeomkitError(
            "Expected finite numbers or None in the analysis, got NaN or infinity: "
            "run analyze again."
        ) from error


def check_size(parts: Mapping[str, int], limit: int = REFUSE_BYTES) -> None:
    """Warn above 10 MB; refuse above `limit`.

    Raises:
        GeomkitError: the page is too large to open well; the message says what takes the space.
    """
    total = sum(parts.values())
    shares = ", ".join(
        f"{name} {size / MEGABYTE:.1f} MB"
        for name, size in sorted(parts.items(), key=lambda p: -p[1])
    )
    if total > limit:
        raise GeomkitError(
            f"Expected a report of at most {limit / MEGABYTE:.0f} MB, "
            f"got {total / MEGABYTE:.1f} MB ({shares}): "
            "show fewer rows on the map, embed no media, or allow more with --max-size."
        )
    if total > WARN_BYTES:
        warnings.warn(f"the report is {total / MEGABYTE:.1f} MB: {shares}", stacklevel=3)
