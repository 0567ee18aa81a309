"""What published code returns where it goes wrong, and that ours does not.

Each peer's formula is written here in our words, from its source or its documentation; the test
holds what it returns, so that a reader who comes from there knows why the numbers differ.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from tests.geometry.conftest import unit

RNG = np.random.default_rng


def biased(k: np.ndarray, m: np.ndarray) -> float:
    """HSIC of Gram matrices, plug-in, without a factor."""
    centre = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(k @ centre @ m @ centre))


def unbiased(k: np.ndarray, m: np.ndarray) -> float:
    """Song's U-statistic of Gram matrices."""
    n = len(k)
    k, m = k * (1 - np.eye(n)), m * (1 - np.eye(n))
    total = (k * m.T).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3)))


def platonic_cka(x: np.ndarray, y: np.ndarray, hsic=biased) -> float:
    """platonic-rep and the code of LCO-EMB: 1e-6 is added to the denominator."""
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / (math.sqrt(hsic(k, k) * hsic(m, m)) + 1e-6)


def platonic_mutual_knn(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    """Rows as they come, without normalising; ties go to the smaller index in both spaces."""
    gram = [side @ side.T for side in (x, y)]
    for g in gram:
        np.fill_diagonal(g, -1e8)
    near = [np.argsort(-g, axis=1, kind="stable")[:, :k] for g in gram]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))


def test_an_epsilon_breaks_the_scale_invariance_of_cka(pair_s, pair_q):
    """platonic-rep: CKA .55 of pair Q becomes .10 at a thousandth of the scale, .51 just 1e-5."""
    small = [side * 1e-3 for side in pair_q]
    assert platonic_cka(*pair_q) == pytest.approx(0.5535, abs=5e-5)
    assert platonic_cka(*small) == pytest.approx(0.1011, abs=5e-5)
    assert platonic_cka(*pair_q, unbiased) == pytest.approx(0.5081, abs=5e-5)
    assert platonic_cka(*small, unbiased) == pytest.approx(1e-5, rel=0.5)
    assert geometry.linear_cka(*small) == pytest.approx(0.50807040, abs=5e-9)
    assert geometry.linear_cka(*small, debiased=False) == pytest.approx(0.5535, abs=5e-5)
    # Even unit rows are 1.5e-4 off, and .20 instead of .50 at a tenth of their length.
    ours = geometry.linear_cka(*pair_s)
    assert platonic_cka(*pair_s, unbiased) == pytest.approx(ours * (1 - 1.5e-4), rel=2e-5)
    tenth = [side * 0.1 for side in pair_s]
    assert platonic_cka(*tenth, unbiased) == pytest.approx(0.197, abs=5e-4)
    assert geometry.linear_cka(*tenth) == pytest.approx(ours, rel=1e-10)


def test_mutual_knn_must_normalise(pair_s):
    """platonic-rep: .136 falls to chance when the rows get other lengths, their neighbours not."""
    x, y = pair_s
    longer = x * RNG(0).lognormal(0, 1, (500, 1))
    assert platonic_mutual_knn(x, y) == pytest.approx(0.136, abs=1e-9)
    assert platonic_mutual_knn(longer, y) < 0.03
    assert geometry.mutual_knn(longer, y) == pytest.approx(0.136, abs=1e-9)


def test_two_constant_layers_are_not_perfectly_aligned():
    """platonic-rep: mutual kNN 1.0, and CKA nan or whatever rounding leaves (.11, 0.6, 2.08 seen).

    At the embedding site under a fixed prompt every last token is the same.
    """
    a, b = (np.tile(RNG(seed).integers(-5, 5, 12), (64, 1)).astype(float) for seed in (0, 1))
    assert platonic_mutual_knn(a, b) == 1.0
    k, m = a @ a.T, b @ b.T
    assert biased(k, k) == biased(m, m) == 0  # 0/0 but for rounding and the epsilon
    other = RNG(2).standard_normal((64, 12))
    for pair in ((a, b), (a, other), (other, a)):
        for metric in (geometry.mutual_knn, geometry.linear_cka, geometry.cknna):
            with pytest.raises(DegenerateInput, match="Expected rows that differ"):
                metric(*pair)


def test_ties_of_bfloat16_are_no_alignment():
    """platonic-rep in bfloat16: two independent anisotropic sets share 58 % of their neighbours.

    Their cosines round to a handful of numbers, and ties go to the same indices on both sides.
    """
    rows = [torch.tensor(1 + 0.003 * RNG(s).standard_normal((400, 64))).bfloat16() for s in (0, 1)]
    units = [r / r.norm(dim=1, keepdim=True) for r in rows]
    grams = [(u @ u.T).double().numpy() for u in units]
    assert max(len(np.unique(g)) for g in grams) < 10
    near = [np.argsort(-(g - 10 * np.eye(400)), axis=1, kind="stable")[:, :10] for g in grams]
    peer = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert peer > 0.4
    chance = geometry.chance_mutual_knn(400)
    assert geometry.mutual_knn(*rows) == pytest.approx(chance, abs=0.012)


