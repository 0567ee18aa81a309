"""What a score loses with a group: exact, and as an interval neither too wide nor too narrow."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit.errors import DegenerateInput
from geomkit.geometry import hubness, mutual_knn, rows
from geomkit.geometry.hubs import hubness_without
from geomkit.geometry.neighbours import mutual_knn_influence, mutual_knn_without, shared_neighbours
from geomkit.geometry.removals import (
    Removals,
    _occurrences_lost,
    narrowed,
    robin_hood_influence,
    shared_removals,
    skewness_influence,
)
from geomkit.geometry.rows import codes, directions
from geomkit.geometry.struck import near
from geomkit.statistics import difference, folds_of, from_jackknife, from_rows

K = 4


def towers(rng, n=70):
    x = rng.standard_normal((n, 5))
    y = x + rng.standard_normal((n, 5))
    return x, y


def lists(pair, code, k=K, folds=12):
    fold = folds_of(code, folds)
    return tuple(near(directions(x), fold, k, code=code) for x in pair)


def dense(found, groups):
    losses = np.zeros((len(found.scores), groups))
    losses[found.of, found.group] = found.loss
    return losses


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_losses_are_those_of_computing_on_the_rest(size, ties):
    x, y = towers(np.random.default_rng(0))
    if ties:
        x, y = np.round(x), np.round(y)
        x[7], y[9] = x[8], y[30]
        x, y = x + 0.5, y + 0.5
    code = codes(70, np.arange(70) // size % 40)
    found = shared_removals(lists((x, y), code), code)
    u, v = directions(x), directions(y)
    assert found.scores == pytest.approx(shared_neighbours(u, v, K, code), abs=1e-12)
    losses = dense(found, code.max() + 1)
    for group in range(code.max() + 1):
        kept = code != group
        left = shared_neighbours(u[kept], v[kept], K, codes(int(kept.sum()), code[kept]))
        assert found.scores[kept] - left == pytest.approx(losses[kept, group], abs=1e-12)


def test_a_part_at_a_time_gives_the_same(monkeypatch):
    code = np.arange(70)
    sides = lists(towers(np.random.default_rng(3)), code)
    whole = shared_removals(sides, code)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 100)
    parts = shared_removals(sides, code)
    assert (whole.loss == parts.loss).all()
    assert (whole.group == parts.group).all()


def test_scores_that_do_not_depend_on_others_are_left_alone():
    scores = np.random.default_rng(0).random(30)
    nothing = np.zeros(0, int)
    got = narrowed(Removals(scores, nothing, nothing, np.zeros(0)), np.arange(30))
    assert got == pytest.approx(scores - scores.mean())


def test_what_a_group_does_to_all_others_alike_is_its_own():
    """Losses without anything that two decide together: a jackknife has no excess then."""
    rng = np.random.default_rng(1)
    scores, lost = rng.random(40), rng.standard_normal(40)
    of, group = np.nonzero(~np.eye(40, dtype=bool))
    got = narrowed(Removals(scores, of, group, lost[group] / 39), np.arange(40))
    assert got == pytest.approx(scores - scores.mean() + lost - lost.mean(), rel=0.02, abs=0.02)


def test_what_two_decide_together_is_counted_once():
    """All of the error is of pairs: the sum of squares of the losses is twice the variance."""
    rng = np.random.default_rng(5)
    n, ratios = 60, []
    of, group = np.nonzero(~np.eye(n, dtype=bool))
    values = []
    for _ in range(300):
        each = np.triu(rng.standard_normal((n, n)), 1)
        each += each.T
        scores = each.sum(axis=1)
        values.append(scores.mean())
        got = narrowed(Removals(scores, of, group, each[of, group]), np.arange(n))
        ratios.append((got**2).sum() / n**2)
    assert np.mean(ratios) / np.var(values) == pytest.approx(1, abs=0.2)


def test_never_narrowed_below_independent_groups():
    """Losses that cancel half of what a group has itself, under pairs that are all noise."""
    rng = np.random.default_rng(2)
    own = rng.standard_normal(40)
    of, group = np.nonzero(~np.eye(40, dtype=bool))
    noise = np.triu(rng.standard_normal((40, 40)), 1)
    losses = (noise + noise.T - own / 78)[of, group]
    got = narrowed(Removals(own, of, group, losses), np.arange(40))
    assert (got**2).sum() == pytest.approx(((own - own.mean()) ** 2).sum())


def test_equal_scores_have_no_error():
    nothing = np.zeros(0, int)
    assert narrowed(Removals(np.ones(4), nothing, nothing, np.zeros(0)), np.arange(4)).sum() == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_between_independent_rows_and_the_jackknife(grouped):
    """100 pairs of checkpoints without a change: its error is the spread, the jackknife's is not.

    The spread of 100 values is known to 7 %.
    """
    rng = np.random.default_rng(8)
    code = codes(90, np.arange(90) % 60 if grouped else np.arange(90))
    made, wide = [], []
    for _ in range(100):
        thing = rng.standard_normal((code.max() + 1, 5))[code]
        ends, jack = [], []
        for _ in range(2):
            pair = [thing + 0.7 * rng.standard_normal(thing.shape) for _ in range(2)]
            sides = lists(pair, code, 10, 30)
            value, influence = mutual_knn_influence(sides, code)
            assert value == pytest.approx(mutual_knn(*pair, groups=[str(c) for c in code]))
            ends.append(from_rows(value, influence, code))
            jack.append(from_jackknife(mutual_knn_without(sides), sides[0].folds))
        made.append(difference(*ends))
        wide.append(difference(*jack))
    spread = np.std([e.value for e in made])
    assert 0.85 < np.mean([e.standard_error for e in made]) / spread < 1.35
    assert np.mean([e.standard_error for e in wide]) / spread > 1.25


@pytest.mark.parametrize("size", [1, 2])
def test_lists_that_an_item_leaves_without_a_group(size):
    x, y = towers(np.random.default_rng(6))
    x = np.round(x) + 0.5
    code = codes(70, np.arange(70) // size % 40)
    labels = [str(c) for c in code]
    item, group, lost = _occurrences_lost(lists((x,), code)[0], code)
    found = np.zeros((70, code.max() + 1))
    found[item, group] = lost
    whole = hubness(x, k=K, groups=labels).occurrences
    across = near(directions(x), folds_of(code, 12), K, items=directions(y))
    item, group, lost = _occurrences_lost(across, code)
    found_across = np.zeros((70, code.max() + 1))
    found_across[item, group] = lost
    for g in range(code.max() + 1):
        kept = code != g
        left = hubness(x[kept], k=K, groups=[labels[i] for i in np.flatnonzero(kept)])
        assert whole[kept] - left.occurrences == pytest.approx(found[kept, g], abs=1e-9)
        left = hubness(x[kept], y[kept], k=K)
        whole_across = hubness(x, y, k=K).occurrences
        assert whole_across[kept] - left.occurrences == pytest.approx(
            found_across[kept, g], abs=1e-9
        )


@pytest.mark.parametrize(
    ("influence", "name"),
    [(skewness_influence, "skewness"), (robin_hood_influence, "robin_hood")],
)
def test_hubness_is_as_sure_as_its_spread(influence, name):
    """Of 120 fresh samples, whose spread is known to 6 %; the jackknife is far off."""
    rng, folds, code = np.random.default_rng(14), np.arange(100) % 30, np.arange(100)
    made, wide = [], []
    for _ in range(120):
        lists_of = near(directions(rng.standard_normal((100, 8)) + 0.5), folds)
        found, slope = influence(lists_of)
        made.append(from_rows(getattr(found, name), slope, code))
        values = np.array([getattr(h, name) for h in hubness_without(lists_of)])
        assert made[-1].value == pytest.approx(values[0])
        wide.append(from_jackknife(values, folds))
    spread = np.std([e.value for e in made])
    assert 0.85 < np.mean([e.standard_error for e in made]) / spread < 1.3
    assert np.mean([e.standard_error for e in wide]) / spread > 1.4


def test_items_that_occur_equally_often_have_no_skewness():
    turned = np.arange(12) * np.pi / 6
    ring = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    lists_of = near(ring, np.arange(12) % 6, 2)
    found, slope = robin_hood_influence(lists_of)
    assert found.robin_hood == pytest.approx(0)
    assert slope == pytest.approx(0)
    with pytest.raises(DegenerateInput, match="occur unequally often"):
        skewness_influence(lists_of)
