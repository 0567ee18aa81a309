from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from geomkit.compare import verdicts
from geomkit.errors import DegenerateInput, UsageError
from geomkit.statistics import interval
from geomkit.types import Activations, Measurement, Row
from probes.config import ProbeConfig
from probes.control import shuffled
from probes.linear import (
    _accuracy,
    _majority,
    mark,
    probe,
    probed_sites,
)
from probes.readouts import fit
from probes.split import group_of, held_out_groups, is_held_out
from probes.suite import probe_run as findings_of
from probes.tasks import Attribute, Task, attributes_of, tasks_of
from probes.transfer import lens, mean_of, rescale, spread_of
from tests.synthetic_run import NARROW, WIDE, Geometry, synthetic_plan, write_run

FINAL = ProbeConfig(sites=("final_norm",), parts=("linear",))


def probe_run(run, config):
    found = findings_of(run, config)
    return found.probes, found.probe_differences


def by_name(results):
    return {(r.attribute, r.train_on, r.test_on, r.checkpoint): r for r in results}


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    path = tmp_path_factory.mktemp("probes") / "run"
    run = write_run(path, {"base": NARROW, "lco": WIDE}, scenes=80)
    results, differences = probe_run(run, FINAL)
    return by_name(results), {(d.metric, d.modality): d for d in differences}


def test_a_separable_attribute_is_read_everywhere(probed):
    results, _ = probed
    for checkpoint in ("base", "lco"):
        for source in ("text", "image"):
            for target in ("text", "image"):
                assert results["colour", source, target, checkpoint].accuracy == 1.0


def test_an_attribute_exists_only_where_its_scenes_do(probed):
    results, _ = probed
    assert ("colour", "text", "audio", "base") not in results
    assert results["pitch", "text", "audio", "base"].n_test > 30


def test_an_absent_attribute_is_at_chance_within_its_interval(probed):
    results, _ = probed
    for medium, name in (("image", "background"), ("audio", "voice")):
        for source in ("text", medium):
            for target in ("text", medium):
                r = results[name, source, target, "lco"]
                assert not r.spoken
                assert r.chance == 0.5
                assert r.interval.low < 0.5 < r.interval.high


def test_shuffled_labels_teach_nothing(probed):
    results, _ = probed
    controls = [r.control for r in results.values() if r.attribute == "colour"]
    assert max(controls) < 0.55  # chance 0.25; four standard errors of 40 rows
    for r in results.values():
        assert r.selectivity == pytest.approx(r.accuracy - r.control)


def test_an_unspoken_attribute_in_the_media_is_read_there_and_not_from_captions(tmp_path):
    told = dataclasses.replace(WIDE, secret=3.0)
    run = write_run(tmp_path / "run", {"base": told}, scenes=80)
    results = by_name(probe_run(run, FINAL)[0])
    assert results["background", "image", "image", "base"].accuracy == 1.0
    in_text = results["background", "text", "text", "base"]
    assert in_text.interval.low < 0.5 < in_text.interval.high


def test_equal_states_before_and_after_differ_by_zero(tmp_path):
    run = write_run(tmp_path / "run", {"base": WIDE, "same": WIDE}, scenes=60)
    _, differences = probe_run(run, FINAL)
    assert differences
    assert {d.value for d in differences} == {0.0}
    assert not any(d.clear for d in differences)


def test_a_gain_is_paired_row_by_row(tmp_path):
    deaf = Geometry(signal=0.0, scene=2.0)
    run = write_run(tmp_path / "run", {"base": deaf, "lco": WIDE}, scenes=80)
    results, differences = probe_run(run, FINAL)
    found = by_name(results)
    gain = {(d.metric, d.modality): d for d in differences}["probe:colour", "text->image"]
    ends = [found["colour", "text", "image", c].accuracy for c in ("base", "lco")]
    assert gain.value == pytest.approx(ends[1] - ends[0])
    assert gain.improved is True
    assert gain.n == found["colour", "text", "image", "lco"].n_test


def test_controls_are_marked_in_their_differences(probed):
    _, differences = probed
    assert "negative control" in differences["probe:voice", "audio->audio"].note
    assert differences["probe:pitch", "audio->audio"].note == ""


def test_the_same_run_gives_the_same_results(tmp_path):
    run = write_run(tmp_path / "run", {"base": WIDE, "lco": NARROW}, scenes=40)
    assert probe_run(run, FINAL) == probe_run(run, FINAL)


