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
from geomkit.geometry.hubs import Hubness
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
    """The influence of each row on the mean score: a jackknife of groups without its excess."""
    own = found.scores - found.scores.mean()
    sizes = np.bincount(code)
    return np.asarray(excess(found, code) * (own + (_lost(found, len(sizes)) / sizes)[code]))


def excess(found: Removals, code: Ints) -> float:
    """The true spread over the jackknife's, in (0, 1].

    The squares of what two groups lose together, beyond what each loses alone, are counted once
    less (the second term of Efron and Stein's expansion). Never below what independent groups would
    have.

    Reference:
        Efron and Stein 1981, Ann. Statist. 9.
    """
    own = found.scores - found.scores.mean()
    groups = int(code.max()) + 1
    alone = np.bincount(code, own, groups)
    whole = float(((alone + _lost(found, groups)) ** 2).sum())
    kept = max(whole - _together(found, code, groups), float((alone**2).sum()))
    return float(np.sqrt(min(1.0, kept / whole))) if whole > 0 else 1.0


def _lost(found: Removals, groups: int) -> Rows:
    """What all rows lose with each group, about its mean."""
    lost = np.bincount(found.group, found.loss, groups).astype(np.float64)
    return np.asarray(lost - lost.mean())


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


def skewness_influence(x: Near, code: Ints | None = None) -> tuple[Hubness, Rows]:
    """`hubness`, and each sample's influence on its skewness, `(samples,)`.

    To first order a mean over items, whose occurrences change with every group that is taken away.
    Narrower than `hubness_without`, whose jackknife counts what two rows decide together twice:
    measured 1.0 to 1.15 times the true spread where that is 1.6 to 1.8 times.

    Raises:
        DegenerateInput: all items occur equally often.

    Reference:
        Hampel 1974, J. Amer. Statist. Assoc. 69, for the influence on a skewness.
    """
    found, off, code = _occurrences(x, code)
    skew, sd = found.skewness, float(off.std())
    z = off / sd
    lean = z**3 - 3 * z - 1.5 * skew * (z**2 - 1)
    return found, _by_items(x, code, lean, 3 / sd * (z**2 - 1 - skew * z))


def robin_hood_influence(x: Near, code: Ints | None = None) -> tuple[Hubness, Rows]:
    """`hubness`, and each sample's influence on its Robin Hood index, `(samples,)`; as above."""
    found, off, code = _occurrences(x, code)
    twice = 2 * x.k  # the mean of the occurrences is k
    return found, _by_items(x, code, np.abs(off) / twice, np.sign(off) / twice)


def _occurrences(x: Near, code: Ints | None) -> tuple[Hubness, Rows, Ints]:
    code = np.arange(x.n) if code is None else code
    counts = np.bincount(x.item, x.shares(), x.n).astype(np.float64)
    return Hubness(counts, x.k, x.n - (not x.across)), counts - counts.mean(), code


def _by_items(x: Near, code: Ints, scores: Rows, slope: Rows) -> Rows:
    item, group, lost = _occurrences_lost(x, code)
    return narrowed(Removals(scores, item, group, slope[item] * lost), code)


def _occurrences_lost(x: Near, code: Ints) -> tuple[Ints, Ints, Rows]:
    """How many lists an item leaves without a group: item, group, count, where it is not 0."""
    share = x.shares()
    groups = int(code.max()) + 1
    keys, lost = [x.item * groups + code[x.of]], [share]  # lists of the group's own rows
    pairs = np.unique(x.of[share > 0] * groups + code[x.item[share > 0]])
    of, group = pairs // groups, pairs % groups
    for some in _parts(of, x):
        pair, entry, _ = _spread(np.bincount(x.of, minlength=x.n), of[some])
        left = _struck(x, of[some], group[some], code)[1]
        others = code[x.of[entry]] != group[some][pair]
        entry, left, pair = entry[others], left[others], pair[others]
        keys.append(x.item[entry] * groups + group[some][pair])
        lost.append(share[entry] - left)
    found, place = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(place, np.concatenate(lost), len(found))
    item, group = found // groups, found % groups
    kept = (total != 0) & (code[item] != group)
    return item[kept], group[kept], total[kept]
