"""More than two checkpoints, and what was logged while training."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from geomkit.merged import merged
from reports.book import Book
from reports.ladder import ladder_panels, ladder_rows
from reports.layers import layer_groups
from reports.lines import Line, LinesPanel, lines_svg
from reports.training import geometry_panels, training_panels
from tests.reports import fixture
from tests.reports.conftest import build
from tests.reports.test_page import unpacked


def test_checkpoints_keep_the_order_they_were_named_in() -> None:
    (anisotropy, *_) = ladder_panels(Book(fixture.trajectory()))
    assert anisotropy.names == ("base", "step-40", "step-80", "soup", "lco")
    text = anisotropy.lines[0]
    assert text.family == "text"
    assert [v is not None for v in text.values] == [True] * 5
    assert text.values[0] == pytest.approx(0.912)
    assert text.values[-1] == pytest.approx(0.341)


def test_those_in_the_middle_are_lines_over_the_sites() -> None:
    panel = layer_groups(Book(fixture.trajectory()))[0].panels[0]
    assert [name for name, _ in panel.between] == ["step-40", "step-80", "soup"]
    assert panel.before[-1] is not None
    assert panel.before[-1].checkpoint == "base"


def test_two_checkpoints_are_no_ladder() -> None:
    assert ladder_panels(Book(fixture.complete())) == ()
    assert ladder_rows(Book(fixture.complete())) == ()


def test_the_page_names_the_reference_and_every_checkpoint(tmp_path: Path) -> None:
    built = build(tmp_path, fixture.trajectory())
    section = built.tree.find(".//section[@id='checkpoints']")
    assert section is not None
    words = " ".join("".join(section.itertext()).split())
    assert "5 checkpoints in the order they were named" in words
    assert "The reference is base" in words
    curves = json.loads(unpacked(built))["curves"]
    assert (curves["before"], curves["after"]) == ("base", "lco")
    assert curves["between"] == ["step-40", "step-80", "soup"]
    paths = built.tree.xpath("//*[@id='layers-0-0']//*[local-name() = 'path']")
    middle = [p.get("d") for p in paths if "between" in p.get("class")]
    assert len(middle) == 2 * len(curves["between"])  # over the blocks, and at the final norm
    assert all(re.fullmatch(r"M\d+ \d+l-?\d+[\d -]+", way) for way in middle)


def test_runs_with_references_of_their_own_compare_the_last_with_its_own() -> None:
    base = fixture.complete()
    records = [{**r, "weights_sha": r["name"]} for r in base.provenance["checkpoints"]]
    other = replace(base, provenance={**base.provenance, "checkpoints": records})
    book = Book(merged({"a": base, "b": other}))
    assert (book.before, book.after) == ("b/base", "b/lco")
    assert book.between == ("a/base", "a/lco")
    assert book.differences


def test_the_log_becomes_curves_and_the_live_geometry_too() -> None:
    provenance = fixture.provenance()
    assert [p.title for p in training_panels(provenance)] == [
        "Contrastive loss",
        "In-batch accuracy",
        "Learning rate",
    ]
    anisotropy, paired = geometry_panels(provenance)
    assert [one.family for one in anisotropy.lines] == ["text", "image", "audio"]
    assert anisotropy.lines[2].values[0] is None  # not defined at first
    assert len(anisotropy.lines[2].points) == 6
    assert paired.title == "Paired cosine"


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"steps": "no list", "geometry": {}},
        {"steps": [{"loss": 1.0}], "geometry": [{"step": 1}]},
        {"steps": [{"step": 1, "loss": True}, {"step": 2, "loss": None}], "geometry": [3]},
    ],
)
def test_a_log_of_another_shape_is_no_curve(training: object) -> None:
    provenance = {"checkpoints": [{"name": "x", "training": training}]}
    assert training_panels(provenance) == ()
    assert geometry_panels(provenance) == ()


def test_one_place_is_drawn_as_a_mark() -> None:
    panel = LinesPanel("x", "X", "", (Line("text", "text", (0.0,), (0.5,)),), ("only",))
    assert "<circle" in lines_svg(panel)
