"""What the page says in words: no claim where there is none, no sentence cut, no number alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomkit.carried import GREW, NOTHING, SAME
from geomkit.types import Analysis, Difference, Interval, Transfer, Verdict
from reports.accuracies import accuracy_figure, accuracy_panels, accuracy_svg, across
from reports.book import Book, certainty
from reports.carried import bound_words, carried_panel, carried_rows, unshared
from reports.heat import Cell, heat_rows
from reports.layers import layer_groups
from reports.static import forest_svg
from reports.transfer import forest_panels
from reports.verdicts import tallies
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build


def changed(analysis: Analysis, metric: str, **fields: Any) -> Analysis:
    """The analysis with some fields of every difference of one metric changed."""
    differences = tuple(
        replace(d, **fields) if d.metric == metric and d.value is not None else d
        for d in analysis.differences
    )
    return replace(analysis, differences=differences)


def cells(analysis: Analysis, metric: str, modality: str) -> list[Cell]:
    """A row of the heat map, without gaps."""
    rows = heat_rows(layer_groups(Book(analysis)))
    (row,) = (r for r in rows if (r.metric, r.modality) == (metric, modality))
    return [cell for cell in row.cells if cell is not None]


def words(built: Built, section: str) -> str:
    """The text of one section as it is read."""
    inside = f".//*[@id='{section}']//text()[not(ancestor::script or ancestor::style)]"
    return " ".join("".join(built.tree.xpath(inside)).split())


def untold() -> Analysis:
    """The made-up analysis without verdicts, so that every change speaks for itself."""
    return replace(fixture.complete(), verdicts=())


# ------------------------------------------------------------------------------ one rule


def test_a_distance_that_the_spread_explains_is_neither_better_nor_worse() -> None:
    """Audio spreads and its distance to text grows; images spread too, and come nearer."""
    grown, nearer = (cells(untold(), "alignment", m) for m in ("audio-text", "image-text"))
    assert not any(cell.judged for cell in grown if cell.certainty != "no")
    assert all(cell.judged and cell.share > 0 for cell in nearer)


@pytest.mark.parametrize("metric", ["alignment", "modality_gap", "modality_gap_plug_in"])
def test_a_distance_without_uniformity_is_painted_by_nobody(metric: str) -> None:
    base = untold()
    only = [d for d in base.differences if d.metric == "alignment" and d.modality == "image-text"]
    alone = tuple(replace(d, metric=metric) for d in only)
    book = Book(replace(base, differences=alone))
    assert {book.status(d) for d in alone if d.improved is not None} == {"info"}


def test_what_a_verdict_says_is_what_every_panel_says() -> None:
    base = fixture.complete()
    told = tuple(
        replace(v, status="info") if v.metric == "modality_gap" else v for v in base.verdicts
    )
    analysis = replace(base, verdicts=told)
    assert not cells(analysis, "modality_gap", "image-text")[-1].judged
    (panel,) = (p for p in forest_panels(Book(analysis)) if p.title == "Modality gap")
    assert (panel.better, panel.hint) == ("neither", "explained by the spread: no claim")
    assert "better" not in forest_svg(panel)


def test_the_page_names_what_a_distance_is_read_with(built: Built) -> None:
    assert "Alignment lower is better, read with uniformity" in re.sub(
        r"(?<=[a-z])(?=lower)", " ", words(built, "verdict")
    )
    assert "Lower is better, read with uniformity." in words(built, "layers")


# ----------------------------------------------------------------------- rounding is none


def test_rounding_is_clear_nowhere() -> None:
    """1e-5 with a tenth of that as its error: sure, and less than float16 weights do."""
    tiny = Interval(0.9e-5, 1.1e-5, groups=100)
    analysis = changed(untold(), "mean_cosine", value=1e-5, interval=tiny, band=tiny)
    book = Book(analysis)
    moved = [d for d in book.differences.values() if d.metric == "mean_cosine" and d.interval]
    assert moved
    assert all(d.clear for d in moved)  # by its interval alone
    assert {certainty(d) for d in moved} == {"no"}
    for cell in cells(analysis, "mean_cosine", "image"):
        assert (cell.share, cell.certainty) == (0.0, "no")
    (group,) = (g for g in layer_groups(book) if g.metric == "mean_cosine")
    assert group.clear == 0
    assert group.measured == len(moved)
    (panel,) = (p for p in forest_panels(book) if p.title == "Anisotropy")
    assert "solid" not in forest_svg(panel)


def test_a_heat_map_where_nothing_changed_says_so(tmp_path: Path) -> None:
    analysis = fixture.complete()
    for metric in fixture.GEOMETRY:
        still = Interval(0.0, 0.0)
        analysis = changed(analysis, metric, value=0.0, interval=still, band=still)
    own = build(tmp_path, analysis)
    assert "Here none has any: nothing changed by more than rounding can do." in own.words()


# ------------------------------------------------------------------------------- controls


def test_a_control_that_was_not_measured_is_no_success(tmp_path: Path) -> None:
    base = fixture.complete()
    reason = "tilt (image->image), which no caption names: not measured (too few samples)."
    verdicts = tuple(
        replace(v, status="NOT RUN", sentence=reason) if v.metric == "probe:tilt" else v
        for v in base.verdicts
    )
    probes = tuple(
        replace(p, accuracy=None, interval=None) if p.attribute == "tilt" else p
        for p in base.probes
    )
    gone = tuple(
        replace(d, value=None, interval=None, note="too few samples.")
        if d.metric == "probe:tilt"
        else d
        for d in base.probe_differences
    )
    analysis = replace(base, verdicts=verdicts, probes=probes, probe_differences=gone)
    (tally,) = (t for t in tallies(verdicts) if (t.role, t.family) == ("control", "image"))
    assert tally.missing == sum(v.metric == "probe:tilt" for v in verdicts)
    own = build(tmp_path, analysis)
    told = words(own, "verdict")
    assert f"without a clear change, {tally.missing} not judged" in told
    assert "stayed put" not in own.words()
    table = own.tree.find(".//table[@class='verdicts']")
    assert table is not None
    assert reason.replace("->", "\u2192") in " ".join("".join(table.itertext()).split())


# -------------------------------------------------------------------------------- binding


def test_the_binding_test_has_its_verdict_in_words_beside_its_figure(built: Built) -> None:
    told = bound_words(Book(fixture.complete()))
    assert [sentence.split(" at ")[0] for sentence in told] == [
        "Binding of image to text does not hold",  # no record says that it beats the mean shift
        "Binding of audio to text does not hold",
    ]
    (figure,) = built.tree.xpath(".//*[@id='bound']/ancestor::figure")
    shown = " ".join("".join(figure.itertext()).split())
    for sentence in told:
        assert sentence in shown


def test_a_binding_test_without_a_value_says_why_once_and_stops_once(tmp_path: Path) -> None:
    base = fixture.complete()
    reason = "Expected changes that differ, got none."
    empty = tuple(replace(b, value=None, interval=None, note=reason) for b in base.bindings)
    told = words(build(tmp_path, replace(base, bindings=empty)), "transfer")
    assert (
        "Binding of image to text cannot be told at final_norm: not measured in text rows (Expected"
        " changes that differ, got none)." in told
    )
    assert ".." not in told


# ------------------------------------------------------------------------------- transfer


def test_what_was_trained_stands_at_one_and_is_marked(built: Built) -> None:
    panel = carried_panel(Book(fixture.complete()))
    assert panel is not None
    own = {row.label: (row.role, row.difference.value) for row in panel.rows}
    assert own["Anisotropy: text, trained"] == ("trained", 1.0)
    assert own["Anisotropy: image"][0] == "untrained"
    assert panel.hint == "as a share of text (trained)"
    labels = [row.label for p in forest_panels(Book(fixture.complete())) for row in p.rows]
    assert {"text (trained)", "image (untrained)", "image\u2013text"} <= set(labels)


def test_labels_make_no_claim_where_nothing_tells_what_was_trained() -> None:
    panels = forest_panels(Book(replace(fixture.complete(), trained=())))
    assert {row.label for row in panels[0].rows} == {"text", "image", "audio"}


def test_two_numbers_for_text_are_explained_beside_each_other(tmp_path: Path) -> None:
    base = fixture.complete()
    note = f"{SAME}; text went 96% of its way, image 93%"
    matched = tuple(
        replace(t, change_trained=-0.958, note=note)
        if (t.metric, t.untrained) == ("mean_cosine", "image")
        else t
        for t in base.transfers
    )
    analysis = replace(base, transfers=matched)
    (own,) = (c for c in carried_rows(Book(analysis)) if c.whole is not None)
    assert own.whole is not None
    assert own.whole.value == pytest.approx(-0.571)
    assert own.note == "text went 96% of its way, image 93%"
    told = words(build(tmp_path, analysis), "transfer")
    assert "Two numbers for text." in told
    assert "images against their own captions" in told
    assert "\u22120.958 all text \u22120.571" in re.sub(r"(?=all text)", " ", told).replace(
        "  ", " "
    )
    assert "Two numbers" not in words(build(tmp_path), "transfer")


def test_no_remark_of_a_transfer_is_cut(tmp_path: Path) -> None:
    base = fixture.complete()
    long = "by the change itself it is 'more than in the trained modality'; they start at " * 4
    told = tuple(replace(t, note=f"{long}end of the remark") for t in base.transfers)
    built = build(tmp_path, replace(base, transfers=told))
    assert words(built, "transfer").count("end of the remark") == len(told)


def test_a_verdict_of_a_transfer_has_the_status_of_its_words(tmp_path: Path) -> None:
    base = fixture.complete()
    own = tuple(replace(t, verdict=GREW) if t.metric == "alignment" else t for t in base.transfers)
    built = build(tmp_path, replace(base, transfers=own))
    chips = built.tree.xpath(".//*[contains(@class, 's-info')][contains(., 'grew as states')]")
    assert len(chips) == sum(t.metric == "alignment" for t in own)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trained": ()}, "what training saw is not recorded"),
        ({"modalities": ("text",)}, "this run has no modality that training did not see"),
        ({"modalities": ("image",)}, "this run has no rows of what training saw, text"),
        ({"sites": ("block_00",)}, "transfer is told at the final norm, which this analysis left"),
        ({"transfers": ()}, "this analysis has no transfer records"),
    ],
)
def test_why_there_is_no_share(changes: dict[str, Any], told: str) -> None:
    assert unshared(Book(replace(fixture.complete(), **changes))).startswith(told)


def test_nothing_to_carry_over_is_no_missing_counterpart() -> None:
    base = fixture.complete()
    still: tuple[Transfer, ...] = tuple(
        replace(t, verdict=NOTHING, ratio=None, interval=None) for t in base.transfers if t.trained
    )
    told = unshared(Book(replace(base, transfers=still)))
    assert told == "text did not clearly improve, so there is nothing to carry over"


# ------------------------------------------------------------------------- degenerate pages


def test_losses_are_explained_only_where_there_are_some(tmp_path: Path, built: Built) -> None:
    assert "Generative losses are at the head" in words(built, "verdict")
    base = fixture.complete()
    without = replace(
        base,
        measurements=tuple(m for m in base.measurements if m.site != "lm_head"),
        differences=tuple(d for d in base.differences if d.site != "lm_head"),
        verdicts=tuple(v for v in base.verdicts if v.metric != "generative_loss"),
    )
    told = build(tmp_path, without)
    assert "losses are at the head" not in told.words()
    assert words(told, "loss").startswith("Generation and training How the training went.")


def test_one_checkpoint_is_told_as_one(tmp_path: Path) -> None:
    base = fixture.analysis()
    alone = replace(
        base,
        checkpoints=(fixture.BEFORE,),
        measurements=tuple(m for m in base.measurements if m.checkpoint == fixture.BEFORE),
        probes=tuple(p for p in base.probes if p.checkpoint == fixture.BEFORE),
        differences=(), probe_differences=(), trained=(),
        verdicts=(Verdict("mean_cosine", "text", "untrained", "NOT RUN", "one checkpoint."),),
        provenance={"checkpoints": base.provenance["checkpoints"][:1]},
    )  # fmt: skip
    projection = fixture.projection()
    sites = tuple(
        replace(s, coordinates=None if s.coordinates is None else s.coordinates[:1])
        for s in projection.sites
    )
    shown = replace(projection, checkpoints=(fixture.BEFORE,), sites=sites)
    built = build(tmp_path, alone, projection=shown)
    for section in ("verdict", "transfer", "layers", "map", "gallery", "pairs", "probes"):
        told = words(built, section)
        for silly in ("before and after", "Before", "After", "unknown modalities", "untrained"):
            assert silly not in told or "no before and after" in told, (section, silly)
    assert "a second checkpoint would be compared with these values" in words(built, "verdict")
    assert "Agree" not in words(built, "provenance")


def test_a_gallery_where_nothing_moved_shows_nothing(tmp_path: Path) -> None:
    rows = fixture.rows(60)
    album = pictures.album(rows)
    still = replace(
        album,
        changes=tuple(
            replace(c, kept=c.k, after=c.before, rank_after=c.rank_before) for c in album.changes
        ),
    )
    told = words(build(tmp_path, rows=rows, album=still), "gallery")
    assert "No sample shown here has other neighbours than before" in told
    assert "changed most" not in told
    some = replace(still, changes=(album.changes[0], *still.changes[1:]))
    told = words(build(tmp_path, rows=rows, album=some), "gallery")
    assert "changed most" in told
    assert "Audio: no sample shown here has other neighbours than before." in told


# --------------------------------------------------------------------------------- probes


def test_chance_and_majority_are_drawn_where_the_accuracies_are(built: Built) -> None:
    book = Book(fixture.complete())
    panels = accuracy_panels(book)
    assert [p.attribute for p in panels] == [*fixture.SPOKEN, *fixture.SILENT]
    panel = panels[0]
    assert [row.title for row in panel.rows][:2] == ["text \u2192 text", "text \u2192 image"]
    drawing = accuracy_svg(panel)
    chance, majority = (f'x1="{across(v):.1f}"' for v in (0.25, 0.271))
    assert drawing.count('class="chance"') == drawing.count('class="majority"') == len(panel.rows)
    assert f"<line {chance}" in drawing
    assert f"<line {majority}" in drawing
    shapes = accuracy_figure(panel)["layout"]["shapes"]
    strokes = sorted({s["x0"] for s in shapes if s["type"] == "line"})
    assert strokes == pytest.approx([0.25, 0.271])
    marks = [t for t in accuracy_figure(panel)["data"] if t["mode"] == "markers"]
    assert len(marks) == 2 * len(panel.rows)  # before and after
    assert len(built.tree.xpath(".//*[@id='probes']//*[@data-figure]")) == len(panels)
    assert "dotted: chance, dashed: majority" in words(built, "probes")


def test_an_accuracy_that_was_not_measured_is_not_drawn() -> None:
    base = fixture.complete()
    gone = tuple(
        replace(p, accuracy=None, interval=None)
        if (p.attribute, p.train_on, p.checkpoint) == ("shape", "text", fixture.AFTER)
        else p
        for p in base.probes
    )
    panel = accuracy_panels(Book(replace(base, probes=gone)))[0]
    assert len(panel.rows) == 4
    assert len(accuracy_figure(panel)["data"]) == 6
    none = tuple(replace(p, accuracy=None, interval=None) for p in base.probes)
    assert accuracy_panels(Book(replace(base, probes=none))) == ()


def test_a_reason_is_in_the_table_of_differences(tmp_path: Path) -> None:
    base = fixture.complete()
    reason = "Expected rows that differ, got 40 rows that are equal to float32 resolution."
    gone: tuple[Difference, ...] = tuple(
        replace(d, value=None, interval=None, note=reason)
        if (d.metric, d.site) == ("mean_cosine", "final_norm")
        else d
        for d in base.differences
    )
    told = words(build(tmp_path, replace(base, differences=gone)), "transfer")
    assert told.count(reason.rstrip(".")) >= 3
    assert f"{reason}." not in told
