"""How sure is a mean over rows that depend on each other? By taking away one group at a time.

What the value loses with a group is what its own rows had, and what the other rows lose with it:

    scores    one a row
    removals  what row `of` loses with `group`, for each group that row can see

A sum of squared losses is a jackknife, and of neighbours it is 1.4 to 1.9 times too wide: what two
groups decide together is in the losses of both. `narrowed` takes it out of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.geometry import rows as blocks_of
from geomkit.geometry.nearest import share_places
from geomkit.geometry.struck import Near, same_places

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Removals:
    """The score of each row, and what row `of` loses of it without `group`, pair by pair."""

    scores: Rows
    of: Ints
    group: Ints
    loss: Rows


def narrowed(found: Removals, code: Ints) -> Rows:
    """The influence of each row on the mean score: a jackknife of groups without its excess.

    The squares of what two groups lose together, beyond what each loses alone, are counted once
    less (the second term of Efron and Stein's expansion). Never narrowed below what independent
    groups would have.

    Reference:
        Efron and Stein 1981, Ann. Statist. 9.
    """
    own = found.scores - found.scores.mean()
    sizes = np.bincount(code)
    groups = len(sizes)
    lost = np.bincount(found.group, found.loss, groups).astype(np.float64)
    lost -= lost.mean()
    alone = np.bincount(code, own, groups)
    whole, least = float(((alone + lost) ** 2).sum()), float((alone**2).sum())
    kept = max(whole - _together(found, code, groups), least)
    factor = np.sqrt(min(1.0, kept / whole)) if whole > 0 else 1.0
    return np.asarray(factor * (own + (lost / sizes)[code]))


def _together(found: Removals, code: Ints, groups: int) -> float:
    """Sum of squares, over pairs of groups, of what they lose together and neither alone."""
    one, other = code[found.of], found.group
    pair = np.minimum(one, other) * groups + np.maximum(one, other)
    keys, place = np.unique(pair, return_inverse=True)
    lost = np.bincount(place, found.loss, len(keys))
    each = np.bincount(keys // groups, lost, groups) + np.bincount(keys % groups, lost, groups)
    excess = (lost**2).sum() - (each**2).sum() / groups + each.sum() ** 2 / (2 * groups**2)
    return max(0.0, float(excess))


def shared_removals(sides: tuple[Near, Near], code: Ints) -> Removals:
    """The shared neighbours of each row, in [0, 1], and what it loses of them without each group.

    Exact. Groups lie within the folds of `sides`, or their lists would be too short.
    """
    a, b = sides
    in_a, in_b = same_places(a.n, (a.of, a.item), (b.of, b.item))
    order = np.argsort(a.of[in_a], kind="stable")
    in_a, in_b = in_a[order], in_b[order]
    both = a.shares()[in_a] * b.shares()[in_b] / a.k
    scores = np.bincount(a.of[in_a], both, a.n).astype(np.float64)
    seen = [x.of[x.shares() > 0] * a.n + code[x.item[x.shares() > 0]] for x in sides]
    pairs = np.unique(np.concatenate(seen))
    of, group = pairs // a.n, pairs % a.n
    left = np.zeros(len(of))
    for some in _parts(of, a, b):
        at_a, share_a = _struck(a, of[some], group[some], code)
        at_b, share_b = _struck(b, of[some], group[some], code)
        pair, joined = _spread(np.bincount(a.of[in_a], minlength=a.n), of[some])[:2]
        first_a, first_b = _first(a), _first(b)
        row = of[some][pair]
        places_a = at_a[pair] + in_a[joined] - first_a[row]
        places_b = at_b[pair] + in_b[joined] - first_b[row]
        shared = share_a[places_a] * share_b[places_b] / a.k
        left[some] = np.bincount(pair, shared, len(of[some]))
    return Removals(scores, of, group, scores[of] - left)


def _struck(x: Near, of: Ints, group: Ints, code: Ints) -> tuple[Ints, Rows]:
    """Where each pair's list begins, and the share of each place on it without its group."""
    pair, entry, start = _spread(np.bincount(x.of, minlength=x.n), of)
    kept = code[x.item[entry]] != group[pair]
    share = np.zeros(len(entry))
    share[kept] = share_places(pair[kept], x.score[entry[kept]], x.k)
    return start, share


def _spread(counts: Ints, of: Ints) -> tuple[Ints, Ints, Ints]:
    """For each pair all entries of its row: the pair, the entry, and where the pair begins."""
    lengths, first = counts[of], (np.cumsum(counts) - counts)[of]
    start = np.cumsum(lengths) - lengths
    pair = np.repeat(np.arange(len(of)), lengths)
    return pair, np.arange(int(lengths.sum())) + (first - start)[pair], start


def _first(x: Near) -> Ints:
    counts = np.bincount(x.of, minlength=x.n)
    return np.cumsum(counts) - counts


def _parts(of: Ints, *sides: Near) -> Iterator[slice]:
    """The pairs, as many at a time as memory should hold with their lists."""
    longest = max(int(np.bincount(x.of).max()) for x in sides)
    step = max(1, blocks_of.BLOCK_ENTRIES // longest)
    return (slice(start, start + step) for start in range(0, len(of), step))