def test_svcca_must_not_depend_on_a_seed(pair_s):
    """platonic-rep: ten components by a random sketch, so four calls give four values."""
    few = [side[:150] for side in pair_s]

    def peer(seed: int) -> float:
        tops = []
        for offset, side in enumerate(few):
            a = (side - side.mean(axis=0)) / side.std(axis=0)
            sketch = np.linalg.qr(a @ RNG([seed, offset]).standard_normal((512, 10)))[0]
            for _ in range(2):
                sketch = np.linalg.qr(a @ np.linalg.qr(a.T @ sketch)[0])[0]
            tops.append(sketch)
        return float(np.linalg.svd(tops[0].T @ tops[1], compute_uv=False).mean())

    assert np.ptp([peer(seed) for seed in range(4)]) > 0.01
    values = {geometry.cca(*few, variance=0.5) for _ in range(3)}
    assert len(values) == 1


def test_plug_in_cka_of_independent_sets():
    """netrep, torch-cka and others by default: about D/(D+n), .98 where nothing is shared.

    MONAI's embedding_collapse gives the same under the name "unbiased".
    """
    for n, dim, peer in ((32, 2048, 0.984), (128, 2048, 0.942)):
        x, y = RNG(0).standard_normal((2, n, dim))
        k, m = x @ x.T, y @ y.T
        value = biased(k, m) / math.sqrt(biased(k, k) * biased(m, m))
        assert value == pytest.approx(peer, abs=3e-3)
        assert value == pytest.approx(dim / (dim + n), abs=3e-3)
        assert abs(geometry.linear_cka(x, y)) < 4 * geometry.linear_cka_null(x, y).sd


def test_a_diagonal_that_broadcasts_is_not_zeroed():
    """cka_pytorch: `K - diag(K)` takes a row from every row; a set's own HSIC < 0, CKA nan."""

    def peer(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(k), m - np.diag(m)
        total = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2))
        return float((total - 2 / (n - 2) * k.sum(0) @ m.sum(0)) / (n * (n - 3)))

    x = RNG(0).standard_normal((64, 128)) + 1
    gram = x @ x.T
    assert peer(gram, gram) < 0 < unbiased(gram, gram)
    assert geometry.linear_cka(x, x * 2 + 1) == pytest.approx(1, abs=1e-12)


def test_cka_of_a_large_set_keeps_its_digits():
    """netrep: a float32 dot product over N^2 entries is wrong in the fourth digit at N = 10 000."""
    rng = RNG(0)
    x = (rng.standard_normal((1200, 32)) * np.linspace(2, 0.1, 32) + 0.5).astype(np.float32)
    y = (x @ rng.standard_normal((32, 24)) + 2 * rng.standard_normal((1200, 24))).astype(np.float32)
    low = [(s - s.mean(axis=0)) @ (s - s.mean(axis=0)).T for s in (x, y)]
    high = [side.astype(np.float64) for side in (x, y)]
    high = [(s - s.mean(axis=0)) @ (s - s.mean(axis=0)).T for s in high]

    def peer(k: np.ndarray, m: np.ndarray) -> float:
        """One running sum, as a plain loop or a reduction without blocks makes it."""
        sums = [np.cumsum((a * b).ravel(), dtype=a.dtype)[-1] for a, b in ((k, m), (k, k), (m, m))]
        return float(sums[0] / np.sqrt(sums[1] * sums[2]))

    want = float((high[0] * high[1]).sum() / np.sqrt((high[0] ** 2).sum() * (high[1] ** 2).sum()))
    assert abs(peer(*low) - want) > 1e-5
    assert geometry.linear_cka(x, y, debiased=False) == pytest.approx(want, rel=1e-12)


def test_cca_must_centre(pair_q):
    """google-research's notebook: .565 for pair Q, where the common mean is a correlation."""
    bases = [np.linalg.qr(side)[0] for side in pair_q]
    assert np.linalg.norm(bases[0].T @ bases[1]) ** 2 / 10 == pytest.approx(0.56484, abs=5e-6)
    assert geometry.cca(*pair_q) == pytest.approx(0.52304, abs=5e-6)
    assert geometry.cca(pair_q[0] + 9, pair_q[1]) == pytest.approx(0.52304, abs=5e-6)