def test_a_constant_site_has_reasons_and_no_numbers(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    results, differences = probe_run(run, dataclasses.replace(FINAL, sites=("embed",)))
    assert {r.accuracy for r in results} == {None}
    assert {d.value for d in differences} == {None}
    assert all("states are equal" in x.note for x in (*results, *differences))


def test_too_few_groups_have_reasons_and_no_numbers(tmp_path):
    run = write_run(tmp_path / "run", {"base": WIDE}, scenes=8)
    results, _ = probe_run(run, FINAL)
    assert {r.accuracy for r in results} == {None}
    assert any("10 groups a class, got 8 groups of text rows" in r.note for r in results)


def test_default_sites_are_every_other_block_and_the_final_norm(tmp_path):
    run = write_run(tmp_path / "run", {"base": WIDE}, scenes=8)
    assert probed_sites(run) == ("block_01", "final_norm")
    with pytest.raises(UsageError, match="got 'block_77'; it has embed"):
        probed_sites(run, ["block_77"])


# ------------------------------------------------------------------------------------- transfer --


HELD_OUT = np.arange(150) % 2 == 0


def scene_task(modality, states, labels):
    groups = tuple(f"scene-{i}" for i in range(len(labels)))
    return Task(modality, states.astype(np.float32), np.asarray(labels), groups, HELD_OUT)


def alone(task, **given):
    """A probe of one modality on itself."""
    tests = {"text": task}
    return mark(task, tests, lens(task, tests), [0], ProbeConfig(**given))["text"]


@pytest.fixture
def scenes():
    """Three classes along three axes, seen as text."""
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[np.arange(150) % 3]
    rng.shuffle(labels)
    centres = {name: 6 * np.eye(16)[i] for i, name in enumerate("abc")}
    return np.stack([centres[x] for x in labels]) + rng.standard_normal((150, 16)), labels


def transferred(text, media, labels):
    tasks = {
        "text": scene_task("text", text, labels),
        "image": scene_task("image", media, labels),
    }
    return probe(tasks, "shape", ProbeConfig())["text", "image"]


def test_a_shift_between_modalities_costs_nothing_once_centred(scenes):
    text, labels = scenes
    shift = 40 * np.eye(16)[0] - 25 * np.eye(16)[1]
    marks = transferred(text, text + shift, labels)
    assert marks.correct.mean() > 0.95
    assert marks.uncentred.mean() < 0.5  # the shift alone would have broken it


def test_a_rotation_between_modalities_breaks_transfer(scenes):
    text, labels = scenes
    turned = np.roll(text, 1, axis=1)  # class axes 0, 1, 2 become 1, 2, 3
    marks = transferred(text, turned, labels)
    assert marks.correct.mean() < 0.5
    own = probe({"image": scene_task("image", turned, labels)}, "shape", ProbeConfig())
    assert own["image", "image"].correct.mean() > 0.95  # it can be read, just not by text's probe


def test_the_mean_of_the_tested_rows_is_learned_from_training_rows(scenes):
    text, labels = scenes
    wild = text.copy()
    wild[HELD_OUT] += 1000 * np.eye(16)[0]  # were these centred on themselves, they would be right
    marks = transferred(text, wild, labels)
    assert set(labels[HELD_OUT][marks.correct]) <= {"a"}


def test_no_held_out_row_moves_the_answer_for_another(scenes):
    text, labels = scenes
    wild = text.copy()
    wild[np.flatnonzero(HELD_OUT)[:30]] += 200 * np.eye(16)[0]
    calm, moved = (transferred(text, media, labels).correct for media in (text, wild))
    np.testing.assert_array_equal(calm[30:], moved[30:])
    assert not np.array_equal(calm, moved)


def test_rescaling_is_undone_by_nothing_but_its_own_numbers():
    x = np.random.default_rng(0).standard_normal((50, 4)) * [1, 2, 3, 0] + 7
    scaled = rescale(x, mean_of(x), spread_of(x))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 1, 0], atol=1e-12)


def test_constant_states_have_no_spread():
    with pytest.raises(DegenerateInput, match="all training states are equal"):
        spread_of(np.ones((5, 3), dtype=np.float32))


# ---------------------------------------------------------------------------------------- split --


def test_no_group_is_on_both_sides_in_any_modality():
    plan = synthetic_plan(40, copies=3)
    out = held_out_groups([group_of(r) for r in plan.rows])
    test = is_held_out(plan.rows, out)
    inside = {group_of(r) for r, held in zip(plan.rows, test, strict=True) if held}
    outside = {group_of(r) for r, held in zip(plan.rows, test, strict=True) if not held}
    assert len(inside) == len(outside) == 40
    assert not inside & outside
    sides = {r.id: held for r, held in zip(plan.rows, test, strict=True) if r.modality == "text"}
    assert all(sides[r.id] == held for r, held in zip(plan.rows, test, strict=True))


