"""Previews on disk -> one sprite sheet of thumbnails, and short sounds.

Media may be private or licensed, so nothing is embedded unless the caller asks. What does not fit
the budget, or is not what its name says, is left out and counted.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomkit.types import Row

THUMBNAIL = 96
SHEET = 8192
"""Side that every browser can hold as one picture."""
COLUMNS = 32
MOST_THUMBNAILS = 400
SOUND_BYTES = 64_000
SOUNDS_BYTES = 600_000
MOST_PIXELS = 4096 * 4096
PICTURES = frozenset({".webp", ".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True)
class Media:
    """Embedded previews by plan index; `left_out` counts those that were not embedded."""

    sheet: str  # base64 WebP, in the page's style; empty without thumbnails
    thumbnails: Mapping[int, int]  # plan index -> cell
    sounds: Mapping[int, str]  # plan index -> base64 WAV
    left_out: int

    @property
    def columns(self) -> int:
        """Cells in a line of the sheet."""
        return max(1, min(COLUMNS, len(self.thumbnails)))

    def payload(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "columns": self.columns,
            "thumbnails": {str(i): cell for i, cell in self.thumbnails.items()},
            "sounds": {str(i): sound for i, sound in self.sounds.items()},
        }


NOTHING = Media("", {}, {}, 0)


def embed(rows: Sequence[Row], media: Mapping[tuple[str, str], Path]) -> Media:
    """Thumbnails and sounds of these rows, within the budget, in the rows' order."""
    sheet, thumbnails, unread = sprite(rows, media)
    sounds, unheard = short_sounds(rows, media)
    return Media(sheet, thumbnails, sounds, unread + unheard)


def preview(row: Row, media: Mapping[tuple[str, str], Path]) -> Path | None:
    """The row's preview file."""
    return media.get((row.id, row.modality))


def sprite(
    rows: Sequence[Row], media: Mapping[tuple[str, str], Path]
) -> tuple[str, dict[int, int], int]:
    """One WebP sheet, the cell of each row, and how many pictures were left out."""
    from PIL import Image

    pictures: list[Any] = []
    cells: dict[int, int] = {}
    left_out = 0
    most = min(MOST_THUMBNAILS, (SHEET // THUMBNAIL) * COLUMNS)
    for row in rows:
        path = preview(row, media)
        if path is None or path.suffix.lower() not in PICTURES:
            continue
        picture = thumbnail(path) if len(pictures) < most else None
        if picture is None:
            left_out += 1
            continue
        cells[row.index] = len(pictures)
        pictures.append(picture)
    if not pictures:
        return "", {}, left_out
    lines = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (THUMBNAIL * min(COLUMNS, len(pictures)), THUMBNAIL * lines), "white")
    for cell, picture in enumerate(pictures):
        x, y = cell % COLUMNS * THUMBNAIL, cell // COLUMNS * THUMBNAIL
        sheet.paste(
            picture, (x + (THUMBNAIL - picture.width) // 2, y + (THUMBNAIL - picture.height) // 2)
        )
    out = io.BytesIO()
    sheet.save(out, "WEBP", quality=80, method=4)
    return base64.b64encode(out.getvalue()).decode(), cells, left_out


def thumbnail(path: Path) -> Any | None:
    """The picture scaled into a cell, or None when it cannot be read or is too large."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    scale = THUMBNAIL / max(small.size)
    # Tiny pictures keep their pixels crisp; large ones are averaged down.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, how)


def short_sounds(
    rows: Sequence[Row], media: Mapping[tuple[str, str], Path]
) -> tuple[dict[int, str], int]:
    """WAV files as they are, each and together under a limit; and how many were left out."""
    sounds: dict[int, str] = {}
    left_out = spent = 0
    for row in rows:
        path = preview(row, media)
        if path is None or path.suffix.lower() != ".wav":
            continue
        sound = wav(path)
        if sound is None or spent + len(sound) > SOUNDS_BYTES:
            left_out += 1
            continue
        spent += len(sound)
        sounds[row.index] = base64.b64encode(sound).decode()
    return sounds, left_out


def wav(path: Path) -> bytes | None:
    """The bytes of a short WAV file, or None when it is long or something else."""
    try:
        if path.stat().st_size > SOUND_BYTES:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return content if content[:4] == b"RIFF" and content[8:12] == b"WAVE" else None