def test_the_plug_in_gap_depends_on_n(pair_s):
    """Modality-Gap: 1.074 from 10 samples of pair S, 1.038 from 500; unbiased 1.037 from either."""
    x, y = pair_s
    picks = [RNG(0).permutation(500)[:10], *(RNG(s).permutation(500)[:10] for s in range(1, 200))]
    plug_in = np.mean([geometry.modality_gap(x[p], y[p]) for p in picks])
    fair = np.mean([geometry.modality_gap_unbiased(x[p], y[p]) for p in picks])
    assert plug_in == pytest.approx(1.074, abs=4e-3)
    assert geometry.modality_gap(x, y) == pytest.approx(1.038, abs=5e-4)
    assert math.sqrt(fair) == pytest.approx(1.037, abs=4e-3)
    assert math.sqrt(geometry.modality_gap_unbiased(x, y)) == pytest.approx(1.037, abs=5e-4)


def resi_uniformity(x: np.ndarray) -> float:
    """ReSi: rows of any length, and every row meets itself."""
    squares = ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)
    return math.log(np.exp(-2 * squares).sum() / len(x) ** 2)


def test_uniformity_in_which_a_row_meets_itself(pair_s):
    """ReSi: -1.850 for 50 rows of pair S, -1.951 for 200; no row meets itself in -1.966, -1.982."""
    x = pair_s[0]
    for n, peer, ours in ((50, -1.850, -1.966), (200, -1.951, -1.982)):
        assert resi_uniformity(x[:n]) == pytest.approx(peer, abs=6e-4)
        assert geometry.uniformity(x[:n]) == pytest.approx(ours, abs=6e-4)


def test_uniformity_of_rows_of_any_length():
    """ReSi: only the diagonal is left of long rows, so two very different sets differ by 0.0."""
    x = RNG(0).standard_normal((100, 64)) * 50
    cone = x / 10 + 30
    assert resi_uniformity(x) == resi_uniformity(cone) == pytest.approx(-math.log(100))
    assert geometry.uniformity(cone) - geometry.uniformity(x) > 2


def test_an_error_that_is_its_own_measure():
    """ReSi's magnitude_nrmse and concentricity_nrmse: 1/2 for any two inputs.

    The root of the mean of two squared halves of a difference, over that difference.
    """
    for scale in (1.01, 5.0, 100.0):
        x = RNG(0).standard_normal((40, 8))
        y = scale * x[::-1] + 1
        for a, b in (
            (np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)),
            (
                cosine_similarity(x, x.mean(axis=0)[None])[:, 0],
                cosine_similarity(y, y.mean(axis=0)[None])[:, 0],
            ),
        ):
            middle = (a + b) / 2
            error = np.sqrt(((a - middle) ** 2 + (b - middle) ** 2) / 2) / abs(a - b)
            assert error == pytest.approx(0.5)
    x = RNG(0).standard_normal((40, 8))
    gaps = [geometry.modality_gap(x, scale * x[::-1] + 1) for scale in (1.0, 5.0, 100.0)]
    assert gaps[0] > gaps[1] + 0.05 > gaps[2] + 0.1


def test_rows_that_are_no_pairs_have_no_cka():
    """MONAI's embedding_collapse: two domains cut to one length at random, then paired by place."""
    x, y = RNG(0).standard_normal((50, 6)), RNG(1).standard_normal((70, 6))
    for metric in (geometry.linear_cka, geometry.procrustes, geometry.cca, geometry.rsa):
        with pytest.raises(UsageError, match="paired rows, got 50 and 70"):
            metric(x, y)


def test_where_everything_ties_nothing_is_found():
    """R@1 of a constant gallery: 1 counting `>`, 0 counting `>=`, 1/N by a stable sort."""
    query, gallery = unit(RNG(0).standard_normal((50, 6))), np.tile([1.0, 0, 0, 0, 0, 0], (50, 1))
    cosine = query @ gallery.T
    right = cosine.diagonal()[:, None]
    off = ~np.eye(50, dtype=bool)
    assert np.mean(((cosine > right) & off).sum(axis=1) == 0) == 1
    assert np.mean(((cosine >= right) & off).sum(axis=1) == 0) == 0
    assert np.mean(np.argsort(-cosine, kind="stable")[:, 0] == np.arange(50)) == 1 / 50
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        geometry.retrieval(query, gallery)
    nearly = gallery.copy()
    nearly[0] = [0, 1, 0, 0, 0, 0]  # 49 of 50 items tie: none of them is found
    assert geometry.retrieval(query, nearly).ranks[1:].min() >= 49