def test_copies_cannot_be_memorised():
    """Labels mean nothing; only a probe that saw a copy of the scene could be right."""
    rng = np.random.default_rng(0)
    states = np.repeat(rng.standard_normal((60, 64)), 4, axis=0)
    labels = np.repeat(rng.choice(["a", "b"], 60), 4)
    groups = tuple(f"scene-{i // 4}" for i in range(240))
    out = held_out_groups(groups)
    by_group = Task("text", states, labels, groups, np.array([g in out for g in groups]))
    by_row = dataclasses.replace(by_group, held_out=np.arange(240) % 2 == 0)
    assert alone(by_group, penalty=1.0).correct.mean() < 0.75
    assert alone(by_row, penalty=1.0).correct.mean() == 1.0


def test_the_split_is_even_seeded_and_independent_of_order():
    names = [f"g{i}" for i in range(20)]
    out = held_out_groups(names)
    assert len(out) == 10
    assert held_out_groups(names[::-1] * 2) == out
    assert held_out_groups(names, seed=1) != out
    assert len(held_out_groups(names, share=0.25)) == 5
    with pytest.raises(UsageError, match=r"between 0 and 1, got 1\.0"):
        held_out_groups(names, share=1.0)


@threadpool_limits.wrap(limits=1)  # as in probe_run
def test_intervals_hold_chance_as_often_as_they_say():
    """95 % of intervals on meaningless labels; with five folds it would be 87 %."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(120):
        states, labels = rng.standard_normal((80, 32)), rng.choice(["a", "b"], 80)
        groups = tuple(map(str, range(80)))
        task = Task("text", states, labels, groups, np.arange(80) % 2 == 0)
        span = interval(_accuracy(alone(task, penalty=10.0).correct, task))
        held += span.low < 0.5 < span.high
    assert held >= 108  # 114 expected, standard deviation 2.4


def test_a_row_without_a_group_is_a_group_of_its_own():
    assert group_of(Row(0, "a", "text", "", "")) == "a"
    assert group_of(Row(0, "a", "text", "", "g")) == "g"


# -------------------------------------------------------------------------------------- control --


def test_shuffled_labels_keep_their_counts_and_agree_within_a_scene():
    groups = [f"g{i // 2}" for i in range(40)]
    labels = np.array([["a", "b", "c"][i // 2 % 3] for i in range(40)])
    lies = shuffled(labels, groups, np.random.default_rng(0))
    assert sorted(lies) == sorted(labels)
    assert (lies != labels).any()
    assert (lies[::2] == lies[1::2]).all()


# ---------------------------------------------------------------------------------------- tasks --


def test_spoken_attributes_come_first_and_a_name_is_one_or_the_other():
    rows = [
        Row(0, "a", "image", "", "", labels={"size": "s"}, controls={"angle": "1"}),
        Row(1, "b", "audio", "", "", labels={"key": "c"}, controls={"size": "s"}),
    ]
    assert attributes_of(rows) == (
        Attribute("key", True),
        Attribute("size", True),
        Attribute("angle", False),
    )


def test_rows_without_the_attribute_are_left_out():
    rows = tuple(
        Row(i, f"s{i}", "text", "", "", labels={"size": "s"} if i % 2 else {}) for i in range(4)
    )
    view = Activations("base", "final_norm", "last", "text", np.eye(4, dtype=np.float32), rows)
    size, shape = Attribute("size", True), Attribute("shape", True)
    task = tasks_of({"text": view}, [size], {"s1"})[size]["text"]
    assert task.groups == ("s1", "s3")
    np.testing.assert_array_equal(task.states, np.eye(4)[[1, 3]])
    assert task.held_out.tolist() == [True, False]
    assert tasks_of({"text": view}, [shape], {"s1"}) == {shape: {}}


def test_one_class_is_no_task(scenes):
    text, _ = scenes
    task = scene_task("text", text, ["a"] * 150)
    with pytest.raises(DegenerateInput, match="at least two classes, got 'a' on every text row"):
        task.require()
    with pytest.raises(DegenerateInput, match="two classes in the training rows"):
        fit(text, task.labels, 1.0)
    assert "at least two classes" in probe({"text": task}, "x", ProbeConfig())["text", "text"]


def test_the_majority_is_the_commonest_training_class(scenes):
    text, _ = scenes
    labels = np.where(HELD_OUT, "a", "b")  # what is common to train on is absent where tested
    labels[:20] = ["a", "b"] * 10
    task = scene_task("text", text, labels)
    assert _majority(task, task) == (labels[HELD_OUT] == "b").mean()


# ----------------------------------------------------------- matrix, ceilings, negative controls --


def test_the_diagonal_is_the_ceiling_of_its_column(probed):
    results, _ = probed
    for r in results.values():
        if r.accuracy is not None:
            own = results[r.attribute, r.test_on, r.test_on, r.checkpoint]
            assert r.ceiling == own.accuracy


def test_a_rotated_medium_has_a_ceiling_far_above_its_transfer(tmp_path):
    turned = dataclasses.replace(WIDE, turn=True, scene=0.0)
    run = write_run(tmp_path / "run", {"base": turned}, scenes=80)
    shown = by_name(probe_run(run, FINAL)[0])["colour", "text", "image", "base"]
    assert shown.ceiling == 1.0
    assert shown.accuracy < 0.7


def test_selectivity_has_a_paired_interval(probed):
    results, _ = probed
    r = results["colour", "text", "image", "lco"]
    assert r.selectivity_interval.low <= r.selectivity <= r.selectivity_interval.high
    assert r.selectivity_interval.low > 0.3
    nothing = results["background", "image", "image", "lco"]
    assert nothing.selectivity_interval.low < 0 < nothing.selectivity_interval.high


@pytest.mark.parametrize("readout", ["multinomial", "ridge"])
def test_a_run_is_probed_with_either_read_out(tmp_path, readout):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=60)
    config = dataclasses.replace(FINAL, readout=readout)
    found = by_name(probe_run(run, config)[0])
    assert found["colour", "text", "image", "lco"].accuracy == 1.0
    assert all(r.penalty for r in found.values())


def controls(run):
    results, differences = probe_run(run, FINAL)
    told = verdicts((*empty_measurements(),), differences, results, ("text",))
    return {(v.metric, v.modality): v for v in told if v.role == "control"}


def empty_measurements():
    """Two checkpoints by name: all that a verdict on probes needs of the measurements."""
    for name in ("base", "lco"):
        yield Measurement("mean_cosine", name, "block_00", "text", 0.0, None, 0.0, "lower", 1)


def test_a_control_that_becomes_readable_is_reported_as_such(tmp_path):
    """After, the media carry the unspoken attribute: nothing that captions could have taught."""
    told = dataclasses.replace(WIDE, secret=3.0)
    run = write_run(tmp_path / "run", {"base": WIDE, "lco": told}, scenes=80)
    found = controls(run)["probe:background", "image->image"]
    assert found.status == "WARN"
    assert "clearly up; captions cannot have taught it" in found.sentence


def test_controls_that_stay_are_listed_and_claim_nothing(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=80)
    found = controls(run)
    assert set(found) == {
        ("probe:background", "image->image"),
        ("probe:voice", "audio->audio"),
    }
    assert {v.status for v in found.values()} == {"info"}


def test_spoken_attributes_improve_and_controls_get_nothing_for_free(tmp_path):
    """Captions' attribute becomes readable; over four splits the controls do not, beyond alpha."""
    deaf = Geometry(signal=0.0, scene=1.0)
    gains, free = [], []
    for seed in range(4):
        run = write_run(tmp_path / f"run{seed}", {"base": deaf, "lco": WIDE}, scenes=60)
        _, differences = probe_run(run, dataclasses.replace(FINAL, seed=seed))
        for d in differences:
            (free if "negative control" in d.note else gains).append(d.improved is True)
    assert np.mean(gains) == 1.0
    assert np.mean(free) < 0.1


