from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from geomkit.errors import DegenerateInput
from probes.config import ProbeConfig
from probes.separability import Mixture, separability, told_apart
from probes.suite import probe_run
from probes.transfer import mean_of
from tests.synthetic_run import Geometry, write_run

CONFIG = ProbeConfig(penalty=10.0)


def heap(shift=1.5, rows=250, dim=64, seed=0):
    """Text and images of the same scenes, a shift apart and otherwise alike; half held out."""
    rng = np.random.default_rng(seed)
    scene = rng.standard_normal((rows, dim))
    states = np.concatenate([scene, scene]) + rng.standard_normal((2 * rows, dim))
    states[:rows] += shift * np.eye(dim)[0]
    names = np.repeat(["image", "text"], rows)
    held_out = np.tile(np.arange(rows) % 2 == 0, 2)
    return Mixture(states.astype(np.float32), names, tuple(map(str, range(rows))) * 2, held_out)


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def centred(given, rows):
    """Each modality without its own mean in `rows`."""
    states = given.states.astype(np.float64)
    for name in ("image", "text"):
        own = given.modality == name
        states[own] -= mean_of(states[own & rows])
    return dataclasses.replace(given, states=states)


def test_a_shift_is_told():
    raw = separability(heap(8.0), CONFIG)
    assert raw.value > 0.95
    assert (raw.chance, raw.n) == (0.5, 250)


def test_modalities_that_are_alike_are_at_chance():
    found = [separability(heap(0.0, seed=s), CONFIG).value for s in range(8)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_means_of_all_rows_bring_a_balanced_probe_far_below_chance_and_training_means_do_not():
    """The anti-learning artefact: held-out means are shifted against the trained ones."""
    ours, leaky = [], []
    for seed in range(8):
        given = heap(6.0, rows=100, dim=128, seed=seed)
        leaky.append(told_apart(centred(given, np.ones(200, dtype=bool)), CONFIG).mean())
        ours.append(told_apart(centred(given, ~given.held_out), CONFIG).mean())
    assert np.mean(leaky) < 0.4
    assert np.mean(ours) == pytest.approx(0.5, abs=0.03)


def test_a_scene_is_on_one_side_of_the_split_in_both_modalities():
    given = heap()
    sides = {}
    for group, out in zip(given.groups, given.held_out, strict=True):
        sides.setdefault(group, set()).add(bool(out))
    assert all(len(found) == 1 for found in sides.values())


def test_few_groups_and_equal_states_have_reasons():
    found = separability(heap(rows=12), CONFIG)
    assert "Expected 20 groups of samples in both modalities, got 12" in str(found)
    given = heap()
    same = dataclasses.replace(given, states=np.ones_like(given.states))
    assert isinstance(separability(same, CONFIG), DegenerateInput)


def test_a_run_gives_measurements_and_paired_differences(tmp_path):
    apart, close = Geometry(gap=12.0), Geometry(gap=0.0)
    run = write_run(tmp_path / "run", {"base": apart, "lco": close}, scenes=60)
    config = ProbeConfig(sites=("embed", "final_norm"), parts=("separability",))
    given = probe_run(run, config)
    measurements, differences = given.measurements, given.differences
    found = {(m.metric, m.modality, m.checkpoint, m.site): m for m in measurements}
    assert {m.modality for m in measurements} == {"image-text", "audio-text"}
    before, after = (
        found["modality_separability", "image-text", c, "final_norm"] for c in ("base", "lco")
    )
    assert before.value > 0.95
    assert after.interval.low < 0.5 < after.interval.high
    change = {(d.metric, d.modality, d.site): d for d in differences}
    moved = change["modality_separability", "image-text", "final_norm"]
    assert moved.improved is True
    assert moved.value == pytest.approx(after.value - before.value)
    assert found["modality_separability", "image-text", "lco", "embed"].value is None
