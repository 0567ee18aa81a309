from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import self_cluster, vendi_score

UNLIKE = np.concatenate([np.eye(3)] * 4)  # three directions, four rows each


def kernel_entropy(x: np.ndarray, order: float) -> float:
    """The definition: from eigenvalues of the N x N cosine matrix over N."""
    p = np.clip(np.linalg.eigvalsh(cosine_similarity(x) / len(x)), 1e-300, None)
    if order == 1:
        return math.exp(-(p * np.log(p)).sum())
    return float((p**order).sum() ** (1 / (1 - order)))


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 7.0])
def test_vendi_of_unlike_rows_is_their_number(order):
    assert vendi_score(UNLIKE, order) == pytest.approx(3, rel=1e-12)
    assert vendi_score(np.eye(5), order) == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_vendi_is_the_entropy_of_the_cosine_matrix(pair_s, pair_q, order):
    for x in (pair_s[0][:120], pair_q[0]):  # fewer rows than columns, and more
        assert vendi_score(x, order) == pytest.approx(kernel_entropy(x, order), rel=1e-9)


def test_vendi_equals_its_authors_package():
    """vendi-score 0.0.3 on these rows: `score_X`, and `score` with q=2 and the cosine as kernel."""
    inside = np.random.default_rng(0).standard_normal((400, 5))
    x = inside @ np.random.default_rng(1).standard_normal((5, 20))
    assert vendi_score(x) == pytest.approx(4.352112810307347, rel=1e-10)
    assert vendi_score(x, 2) == pytest.approx(3.938179698876897, rel=1e-10)


def test_vendi_of_infinite_order_is_one_over_the_largest_share(pair_q):
    x, _ = pair_q
    top = np.linalg.eigvalsh(cosine_similarity(x) / len(x))[-1]
    assert vendi_score(x, math.inf) == pytest.approx(1 / top, rel=1e-12)
    assert vendi_score(x, 400) == pytest.approx(1 / top, rel=0.01)


@pytest.mark.parametrize("order", [0.0, -1.0, math.nan])
def test_vendi_has_a_positive_order(pair_q, order):
    with pytest.raises(UsageError, match="order above 0"):
        vendi_score(pair_q[0], order)


def test_self_cluster_is_the_mean_squared_cosine_between_chance_and_one(pair_s, pair_q):
    for x in (pair_s[0][:120], pair_q[0]):
        square = (cosine_similarity(x)[~np.eye(len(x), dtype=bool)] ** 2).mean()
        chance = 1 / x.shape[1]
        expected = (square - chance) / (1 - chance)
        assert self_cluster(x) == pytest.approx(expected, abs=1e-12)


def test_self_cluster_from_zero_to_one():
    rng = np.random.default_rng(0)
    assert self_cluster(rng.standard_normal((400, 30))) == pytest.approx(0, abs=0.002)
    assert self_cluster(np.ones(30) + 1e-3 * rng.standard_normal((400, 30))) > 0.999
    assert self_cluster(np.eye(6)) == pytest.approx(-1 / 5)  # as far apart as six can be
    assert self_cluster(UNLIKE) == pytest.approx(((3 / 11) - 1 / 3) / (2 / 3))


def test_on_one_axis_all_rows_clump():
    with pytest.raises(DegenerateInput, match="at least 2 columns"):
        self_cluster(np.array([[1.0], [-1], [2]]))
