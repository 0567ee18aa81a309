"""The page in a real browser, offline: no errors, no requests, usable by mouse and keyboard.

State is read from the document, not from pixels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.layers import SET_APART
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build
from tests.reports.test_page import HOSTILE, hostile_analysis
from tests.reports.visiting import needs_browser

pytestmark = needs_browser


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390), ("light", 3840)])
def test_every_figure_is_drawn_and_nothing_overflows(visit: Any, scheme: str, width: int) -> None:
    own = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    own.ready()
    own.walk()
    assert own.page.evaluate("document.documentElement.scrollWidth") == width
    assert own.text("#trouble") == ""


def test_the_plotting_library_adds_no_button(visit: Any) -> None:
    """Neither an upload nor a second way to save: figures have the page's own menu alone."""
    own = visit()
    own.ready()
    own.walk()
    assert own.page.locator(".modebar-btn").count() == 0
    stops = own.page.evaluate(
        "[...document.querySelectorAll('.draw *')].filter(e => e.tabIndex >= 0).length"
    )
    assert stops == 0


def test_a_figure_is_one_tab_stop_after_its_title(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#transfer-0").scroll_into_view_if_needed()
    own.page.wait_for_selector("#transfer-0.drawn")
    named = "document.activeElement.getAttribute('aria-label')"
    own.page.get_by_label("Save Anisotropy, change from before to after", exact=True).focus()
    own.page.keyboard.press("Tab")
    assert own.page.evaluate(named).startswith("Save Uniformity")
    own.page.keyboard.press("Enter")
    for name in ("SVG", "PNG", "CSV", "JSON"):
        own.page.keyboard.press("Tab")
        assert own.page.evaluate("document.activeElement.textContent") == name
    own.page.keyboard.press("Escape")
    assert own.page.evaluate(named).startswith("Save Uniformity")
    assert not own.page.evaluate("document.activeElement.parentElement.open")


def test_it_reads_without_scripts(visit: Any) -> None:
    own = visit(java_script_enabled=False)
    assert own.page.locator(".verdicts .chip").count() == len(fixture.analysis().verdicts)
    assert own.page.locator(".static svg").first.is_visible()
    assert not own.page.locator("#theme").is_visible()
    assert not own.page.locator("#card").is_visible()
    own.page.locator("details.numbers summary").first.click()
    assert own.page.locator("details.numbers table").first.is_visible()


def test_hover_names_the_site_under_the_pointer(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#layers-0-0").scroll_into_view_if_needed()
    own.page.wait_for_selector("#layers-0-0.drawn")
    panel = own.page.locator("#layers-0-0 .nsewdrag").bounding_box()

    def hover(place: float) -> str:
        span = len(fixture.SITES) - 2 + SET_APART + 1
        own.page.mouse.move(panel["x"] + panel["width"] * (place + 0.5) / span, panel["y"] + 40)
        own.page.wait_for_timeout(300)
        return own.text("#layers-0-0 .hoverlayer")

    third, first = hover(4.0), hover(0.0)
    assert "block 3" in third
    assert "lco : 0.679 [0.635, 0.723]" in third
    assert "embed: all last-token states are equal" in first


def test_theme_toggle_recolours_the_figures(visit: Any) -> None:
    own = visit(color_scheme="light")
    own.ready()
    own.walk()
    ink = "document.querySelector('#transfer-0 .draw').data[0].marker.color"
    ground = "getComputedStyle(document.body).backgroundColor"
    light = own.page.evaluate(f"[{ink}, {ground}]")
    own.page.locator("#theme").click()
    own.until(f"{ink} !== '{light[0]}'")
    dark = own.page.evaluate(f"[{ink}, {ground}]")
    assert light[0] == "rgb(0, 114, 178)"
    assert dark[1] != light[1]
    assert own.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_print_shows_the_still_drawings(visit: Any) -> None:
    own = visit(color_scheme="dark")
    own.ready()
    own.page.emulate_media(media="print")
    assert not own.page.locator(".bar").is_visible()
    assert own.page.locator("#map-0 .static svg").is_visible()
    assert not own.page.locator("#map-0 .draw").is_visible()


def test_downloads(visit: Any, built: Built) -> None:
    own = visit(accept_downloads=True)
    own.ready()

    def saved(name: str) -> str:
        with own.page.expect_download() as download:
            own.page.get_by_role("button", name=f"Save {name}", exact=True).click()
        return Path(download.value.path()).read_text(encoding="utf-8")

    assert json.loads(saved("report.json")) == built.numbers
    assert "metric" in saved("measurements.csv").splitlines()[0]
    own.page.locator("#points summary").click()
    assert (
        saved("these as CSV").splitlines()[0]
        == "id,modality,caption,site,before_x,before_y,after_x,after_y"
        ",before_partner_cosine,after_partner_cosine"
    )


@pytest.mark.parametrize(
    "text", ["".join(t for t in HOSTILE if len(t) < 100), "x" * 10_000], ids=["code", "long"]
)
def test_hostile_text_runs_nothing(visit: Any, tmp_path: Path, text: str) -> None:
    rows = tuple(
        replace(r, text=text, id=text + r.id, labels={text: text}) for r in fixture.rows(12)
    )
    hostile = build(tmp_path, hostile_analysis(text), rows=rows, album=pictures.album(rows))
    own = visit(hostile.path)
    own.ready()
    own.walk()
    own.page.locator("#map-1 .scatter").focus()
    own.page.keyboard.press("ArrowRight")
    own.page.keyboard.press("Enter")
    own.page.wait_for_selector("#card-body:not([hidden])")
    own.page.locator("#colour").select_option(index=1)
    own.page.locator("#points summary").click()
    assert own.page.evaluate("window.hacked") is None
    assert own.page.locator("img").count() == 0
    assert own.text("#card-body .caption").startswith(text[:100])
    assert own.page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing_serious(visit: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    # The policy forbids foreign scripts, so axe alone gets a page without one.
    own = visit(color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900})
    own.ready()
    own.walk()
    own.page.locator("#points summary").click()
    own.page.locator("#point-rows button").first.click()
    for fold in own.page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    found = axe.Axe().run(own.page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found] == []
