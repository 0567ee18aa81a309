"""What each panel shows, before anything is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geomkit.types import Interval
from reports.book import Book, certainty, reach
from reports.carried import bound_panel, carried_panel, carried_rows
from reports.heat import heat_rows
from reports.layers import SET_APART, layer_families, layer_groups, runs, site_places
from reports.metrics import family_of
from reports.static import ticks
from reports.transfer import crosses, forest_panels
from reports.verdicts import tallies
from tests.reports import fixture


@pytest.fixture
def book() -> Book:
    return Book(fixture.analysis())


def test_final_norm_stands_apart() -> None:
    places = site_places(("embed", "block_00", "block_01", "final_norm"))
    assert places == (0.0, 1.0, 2.0, 2.0 + SET_APART)
    assert site_places(("final_norm",)) == (0.0,)


def test_a_gap_breaks_the_line_and_keeps_its_reason(book: Book) -> None:
    panel = layer_groups(book)[0].panels[0]
    whole = panel.before[3]
    assert whole is not None
    for missing, expected in ((replace(whole, value=None), [2, 3, 1]), (None, [5, 1])):
        before = (*panel.before[:3], missing, *panel.before[4:])
        lengths = [len(stretch) for stretch in runs(panel, before)]
        assert lengths == expected  # blocks 0-1, 3-5, final norm; nobody measured block 2: no gap
    assert panel.gaps == (("embed", fixture.EMBED_NOTE),)


def test_every_transfer_axis_holds_zero_and_every_interval(book: Book) -> None:
    panels = forest_panels(book)
    assert len(panels) == len(fixture.GEOMETRY) + 3
    for panel in panels:
        ends = [
            v for row in panel.rows for v in reach(row.difference.value, row.difference.interval)
        ]
        assert panel.low < min(0.0, *ends)
        assert max(0.0, *ends) < panel.high


def test_controls_have_their_own_panel_and_spoken_attributes_cross(book: Book) -> None:
    *_, seen, heard, silent = forest_panels(book)
    assert [p.control for p in (seen, heard, silent)] == [False, False, True]
    names = {row.difference.metric.removeprefix("probe:") for row in silent.rows}
    assert names == set(fixture.SILENT)
    assert {row.difference.modality for row in silent.rows} == {"image->image", "audio->audio"}
    spoken = [row.difference for row in (*seen.rows, *heard.rows)]
    assert all(crosses(d.modality) for d in spoken)
    assert {d.metric.removeprefix("probe:") for d in spoken} == set(fixture.SPOKEN)


def test_a_control_that_moved_is_shown_wherever_it_did() -> None:
    base = fixture.analysis()
    moved = tuple(
        replace(d, value=0.4, interval=fixture.around(0.4, 0.1))
        if (d.metric, d.modality) == ("probe:tilt", "text->image")
        else d
        for d in base.probe_differences
    )
    *_, silent = forest_panels(Book(replace(base, probe_differences=moved)))
    assert "text->image" in {row.difference.modality for row in silent.rows}


def test_the_share_that_carried_over_stands_between_none_and_all() -> None:
    panel = carried_panel(Book(fixture.complete()))
    assert panel is not None
    assert panel.low < 0.0
    assert panel.high > 1.0 == panel.lines[0]
    shares = {row.label: row.difference.value for row in panel.rows}
    assert shares["Anisotropy: image"] == pytest.approx(0.402 / 0.571)
    assert not any("Alignment" in name for name in shares)  # a pair has no counterpart in text


def test_a_share_of_the_way_is_preferred_to_a_share_of_the_change() -> None:
    base = fixture.complete()
    first = replace(
        base.transfers[0], closed_ratio=0.9, closed_interval=Interval(0.8, 1.0), ratio=0.4
    )
    (own, *_) = carried_rows(Book(replace(base, transfers=(first,))))
    assert (own.share, own.interval, own.closed) == (0.9, Interval(0.8, 1.0), True)


def test_bindings_stand_beside_their_ceiling_and_the_higher_floor() -> None:
    panel = bound_panel(Book(fixture.complete()))
    assert panel is not None
    assert panel.site == "final_norm"
    own = {row.label: (row.difference.value, row.family) for row in panel.rows}
    assert own["image: text map"] == (0.61, "image")
    assert own["image: floor"] == (0.04, "floor")
    assert not any(label.startswith("text:") for label in own)


def test_bindings_without_a_value_are_no_panel() -> None:
    base = fixture.complete()
    empty = tuple(replace(b, value=None, interval=None, note="too few") for b in base.bindings)
    assert bound_panel(Book(replace(base, bindings=empty))) is None


def test_without_records_nothing_is_drawn(book: Book) -> None:
    assert carried_panel(book) is None
    assert bound_panel(book) is None


def test_heat_is_the_share_of_the_largest_change_and_its_sign_is_better_or_worse() -> None:
    rows = heat_rows(layer_groups(Book(fixture.complete())))
    own = {(row.metric, row.modality): row.cells for row in rows}
    text, audio = own["mean_cosine", "text"], own["alignment", "audio-text"]
    assert text[-1] is not None
    assert audio[-1] is not None
    assert text[-1].share == 1.0  # the largest change, and lower is better
    assert audio[-1].share < 0  # it grew
    assert text[0] is None  # embed has no values
    assert text[-1].certainty == "everywhere"
    weak = own["retrieval_r1", "text->audio"][-1]
    assert weak is not None
    assert weak.certainty == "no"


@pytest.mark.parametrize(
    ("interval", "band", "told"),
    [
        (Interval(0.1, 0.3), Interval(0.05, 0.4), "everywhere"),
        (Interval(0.1, 0.3), Interval(-0.1, 0.5), "here"),
        (Interval(0.1, 0.3), None, "here"),
        (Interval(-0.1, 0.3), Interval(-0.2, 0.4), "no"),
        (Interval(-0.3, -0.1), Interval(-0.4, -0.01), "everywhere"),
    ],
)
def test_a_change_is_clear_everywhere_only_by_its_band(
    interval: Interval, band: Interval | None, told: str
) -> None:
    base = fixture.analysis().differences[5]
    assert certainty(replace(base, interval=interval, band=band)) == told
    assert certainty(None) == "no"


def test_metrics_are_read_in_families() -> None:
    families = layer_families(layer_groups(Book(fixture.complete())))
    assert [f.family.key for f in families] == ["headline", "drift"]
    assert family_of("recall@5") == "retrieval"
    assert family_of("mean_cosine_raw") == "other"  # only the exact name makes a verdict
    assert family_of("something new") == "other"


def test_roles(book: Book) -> None:
    assert book.role("mean_cosine", "text") == "trained"
    assert book.role("mean_cosine", "image") == "untrained"
    assert book.role("alignment", "image-text") == "untrained"
    assert book.role("probe:tilt", "text->image") == "control"


def test_the_panels_of_a_metric_share_their_range(book: Book) -> None:
    for group in layer_groups(book):
        assert len({(p.low, p.high) for p in group.panels}) == 1


def test_a_far_chance_level_is_said_instead_of_drawn(book: Book) -> None:
    groups = {g.metric: g for g in layer_groups(book)}
    assert groups["effective_rank"].off_scale == 128.0
    assert groups["effective_rank"].panels[0].high < 60
    assert groups["mean_cosine"].off_scale is None
    assert groups["mean_cosine"].panels[0].low < 0.0


def test_tallies_count_only_what_was_judged(book: Book) -> None:
    own = {(t.role, t.family): t for t in tallies(book.analysis.verdicts)}
    audio = own["untrained", "audio"]
    statuses = [status for status, _ in audio.statuses]
    assert audio.passed == statuses.count("PASS")
    assert audio.judged == sum(s in ("PASS", "FAIL", "WARN") for s in statuses) < len(statuses)
    control = own["control", "audio"]
    assert control.passed == control.judged == 4  # info says of a control that it stayed


def test_a_third_checkpoint_is_compared_first_with_last() -> None:
    base = fixture.analysis()
    middle = tuple(replace(d, after="middle", value=99.0) for d in base.differences)
    book = Book(
        replace(
            base, checkpoints=("base", "middle", "lco"), differences=(*middle, *base.differences)
        )
    )
    assert all(d.value != 99.0 for d in book.differences.values())


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.9, 0.2), (0.001, 0.0042), (5.0, 5000.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    own = ticks(low, high)
    assert 2 <= len(own) <= 6
    assert all(low <= tick <= high for tick in own)
