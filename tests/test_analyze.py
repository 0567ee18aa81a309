from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits

from geomkit import estimates, stages
from geomkit.analyze import (
    Probes,
    analyze_run,
    complete,
    stored_analysis,
    survey_of,
    trained_on,
)
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import StoreError, UsageError
from geomkit.generative import generative_loss
from geomkit.geometry import uniformity_floor
from geomkit.progress import silent
from geomkit.store import records
from geomkit.types import Analysis, Findings
from tests.synthetic_run import (
    NARROW,
    SITES,
    WIDE,
    synthetic_plan,
    synthetic_record,
    synthetic_states,
    write_run,
)

TEXT_ONLY = {"media": {"text": 64, "image": 0, "audio": 0}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze") / "run"
    return write_run(path, {"base": NARROW, "lco": WIDE}, scenes=60, training=TEXT_ONLY)


@pytest.fixture(scope="module")
def analysis(run):
    return analyze_run(run)


def brute_mean_cosine(states):
    u = states.astype(np.float64)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    cosines = u @ u.T
    return cosines[~np.eye(len(u), dtype=bool)].mean()


@pytest.mark.parametrize(("name", "geometry"), [("base", NARROW), ("lco", WIDE)])
@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_mean_cosine_is_that_of_the_states_that_were_written(
    run, analysis, name, geometry, modality
):
    states = synthetic_states(run.plan, geometry)
    own = states[[row.index for row in run.plan.rows if row.modality == modality]]
    found = analysis.find("mean_cosine", "final_norm", modality, name)
    assert found.value == pytest.approx(brute_mean_cosine(own), abs=1e-9)
    assert found.interval.low < found.value < found.interval.high
    assert (found.n, found.chance, found.better) == (len(own), 0.0, "lower")


def test_a_difference_is_after_minus_before_with_an_interval_that_holds_it(analysis):
    for d in analysis.differences:
        if d.value is None:
            continue
        before = analysis.find(d.metric, d.site, d.modality, d.before).value
        after = analysis.find(d.metric, d.site, d.modality, d.after).value
        assert d.value == pytest.approx(after - before, abs=1e-12)
        assert d.interval.low <= d.value <= d.interval.high


def test_taking_the_cone_away_is_a_clear_improvement_in_every_modality(analysis):
    for modality in ("text", "image", "audio"):
        for metric in ("mean_cosine", "uniformity"):
            assert analysis.change(metric, "final_norm", modality).improved is True


def test_equal_states_before_and_after_differ_by_zero_and_pass_nothing(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "same": NARROW}, scenes=60)
    analysis = analyze_run(run)
    changes = [d for d in analysis.differences if d.value is not None]
    assert changes
    assert {d.value for d in changes} == {0.0}
    assert not any(d.clear for d in changes)
    assert {v.status for v in analysis.verdicts} == {"WARN"}
    assert "nothing changed" in analysis.headline


def test_a_site_that_did_not_change_differs_by_zero(analysis):
    changes = [d for d in analysis.differences if d.site == "block_00"]
    assert changes
    assert {d.value for d in changes} == {0.0}


def test_a_constant_site_has_reasons_and_no_numbers(analysis):
    at_embed = [m for m in analysis.measurements if m.site == "embed"]
    assert len(at_embed) == len(analysis.measurements) // len(SITES)
    assert all(m.value is None and m.interval is None for m in at_embed)
    assert all("rows that differ" in m.note for m in at_embed)
    changes = [d for d in analysis.differences if d.site == "embed"]
    assert all(d.value is None and "rows that differ" in d.note for d in changes)


def test_every_metric_is_there_with_its_chance(analysis):
    def chance(metric, modality):
        return analysis.find(metric, "final_norm", modality, "lco").chance

    assert chance("uniformity", "image") == pytest.approx(uniformity_floor(32))
    assert chance("effective_rank", "image") == 32
    assert chance("mutual_knn", "image-text") == pytest.approx(10 / 59)
    assert chance("modality_gap", "audio-text") == 0
    assert chance("alignment", "audio-text") > 0
    for direction in ("image->text", "text->image", "audio->text", "text->audio"):
        assert chance("retrieval_r1", direction) == pytest.approx(1 / 60)


