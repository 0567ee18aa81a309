"""The sections around the map in a browser: heat map, families, downloads, a phone, refresh."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lxml import etree

from geomkit.types import Interval
from reports import words
from reports.columns import mirror
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


BEGINS = {"SVG": b"<svg", "PNG": b"\x89PNG"}
FIGURES = ("carried", "layers-0-1", "heat", "map-1", "pair-0", "spectrum-audio", "training-loss")


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_saved_as_picture_and_as_numbers(visit: Any, figure: str) -> None:
    own = visit(accept_downloads=True)
    own.ready()
    own.page.locator(f"#{figure}").scroll_into_view_if_needed()
    menu = own.page.locator(f"figure:has(#{figure}) details.saves, #{figure} details.saves").first
    got = {}
    for kind in ("SVG", "PNG", "CSV", "JSON"):
        menu.locator("summary").click()
        got[kind] = saved(own, menu.get_by_role("button", name=kind, exact=True).click)
        own.until("!document.querySelector('details.saves[open]')")
    for kind, begins in BEGINS.items():
        assert got[kind].startswith(begins)
    assert etree.fromstring(got["SVG"]).tag.endswith("svg")
    told, rows = json.loads(got["JSON"]), list(csv.DictReader(io.StringIO(got["CSV"].decode())))
    assert len(told) == len(rows) > 0


def test_what_is_saved_of_a_curve_is_in_the_report(visit: Any, built: Built) -> None:
    own = visit(accept_downloads=True)
    own.ready()
    menu = own.page.locator("figure:has(#layers-0-1) details.saves")
    menu.scroll_into_view_if_needed()
    menu.locator("summary").click()
    told = json.loads(saved(own, menu.get_by_role("button", name="JSON", exact=True).click))
    analysis = built.numbers["analysis"]
    expected = [
        {"record": kind} | one
        for kind in ("measurement", "difference")
        for one in analysis[f"{kind}s"]
        if (one["metric"], one["modality"]) == ("mean_cosine", "image")
    ]
    assert told == expected


def test_the_drawing_of_the_heat_map_has_its_cells_and_words(visit: Any) -> None:
    own = visit(accept_downloads=True, color_scheme="dark")
    own.ready()
    menu = own.page.locator("#heat details.saves")
    menu.scroll_into_view_if_needed()
    menu.locator("summary").click()
    drawing = saved(own, menu.get_by_role("button", name="SVG", exact=True).click).decode()
    words = own.page.locator("#heat-live tbody th").all_text_contents()
    assert all(word in drawing for word in words)
    assert drawing.count("<rect") > own.page.locator("#heat-live td button").count()
    assert "color(" not in drawing  # only colours that every program reads


def test_numbers_of_folded_measures_are_made_from_the_records(visit: Any, built: Built) -> None:
    own = visit()
    own.ready()
    fold = own.page.locator("#family-drift")
    fold.locator("> summary").click()
    table = fold.locator("details.made").first
    assert table.locator("td").count() == 0
    table.locator("summary").click()
    table.locator("td").first.wait_for()
    drifts = [d for d in built.numbers["analysis"]["drifts"] if d["modality"] == "text"]
    shown = table.locator("tbody tr td:nth-child(3)").all_text_contents()
    assert shown[0] == "\u2013"
    assert [float(text) for text in shown[1:]] == pytest.approx([d["value"] for d in drifts[1:]])


def test_curves_are_those_of_the_report(visit: Any, built: Built) -> None:
    own = visit()
    own.ready()
    own.page.locator("#layers-3-1").scroll_into_view_if_needed()
    own.page.wait_for_selector("#layers-3-1.drawn")
    told = own.page.evaluate(
        "document.querySelector('#layers-3-1 .draw').data"
        ".filter(t => t.name === 'base' || t.name === 'lco').map(t => [t.name, t.y, t.customdata])"
    )
    metric, kind = "alignment", "audio-text"
    for name in ("base", "lco"):
        expected = [
            m
            for m in built.numbers["analysis"]["measurements"]
            if (m["metric"], m["modality"], m["checkpoint"]) == (metric, kind, name)
            and m["value"] is not None
        ]
        own_values = [y for who, ys, _ in told if who == name for y in ys]
        assert own_values == [m["value"] for m in expected]
        texts = [text for who, _, own_texts in told if who == name for text in own_texts]
        spans = [Interval(m["interval"]["low"], m["interval"]["high"]) for m in expected]
        assert texts == [
            words.with_interval(m["value"], span) for m, span in zip(expected, spans, strict=True)
        ]


def test_the_script_reads_every_record_as_it_was(visit: Any, built: Built) -> None:
    own = visit(accept_downloads=True)
    own.ready()
    text = saved(own, own.page.get_by_role("button", name="Save report.json").click)
    assert json.loads(text) == built.numbers
    rng = np.random.default_rng(1)
    ends = [[float(f"{v:.6g}") for v in pair] for pair in rng.normal(size=(300, 2))]
    steps = own.page.evaluate(f"{ends}.map(([m, l], i) => mirror(m, l, (i % 3) - 1))")
    assert steps == [mirror(m, low, i % 3 - 1) for i, (m, low) in enumerate(ends)]


def test_the_script_writes_numbers_as_the_tables_do(visit: Any) -> None:
    own = visit()
    own.ready()
    rng = np.random.default_rng(0)
    values = [0.0, 0.125, -0.375, 2.5, 1234567.0, -1e-7, 99999.5, 0.000123, 1000.0, 9.996, 0.65]
    values += [float(v) for v in rng.normal(size=100) * 10.0 ** rng.integers(-6, 7, 100)]
    assert own.page.evaluate(f"{values}.map(v => numberText(v))") == [
        words.number(v) for v in values
    ]
    places = (
        "[0, 1, 2, 3].flatMap(p => [0.125, 0.5, 1.5, 2.5, -0.25, 0.045].map(v => numberText(v, p)))"
    )
    assert own.page.evaluate(places) == [
        words.number(v, p) for p in range(4) for v in (0.125, 0.5, 1.5, 2.5, -0.25, 0.045)
    ]


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
    names = own.page.evaluate("document.querySelector('#layers-0-0 .draw').data.map(t => t.name)")
    assert {"base", "step-40", "step-80", "soup", "lco"} <= set(names)
