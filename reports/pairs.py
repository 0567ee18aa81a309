"""Cosines of pairs and spectra of modalities: the panels, and their numbers for report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geomkit.pictures.records import Album, Cosines, Spectrum
from geomkit.types import MODALITIES
from reports.book import FINAL
from reports.layers import site_places
from reports.words import family, modality_title, site_title

DIGITS = 4


@dataclass(frozen=True, slots=True)
class PairPanel:
    """Cosines of one pair of modalities at one site, first and last checkpoint, and over sites.

    `wins` holds, a site, the share of matched pairs closer than a random one, by checkpoint.
    """

    key: str
    pair: str
    title: str
    family: str
    site: str
    shown: tuple[Cosines, ...]
    sites: tuple[str, ...]
    places: tuple[float, ...]
    wins: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class SpectrumPanel:
    """Standard deviations along principal directions at one site, first and last checkpoint."""

    key: str
    modality: str
    site: str
    shown: tuple[Spectrum, ...]


def ends(album: Album) -> tuple[str, ...]:
    """The first and the last checkpoint; one of them when there is one."""
    names = album.projection.checkpoints
    return tuple(dict.fromkeys((names[0], names[-1])))


def pair_panels(album: Album) -> tuple[PairPanel, ...]:
    """One panel a pair of modalities, at the final norm or else the deepest site that has it."""
    names = ends(album)
    found = []
    for i, pair in enumerate(dict.fromkeys(c.pair for c in album.pairs)):
        own = {(c.site, c.checkpoint): c for c in album.pairs if c.pair == pair}
        site = speaking(tuple(site for site, _ in own))
        sites = tuple(s.site for s in album.projection.sites)
        wins = tuple(tuple(own[s, n].wins if (s, n) in own else None for n in names) for s in sites)
        found.append(
            PairPanel(
                f"pair-{i}", pair, modality_title(pair), family(pair), site,
                tuple(own[site, n] for n in names if (site, n) in own),
                sites, site_places(sites), wins,
            )
        )  # fmt: skip
    return tuple(found)


def spectrum_panels(album: Album) -> tuple[SpectrumPanel, ...]:
    """One panel a modality, at the final norm or else the deepest site that has it."""
    names = ends(album)
    found = []
    for modality in MODALITIES:
        own = {(s.site, s.checkpoint): s for s in album.spectra if s.modality == modality}
        if own:
            site = speaking(tuple(site for site, _ in own))
            shown = tuple(own[site, n] for n in names if (site, n) in own)
            found.append(SpectrumPanel(f"spectrum-{modality}", modality, site, shown))
    return tuple(found)


def speaking(sites: Sequence[str]) -> str:
    """The final norm, or else the deepest."""
    return FINAL if FINAL in sites else sites[-1]


def numbers(album: Album) -> dict[str, Any]:
    """Pairs and spectra for report.json; the script reads them from there."""
    return {
        "pairs": [rounded(asdict(c)) for c in album.pairs],
        "spectra": [rounded(asdict(s)) for s in album.spectra],
        "sites": [{"site": s.site, "title": site_title(s.site)} for s in album.projection.sites],
    }


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Numbers with four digits: no mark on the page shows more."""
    return {name: short(value) for name, value in record.items()}


def short(value: Any) -> Any:
    """A number, or a tuple of them, with four digits; anything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return [short(v) for v in value] if isinstance(value, tuple) else value