def test_copies_of_a_scene_are_right_answers_for_each_other(tmp_path):
    run = write_run(tmp_path / "run", {"base": WIDE}, scenes=40, copies=2)
    found = analyze_run(run).find("retrieval_r1", "final_norm", "image->text", "base")
    assert found.n == 80
    assert found.chance == pytest.approx(2 / 80)


def test_rows_that_could_not_be_read_leave_both_checkpoints_and_the_pair(tmp_path):
    plan = synthetic_plan(40)
    lost = [r.index for r in plan.rows if r.modality == "text"][:2]
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40, bad=lost)
    analysis = analyze_run(run)
    assert analysis.change("mean_cosine", "final_norm", "text").n == 78
    assert analysis.change("mean_cosine", "final_norm", "image").n == 40
    assert analysis.change("alignment", "final_norm", "image-text").n == 38
    assert {s["id"] for s in analysis.skipped} == {plan.rows[i].id for i in lost}


def test_rows_are_matched_by_id_and_not_by_place(run):
    survey = survey_of(run, AnalyzeConfig())
    at, partner = survey.matched("image")
    rows, image, text = run.plan.rows, survey.indexes["image"], survey.indexes["text"]
    assert [rows[image[i]].id for i in at] == [rows[text[j]].id for j in partner]
    assert len(at) == len(image) < len(text)


def test_the_same_run_gives_the_same_bytes(run, analysis):
    adapter = TypeAdapter(Analysis)
    for threads in (1, 2):
        with threadpool_limits(threads):
            again = analyze_run(run, AnalyzeConfig(workers=threads, again=True))
            assert adapter.dump_json(again) == adapter.dump_json(analysis)


def test_an_analysis_survives_the_store(run, analysis):
    run.write_analysis(analysis)
    assert run.read_analysis().differences == analysis.differences
    assert run.read_analysis().headline == analysis.headline


def test_every_number_is_in_the_table(analysis):
    rows = list(records.lines(analysis))
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["transfer"] == 2 * len(analysis.transfers) > 0
    (way,) = (r for r in rows if (r["metric"], r.get("modality")) == ("way:mean_cosine", "audio"))
    (t,) = (t for t in analysis.transfers if (t.metric, t.untrained) == ("mean_cosine", "audio"))
    assert (way["value"], way["low"], way["against"]) == (
        t.closed_ratio, t.closed_interval.low, "text"
    )  # fmt: skip
    bands = [r for r in rows if r.get("band_low") is not None]
    assert len(bands) == sum(d.band is not None for d in analysis.differences) > 0
    assert any(r.get("chance_sd") for r in rows if r["metric"] == "linear_cka")
    assert {name for row in rows for name in row} <= set(records.COLUMNS)


def test_probes_are_trained_by_whoever_asks_and_once(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    asked = []

    def at(given, site, rows):
        assert list(rows) == list(range(len(run.plan.rows)))
        asked.append((given, site))
        return Findings()

    for decided in ("one", "one", "two"):
        analyze_run(run, AnalyzeConfig(workers=1), probes=Probes(at, ("final_norm",), decided))
    assert asked == [(run, "final_norm")] * 2  # for "one", and for "two"


def test_headline_tests_carry_what_holm_leaves_of_them(analysis):
    noted = [d for d in analysis.differences if "Holm-adjusted p" in d.note]
    assert {d.site for d in noted} == {"final_norm"}
    assert len(noted) == 3 * 3 + 2 * 3 + 4  # own metrics, pair metrics, retrieval directions
    assert all(f"among {len(noted)} headline tests" in d.note for d in noted)


def test_some_sites_and_some_metrics_only(run):
    found = analyze_run(run, AnalyzeConfig(sites=("final_norm",), metrics=("spectrum",)))
    assert {m.site for m in found.measurements} == {d.site for d in found.differences}
    assert found.sites == ("final_norm",)
    assert {m.metric for m in found.measurements} == estimates.selected(["spectrum"])


def test_a_site_or_pooling_that_was_not_captured_is_refused(run):
    with pytest.raises(UsageError, match=r"a site of the run \(embed.*got 'block_99'"):
        analyze_run(run, AnalyzeConfig(sites=("block_99",)))
    with pytest.raises(UsageError, match=r"a pooling of the run \(last\), got 'mean'"):
        analyze_run(run, AnalyzeConfig(pooling="mean"))


def test_a_run_without_a_complete_checkpoint_is_refused(tmp_path):
    run = write_run(tmp_path / "run", {}, scenes=40)
    with pytest.raises(StoreError, match="complete checkpoint"):
        analyze_run(run)


def test_a_checkpoint_that_is_still_captured_is_left_out(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW}, scenes=40)
    run.write_checkpoint(synthetic_record("half", 32, {}))
    assert [record.name for record in complete(run)] == ["base"]
    analysis = analyze_run(run)
    assert analysis.checkpoints == ("base",)
    assert analysis.headline.startswith("One checkpoint (base): there is nothing to compare it")
    assert {v.status for v in analysis.verdicts} == {"NOT RUN"}


