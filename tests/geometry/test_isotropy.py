from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import cross_mean_cosine, iso_score, mean_cosine, mean_norm_share


def off_diagonal_mean(x: np.ndarray) -> float:
    cosine = cosine_similarity(x.astype(np.float64))
    return float(cosine[~np.eye(len(x), dtype=bool)].mean())


def test_mean_cosine_equals_the_mean_over_all_pairs(pair_s, pair_q):
    for x in (*pair_s, *pair_q):
        assert mean_cosine(x) == pytest.approx(off_diagonal_mean(x), abs=1e-12)


def test_mean_cosine_of_pair_s(pair_s):
    assert mean_cosine(pair_s[0]) == pytest.approx(0.4924, abs=5e-5)


def test_mean_cosine_keeps_zero_cosines():
    rows = np.eye(50)
    rows[1] = rows[0]  # one equal pair among orthogonal rows
    assert mean_cosine(rows) == pytest.approx(2 / (50 * 49), abs=1e-15)


def test_mean_cosine_of_orthogonal_and_of_opposite_rows():
    assert mean_cosine(np.eye(5)) == pytest.approx(0, abs=1e-15)
    assert mean_cosine(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-1)


def test_mean_cosine_under_massive_dimensions(massive):
    exact = off_diagonal_mean(massive)
    assert exact > 0.9999
    assert mean_cosine(massive) == pytest.approx(exact, abs=1e-12)


def test_mean_cosine_leaves_out_pairs_of_one_group():
    x = np.random.default_rng(0).standard_normal((40, 6)) + 0.5
    groups = [str(i // 3) for i in range(40)]
    apart = np.array(groups)[:, None] != np.array(groups)[None]
    assert mean_cosine(x, groups) == pytest.approx(cosine_similarity(x)[apart].mean(), abs=1e-12)


def test_an_empty_group_is_no_group():
    x = np.random.default_rng(0).standard_normal((10, 4))
    for groups in ([""] * 10, np.array([""] * 10)):
        assert mean_cosine(x, groups) == pytest.approx(mean_cosine(x), abs=1e-14)


def test_one_group_has_no_distinct_pair():
    with pytest.raises(DegenerateInput, match="at least two groups"):
        mean_cosine(np.eye(4), ["a"] * 4)


def test_groups_must_fit_the_rows():
    with pytest.raises(UsageError, match="one group a row, got 3 groups for 4 rows"):
        mean_cosine(np.eye(4), ["a"] * 3)


def test_cross_mean_cosine_with_and_without_pairs(pair_q):
    x, y = pair_q
    cosine = cosine_similarity(x, y)
    apart = ~np.eye(len(x), dtype=bool)
    assert cross_mean_cosine(x, y) == pytest.approx(cosine.mean(), abs=1e-12)
    assert cross_mean_cosine(x, y, paired=True) == pytest.approx(cosine[apart].mean(), abs=1e-12)
    assert cross_mean_cosine(x, y[:60]) == pytest.approx(cosine[:, :60].mean(), abs=1e-12)
    with pytest.raises(UsageError, match="paired rows, got 100 and 60"):
        cross_mean_cosine(x, y[:60], paired=True)


def test_mean_norm_share_is_the_share_of_the_mean(pair_q):
    x, _ = pair_q
    mean = x.mean(0)
    within = ((x - mean) ** 2).sum(1).mean()
    assert mean_norm_share(x) == pytest.approx(mean @ mean / (mean @ mean + within), abs=1e-12)


@pytest.mark.parametrize(("axes", "score"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_iso_score_of_equal_axes(axes, score):
    rows = np.concatenate([np.eye(3)[:axes], -np.eye(3)[:axes]])
    assert iso_score(rows, debiased=False) == pytest.approx(score, abs=1e-12)


def test_iso_score_equals_the_published_procedure():
    x = np.random.default_rng(0).standard_normal((500, 50)) * np.linspace(1, 5, 50)
    assert iso_score(x, debiased=False) == pytest.approx(0.627253155040354, abs=1e-12)


def test_debiased_iso_score_of_few_isotropic_rows():
    x = np.random.default_rng(0).standard_normal((128, 512))
    assert iso_score(x, debiased=False) == pytest.approx(0.197, abs=0.01)
    assert iso_score(x) == pytest.approx(1, abs=0.05)


def test_iso_score_of_one_column():
    with pytest.raises(DegenerateInput, match="at least 2 columns"):
        iso_score(np.arange(6.0)[:, None])
