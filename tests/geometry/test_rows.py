from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import rows as blocks
from geomkit.geometry.rows import RESOLUTION, directions
from tests.geometry.metrics import ONE, TWO

ALL = {**ONE, **{f"{n} left": lambda x, f=f: f(x, GOOD[: len(x)]) for n, f in TWO.items()}}
ALL |= {f"{n} right": lambda x, f=f: f(GOOD[: len(x)], x) for n, f in TWO.items()}
GOOD = np.random.default_rng(9).standard_normal((60, 12)).astype(np.float32)
ZERO_ROW = GOOD.copy()
ZERO_ROW[3] = 0
CENTRED = {"mean_norm_share", "iso_score", "participation_ratio", "effective_rank"}
CENTRED |= {"rank_me", "stable_rank", "outlier_dimensions", "partition_isotropy", "lidar"}
CENTRED |= {"plug-in iso_score", "spectral_decay", "two_nn", "gride", "curvature"}
PLACES = {"linear_cka", "plug-in linear_cka", "linear_cka_null", "procrustes", "cca", "svcca"}
PLACES |= {
    "linear_cka_skew",
    "principal_angles",
    "principal_angles of features",
    "rsa",
    "whitened rsa",
}
CENTRED |= {f"{name} {side}" for name in PLACES for side in ("left", "right")}


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())
def test_a_constant_layer_is_refused(metric):
    with pytest.raises(DegenerateInput, match=r"Expected rows that differ.*fixed\s+prompt"):
        metric(np.tile(GOOD[0], (60, 1)))


@pytest.mark.parametrize("metric", ONE.values(), ids=ONE.keys())
def test_a_constant_tensor_is_refused(metric):
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        metric(torch.ones(60, 12))


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())
def test_rounding_is_no_geometry_at_any_scale(metric):
    noise = np.random.default_rng(0).standard_normal((60, 12))
    for scale in (1e-20, 1.0, 1e20):
        with pytest.raises(DegenerateInput, match="equal to float32 resolution"):
            metric((GOOD[0] + 1e-7 * noise) * scale)


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())
def test_a_small_spread_is_geometry(metric):
    noise = np.random.default_rng(0).standard_normal((60, 12))
    metric(GOOD[0] + 1e-4 * noise)


def test_the_refusal_sits_at_sixteen_float32_steps():
    assert pytest.approx((16 * np.finfo(np.float32).eps) ** 2) == RESOLUTION


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite(metric, bad):
    rows = GOOD.copy()
    rows[5, 2] = bad
    with pytest.raises(DegenerateInput, match="got 1 of 60 with NaN or infinity"):
        metric(rows)


@pytest.mark.parametrize("name", ["mean_cosine", "uniformity", "mean_norm_share", "vendi_score"])
def test_bad_rows_are_counted_over_all_blocks(name, monkeypatch):
    monkeypatch.setattr(blocks, "CACHE_ENTRIES", 100)
    whole = ALL[name](GOOD)
    bad = GOOD.copy()
    bad[[5, 40, 59], 2] = np.nan
    with pytest.raises(DegenerateInput, match="got 3 of 60 with NaN or infinity"):
        ALL[name](bad)
    monkeypatch.undo()
    assert ALL[name](GOOD) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(ALL) - CENTRED))
def test_a_zero_row_has_no_direction(name):
    with pytest.raises(DegenerateInput, match="got 1 of 60 equal to zero"):
        ALL[name](ZERO_ROW)


@pytest.mark.parametrize("name", sorted(CENTRED))
def test_a_zero_row_is_a_place(name):
    ALL[name](ZERO_ROW)


@pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())
def test_one_row_is_too_few(metric):
    with pytest.raises(DegenerateInput, match="Expected at least"):
        metric(GOOD[:1])


@pytest.mark.parametrize("metric", ONE.values(), ids=ONE.keys())
def test_rows_are_a_matrix(metric):
    with pytest.raises(UsageError, match="got 3 dimensions"):
        metric(GOOD[None])
    with pytest.raises(UsageError, match="got list"):
        metric(GOOD.tolist())


def test_extreme_lengths_neither_overflow_nor_vanish():
    for scale in (1e-200, 1e200):
        assert np.linalg.norm(directions(GOOD * np.float64(scale)), axis=1) == pytest.approx(1)
        assert geometry.effective_rank(GOOD * np.float64(scale)) == pytest.approx(
            geometry.effective_rank(GOOD)
        )


@pytest.mark.parametrize("width", ["float32", "float64"])
@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_the_caller_s_rows_are_left_alone(make, width):
    rows = make(GOOD.astype(width))
    before = np.array(rows.tolist())
    for metric in ONE.values():
        metric(rows)
    for metric in TWO.values():
        metric(rows, rows)
    assert np.array_equal(before, np.array(rows.tolist()))
