from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import (
    cosine_contribution,
    linear_cka,
    mean_cosine,
    moments_of,
    outlier_ablated,
    outlier_dimensions,
    participation_ratio,
)


def test_contributions_are_the_mean_over_all_pairs_of_each_product(pair_q):
    x, _ = pair_q
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [u[i] * u[j] for i in range(len(u)) for j in range(len(u)) if i != j]
    assert cosine_contribution(x).parts == pytest.approx(np.mean(pairs, axis=0), abs=1e-13)


def test_contributions_add_up_to_the_mean_cosine(pair_s, pair_q, massive):
    for x in (*pair_s, *pair_q, massive):
        found = cosine_contribution(x)
        assert found.mean_cosine == pytest.approx(mean_cosine(x), abs=1e-15)
        assert found.parts.sum() == found.mean_cosine
        assert found.share(x.shape[1]) == pytest.approx(1, abs=1e-12)


def test_two_massive_dimensions_make_all_of_it(massive):
    """+8000 and -3000 have 64 and 9 parts of 73 of the squared length."""
    found = cosine_contribution(massive)
    assert found.top(2).tolist() == [7, 100]
    assert found.parts[[7, 100]] == pytest.approx([64 / 73, 9 / 73], abs=1e-4)
    assert found.share(1) == pytest.approx(0.877, abs=5e-4)
    assert found.share(2) == pytest.approx(1, abs=1e-5)


def test_there_is_nothing_to_share_where_the_mean_cosine_is_negative():
    found = cosine_contribution(np.array([[1.0, 0], [-1, 0.1], [0, 1]]))
    with pytest.raises(DegenerateInput, match="positive mean cosine to share out"):
        found.share(1)


def test_without_its_outliers_the_rest_is_isotropic(massive):
    assert mean_cosine(massive) > 0.9999
    rest = outlier_ablated(massive, 2)
    assert rest.shape == (300, 254)
    plain = np.delete(massive.astype(np.float64), [7, 100], axis=1)
    assert np.array_equal(rest, plain)
    assert abs(mean_cosine(rest)) < 0.001


def test_a_dimension_that_swings_about_zero_is_found_by_variance():
    """One shared column of sd 60 brings CKA of independent sets to 1; without it there is none."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 300, 128))
    x[:, 5] = y[:, 5] = 60 * rng.standard_normal(300)
    assert linear_cka(x, y) > 0.99
    assert outlier_dimensions(x, 1, by="variance").tolist() == [5]
    a, b = (outlier_ablated(rows, 1, by="variance") for rows in (x, y))
    assert abs(linear_cka(a, b)) < 0.05
    assert participation_ratio(a) > 50 * participation_ratio(x)


def test_sides_that_are_compared_lose_the_same_dimensions(massive):
    shifted = massive + np.linspace(0, 500, 256, dtype=np.float32)
    chosen = outlier_dimensions(massive, 3)
    assert outlier_dimensions(shifted, 3).tolist() != chosen.tolist()
    rest = outlier_ablated(shifted, dimensions=chosen)
    assert np.array_equal(rest, np.delete(shifted.astype(np.float64), chosen, axis=1))


def test_from_moments_and_from_torch(massive):
    m, tensor = moments_of(massive), torch.tensor(massive)
    for by in ("cosine", "variance"):
        chosen = outlier_dimensions(massive, 4, by=by).tolist()
        assert outlier_dimensions(m, 4, by=by).tolist() == chosen
        assert outlier_dimensions(tensor, 4, by=by).tolist() == chosen
    assert np.array_equal(outlier_ablated(tensor, 2).numpy(), outlier_ablated(massive, 2))


def test_something_must_be_left(massive):
    with pytest.raises(UsageError, match="k from 1 to 255 of 256 columns, got 256"):
        outlier_ablated(massive, 256)
    with pytest.raises(UsageError, match=r"from 0 to 255, not all of them, got \[256\]"):
        outlier_ablated(massive, dimensions=[256])
    with pytest.raises(UsageError, match=r"not all of them, got \[-1\]"):
        outlier_ablated(massive, dimensions=[-1])
    with pytest.raises(UsageError, match=r"not all of them, got \[0, 1\]"):
        outlier_ablated(massive[:, :2], dimensions=[0, 1])
    with pytest.raises(UsageError, match="got Moments"):
        outlier_ablated(moments_of(massive), 2)
