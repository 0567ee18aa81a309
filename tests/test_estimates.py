from __future__ import annotations

import numpy as np
import pytest

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from geomkit.estimates import BETWEEN, RETRIEVED, WITHIN, between, retrieved, space, take, within
from geomkit.geometry import rows
from geomkit.statistics import Estimate, interval

RNG = np.random.default_rng(2)
SHARED = RNG.standard_normal((120, 16))
X, Y = ((SHARED + RNG.standard_normal((120, 16)) + s).astype(np.float32) for s in (0.5, -0.5))
GROUPS = [str(i // 2) for i in range(120)]


def everything(x, y):
    forward, back = retrieved(x, y)
    return within(x), within(y), between(x, y), forward, back


def test_values_are_those_of_the_geometry_functions():
    x, y = space(X, GROUPS), space(Y, GROUPS)
    forward, back = retrieved(x, y)
    found = geometry.retrieval(X, Y, GROUPS, GROUPS)
    want = {
        "mean_cosine": geometry.mean_cosine(X, GROUPS),
        "uniformity": geometry.uniformity(X, groups=GROUPS),
        "effective_rank": geometry.effective_rank(X),
        "participation_ratio": geometry.participation_ratio(X),
        "alignment": geometry.alignment(X, Y),
        "modality_gap": geometry.modality_gap(X, Y),
        "modality_gap_unbiased": geometry.modality_gap_unbiased(X, Y, groups=GROUPS),
        "mutual_knn": geometry.mutual_knn(X, Y, groups=GROUPS),
        "linear_cka": geometry.linear_cka(X, Y),
        "recall@1": found.recall(1),
        "recall@5": found.recall(5),
        "mrr": found.mrr(),
    }
    got = within(x) | between(x, y) | forward
    assert {name: e.value for name, e in got.items()} == pytest.approx(want, rel=1e-9)
    assert back["mrr"].value == pytest.approx(geometry.retrieval(Y, X, GROUPS, GROUPS).mrr())


def test_chance_levels():
    x, y = space(X, GROUPS), space(Y, GROUPS)
    got = within(x) | between(x, y) | retrieved(x, y)[0]
    chance = {name: e.chance for name, e in got.items()}
    assert chance["mean_cosine"] == chance["linear_cka"] == chance["modality_gap_unbiased"] == 0
    assert chance["uniformity"] == geometry.uniformity_floor(16)
    assert chance["effective_rank"] == chance["participation_ratio"] == 16
    assert chance["alignment"] == pytest.approx(geometry.alignment_chance(X, Y, GROUPS))
    assert chance["modality_gap"] == pytest.approx(geometry.modality_gap_null(X, Y))
    assert chance["mutual_knn"] == pytest.approx(10 / 118)
    assert chance["recall@1"] == pytest.approx(2 / 120)


def test_every_metric_is_described_and_lies_in_its_range():
    x, y = space(X, GROUPS), space(Y, GROUPS)
    for known, got in zip(
        (WITHIN, BETWEEN, RETRIEVED), (within(x), between(x, y), retrieved(x, y)[1]), strict=True
    ):
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
            assert "Expected rows that differ" in str(result)


def test_one_metric_that_is_not_defined_leaves_the_others():
    got = between(space(X[:10]), space(Y[:10]))
    assert isinstance(got["mutual_knn"], DegenerateInput)
    assert isinstance(got["alignment"], Estimate)


def test_equal_spaces_have_no_plug_in_gap_slope():
    got = between(space(X), space(X))
    assert isinstance(got["modality_gap"], DegenerateInput)
    assert got["mutual_knn"].value == pytest.approx(1)


def test_block_by_block_equals_at_once(monkeypatch):
    whole = everything(space(X, GROUPS), space(Y, GROUPS))
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 900)
    monkeypatch.setattr("geomkit.estimates.BLOCK_ENTRIES", 900)
    x, y = space(X, GROUPS), space(Y, GROUPS)
    assert x.cosines is None
    for some, parts in zip(whole, everything(x, y), strict=True):
        for name, result in some.items():
            assert parts[name].value == pytest.approx(result.value, rel=1e-9)
            assert parts[name].shares == pytest.approx(result.shares, rel=1e-6, abs=1e-12)


def test_some_rows_of_a_space_are_the_space_of_some_rows():
    pick = np.arange(10, 90, 2)
    groups = [GROUPS[i] for i in pick]
    short = everything(take(space(X, GROUPS), pick), take(space(Y, GROUPS), pick))
    fresh = everything(space(X[pick], groups), space(Y[pick], groups))
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
        between(space(X, GROUPS), space(Y))
    with pytest.raises(UsageError, match="same samples in the same order"):
        retrieved(space(X), space(Y[:50]))
