from __future__ import annotations

import numpy as np
import pytest

from geomkit.drifts import drift_sentences
from geomkit.errors import DegenerateInput
from geomkit.geometry import linear_cka, principal_angles
from geomkit.statistics import interval
from geomkit.types import Activations, Row
from probes.config import ProbeConfig
from probes.drift import drift, overlap, similarity
from probes.suite import probe_run
from tests.synthetic_run import COLLAPSED, WIDE, write_run

SPECTRUM = np.concatenate([np.linspace(6, 3, 10), np.full(14, 1.0)])


def states(n=150, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 24)) * SPECTRUM


def exact(n=150):
    """Rows whose principal axes are the columns, with no sampling noise."""
    noise = np.random.default_rng(0).standard_normal((n, 24))
    return np.linalg.qr(noise - noise.mean(axis=0))[0] * SPECTRUM * np.sqrt(n)


def tilted(x, angle):
    """Every leading axis turned by `angle` towards an axis that leads nowhere."""
    turn = np.eye(24)
    for a in range(10):
        b = 10 + a
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = np.sin(angle), -np.sin(angle)
    return x @ turn


def test_it_is_the_geometry_of_the_package():
    x, y = states(), tilted(states(), 0.5) + 0.3 * states(seed=1)
    singles = np.arange(150)
    assert similarity(x, y, singles).value == pytest.approx(linear_cka(x, y))
    angles = principal_angles(x, y, 10, of="features")
    assert overlap(x, y, singles).value == pytest.approx(np.mean(np.cos(angles) ** 2))


def test_a_turn_of_known_angle_is_that_angle_and_no_change_of_arrangement():
    x = exact()
    singles = np.arange(150)
    assert overlap(x, tilted(x, 0.4), singles).value == pytest.approx(np.cos(0.4) ** 2)
    assert similarity(x, tilted(x, 0.4), singles).value == pytest.approx(1)


def test_influences_are_what_leaving_a_row_out_does():
    x = states()
    y = tilted(x, 0.3) + 0.5 * states(seed=1)
    singles = np.arange(150)
    whole = overlap(x, y, singles)
    without = [
        overlap(np.delete(x, i, axis=0), np.delete(y, i, axis=0), np.arange(149)).value
        for i in range(40)
    ]
    jackknife = (149 / 150) * (whole.value - np.array(without))
    ours = whole.shares[:40]
    assert np.corrcoef(ours, jackknife)[0, 1] > 0.98
    assert np.std(ours) == pytest.approx(np.std(jackknife), rel=0.2)


def test_intervals_of_the_overlap_hold_its_mean_as_often_as_they_say():
    """Its mean at this N: sampled axes scatter, so it lies a little below that of N large."""
    found = []
    for seed in range(2, 202):
        x = states(400, seed)
        y = tilted(x, 0.3) + 0.5 * states(400, seed + 10_000)
        found.append(overlap(x, y, np.arange(400)))
    mean = np.mean([e.value for e in found])
    held = np.mean([interval(e).low < mean < interval(e).high for e in found])
    assert 0.9 <= held <= 0.99


def view(x, name, groups=None):
    rows = tuple(Row(i, f"s{i}", "text", "", groups[i] if groups else "") for i in range(len(x)))
    return Activations(name, "final_norm", "last", "text", x.astype(np.float32), rows)


def test_equal_states_have_not_moved():
    cka, shared, angle = drift(view(states(), "base"), view(states(), "lco"))
    assert (cka.metric, shared.metric, angle.metric) == (
        "drift_cka", "drift_overlap", "drift_angle",
    )  # fmt: skip
    assert (cka.value, shared.value) == pytest.approx((1, 1))
    assert angle.value == pytest.approx(0, abs=1e-3)
    assert (cka.chance, shared.chance) == (0.0, 10 / 24)


def test_unrelated_states_are_at_chance():
    far = np.random.default_rng(9).permutation(24)
    values = [
        drift(view(states(seed=s), "base"), view(states(seed=s + 100)[:, far], "lco"))
        for s in range(6)
    ]
    assert np.mean([cka.value for cka, _, _ in values]) == pytest.approx(0, abs=0.05)


def told(before, after):
    """What is said of the drift of one modality."""
    [sentence] = drift_sentences(drift(view(before, "base"), view(after, "lco")))
    return sentence


def test_drift_is_told_in_words():
    x = states(400)
    assert "rows was kept (CKA 1.00" in told(x, x)
    assert "axes stayed (overlap 1.00" in told(x, x)
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((24, 24)))[0]
    rotated = told(x, x @ turned)
    assert "rows was kept (CKA 1.00" in rotated
    assert "axes are others (overlap" in rotated or "axes turned (overlap" in rotated
    far = told(x, states(400, seed=5)[:, ::-1])
    assert "rows was lost (CKA" in far
    assert "axes are others" in far
    between = told(x, x + 1.0 * np.roll(states(400, seed=7), 3, axis=1))
    assert "rows changed (CKA" in between
    assert told(x, x).startswith("Drift of text at final_norm, base to lco: ")


def test_no_drift_to_tell_has_its_reason():
    same = told(np.ones((40, 24)), np.ones((40, 24)))
    assert same.count("cannot be told (") == 2
    assert list(drift_sentences(drift(view(states(), "a"), view(states(), "b")), "embed")) == []


def test_angles_and_their_intervals_run_the_right_way():
    _, shared, angle = drift(view(exact(), "base"), view(tilted(exact(), 0.6), "lco"))
    assert angle.value == pytest.approx(np.degrees(0.6), abs=0.01)
    assert angle.interval.low <= angle.value <= angle.interval.high
    assert shared.interval.low <= shared.value <= shared.interval.high


def test_copies_do_not_make_it_surer():
    x = states(100)
    y = tilted(x, 0.3) + 0.5 * states(100, seed=1)
    one = interval(overlap(x, y, np.arange(100)))
    copied = interval(overlap(np.repeat(x, 3, 0), np.repeat(y, 3, 0), np.repeat(np.arange(100), 3)))
    assert copied.high - copied.low == pytest.approx(one.high - one.low, rel=1e-6)


def test_what_has_no_leading_subspace_is_refused():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((40, 20)) - 0.0)[0]
    q = np.linalg.qr(q - q.mean(axis=0))[0]
    with pytest.raises(DegenerateInput, match="equal variance in directions 10 and 11"):
        overlap(q, q, np.arange(40))
    with pytest.raises(DegenerateInput, match="at least 10 directions, got 5"):
        overlap(q[:, :5], q[:, :5], np.arange(40))


def test_a_run_gives_three_records_a_site_and_modality(tmp_path):
    run = write_run(tmp_path / "run", {"base": COLLAPSED, "lco": WIDE}, scenes=40)
    config = ProbeConfig(sites=("embed", "block_00"), parts=("drift",))
    found = probe_run(run, config).drifts
    assert len(found) == 2 * 3 * 3
    for d in found:
        if d.site == "embed":
            assert d.value is None
            assert "equal" in d.note
        else:
            assert d.value == pytest.approx(0 if d.metric == "drift_angle" else 1, abs=1e-3)
