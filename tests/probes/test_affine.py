from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import cross_val_score

from geomkit.errors import DegenerateInput
from geomkit.statistics import folds_of
from probes.affine import FOLDS, PENALTIES, decompose, fit_affine, left_out, shift_only

SIZES = [(60, 12), (40, 90)]  # more rows than columns, and fewer


def rows(n, dim, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim)) * np.linspace(3, 0.1, dim) + 5
    return x, x @ rng.standard_normal((dim, dim)) / dim + 2 + noise * rng.standard_normal((n, dim))


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_it_is_sklearns_ridge_of_the_change(n, dim):
    x, change = rows(n, dim)
    fitted = fit_affine(x, change, np.arange(n))
    alpha = fitted.penalty * np.sum((x - x.mean(axis=0)) ** 2)
    asked = rows(30, dim, seed=1)[0]
    expected = Ridge(alpha=alpha).fit(x, change).predict(asked)
    np.testing.assert_allclose(fitted.change(asked), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_errors_of_left_out_folds_are_those_of_refits(n, dim):
    x, change = rows(n, dim)
    clusters = np.arange(n) // 2
    folds = folds_of(clusters, FOLDS)
    centred = x - x.mean(axis=0)
    left, s, _ = decompose(centred, float(np.sum(x * x)))
    for penalty in (0.3, 30.0):
        got = next(left_out(left, s, change - change.mean(axis=0), [penalty], folds))
        for f in range(FOLDS):
            refit = Ridge(alpha=penalty).fit(x[folds != f], change[folds != f])
            expected = change[folds == f] - refit.predict(x[folds == f])
            np.testing.assert_allclose(got[folds == f], expected, rtol=1e-7, atol=1e-9)


def test_the_penalty_is_the_one_that_sklearn_would_choose():
    x, change = rows(50, 20, noise=3.0)
    total = np.sum((x - x.mean(axis=0)) ** 2)
    folds = folds_of(np.arange(50), FOLDS)
    splits = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(FOLDS)]
    scores = {
        p: cross_val_score(
            Ridge(alpha=p * total), x, change, cv=splits, scoring="neg_mean_squared_error"
        ).mean()
        for p in PENALTIES
    }
    assert fit_affine(x, change, np.arange(50)).penalty == max(scores, key=scores.__getitem__)


def test_noise_alone_gets_the_strongest_penalties_and_a_law_the_weakest():
    x, _ = rows(200, 10)
    noise = np.random.default_rng(2).standard_normal(x.shape)
    assert fit_affine(x, noise, np.arange(200)).penalty >= 1.0
    law = x @ np.random.default_rng(3).standard_normal((10, 10))
    assert fit_affine(x, law, np.arange(200)).penalty == min(PENALTIES)


def test_copies_of_a_group_do_not_choose_the_penalty():
    """Four copies of each of 30 rows whose change is noise: by rows, they foretell each other."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 30, 60))
    x, noise = np.repeat(x, 4, axis=0), np.repeat(noise, 4, axis=0)
    clusters = np.repeat(np.arange(30), 4)
    assert fit_affine(x, noise, clusters).penalty >= 1.0
    assert fit_affine(x, noise, np.arange(120)).penalty < 0.01


def test_scale_and_shift_move_the_map_along():
    x, change = rows(60, 12)
    one = fit_affine(x, change, np.arange(60)).change(x)
    other = fit_affine(1e4 * x + 7, 1e4 * change, np.arange(60)).change(1e4 * x + 7)
    np.testing.assert_allclose(other, 1e4 * one, rtol=1e-6)


def test_no_linear_part_leaves_the_mean_change():
    x, change = rows(30, 5)
    np.testing.assert_allclose(
        shift_only(x, change).change(x), np.tile(change.mean(axis=0), (30, 1))
    )


def test_equal_states_and_few_groups_are_refused():
    x, change = rows(30, 5)
    with pytest.raises(DegenerateInput, match="got 30 that are equal to float32 resolution"):
        fit_affine(np.ones_like(x), change, np.arange(30))
    with pytest.raises(DegenerateInput, match="10 groups to fit a map on, got 6"):
        fit_affine(x, change, np.arange(30) // 5)


def test_ridge_cv_agrees_where_every_row_is_a_fold():
    """Leaving single rows out is what RidgeCV does in closed form."""
    x, change = rows(40, 15, noise=2.0)
    total = float(np.sum((x - x.mean(axis=0)) ** 2))
    centred = x - x.mean(axis=0)
    left, s, _ = decompose(centred, float(np.sum(x * x)))
    y = change - change.mean(axis=0)
    tried = left_out(left, s, y, [p * total for p in PENALTIES], np.arange(40))
    ours = [np.sum(residual**2) for residual in tried]
    theirs = RidgeCV(alphas=[p * total for p in PENALTIES]).fit(x, change)
    assert PENALTIES[int(np.argmin(ours))] * total == pytest.approx(theirs.alpha_)
