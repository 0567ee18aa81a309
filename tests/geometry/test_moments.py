"""One pass over chunks gives what all rows at once give, whatever the chunks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import gathered, moments_of, paired_moments
from geomkit.geometry.sums import Products, Sums

METRICS = {
    "mean_cosine": geometry.mean_cosine,
    "mean_norm_share": geometry.mean_norm_share,
    "iso_score": geometry.iso_score,
    "iso_score plug-in": partial(geometry.iso_score, debiased=False),
    "participation_ratio": geometry.participation_ratio,
    "participation_ratio plug-in": partial(geometry.participation_ratio, debiased=False),
    "effective_rank": geometry.effective_rank,
    "rank_me": geometry.rank_me,
    "stable_rank": geometry.stable_rank,
    "spectral_decay": partial(geometry.spectral_decay, first=2, last=8),
    "vendi_score": geometry.vendi_score,
    "vendi_score of order 2": partial(geometry.vendi_score, order=2),
    "self_cluster": geometry.self_cluster,
    "largest cosine contribution": lambda x: geometry.cosine_contribution(x).parts.max(),
    "cross_mean_cosine": lambda x: geometry.cross_mean_cosine(x, x),
}
WITHOUT_MATRIX = {
    "mean_cosine",
    "mean_norm_share",
    "largest cosine contribution",
    "cross_mean_cosine",
}
RNG = np.random.default_rng(21)
TALL = RNG.standard_normal((90, 12)) * np.linspace(3, 0.2, 12) + 0.7
WIDE = RNG.standard_normal((20, 33)) * np.linspace(3, 0.2, 33) - 0.4


def chunks(x: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows in random order, cut at random places; some chunks are one row."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, len(x)), size=6, replace=False))
    return np.split(x[rng.permutation(len(x))], [1, *cuts[cuts > 1]])


def values(sums: Sums) -> list[np.ndarray]:
    p = sums.products
    assert p is not None
    return [np.asarray(v) for v in (sums.mean, sums.squares, p.scatter, p.left, p.right, p.fourth)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("x", [TALL, WIDE], ids=["tall", "wide"])
def test_chunks_in_any_order_give_the_sums_of_one_shot(x, seed):
    whole, merged = moments_of(x), gathered(map(moments_of, chunks(x, seed)))
    assert merged.shape == whole.shape == x.shape
    for ours, theirs in ((merged.rows, whole.rows), (merged.units, whole.units)):
        for a, b in zip(values(ours), values(theirs), strict=True):
            assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_chunks_in_any_order_give_the_metric_of_one_shot(name, seed):
    merged = gathered(map(moments_of, chunks(TALL, seed)))
    whole = METRICS[name](moments_of(TALL))
    assert METRICS[name](merged) == pytest.approx(whole, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("x", [TALL, WIDE], ids=["tall", "wide"])
def test_moments_give_the_metric_of_the_rows(name, x):
    assert METRICS[name](moments_of(x)) == pytest.approx(METRICS[name](x), rel=1e-11, abs=1e-14)


def test_merging_a_tree_equals_merging_a_line():
    parts = [moments_of(c) for c in chunks(TALL, 3)]
    tree = gathered([gathered(parts[:2]), gathered(parts[2:5]), gathered(parts[5:])])
    assert geometry.rank_me(tree) == pytest.approx(geometry.rank_me(TALL), rel=1e-12)


def test_sums_are_what_they_say():
    sums = moments_of(TALL).rows
    c = TALL - TALL.mean(0)
    k = (c**2).sum(1)
    assert sums.n == 90
    assert sums.mean == pytest.approx(TALL.mean(0))
    assert sums.squares == pytest.approx(TALL.var(0) * 90)
    assert sums.own().scatter == pytest.approx(np.cov(TALL.T) * 89)
    assert sums.own().left == pytest.approx((k[:, None] * c).sum(0))
    assert sums.own().fourth == pytest.approx((k**2).sum())
    assert sums.second(centred=False) == pytest.approx(TALL.T @ TALL)


def reference(x: np.ndarray) -> dict[str, float]:
    """Every metric from singular values of the rows themselves, in float64."""
    x = x.astype(np.float64)
    n, dim = x.shape
    lam = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    s = np.linalg.svd(x, compute_uv=False)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    v = np.linalg.svd(u, compute_uv=False) ** 2

    def entropy(p: np.ndarray) -> float:
        p = p[p > 1e-30] / p.sum()
        return float(np.exp(-(p * np.log(p)).sum()))

    squares = ((u @ u.T) ** 2).sum()
    expected = n + n * (n - 1) / dim
    return {
        "mean_cosine": ((u @ u.T).sum() - n) / (n * (n - 1)),
        "participation_ratio plug-in": lam.sum() ** 2 / (lam**2).sum(),
        "effective_rank": entropy(lam),
        "rank_me": entropy(s),
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "vendi_score": entropy(v),
        "self_cluster": (squares - expected) / (n * n - expected),
        "spectral_decay": -np.polyfit(np.log(np.arange(2, 9)), np.log(lam[1:8]), 1)[0],
    }


@pytest.mark.parametrize("how", ["rows", "moments", "chunks"])
def test_massive_dimensions_in_float32(massive, how):
    """Two dimensions at +8000 and -3000, read in float32, right to 1e-6 of float64."""
    assert massive.dtype == np.float32
    given = {
        "rows": lambda: massive,
        "moments": lambda: moments_of(massive),
        "chunks": lambda: gathered(map(moments_of, chunks(massive, 1))),
    }[how]()
    for name, value in reference(massive).items():
        assert METRICS[name](given) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("name", ["participation_ratio", "iso_score"])
def test_debiased_forms_under_massive_dimensions(massive, name):
    plain = massive.astype(np.float64)
    plain[:, [7, 100]] -= plain[:, [7, 100]].mean(0)  # what no debiased form may see
    merged = gathered(map(moments_of, chunks(massive, 2)))
    assert METRICS[name](merged) == pytest.approx(METRICS[name](plain), rel=1e-6)


def test_no_chunk_has_no_moments():
    with pytest.raises(DegenerateInput, match="at least one chunk, got none"):
        gathered([])


def test_what_one_pass_over_raw_squares_in_float32_would_give(massive):
    """The trap that keeping sums about the mean avoids: E[xx] - mm has no digit left."""
    x = massive.astype(np.float32)
    one_pass = (x.T @ x) / len(x) - np.outer(x.mean(0), x.mean(0))
    true = np.cov(massive.astype(np.float64).T, bias=True)
    assert abs(one_pass[7, 7] - true[7, 7]) > true[7, 7]
    ours = gathered(map(moments_of, chunks(massive, 0))).rows.own().scatter / len(x)
    assert np.abs(ours - true).max() < 1e-10


@pytest.mark.parametrize("name", sorted(METRICS))
def test_without_matrices_only_vectors_are_kept(name):
    light = gathered(moments_of(c, scatter=False, unit_scatter=False) for c in chunks(TALL, 2))
    assert light.rows.products is light.units.products is None
    if name in WITHOUT_MATRIX:
        assert METRICS[name](light) == pytest.approx(METRICS[name](TALL), rel=1e-12)
    else:
        with pytest.raises(UsageError, match="got moments without"):
            METRICS[name](light)


def test_one_matrix_can_be_left_out():
    rows_only = moments_of(TALL, unit_scatter=False)
    assert geometry.rank_me(rows_only) == pytest.approx(geometry.rank_me(TALL))
    with pytest.raises(UsageError, match="unit_scatter=True"):
        geometry.vendi_score(rows_only)


def test_a_width_without_a_matrix():
    wide = np.ones((1, 8193))
    with pytest.raises(UsageError, match=r"at most 8192 columns .* got 8193"):
        moments_of(wide)
    assert moments_of(wide, scatter=False, unit_scatter=False).shape == (1, 8193)


def test_chunks_of_unequal_width():
    with pytest.raises(UsageError, match="equal width, got 12 and 33"):
        moments_of(TALL).merge(moments_of(WIDE))


@pytest.mark.parametrize("name", METRICS)
def test_a_constant_site_is_refused_however_it_was_chunked(name):
    constant = gathered(moments_of(np.tile(TALL[0], (k, 1))) for k in (1, 20, 3))
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        METRICS[name](constant)


@pytest.mark.parametrize("name", METRICS)
def test_one_row_is_too_few(name):
    with pytest.raises(DegenerateInput, match="Expected at least"):
        METRICS[name](moments_of(TALL[:1]))


def test_rows_that_differ_only_between_chunks_are_no_constant():
    two = moments_of(np.tile(TALL[0], (5, 1))).merge(moments_of(np.tile(TALL[1], (5, 1))))
    both = np.concatenate([np.tile(TALL[0], (5, 1)), np.tile(TALL[1], (5, 1))])
    assert geometry.effective_rank(two) == pytest.approx(1)
    assert geometry.mean_cosine(two) == pytest.approx(geometry.mean_cosine(both), rel=1e-12)


def test_zero_rows_are_counted_and_refused_only_where_a_direction_is_needed():
    x = TALL.copy()
    x[[3, 50]] = 0
    merged = gathered(map(moments_of, chunks(x, 4)))
    assert geometry.rank_me(merged) == pytest.approx(geometry.rank_me(x), rel=1e-12)
    for metric in (geometry.mean_cosine, geometry.vendi_score, geometry.self_cluster):
        with pytest.raises(DegenerateInput, match="got 2 of 90 equal to zero"):
            metric(merged)


def test_rows_that_are_not_finite():
    x = TALL.copy()
    x[4, 2] = np.nan
    with pytest.raises(DegenerateInput, match="got 1 of 90 with NaN"):
        moments_of(x)
    with pytest.raises(DegenerateInput, match="fourth powers"), np.errstate(over="ignore"):
        moments_of(TALL * 1e100)
    assert geometry.rank_me(moments_of(TALL * 1e-30)) == pytest.approx(geometry.rank_me(TALL))


@pytest.mark.parametrize("name", METRICS)
def test_torch_and_numpy_agree(name):
    x = torch.tensor(TALL)
    merged = gathered(moments_of(c) for c in x.split(13))
    assert METRICS[name](merged) == pytest.approx(METRICS[name](TALL), rel=1e-12)


def test_moments_are_no_rows():
    m = moments_of(TALL)
    for metric in (geometry.uniformity, geometry.partition_isotropy, geometry.two_nn):
        with pytest.raises(UsageError, match="got Moments"):
            metric(m)
    with pytest.raises(UsageError, match="got Moments"):
        geometry.mean_cosine(m, groups=["a"] * 90)


Y = TALL[:, :9] + RNG.standard_normal((90, 9))
Z = TALL + RNG.standard_normal((90, 12))


def pair_chunks(x: np.ndarray, y: np.ndarray, seed: int):
    return gathered(paired_moments(x[i], y[i]) for i in chunks(np.arange(len(x)), seed))


@pytest.mark.parametrize("seed", range(4))
def test_paired_chunks_give_the_products_of_one_shot(seed):
    whole, merged = paired_moments(TALL, Y), pair_chunks(TALL, Y, seed)
    for field in Products.__slots__:
        a, b = (np.asarray(getattr(m.products, field)) for m in (merged, whole))
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()
    assert merged.cosines is None  # no cosine across widths


CLOSED = {
    "linear_cka": geometry.linear_cka,
    "linear_cka plug-in": partial(geometry.linear_cka, debiased=False),
    "procrustes": geometry.procrustes,
    "alignment": geometry.alignment,
    "alignment_chance": geometry.alignment_chance,
    "modality_gap": geometry.modality_gap,
    "modality_gap_unbiased": geometry.modality_gap_unbiased,
    "modality_gap_unbiased of all pairs": partial(geometry.modality_gap_unbiased, paired=False),
    "modality_gap_null": geometry.modality_gap_null,
    "relative_modality_gap": geometry.relative_modality_gap,
}
OF_ONE_SPACE = set(CLOSED) - {"linear_cka", "linear_cka plug-in", "procrustes"}


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
@pytest.mark.parametrize("name", CLOSED)
def test_paired_moments_give_the_metric_of_the_rows(name, make):
    merged = pair_chunks(make(TALL), make(Z), 6)
    assert CLOSED[name](merged) == pytest.approx(CLOSED[name](TALL, Z), rel=1e-11)


@pytest.mark.parametrize("name", CLOSED)
def test_paired_moments_under_massive_dimensions(name):
    x, y = TALL.copy(), Z.copy()
    for side in (x, y):
        side[:, [2, 7]] += [8000, -3000]
    merged = pair_chunks(x.astype(np.float32), y.astype(np.float32), 1)
    want = CLOSED[name](x.astype(np.float32), y.astype(np.float32))
    assert CLOSED[name](merged) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("name", CLOSED)
def test_sides_of_unequal_width(name):
    merged = pair_chunks(TALL, Y, 5)
    if name in OF_ONE_SPACE:
        with pytest.raises(UsageError, match="one space, got 12 and 9"):
            CLOSED[name](merged)
    else:
        assert CLOSED[name](merged) == pytest.approx(CLOSED[name](TALL, Y), rel=1e-11)


@pytest.mark.parametrize("name", CLOSED)
def test_what_paired_moments_refuse(name):
    metric = CLOSED[name]
    constant = paired_moments(np.tile(TALL[0], (90, 1)), Z)
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        metric(constant)
    with pytest.raises(UsageError, match="rows or groups beside them"):
        metric(paired_moments(TALL, Z), Z)
    with pytest.raises(UsageError, match="got one side"):
        metric(TALL)


def test_moments_have_no_groups():
    groups = ["a"] * 45 + ["b"] * 45
    for metric in (geometry.relative_modality_gap, geometry.alignment_chance):
        with pytest.raises(UsageError, match="rows or groups beside them"):
            metric(paired_moments(TALL, Z), groups=groups)


def test_cross_cosine_from_moments():
    m = pair_chunks(TALL, Z, 6)
    across = geometry.cross_mean_cosine(m.left, m.right)
    assert across == pytest.approx(geometry.cross_mean_cosine(TALL, Z), rel=1e-12)


def test_pairs_must_match():
    with pytest.raises(UsageError, match="paired rows, got 90 and 20"):
        paired_moments(TALL, WIDE)
    with pytest.raises(UsageError, match="got Moments"):
        geometry.cross_mean_cosine(moments_of(TALL), moments_of(Z), paired=True)
    with pytest.raises(UsageError, match="one space, got 12 and 9"):
        geometry.cross_mean_cosine(moments_of(TALL), moments_of(Y))
