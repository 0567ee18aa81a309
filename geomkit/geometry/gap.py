"""How far apart do two modalities lie as clouds?"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from geomkit.geometry.isotropy import cosine_sums, cross_cosine_sums, ratio
from geomkit.geometry.moments import PairedMoments, pair_moments
from geomkit.geometry.rows import Array, Groups, directions, same_columns
from geomkit.geometry.sphere import alignment, cosines_of, squared_distances
from geomkit.geometry.sums import total


def modality_gap(x: Array | PairedMoments, y: Array | None = None) -> float:
    """Distance between the mean unit rows, in [0, 2]; lower is closer.

    The plug-in value: its square is too high by about `(tr Cx + tr Cy) / N`, so it is not 0 without
    a gap but near `modality_gap_null`.

    Raises:
        DegenerateInput: one side points one way only.

    Reference:
        Liang et al. 2022, arXiv:2203.02053.
    """
    pair = pair_moments(x, y)
    if pair is None:
        offset = mean_offset(directions(x), directions(y))
    else:
        cosines_of(pair)  # refuses sides that have no directions, or other columns
        offset = pair.left.units.mean - pair.right.units.mean
    return math.sqrt(total(offset * offset))


def modality_gap_unbiased(
    x: Array | PairedMoments,
    y: Array | None = None,
    *,
    paired: bool = True,
    groups: Groups | None = None,
) -> float:
    """The SQUARED gap without its bias, in about [0, 4]; lower is closer, 0 is no gap.

    `a_x + a_y - 2 a_xy` of mean cosines; only the square has an unbiased estimate, and it can fall
    a little below 0. With `paired=True` (rows of one sample match) `a_xy` leaves out the matched
    pairs, or with `groups` every pair inside a group; with `paired=False` it takes all pairs.

    Raises:
        DegenerateInput: one side points one way only.
    """
    pair = pair_moments(x, y, groups)
    if pair is not None:
        found = cosines_of(pair)
        return found.left + found.right - 2 * (found.apart if paired else found.across)
    u, v = directions(x), directions(y)
    own = groups if paired else None
    within = ratio(*cosine_sums(u, own)) + ratio(*cosine_sums(v, own))
    return within - 2 * ratio(*cross_cosine_sums(u, v, paired, own)[:2])


def relative_modality_gap(
    x: Array | PairedMoments, y: Array | None = None, groups: Groups | None = None
) -> float:
    """Distance of matched rows relative to distances inside a side, in [0, 1]; lower is closer.

    `d_xy / (d_xy + (d_xx + d_yy) / 2)` with `d` one minus the mean cosine: `d_xy` over the matched
    pairs, `d_xx` and `d_yy` over distinct rows of one side (of other groups). 0 when every pair
    coincides; 1/2 when a row lies as far from its partner as from the others of its own side.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: one side points one way only, or all rows are in one group.

    Reference:
        Schrodi et al. 2024, arXiv:2404.07983.
    """
    pair = pair_moments(x, y, groups)
    if pair is not None:
        found = cosines_of(pair)
        across, inside = 1 - found.matched, 1 - (found.left + found.right) / 2
    else:
        u, v = directions(x), directions(y)
        apart = squared_distances(u, v) / 2
        across = float(array_namespace(apart).mean(apart))
        inside = 1 - (ratio(*cosine_sums(u, groups)) + ratio(*cosine_sums(v, groups))) / 2
    return across / (across + inside)


def modality_gap_null(x: Array | PairedMoments, y: Array | None = None) -> float:
    """The plug-in gap expected when each matched pair is swapped by a coin: no gap at all.

    `sqrt(mean ||u - v||^2 / N)`, the root of the exact mean square.
    """
    return math.sqrt(alignment(x, y) / x.shape[0])


def mean_offset(u: Array, v: Array) -> Array:
    """Mean of `u` minus mean of `v`, `(dim,)`."""
    same_columns(u, v)
    xp = array_namespace(u)
    return xp.mean(u, axis=0) - xp.mean(v, axis=0)
