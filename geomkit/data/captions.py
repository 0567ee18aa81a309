"""Items of several captions to rows: the first stands by the media, the others share its group.

    item "7", captions (a, b, c), data.captions = 1     row "7" (text a, media)
                                  data.captions = 3     and rows "7#2" (text b), "7#3" (text c)

All rows of an item have one group, so that in retrieval each caption is a right answer, and a
split never parts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geomkit.data.entries import Rows


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a dataset: its media under our column names, and everything said about it."""

    id: str
    where: str
    captions: Sequence[str]
    media: Mapping[str, Any]
    rest: Mapping[str, Any] = field(default_factory=dict)


def caption_rows(items: Iterable[Item], captions: int) -> Rows:
    """The rows of items, each with at most so many captions."""
    for item in items:
        said = [text for text in item.captions if text and text.strip()][:captions]
        group = str(item.rest.get("group") or item.id)
        first = {**item.rest, **item.media, "id": item.id, "group": group}
        if not said and not item.media:
            said = [""]  # nothing to show: capture records the row, so that counts stay true
        yield item.where, {**first, "text": said[0]} if said else first
        for number, text in enumerate(said[1:], 2):
            yield item.where, {"id": f"{item.id}#{number}", "text": text, "group": group}