# ------------------------------------------------------------ what a leak would make of controls --


def copies(path, own_groups):
    """Four near-copies of each scene; after, copies lie close together. No label is in any state.

    `own_groups` forgets which rows are copies, as a split by rows would.
    """
    loose = Geometry(signal=0.0, scene=0.0, noise=1.0)
    tight = Geometry(signal=0.0, scene=2.0, noise=0.2)
    run = write_run(path, {"base": loose, "lco": tight}, scenes=30, copies=4, dim=64)
    if own_groups:
        rows = tuple(dataclasses.replace(row, group="") for row in run.plan.rows)
        run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, rows=rows))
    return run


def test_a_split_by_rows_would_improve_the_controls_and_the_split_by_groups_does_not(tmp_path):
    honest = controls(copies(tmp_path / "groups", own_groups=False))
    assert {v.status for v in honest.values()} == {"info"}
    leaked = controls(copies(tmp_path / "rows", own_groups=True))
    for key in (("probe:background", "image->image"), ("probe:voice", "audio->audio")):
        assert leaked[key].status == "WARN"
        assert "clearly up" in leaked[key].sentence


def test_the_accuracy_with_the_gap_left_in_is_beside_the_centred_one(tmp_path):
    apart = dataclasses.replace(WIDE, gap=25.0, scene=0.5)
    run = write_run(tmp_path / "run", {"base": apart}, scenes=80)
    found = by_name(probe_run(run, FINAL)[0])
    crossed = found["colour", "text", "image", "base"]
    assert crossed.accuracy == 1.0
    assert crossed.uncentred < 0.7
    assert f"{crossed.uncentred:.3f} when the tested modality keeps its own mean" == crossed.note
    own = found["colour", "image", "image", "base"]
    assert own.uncentred == own.accuracy
