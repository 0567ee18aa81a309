from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from geomkit.errors import DegenerateInput
from geomkit.statistics import interval
from probes.config import ProbeConfig
from probes.mdl import SHARES, blocks_of, code_lengths, message, prior_lengths
from probes.mdl import compression as compressed
from probes.suite import probe_run
from probes.tasks import Task
from tests.synthetic_run import WIDE, Geometry, write_run


def compression(given):
    return compressed(given, message(given, 0))


def task(weight=4.0, rows=400, seed=0, groups=None):
    """Four classes, each along an axis of its own."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 4, rows)
    states = weight * np.eye(16)[answers] + rng.standard_normal((rows, 16))
    names = tuple(groups or map(str, range(rows)))
    labels = np.array(list("abcd"))[answers]
    return Task("text", states.astype(np.float32), labels, names, np.zeros(rows, bool))


def test_blocks_grow_by_the_published_shares():
    blocks = blocks_of([f"g{i}" for i in range(2000)], np.random.default_rng(0))
    ends = np.cumsum([len(b) for b in blocks])
    assert ends.tolist() == [int(np.ceil(s * 2000)) for s in SHARES]
    assert sorted(np.concatenate(blocks).tolist()) == list(range(2000))


@pytest.mark.parametrize("rows", [30, 101, 400])
def test_a_block_never_cuts_a_group_and_all_rows_are_sent(rows):
    groups = [f"g{i // 3}" for i in range(rows)]
    blocks = blocks_of(groups, np.random.default_rng(0))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(rows))
    assert all(len(block) for block in blocks)
    seen = [{groups[i] for i in block} for block in blocks]
    assert sum(map(len, seen)) == len(set(groups))


def test_clear_labels_take_few_bits_and_none_are_sent_free():
    found = compression(task())
    assert found.value > 3
    assert found.chance == pytest.approx(1, abs=0.05)  # balanced classes: their shares say nothing
    blocks = blocks_of(task().groups, np.random.default_rng(0))
    bits = code_lengths(task(), message(task(), 0), 10.0)
    assert (bits > 0).all()
    np.testing.assert_allclose(bits[blocks[0]], 2.0)  # four classes, uniform


def test_labels_that_mean_nothing_take_more_bits_than_they_have():
    given = task()
    lies = np.random.default_rng(5).permutation(given.labels)
    found = compression(dataclasses.replace(given, labels=lies))
    assert found.value < 1


def test_a_property_that_is_harder_to_read_takes_more_bits():
    lengths = [compression(task(weight)).value for weight in (1.0, 2.0, 4.0)]
    assert lengths == sorted(lengths)


def test_unequal_classes_are_cheap_without_any_state():
    """Nine of ten labels agree: compression beats 1, and so does the chance it stands beside."""
    given = task(weight=0.0)
    labels = np.where(np.random.default_rng(0).random(400) < 0.9, "a", "b")
    found = compression(dataclasses.replace(given, labels=labels))
    assert found.chance > 1.5
    assert found.value < found.chance


def test_the_prior_is_laplaces_rule():
    labels = np.array(["a", "a", "b", "a"])
    bits = prior_lengths(labels, [np.array([0, 1]), np.array([2, 3])])
    np.testing.assert_allclose(bits, -np.log2([1 / 2, 1 / 2, 1 / 4, 3 / 4]))


def test_no_row_teaches_its_own_code():
    """States of the last block cannot change what the blocks before it cost."""
    given = task()
    blocks = blocks_of(given.groups, np.random.default_rng(0))
    wild = given.states.copy()
    wild[blocks[-1]] += 100
    one, two = (
        code_lengths(t, message(t, 0), 10.0)
        for t in (given, dataclasses.replace(given, states=wild))
    )
    before = np.concatenate(blocks[:-1])
    np.testing.assert_array_equal(one[before], two[before])
    assert two[blocks[-1]].sum() > one[blocks[-1]].sum()


def test_copies_of_a_scene_are_not_sent_for_nothing():
    """Labels mean nothing; were each row a group, copies sent before would give them away."""
    rng = np.random.default_rng(0)
    states = np.repeat(rng.standard_normal((100, 64)), 4, axis=0).astype(np.float32)
    labels = np.repeat(rng.choice(list("ab"), 100), 4)
    scenes = tuple(f"s{i // 4}" for i in range(400))
    given = Task("text", states, labels, scenes, np.zeros(400, bool))
    alone = dataclasses.replace(given, groups=tuple(map(str, range(400))))
    assert compression(given).value < 1
    assert compression(alone).value > 1.2


def test_an_interval_holds_its_mean_about_as_often_as_it_says():
    found = [compression(task(1.5, rows=200, seed=s)) for s in range(60)]
    mean = np.mean([e.value for e in found])
    held = np.mean([interval(e).low < mean < interval(e).high for e in found])
    assert held >= 0.88


def test_equal_states_have_no_code():
    given = task()
    found = compression(dataclasses.replace(given, states=np.ones_like(given.states)))
    assert isinstance(found, DegenerateInput)
    assert "all training states are equal" in str(found)


def test_a_run_gives_measurements_and_paired_differences(tmp_path):
    deaf = Geometry(signal=0.5)
    run = write_run(tmp_path / "run", {"base": deaf, "lco": WIDE}, scenes=60)
    config = ProbeConfig(sites=("embed", "final_norm"), parts=("mdl",))
    given = probe_run(run, config)
    measurements, differences = given.measurements, given.differences
    found = {(m.metric, m.modality, m.checkpoint, m.site): m for m in measurements}
    change = {(d.metric, d.modality, d.site): d for d in differences}
    ends = [found["mdl:colour", "image", c, "final_norm"] for c in ("base", "lco")]
    gain = change["mdl:colour", "image", "final_norm"]
    assert gain.value == pytest.approx(ends[1].value - ends[0].value)
    assert gain.improved is True
    assert ends[1].n == 60
    assert found["mdl:colour", "image", "lco", "embed"].value is None
    assert change["mdl:colour", "image", "embed"].note.startswith("all training states")
    assert "negative control" in found["mdl:background", "image", "lco", "final_norm"].note
    assert probe_run(run, config) == given


def test_a_change_below_chance_is_no_loss(tmp_path):
    """Both codes are worse than none: one of them being longer says nothing of the states."""
    run = write_run(tmp_path / "run", {"base": WIDE, "lco": Geometry(noise=3.0)}, scenes=60)
    given = probe_run(run, ProbeConfig(sites=("final_norm",), parts=("mdl",)))
    found = {(d.metric, d.modality): d for d in given.differences}
    control = found["mdl:background", "text"]
    assert control.better == "neither"
    assert control.improved is None
    assert control.note == "negative control: no caption names it; neither is above chance"
    assert found["mdl:colour", "text"].better == "higher"