def test_three_checkpoints_are_each_compared_with_the_first(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "same": NARROW, "lco": WIDE}, scenes=40)
    differences = analyze_run(run, AnalyzeConfig(sites=("final_norm",))).differences
    assert {(d.before, d.after) for d in differences} == {("base", "same"), ("base", "lco")}
    same = [d for d in differences if d.after == "same"]
    assert {d.value for d in same} == {0.0}


@pytest.mark.parametrize(
    ("training", "seen"),
    [
        ({}, ()),
        (TEXT_ONLY, ("text",)),
        ({"media": {"image": 3}}, ("text", "image")),
        ({"steps": []}, ("text",)),
        ({"trained": [], "media": {}}, ()),
    ],
)
def test_what_training_saw_is_read_from_the_last_record(training, seen):
    made = [synthetic_record("base", 8, {}), synthetic_record("lco", 8, training)]
    assert trained_on(made) == seen
    assert trained_on(made[:1]) == ()


CHANGE = {"before": 0.30, "after": 0.36, "n": 40}
SPAN = {"low": 0.02, "high": 0.10, "level": 0.95, "method": "row means, 40 groups"}


@pytest.mark.parametrize(
    "training",
    [
        {"generation": [{"modality": "image", "difference": 0.06, "interval": SPAN, **CHANGE}]},
        {"generative_loss": {"image": {"difference": SPAN, **CHANGE}}},
    ],
)
def test_generative_losses_come_from_the_training_record(training):
    records = [synthetic_record("base", 8, {}), synthetic_record("lco", 8, training)]
    measurements, (change,) = generative_loss(records)
    assert [(m.checkpoint, m.modality, m.value) for m in measurements] == [
        ("base", "image", 0.30),
        ("lco", "image", 0.36),
    ]
    assert change.value == pytest.approx(0.06)
    assert (change.interval.low, change.interval.high) == (0.02, 0.10)
    assert change.improved is False
    assert (change.site, change.n) == ("lm_head", 40)


def test_a_broken_training_record_is_named():
    broken = synthetic_record("lco", 8, {"generation": [{"modality": "text", "before": 1.0}]})
    with pytest.raises(StoreError, match="training record of lco"):
        generative_loss([synthetic_record("base", 8, {}), broken])


def test_no_losses_no_measurements():
    records = [synthetic_record("base", 8, {}), synthetic_record("lco", 8, {})]
    assert generative_loss(records) == ((), ())


def test_the_record_says_where_the_numbers_come_from(run, analysis):
    assert analysis.plan_hash == run.plan.hash
    made = analysis.provenance
    assert made["prompts"] == dict(run.plan.prompts)
    assert [c["name"] for c in made["checkpoints"]] == ["base", "lco"]
    assert {"python", "numpy", "scipy", "scikit-learn", "geomkit"} <= set(made["versions"])
    assert dataclasses.asdict(run.checkpoints()[0]) == made["checkpoints"][0]


def test_the_readout_of_the_probes_is_the_one_asked_for(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    asked = {"sites": ("final_norm",), "probes": ("linear",), "workers": 1}
    plain = stages.analyze(run, silent, **asked)
    ridge = stages.analyze(run, silent, readout="ridge", **asked)
    assert {p.penalty for p in ridge.probes} - {p.penalty for p in plain.probes}
    assert any("--readout ridge" in word for word in ridge.provenance["commands"])
    with pytest.raises(UsageError, match="readout multinomial or ridge, got 'lasso'"):
        AnalyzeConfig(readout="lasso")


def test_an_analysis_of_other_code_is_not_taken_for_this_one(run, monkeypatch):
    run.write_analysis(analyze_run(run))
    assert stored_analysis(run) is not None
    monkeypatch.setattr("geomkit.analyze.code_sha", lambda: "of another release")
    assert stored_analysis(run) is None
