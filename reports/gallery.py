"""The gallery: samples whose neighbours changed most, with their neighbours before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geomkit.pictures.records import Album, Change
from geomkit.types import Row
from reports import words
from reports.media import Media

CAPTION = 90
NEIGHBOUR = 60


@dataclass(frozen=True, slots=True)
class Item:
    """A sample as people see it: its caption, the cell of its picture, whether it has a sound."""

    index: int
    modality: str
    caption: str
    cell: tuple[int, int] | None  # column and line of the sheet
    sound: bool
    both: bool = False  # whether it is a neighbour before and after


@dataclass(frozen=True, slots=True)
class Card:
    """One sample of the gallery."""

    item: Item
    change: Change
    partner: str  # modality of its other view; empty without one
    of: int  # rows of that modality
    before: tuple[Item, ...]
    after: tuple[Item, ...]

    @property
    def moved(self) -> bool:
        """Whether anything near it changed: a neighbour, or the place of its other view."""
        c = self.change
        return c.kept < c.k or c.rank_before != c.rank_after


def cards(album: Album, rows: Sequence[Row], media: Media) -> tuple[Card, ...]:
    """The samples that changed most, one card each."""
    return tuple(card(c, album, rows, media) for c in album.changes)


def card(change: Change, album: Album, rows: Sequence[Row], media: Media) -> Card:
    """One sample and what stood near it."""
    both = set(change.before) & set(change.after)
    partner = rows[album.partner[change.place]].modality if change.rank_after is not None else ""

    def items(places: tuple[int, ...]) -> tuple[Item, ...]:
        return tuple(item(rows[p], media, NEIGHBOUR, both=p in both) for p in places)

    return Card(
        item(rows[change.place], media, CAPTION), change, partner,
        partners_of(change, album, rows), items(change.before), items(change.after),
    )  # fmt: skip


def item(row: Row, media: Media, limit: int, *, both: bool = False) -> Item:
    """A row as people see it."""
    at = media.thumbnails.get(row.index)
    cell = None if at is None else (at % media.columns, at // media.columns)
    caption = words.clip(row.text or row.id, limit)
    return Item(row.index, row.modality, caption, cell, row.index in media.sounds, both)


def partners_of(change: Change, album: Album, rows: Sequence[Row]) -> int:
    """How many rows the partner's rank is among; 0 without a partner."""
    if change.rank_after is None:
        return 0
    modality = rows[album.partner[change.place]].modality
    return sum(row.modality == modality for row in rows)


def numbers(album: Album, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The gallery for report.json."""
    return [
        {
            "id": rows[c.place].id, "modality": rows[c.place].modality, "site": album.gallery_site,
            "kept": c.kept, "k": c.k, "partners": partners_of(c, album, rows),
            "before": [rows[p].id for p in c.before], "after": [rows[p].id for p in c.after],
            "partner_rank_before": None if c.rank_before is None else c.rank_before + 1,
            "partner_rank_after": None if c.rank_after is None else c.rank_after + 1,
        }
        for c in album.changes
    ]  # fmt: skip
