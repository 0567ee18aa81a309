"""Who are the neighbours once a fold of the samples is left out?

    near                 unit rows, their folds     -> the nearest of each row by cosine
    apart.near_apart     rows as they are, folds    -> the nearest of each row by distance

Each makes one `Near` of a space, and every neighbour metric reads it: whole, and without each fold.
Leaving a fold out is striking its samples, as rows and as items. A list is as long as it takes for
`k` to remain whichever fold is struck, so nothing is searched twice. That is little more than `k`,
since a fold rarely holds many neighbours of one row; where it does, that row's list alone is made
anew, to `k` beyond the largest fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import rows as blocks_of
from geomkit.geometry.candidates import candidates
from geomkit.geometry.nearest import kth_largest, pair_cosines, require_enough, share_places
from geomkit.geometry.rows import TIE, Array, matched, on_device, on_host

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]
Entries = tuple[Ints, Ints, Rows]  # row, item, score

SPARE = 6
"""Places a list has beyond `2 k` at first: more than a fold takes but for one row in thousands."""
MOST_ENTRIES = 2**24
"""Neighbours that are kept beside those asked for: where more tie, there is no neighbourhood."""


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """The nearest items of each row, row by row and nearest first, for any fold to be struck.

    Entry by entry: `item` is near row `of`, at `score` (a cosine, or minus a squared distance).
    `folds` has the fold of each sample; sample i is row i and item i. There are `count` folds.
    `across` is true where rows and items are of two modalities. Of `given` rows those at `kept` are
    the samples here, the others are copies; distances are in units of `scale`.
    """

    of: Ints
    item: Ints
    score: Rows
    folds: Ints
    k: int
    count: int
    kept: Ints
    given: int
    across: bool = False
    scale: float = 1.0

    @property
    def n(self) -> int:
        """Samples, those of all folds."""
        return len(self.folds)

    @property
    def copies(self) -> int:
        """Rows that were left out beforehand because they equal others."""
        return self.given - self.n

    def strikes(self) -> range:
        """Fold -1, which does not exist, so that nothing is left out; then every fold."""
        return range(-1, self.count)

    def left(self, fold: int) -> int:
        """Samples that remain without `fold`."""
        return int((self.folds != fold).sum())

    def shares(self, fold: int = -1) -> Rows:
        """The share of a place among the `k` nearest without `fold`, entry by entry, 0 for none."""
        kept = self._entries(fold)
        share = np.zeros(len(self.of))
        share[kept] = share_places(self.of[kept], self.score[kept], self.k)
        return share

    def best(self, fold: int = -1) -> Rows:
        """The `k` best scores of each row that remains without `fold`, best first, `(rows, k)`."""
        kept = self._entries(fold)
        counts = np.bincount(self.of[kept], minlength=self.n)
        first = (np.cumsum(counts) - counts)[self.folds != fold]
        return np.asarray(self.score[kept][first[:, None] + np.arange(self.k)])

    def distances(self, fold: int = -1) -> Rows:
        """The `k` least distances of each row that remains without `fold`, ascending."""
        return np.sqrt(np.maximum(-self.best(fold), 0.0)) * self.scale

    def _entries(self, fold: int) -> NDArray[np.int64]:
        return np.flatnonzero((self.folds[self.of] != fold) & (self.folds[self.item] != fold))


def near(
    u: Array,
    folds: Ints,
    k: int = 10,
    *,
    code: Ints | None = None,
    items: Array | None = None,
    cosines: Array | None = None,
) -> Near:
    """The nearest of each unit row by cosine, made once for all folds.

    Among the rows themselves, where rows of one `code` never meet; or among `items`, unit rows of
    another modality of the same samples, where a query may find its own. `cosines` is `u @ u.T`,
    or `u @ items.T`, where the caller has it. Memory grows with N.

    Raises:
        UsageError: `k` below 1, or items that are not of the same samples.
        DegenerateInput: without the largest fold no more than `k` would be left to choose from, or
            so many ties that there are no neighbourhoods.
    """
    v = u if items is None else items
    matched(u, v)
    own = np.arange(len(folds)) if code is None else code
    bars = (own, own) if items is None else None
    barred = own if items is None else np.empty(0, np.int64)
    require_enough(len(folds), k, barred, leave_out=int(np.bincount(folds).max()))

    def screened(depth: int) -> Entries | None:
        if cosines is not None or str(device(u)) != "cpu":
            return None
        a = on_host(u)
        b = a if items is None else on_host(v)
        found = candidates(a, b, depth, bars)
        if found is None:
            return None
        return found.of, found.item, pair_cosines(a, b, found.of, found.item)

    def block(some: Ints) -> Array:
        cosine = rows_of(u, some) @ v.T if cosines is None else rows_of(cosines, some)
        if bars is None:
            return cosine
        xp, same = array_namespace(cosine), own[some][:, None] == own[None, :]
        return xp.where(on_device(same, cosine), -xp.inf, cosine)

    return replace(deep_enough(screened, block, folds, k), across=items is not None)


def deep_enough(
    screened: Callable[[int], Entries | None], block: Callable[[Ints], Array], folds: Ints, k: int
) -> Near:
    """Lists of which `k` remain whichever fold is struck, from either source of scores.

    `screened` has a way to the nearest of all rows to some depth, or None; `block` has all scores
    of some rows, -inf for what they may not have.
    """
    n, largest = len(folds), int(np.bincount(folds).max())
    depth = min(2 * k + SPARE, k + largest)
    found = screened(depth)
    step = max(1, blocks_of.BLOCK_ENTRIES // n)
    entries = _listed(block, np.arange(n), depth, step) if found is None else _sorted(*found)
    entries, short = _trimmed(entries, folds, k, depth)
    if len(short):
        deep, _ = _trimmed(_listed(block, short, k + largest, step), folds, k, k + largest)
        entries = _joined([entries, deep])
    return Near(*entries, folds, k, int(folds.max()) + 1, np.arange(n), n)


def rows_of(x: Array, some: Ints) -> Array:
    """Some rows of an array of any library."""
    if len(some) == x.shape[0]:
        return x
    return array_namespace(x).take(x, on_device(some, x), axis=0)


def _listed(block: Callable[[Ints], Array], some: Ints, depth: int, step: int) -> Entries:
    """The nearest `depth` of some rows and all that tie with the last, a block at a time."""
    parts: list[Entries] = []
    for start in range(0, len(some), step):
        rows = some[start : start + step]
        score = block(rows)
        host, near_enough = on_host(score), on_host(score >= kth_largest(score, depth) - TIE)
        of, item = np.nonzero(near_enough)
        parts.append((rows[of], item, host[of, item]))
        if sum(len(part[0]) for part in parts) > MOST_ENTRIES + depth * len(some):
            raise DegenerateInput(
                f"Expected rows with {depth} nearest neighbours, got ties of more than "
                f"{MOST_ENTRIES} cosines; drop equal rows or capture in float32."
            )
    return _joined(parts)


def _joined(parts: list[Entries]) -> Entries:
    of, item = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return _sorted(of, item, np.concatenate([part[2] for part in parts]))


def _sorted(of: Ints, item: Ints, score: Rows) -> Entries:
    order = np.lexsort((-score, of))
    return of[order], item[order], score[order]


def _trimmed(entries: Entries, folds: Ints, k: int, depth: int) -> tuple[Entries, Ints]:
    """Each list as far as `k` remain without the fold that it has most of; and rows too short."""
    of, item, score = entries
    counts = np.bincount(of, minlength=len(folds))
    first = np.cumsum(counts) - counts
    place = np.arange(len(of)) - first[of]
    seen = np.maximum.accumulate(_times_seen(of, folds[item]) + of * len(of)) - of * len(of)
    needed = np.bincount(of[place + 1 - seen < k], minlength=len(folds))
    listed = counts > 0
    short = listed & (needed >= np.minimum(counts, depth))
    cut = np.full(len(folds), np.inf)
    enough = listed & ~short
    cut[enough] = score[(first + needed)[enough]]
    kept = score >= cut[of] - TIE
    return (of[kept], item[kept], score[kept]), np.flatnonzero(short)


def _times_seen(of: Ints, fold: Ints) -> Ints:
    """How often the fold of an entry has come in its list, up to and with it."""
    key = of * (int(fold.max()) + 1) + fold
    order = np.argsort(key, kind="stable")
    new = np.diff(key[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(new, np.arange(len(key)), 0))
    seen = np.empty(len(key), np.int64)
    seen[order] = np.arange(len(key)) - start + 1
    return seen


def require_alike(a: Near, b: Near) -> None:
    """Refuses neighbours of other samples, other folds or another `k`."""
    if a.k != b.k or not np.array_equal(a.folds, b.folds):
        raise UsageError(
            f"Expected neighbours of the same samples in the same folds, got k = {a.k} of {a.n} "
            f"rows and k = {b.k} of {b.n}; make both with one k and one `folds`."
        )


def same_places(n: int, a: tuple[Ints, Ints], b: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Where the entries (row, item) that both lists have stand in each."""
    keys_a, keys_b = a[0] * n + a[1], b[0] * n + b[1]
    _, in_a, in_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    return in_a, in_b


def widened(influence: Rows, of: Ints, item: Ints) -> Rows:
    """The influence of rows, times what their sum spreads more for pairs that are alike.

    The variance of a sum over rows that depend on their neighbours is the sum of products over all
    pairs that do, `e_i e_j` with `i = j` among them; independent rows have only those. A pair may
    be listed once or both ways round. Never narrower than independent rows.
    """
    n, own = len(influence), float(influence @ influence)
    key = np.unique(np.minimum(of, item) * n + np.maximum(of, item))
    shared = 2 * float(influence[key // n] @ influence[key % n])
    return influence * np.sqrt(1 + max(0.0, shared) / own) if own > 0 else influence
