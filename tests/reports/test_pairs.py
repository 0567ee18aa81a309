"""Pairs, spectra and gallery on the page: drawn without scripts, and equal to report.json."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from geomkit.pictures.records import Album
from reports import gallery, media, pairs, static_pairs
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build


@pytest.fixture(scope="module")
def album() -> Album:
    return pictures.album(fixture.rows())


def test_every_pair_and_modality_has_its_drawings(built: Built) -> None:
    for name, count in (("data-pair", 2), ("data-wins", 2), ("data-spectrum", 3)):
        places = built.tree.xpath(f"//section[@id='pairs']//*[@{name}]")
        assert len(places) == count
        assert all(place.xpath(".//*[local-name()='svg']") for place in places)


def test_numbers_are_those_of_the_album(built: Built, album: Album) -> None:
    own = built.numbers["pairs"]
    assert len(own["pairs"]) == len(album.pairs) == 2 * 2 * 7
    for told, one in zip(own["pairs"], album.pairs, strict=True):
        assert told["matched"] == list(one.matched)
        assert told["wins"] == pytest.approx(one.wins, rel=1e-3)
    for told, one in zip(own["spectra"], album.spectra, strict=True):
        assert told["values"] == pytest.approx(one.values, rel=1e-3)


def test_panels_speak_of_the_final_norm_and_of_both_ends(album: Album) -> None:
    panels = pairs.pair_panels(album)
    assert [panel.pair for panel in panels] == ["image-text", "audio-text"]
    for panel in panels:
        assert panel.site == "final_norm"
        assert [c.checkpoint for c in panel.shown] == ["base", "lco"]
        assert panel.wins[0] == (None, None)  # the embed site
        assert all(v is not None for site in panel.wins[1:] for v in site)


def test_a_histogram_keeps_its_area(album: Album) -> None:
    one = album.pairs[-1]
    points = static_pairs.steps(one, one.matched, lambda v: v, 100.0, 50.0)
    assert points[0] == (one.low, 100.0)
    assert points[-1] == (pytest.approx(one.high), 100.0)
    area = sum((b[0] - a[0]) * (100 - a[1]) for a, b in itertools.pairwise(points))
    width = (one.high - one.low) / len(one.matched)
    assert area == pytest.approx(width * 50 * sum(one.matched) / max(one.matched))


def test_the_gallery_says_what_the_album_does(built: Built, album: Album) -> None:
    cards = built.tree.xpath("//section[@id='gallery']//ul[@class='gallery']/li")
    assert len(cards) == len(album.changes) == 18
    rows = fixture.rows()
    told = built.numbers["gallery"]
    assert [t["id"] for t in told] == [rows[c.place].id for c in album.changes]
    first = album.changes[0]
    words = " ".join("".join(cards[0].itertext()).split())
    assert f"{first.kept} of 10 nearest are the same" in words
    assert first.rank_before is not None
    assert f"{first.rank_before + 1} → " in words
    near = cards[0].xpath(".//ol")
    assert [len(n.xpath("li")) for n in near] == [4, 4]


def test_pictures_are_cells_of_the_sheet_and_sounds_wait_for_the_script(built: Built) -> None:
    thumbs = built.tree.xpath("//section[@id='gallery']//span[@class='thumb']")
    assert thumbs
    assert all(t.get("aria-label") and "--x:" in t.get("style") for t in thumbs)
    assert built.tree.xpath("//section[@id='gallery']//*[@data-sound]")


def test_neighbours_in_both_are_marked(album: Album) -> None:
    rows = fixture.rows()
    cards = gallery.cards(album, rows, media.NOTHING)
    for card in cards:
        both = set(card.change.before) & set(card.change.after)
        assert sum(item.both for item in card.before) == len(both)
        assert not any(item.sound or item.cell for item in card.before)


def test_one_checkpoint(tmp_path: Path) -> None:
    one = pictures.album(fixture.rows(), ("base",))
    built = build(tmp_path, album=one)
    assert "no before and after to compare" in built.words()
    assert built.numbers["gallery"] == []
    assert {p["checkpoint"] for p in built.numbers["pairs"]["pairs"]} == {"base"}


def test_one_modality_has_spectra_and_no_pairs(tmp_path: Path) -> None:
    rows = tuple(row for row in fixture.rows(60) if row.modality == "text")
    rows = tuple(type(row)(**{**fields(row), "index": i}) for i, row in enumerate(rows))
    built = build(tmp_path, rows=rows, album=pictures.album(rows))
    assert "there are no pairs" in built.words()
    assert len(built.tree.xpath("//*[@data-spectrum]")) == 1
    assert not built.tree.xpath("//*[@data-pair]")


def fields(row: object) -> dict[str, object]:
    """The fields of a record with slots."""
    return {name: getattr(row, name) for name in type(row).__dataclass_fields__}  # type: ignore[attr-defined]  # of a dataclass


def test_without_an_album(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.numbers["pairs"] is None
    assert "No states were read for this page" in built.words()


def test_states_that_do_not_differ(tmp_path: Path) -> None:
    rows = fixture.rows(8)
    built = build(tmp_path, rows=rows, album=pictures.album(rows, sites=("embed",)))
    assert "No site has states that differ" in built.words()
    assert "No neighbours were compared" in built.words()
