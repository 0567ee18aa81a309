from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist, squareform
from sklearn.linear_model import LinearRegression

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import apart, gride, rows, two_nn
from geomkit.geometry.apart import neighbour_distances
from geomkit.geometry.candidates import candidates_by_distance


def flat(n: int = 400) -> np.ndarray:
    """A five-dimensional Gaussian that lies in twenty dimensions."""
    inside = np.random.default_rng(0).standard_normal((n, 5))
    return inside @ np.random.default_rng(1).standard_normal((5, 20))


def brute_distances(x: np.ndarray) -> np.ndarray:
    return np.sort(squareform(pdist(x.astype(np.float64))), axis=1)[:, 1:]


def test_both_estimates_equal_two_other_implementations():
    """scikit-dimension 0.5.0 gives the linear one, DADApy 0.3.4 gives both, on these rows."""
    found = two_nn(flat())
    assert found.linear == pytest.approx(4.837787699182556, rel=1e-12)
    assert found.likelihood == pytest.approx(4.7383552696217235, rel=1e-12)
    assert two_nn(flat(), discard=0.3).linear == pytest.approx(4.763555420487823, rel=1e-12)
    assert (found.rows, found.duplicates) == (400, 0)


def test_two_nn_from_a_distance_matrix():
    distances = brute_distances(flat(150))
    ratios = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    fit = LinearRegression(fit_intercept=False)
    fit.fit(ratios[:135, None], -np.log(1 - np.arange(1, 136) / 150))
    assert two_nn(flat(150)).linear == pytest.approx(fit.coef_[0], rel=1e-10)
    assert two_nn(flat(150)).likelihood == pytest.approx(149 / ratios.sum(), rel=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_gaussian_has_its_dimension(dim):
    x = np.random.default_rng(5).standard_normal((1500, dim)) @ np.eye(dim, 20)
    found = two_nn(x)
    assert found.linear == pytest.approx(dim, rel=0.1)
    assert found.likelihood == pytest.approx(dim, rel=0.1)


def test_gride_equals_another_implementation():
    """DADApy 0.3.4, `return_id_scaling_gride(range_max=16)`, whose search stops at 1e-7."""
    scales = gride(flat(), furthest=16)
    assert [s.near for s in scales] == [1, 2, 4, 8]
    found = [s.dimension for s in scales]
    assert found == pytest.approx(
        [4.7383552872, 4.8614133189, 4.8991362692, 4.7273866466], abs=1e-7
    )
    errors = [s.error for s in scales]
    assert errors == pytest.approx(
        [0.2369177644, 0.1750534348, 0.1250412351, 0.085347961], abs=1e-7
    )
    radii = [s.radius for s in scales]
    assert radii == pytest.approx(
        [3.0966132398, 3.6871419998, 4.3113084802, 5.0120046699], abs=1e-9
    )


def test_gride_is_the_top_of_its_likelihood():
    distances = brute_distances(flat(150))
    ratios = np.log(distances[:, 7] / distances[:, 3])

    def loss(d: float) -> float:
        likelihood = 149 * np.log(d) + 3 * np.log(np.expm1(d * ratios)).sum()
        return -(likelihood - (7 * d + 1) * ratios.sum())

    best = minimize_scalar(loss, bounds=(1, 20), method="bounded", options={"xatol": 1e-10}).x
    assert gride(flat(150), furthest=8)[2].dimension == pytest.approx(best, rel=1e-7)


def test_the_first_scale_is_the_likelihood_of_two_nn():
    assert gride(flat(), furthest=2)[0].dimension == pytest.approx(two_nn(flat()).likelihood)
    ties = np.array([[0.0], [1.0], [2.0], [3.5]])  # the second row ties: its ratio is 1
    assert gride(ties, furthest=2)[0].dimension == pytest.approx(two_nn(ties).likelihood)


def test_noise_makes_the_small_scales_high():
    x = np.zeros((1500, 10))
    x[:, :2] = np.random.default_rng(0).uniform(-1, 1, (1500, 2))
    scales = gride(x + 0.01 * np.random.default_rng(1).standard_normal(x.shape), furthest=64)
    assert scales[0].dimension > 3
    assert scales[-1].dimension == pytest.approx(2, rel=0.15)


def test_copies_are_removed_first_and_counted():
    """On the first of these DADApy 0.3.4 gives 4.175 and scikit-dimension 0.5.0 gives 4.743.

    Without the copies both give 4.838: a copy makes r1 zero, and each drops other rows for it.
    """
    x = flat()
    clean = two_nn(x)
    near = x[:2] * (1 + 1e-7)
    for copied in (np.concatenate([x, x[:10]]), np.concatenate([x, x[:6], x[:2], near])):
        found = two_nn(copied[np.random.default_rng(2).permutation(410)])
        assert (found.rows, found.duplicates) == (400, 10)
        assert found.linear == pytest.approx(clean.linear, rel=1e-6)
        assert found.likelihood == pytest.approx(clean.likelihood, rel=1e-6)
        assert gride(copied, furthest=4)[0].duplicates == 10


def test_copies_are_counted_as_captured_at_massive_means():
    x = flat().astype(np.float32)
    x[:, 3] += 8000
    again = x[:20] * np.float32(1 + 2**-22)  # a few rounding steps of another batch
    assert two_nn(np.concatenate([x, again])).duplicates == 20


def test_neighbour_distances_are_those_of_a_matrix(massive):
    distances, copies = neighbour_distances(massive, 5)
    assert copies == 0
    assert distances == pytest.approx(brute_distances(massive)[:, :5], rel=1e-6)


ROUND = np.random.default_rng(6)
HARD = {
    "flat": flat(300),
    "wide": ROUND.standard_normal((300, 400)),
    "a curve": np.column_stack([np.arange(300.0), np.sin(np.arange(300.0) / 30)]) @ np.ones((2, 9)),
    "one far row": np.concatenate([flat(300), 1e4 * np.ones((1, 20))]),
    "copies": np.repeat(flat(60), 5, axis=0),
    "a lattice": np.stack(np.meshgrid(*[np.arange(7.0)] * 3), -1).reshape(-1, 3),
}


@pytest.mark.parametrize("entries", [2**22, 9000])
@pytest.mark.parametrize("name", HARD)
def test_candidates_of_float32_miss_no_neighbour(name, entries, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", entries)
    c = rows.deviations(HARD[name])
    for k in (1, 2, 5):
        near = np.sqrt(apart._nearest(c, k))
        expected = brute_distances(c)[:, :k]
        assert near == pytest.approx(expected, rel=1e-9, abs=1e-7 * expected.max())


@pytest.mark.parametrize("name", ["flat", "wide"])
def test_float32_leaves_few_candidates(name):
    found = candidates_by_distance(rows.deviations(HARD[name]), 2)
    assert found is not None
    assert len(found.of) < 8 * 301


def test_neighbour_distances_in_blocks(monkeypatch):
    whole = gride(flat(90), furthest=8)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 1300)
    assert [s.dimension for s in gride(flat(90), furthest=8)] == pytest.approx(
        [s.dimension for s in whole], rel=1e-10
    )


def test_numpy_and_torch_agree():
    x = flat().astype(np.float32)
    ours, theirs = two_nn(x), two_nn(torch.tensor(x))
    assert theirs.linear == pytest.approx(ours.linear, rel=1e-10)
    pairs = zip(gride(x, furthest=8), gride(torch.tensor(x), furthest=8), strict=True)
    assert all(a.dimension == pytest.approx(b.dimension, rel=1e-10) for a, b in pairs)


def test_a_lattice_has_no_local_dimension():
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 2), -1).reshape(-1, 2)
    for metric in (two_nn, lambda x: gride(x, furthest=2)):
        with pytest.raises(DegenerateInput, match="no local dimension"):
            metric(lattice)


def test_too_few_distinct_rows():
    x = flat(10)
    with pytest.raises(DegenerateInput, match="at least 3 distinct rows, got 2 of 12"):
        two_nn(np.concatenate([np.tile(x[0], (6, 1)), np.tile(x[1], (6, 1))]))
    with pytest.raises(DegenerateInput, match="at least 65 distinct rows, got 10 of 10"):
        gride(x)


def test_what_may_be_asked():
    with pytest.raises(UsageError, match=r"in \[0, 1\), got 1"):
        two_nn(flat(20), discard=1)
    with pytest.raises(UsageError, match="at least 2, got 1"):
        gride(flat(20), furthest=1)
