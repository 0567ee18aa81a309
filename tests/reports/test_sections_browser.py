"""The sections around the map in a browser: heat map, families, downloads, a phone, refresh."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.page import Target, write_report
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build
from tests.reports.visiting import needs_browser

pytestmark = needs_browser


def test_a_cell_of_the_heat_map_moves_the_map_and_the_map_marks_the_heat_map(visit: Any) -> None:
    own = visit()
    own.ready()
    cells = own.page.locator("#heat-live tbody tr").first.locator("button")
    assert cells.count() == len(fixture.SITES) - 1  # embed has no value
    cells.nth(2).click()
    own.until("document.querySelector('#layer-name').textContent === 'block 2'")
    assert own.text("#heat-live thead th.now") == "2"
    own.page.locator("#layer").focus()
    own.page.keyboard.press("ArrowRight")
    own.until("document.querySelector('#heat-live thead th.now').textContent === '3'")


def test_arrow_keys_walk_the_cells_and_the_numbers_are_said(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#heat-live button").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        own.page.keyboard.press(key)
    assert own.text("#heat-said").startswith("Anisotropy, image, block 2: ")
    assert own.page.locator("#heat-live button[tabindex='0']").count() == 1
    own.page.keyboard.press("Enter")
    own.until("document.querySelector('#layer-name').textContent === 'block 2'")


def test_the_heat_map_has_a_view_a_modality_and_a_view_a_measure(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#heat-view").select_option(label="Alignment")
    names = own.page.locator("#heat-live tbody th").all_text_contents()
    assert names == ["image\u2013text", "audio\u2013text"]


def test_other_measures_are_drawn_when_their_question_is_opened(visit: Any) -> None:
    own = visit()
    own.ready()
    fold = own.page.locator("#family-drift")
    assert not fold.locator(".plot").first.is_visible()
    fold.locator("> summary").click()
    fold.locator(".plot.drawn").first.wait_for()


def saved(own: Any, click: Any) -> bytes:
    with own.page.expect_download() as download:
        click()
    return Path(download.value.path()).read_bytes()


def test_tables_are_saved_as_csv(visit: Any, built: Built) -> None:
    own = visit(accept_downloads=True)
    own.ready()
    text = saved(own, own.page.get_by_role("button", name="Save differences.csv").click).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    told = built.numbers["analysis"]
    expected = [*told["differences"], *told["probe_differences"]]
    assert len(rows) == len(expected)
    last = rows[len(told["differences"]) - 1], told["differences"][-1]
    assert float(last[0]["value"]) == last[1]["value"]
    assert float(last[0]["interval_high"]) == last[1]["interval"]["high"]
    assert "interval" not in rows[0]


def test_csv_text_is_never_a_formula(visit: Any, tmp_path: Path) -> None:
    base = fixture.complete()
    first = replace(base.measurements[0], note="=HYPERLINK(1)", modality="-x")
    own = visit(
        build(tmp_path, replace(base, measurements=(first, *base.measurements[1:]))).path,
        accept_downloads=True,
    )
    own.ready()
    text = saved(own, own.page.get_by_role("button", name="Save measurements.csv").click).decode()
    row = next(csv.DictReader(io.StringIO(text)))
    assert (row["note"], row["modality"]) == ("'=HYPERLINK(1)", "'-x")


@pytest.mark.parametrize(("kind", "begins"), [("SVG", b"<svg"), ("PNG", b"\x89PNG")])
def test_a_figure_is_saved_as_it_is_seen(visit: Any, kind: str, begins: bytes) -> None:
    own = visit(accept_downloads=True)
    own.ready()
    own.page.locator("#carried").scroll_into_view_if_needed()
    own.page.wait_for_selector("#carried.drawn")
    group = own.page.get_by_role("group", name="Save Carried over", exact=False).first
    content = saved(own, group.get_by_role("button", name=kind).click)
    assert content.startswith(begins)


def test_on_a_phone_nothing_is_cut_off(visit: Any) -> None:
    own = visit(viewport={"width": 390, "height": 844})
    own.ready()
    edges = own.page.evaluate(
        "[...document.querySelectorAll('.bar a, .verdicts .chip, .verdicts .a-i')]"
        ".map(e => e.getBoundingClientRect().right)"
    )
    assert edges
    assert max(edges) <= 390
    shown = own.page.evaluate(
        "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)"
        "(document.querySelector('.verdicts').closest('.scroll'))"
    )
    assert shown == 0  # cards, nothing to scroll sideways


def test_a_watched_page_loads_itself_anew_and_another_does_not(visit: Any, tmp_path: Path) -> None:
    rows = fixture.rows(12)
    page = tmp_path / "watched.html"
    target = Target(page, refresh=3)
    write_report(fixture.complete(), fixture.projection(rows), rows, {}, target)
    own = visit(page)
    own.ready()
    with own.page.expect_navigation(timeout=60_000):
        pass
    own.ready()
    own.page.keyboard.press("Tab")  # somebody is reading
    own.page.evaluate("window.reading = true")
    own.page.wait_for_timeout(4500)
    assert own.page.evaluate("window.reading") is True


def test_a_trajectory_is_drawn(visit: Any, tmp_path: Path) -> None:
    rows = fixture.rows()
    own = visit(build(tmp_path, fixture.trajectory(), album=pictures.album(rows)).path)
    own.ready()
    own.walk()
    assert own.page.locator("#ladder-0.drawn").count() == 1
