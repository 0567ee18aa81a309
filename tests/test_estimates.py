from __future__ import annotations

import sys

import numpy as np
import pytest

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from geomkit.estimates import (
    BETWEEN,
    RETRIEVED,
    WITHIN,
    Outliers,
    between,
    retrieved,
    selected,
    space,
    take,
    within,
)
from geomkit.geometry import rows
from geomkit.statistics import Estimate, interval

RNG = np.random.default_rng(2)
SHARED = RNG.standard_normal((120, 16))
X, Y = ((SHARED + RNG.standard_normal((120, 16)) + s).astype(np.float32) for s in (0.5, -0.5))
GROUPS = [str(i // 2) for i in range(120)]


OUT = Outliers((0, 1, 2), (0, 1))


ALL = selected(["all"])


def everything(x, y):
    forward, back = retrieved(x, y, ALL)
    return within(x, ALL), within(y, ALL), between(x, y, ALL), forward, back


def test_values_are_those_of_the_geometry_functions():
    x, y = space(X, GROUPS, outliers=OUT), space(Y, GROUPS, outliers=OUT)
    forward, back = retrieved(x, y)
    found = geometry.retrieval(X, Y, GROUPS, GROUPS)
    want = {
        "mean_cosine": geometry.mean_cosine(X, GROUPS),
        "uniformity": geometry.uniformity(X, groups=GROUPS),
        "effective_rank": geometry.effective_rank(X),
        "participation_ratio": geometry.participation_ratio(X),
        "mean_cosine_ablated": geometry.mean_cosine(X[:, 3:], GROUPS),
        "cosine_contribution": geometry.cosine_contribution(X).share(3),
        "mean_norm_share": geometry.mean_norm_share(X),
        "self_cluster": geometry.self_cluster(X),
        "iso_score": geometry.iso_score(X),
        "rank_me": geometry.rank_me(X),
        "stable_rank": geometry.stable_rank(X),
        "spectral_decay": geometry.spectral_decay(X, 1, 8),
        "vendi_score": geometry.vendi_score(X),
        "hubness": geometry.hubness(X, groups=GROUPS).skewness,
        "robin_hood": geometry.hubness(X, groups=GROUPS).robin_hood,
        "two_nn": geometry.two_nn(X).likelihood,
        "alignment": geometry.alignment(X, Y),
        "modality_gap": geometry.modality_gap_unbiased(X, Y, groups=GROUPS),
        "modality_gap_plug_in": geometry.modality_gap(X, Y),
        "relative_modality_gap": geometry.relative_modality_gap(X, Y, GROUPS),
        "mutual_knn": geometry.mutual_knn(X, Y, groups=GROUPS),
        "cknna": geometry.cknna(X, Y, groups=GROUPS),
        "linear_cka": geometry.linear_cka(X, Y),
        "linear_cka_ablated": geometry.linear_cka(X[:, 2:], Y[:, 2:]),
        "procrustes": geometry.procrustes(X, Y),
        "cca": geometry.cca(X, Y),
        "rsa": geometry.rsa(X, Y, groups=GROUPS),
        "retrieval_r1": found.recall(1),
        "retrieval_r5": found.recall(5),
        "retrieval_mrr": found.mrr(),
        "gallery_hubness": geometry.hubness(X, Y).robin_hood,
    }
    got = within(x, ALL) | between(x, y, ALL) | forward
    assert {name: e.value for name, e in got.items()} == pytest.approx(want, rel=1e-9)
    assert back["retrieval_mrr"].value == pytest.approx(
        geometry.retrieval(Y, X, GROUPS, GROUPS).mrr()
    )


def test_chance_levels():
    x, y = space(X, GROUPS, outliers=OUT), space(Y, GROUPS, outliers=OUT)
    got = within(x) | between(x, y) | retrieved(x, y)[0]
    chance = {name: e.chance for name, e in got.items()}
    assert chance["mean_cosine"] == chance["linear_cka"] == chance["modality_gap"] == 0
    assert chance["uniformity"] == geometry.uniformity_floor(16)
    assert chance["effective_rank"] == chance["participation_ratio"] == 16
    assert chance["alignment"] == pytest.approx(geometry.alignment_chance(X, Y, GROUPS))
    assert chance["modality_gap_plug_in"] == pytest.approx(geometry.modality_gap_null(X, Y))
    assert chance["mutual_knn"] == pytest.approx(10 / 118)
    assert chance["retrieval_r1"] == pytest.approx(2 / 120)


def test_every_metric_is_described_and_lies_in_its_range():
    x, y = space(X, GROUPS, outliers=OUT), space(Y, GROUPS, outliers=OUT)
    found = within(x, ALL), between(x, y, ALL), retrieved(x, y, ALL)[1]
    for known, got in zip((WITHIN, BETWEEN, RETRIEVED), found, strict=True):
        assert list(known) == list(got)
        for name, metric in known.items():
            low, high = metric.range
            cut = interval(got[name], within=metric.range)
            assert low <= cut.low <= got[name].value <= cut.high <= high
            assert metric.reference


def test_a_constant_site_has_no_number_at_all():
    """The embedding site under a fixed prompt."""
    constant, x = space(np.tile(X[0], (120, 1))), space(X)
    for made in (
        everything(constant, x)[:1] + everything(constant, x)[2:] + everything(x, constant)[1:]
    ):
        assert made
        for result in made.values():
            assert isinstance(result, DegenerateInput)
            assert result.__traceback__ is None  # or it would hold the arrays
            assert "Expected rows that differ" in str(result)


def test_chance_has_the_spread_of_all_pairings_where_rows_can_be_exchanged():
    for metric, null in {
        "mutual_knn": geometry.mutual_knn_null(X, Y),
        "linear_cka": geometry.linear_cka_null(X, Y),
    }.items():
        found = between(space(X), space(Y))[metric]
        assert (found.chance, found.chance_sd) == pytest.approx((null.mean, null.sd), rel=1e-9)
        assert between(space(X, GROUPS), space(Y, GROUPS))[metric].chance_sd is None


def test_one_metric_that_is_not_defined_leaves_the_others():
    got = between(space(X[:10]), space(Y[:10]))
    assert isinstance(got["mutual_knn"], DegenerateInput)
    assert isinstance(got["alignment"], Estimate)


def test_equal_spaces_have_no_plug_in_gap_slope():
    got = between(space(X), space(X))
    assert isinstance(got["modality_gap_plug_in"], DegenerateInput)
    assert got["mutual_knn"].value == pytest.approx(1)


def test_block_by_block_equals_at_once(monkeypatch):
    whole = everything(space(X, GROUPS, outliers=OUT), space(Y, GROUPS, outliers=OUT))
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 900)
    for name in ("space", "retrieved"):
        monkeypatch.setattr(sys.modules[f"geomkit.estimates.{name}"], "WHOLE", 100)
    x, y = space(X, GROUPS, outliers=OUT), space(Y, GROUPS, outliers=OUT)
    assert x.cosines is None
    for some, parts in zip(whole, everything(x, y), strict=True):
        for name, result in some.items():
            assert parts[name].value == pytest.approx(result.value, rel=1e-9)
            assert parts[name].shares == pytest.approx(result.shares, rel=1e-6, abs=1e-12)


def test_some_rows_of_a_space_are_the_space_of_some_rows():
    pick = np.arange(10, 90, 2)
    groups = [GROUPS[i] for i in pick]
    short = everything(
        take(space(X, GROUPS, outliers=OUT), pick), take(space(Y, GROUPS, outliers=OUT), pick)
    )
    fresh = everything(space(X[pick], groups, outliers=OUT), space(Y[pick], groups, outliers=OUT))
    for one, two in zip(short, fresh, strict=True):
        for name, result in one.items():
            assert result.value == pytest.approx(two[name].value, rel=1e-9)
            assert result.shares == pytest.approx(two[name].shares, rel=1e-6, abs=1e-12)


def test_some_rows_can_be_constant():
    mixed = np.concatenate([X, np.tile(X[0], (20, 1))])
    assert isinstance(
        within(take(space(mixed), np.arange(120, 140)))["uniformity"], DegenerateInput
    )


def test_pairs_need_the_same_samples():
    with pytest.raises(UsageError, match="same samples in the same order"):
        between(space(X, GROUPS, outliers=OUT), space(Y))
    with pytest.raises(UsageError, match="same samples in the same order"):
        retrieved(space(X), space(Y[:50]))


def test_without_outliers_of_the_first_checkpoint_nothing_is_ablated():
    got = {**within(space(X)), **between(space(X), space(Y))}
    for name in ("mean_cosine_ablated", "linear_cka_ablated"):
        assert "the first checkpoint has none here" in str(got[name])


def test_shares_know_their_groups():
    got = within(space(X, GROUPS))
    assert got["effective_rank"].names == tuple(sorted(set(GROUPS)))
    assert got["hubness"].names == tuple(sorted(set(GROUPS)))
    assert between(space(X, GROUPS), space(Y, GROUPS))["linear_cka"].names == ()  # folds


@pytest.mark.parametrize(("rows", "dim"), [(120, 16), (90, 200)])
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("effective_rank", geometry.effective_rank),
        ("rank_me", geometry.rank_me),
        ("stable_rank", geometry.stable_rank),
        ("vendi_score", geometry.vendi_score),
        ("participation_ratio", geometry.participation_ratio),
        ("iso_score", geometry.iso_score),
        ("self_cluster", geometry.self_cluster),
        ("mean_norm_share", geometry.mean_norm_share),
        ("cosine_contribution", lambda x: geometry.cosine_contribution(x).share(3)),
    ],
)
def test_influences_agree_with_leaving_out_row_by_row(name, metric, rows, dim):
    """The jackknife is another first-order answer to the same question."""
    states = RNG.standard_normal((rows, dim)) * np.arange(1, dim + 1) ** -0.5 + 0.2
    left = np.array([metric(np.delete(states, i, 0)) for i in range(rows)])
    jackknife = np.sqrt((rows - 1) / rows * ((left - left.mean()) ** 2).sum())
    assert within(space(states))[name].standard_error == pytest.approx(jackknife, rel=0.2)


def test_metrics_are_chosen_by_name_family_or_all():
    assert selected(["spectrum"]) > {"rank_me", "vendi_score"}
    assert selected(["mean_cosine", "retrieval"]) == {
        "mean_cosine", "retrieval_r1", "retrieval_r5", "retrieval_mrr", "gallery_hubness"
    }  # fmt: skip
    assert selected([]) <= selected(["all"]) == frozenset({**WITHIN, **BETWEEN, **RETRIEVED})
    assert list(within(space(X), selected(["cone"]))) == [
        name for name, metric in WITHIN.items() if metric.family == "cone" and name in selected([])
    ]
    with pytest.raises(UsageError, match=r"'rankme': did you mean rank_me\?"):
        selected(["rankme"])
