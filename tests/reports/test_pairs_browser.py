"""Pairs and gallery in a real browser: they follow the map, and lead to it."""

from __future__ import annotations

from typing import Any

import pytest

from geomkit.pictures.records import Album
from tests.reports import fixture, pictures
from tests.reports.visiting import Visit, needs_browser

pytestmark = needs_browser


@pytest.fixture(scope="module")
def album() -> Album:
    return pictures.album(fixture.rows())


def look(own: Visit, place: str) -> None:
    """Scroll a figure into view and wait until it is drawn."""
    how = "{block: 'center', behavior: 'instant'}"
    own.page.evaluate(f"document.getElementById('{place}').scrollIntoView({how})")
    own.page.wait_for_selector(f"#{place}.drawn")


def traces(own: Visit, place: str, name: str) -> Any:
    """A list of every trace of a figure."""
    return own.page.evaluate(
        f"document.querySelector('#{place} .draw').data.map(t => [...t.{name}])"
    )


def test_histograms_are_those_of_the_album(visit: Any, album: Album) -> None:
    own = visit()
    own.ready()
    look(own, "pair-0")
    shown = [c for c in album.pairs if (c.pair, c.site) == ("image-text", "final_norm")]
    heights = traces(own, "pair-0", "y")
    assert len(heights) == 4
    for one, (random, matched) in zip(
        shown, zip(heights[::2], heights[1::2], strict=True), strict=True
    ):
        assert matched[1:-1:2] == pytest.approx([c / max(one.matched) for c in one.matched])
        assert random[1:-1:2] == pytest.approx([c / max(one.random) for c in one.random])
    told = own.text("#pair-0 .infolayer")
    assert f"closer {shown[1].wins * 100:.0f} %" in told


def test_the_axis_is_shared_until_asked_otherwise(visit: Any) -> None:
    own = visit()
    own.ready()
    look(own, "pair-0")
    layout = "document.querySelector('#pair-0 .draw').layout"
    axes = f"(l => [l.xaxis.range[0], l.xaxis2.range[0]])({layout})"
    first, second = own.page.evaluate(axes)
    assert first == second
    own.page.locator("#pair-axis").uncheck()
    own.until(f"{axes}[0] !== {axes}[1]")


def test_spectra_are_those_of_the_album(visit: Any, album: Album) -> None:
    own = visit()
    own.ready()
    look(own, "spectrum-audio")
    expected = [s for s in album.spectra if (s.modality, s.site) == ("audio", "final_norm")]
    for values, one in zip(traces(own, "spectrum-audio", "y"), expected, strict=True):
        assert values == pytest.approx(one.values, rel=1e-3)


def test_wins_run_over_the_sites(visit: Any, album: Album) -> None:
    own = visit()
    own.ready()
    look(own, "pair-1-wins")
    last = [c.wins for c in album.pairs if (c.pair, c.checkpoint) == ("audio-text", "lco")]
    values = traces(own, "pair-1-wins", "y")[1]
    assert values[0] is None
    assert values[1:] == pytest.approx(last, rel=1e-3)


def test_pairs_follow_the_layer_of_the_map(visit: Any) -> None:
    own = visit()
    own.ready()
    look(own, "pair-0")
    before = traces(own, "pair-0", "x")
    own.page.evaluate(
        "() => { const s = document.getElementById('layer');"
        " s.value = 4; s.dispatchEvent(new Event('input')); }"
    )
    assert own.page.locator("#pair-site").input_value() == "block_03"
    own.until(f"document.querySelector('#pair-0 .draw').data[0].x[0] !== {before[0][0]}")
    assert own.page.locator("#pairs [data-site-name]").first.text_content() == "block 3"
    own.page.evaluate(
        "() => { const s = document.getElementById('layer');"
        " s.value = 0; s.dispatchEvent(new Event('input')); }"
    )
    assert own.page.locator("#pair-site").input_value() == "block_03"  # embed has no pairs


def test_a_card_of_the_gallery_leads_to_the_map(visit: Any, album: Album) -> None:
    own = visit(reduced_motion="reduce")
    own.ready()
    own.page.locator("#gallery details.kind summary").first.click()
    own.page.locator("#gallery button.seek").first.click()
    kept = own.page.evaluate("document.getElementById('map-1').scatter.frame().marked.kept")
    assert kept == album.changes[0].place
    assert own.page.evaluate("document.activeElement.closest('[data-map]').id") == "map-1"


def test_a_sound_of_the_gallery_plays(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#gallery [data-sound] button.play").first.click()
    own.until("playing.src.startsWith('blob:') && playing.readyState > 0 && !playing.error")


def test_without_scripts_pictures_and_drawings_are_there(visit: Any) -> None:
    own = visit(java_script_enabled=False)
    assert own.page.locator("#pairs .static svg").first.is_visible()
    thumb = own.page.locator("#gallery .thumb").first
    thumb.scroll_into_view_if_needed()
    assert thumb.is_visible()
    assert not own.page.locator("#gallery button.seek").first.is_visible()
    for control in ("#pair-site", "#save-map", "#layer", "#near"):
        assert not own.page.locator(control).is_visible()
    assert own.page.locator("#map .legend.still").is_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_pairs_and_gallery_pass_axe(visit: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    own = visit(color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900})
    own.ready()
    for place in ("pair-0", "pair-1-wins", "spectrum-text"):
        look(own, place)
    own.page.locator("#gallery button.seek").last.click()
    own.page.locator("#colour").select_option("labels:colour")
    found = axe.Axe().run(own.page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found] == []
    assert own.page.evaluate("document.documentElement.scrollWidth") == width
