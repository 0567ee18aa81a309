"""Small media for people: a thumbnail of an image, a coarse version of a sound."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from geomkit.data.media import resample

SIDE, RATE, SECONDS = 64, 8_000, 10


def thumbnail(image: Image.Image) -> bytes:
    """WebP of at most `SIDE` pixels a side."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80, method=4)
    return file.getvalue()


def snippet(sound: NDArray[np.float32], rate: int) -> bytes:
    """16-bit WAV at `RATE` hertz of at most the first `SECONDS` seconds."""
    short = resample(sound[: SECONDS * rate], rate, RATE)
    file = io.BytesIO()
    soundfile.write(file, np.clip(short, -1.0, 1.0), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def preview(modality: str, media: Any, rate: int) -> bytes | None:
    """The preview of one row's media, or None for what has none."""
    if modality == "image":
        return thumbnail(media)
    return snippet(media, rate) if modality == "audio" else None
