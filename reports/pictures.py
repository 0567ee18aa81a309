"""An album -> what the templates and report.json read of it: pairs, spectra, gallery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from reports import gallery, pairs, static_pairs
from reports.mapping import Shown
from reports.media import Media


def context(shown: Shown | None, media: Media) -> dict[str, Any]:
    """What the templates of pairs and gallery read."""
    album = shown.album if shown else None
    return {
        "pair_panels": pairs.pair_panels(album) if album else (),
        "spectrum_panels": pairs.spectrum_panels(album) if album else (),
        "pair_size": "{} / {}".format(*static_pairs.PAIR_SIZE),
        "gallery": gallery.cards(album, shown.rows, media) if shown and album else (),
    }


def numbers(shown: Shown | None) -> dict[str, Any]:
    """Pairs, spectra and gallery for report.json."""
    if shown is None or shown.album is None:
        return {"pairs": None, "gallery": None}
    return {
        "pairs": pairs.numbers(shown.album),
        "gallery": gallery.numbers(shown.album, shown.rows),
    }


def filters() -> dict[str, Callable[[Any], Any]]:
    """Drawings and number formats for the templates."""
    return {
        "short": pairs.short,
        "pair_svg": drawn(static_pairs.pair_svg),
        "wins_svg": drawn(static_pairs.wins_svg),
        "spectrum_svg": drawn(static_pairs.spectrum_svg),
    }


def drawn(draw: Callable[[Any], str]) -> Callable[[Any], Markup]:
    """A drawing as markup: every text from data in it is escaped already."""
    return lambda panel: Markup(draw(panel))  # noqa: S704  # never called on anything from data
