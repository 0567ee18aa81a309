"""How lopsided is CKA over all pairings of the rows? The third moment, exact and without permuting.

The debiased form is `sum A B` over two N x N matrices whose rows sum to zero and whose diagonal is
empty. Of a product of three such sums each term is a little graph of three edges; because rows sum
to zero, the sums over all eight kinds of graph follow from two numbers a side: the cubes of the
entries, and the triangles.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, device

from geomkit.geometry.hsic import hsic, require_signal
from geomkit.geometry.rows import Array, deviations, matched, similarity_blocks

LEAST = 6  # three edges can touch six rows

GRAPHS = np.array([
    # ways, rows, and the sum over its places: how many cubes, how many triangles
    (4, 2, 1, 0),  # one edge, three times
    (24, 3, -1, 0),  # one twice, and one at its end
    (6, 4, 2, 0),  # one twice, and one elsewhere
    (8, 3, 0, 1),  # a triangle
    (24, 4, 1, -1),  # a path
    (8, 4, 2, 0),  # a star
    (12, 5, -4, 2),  # a path of two, and one elsewhere
    (1, 6, 16, -8),  # three apart
])  # fmt: skip


def linear_cka_skew(x: Array, y: Array) -> float:
    """Exact skewness of the debiased `linear_cka` over all N! pairings of the rows.

    With `linear_cka_null` these are three moments, enough for a p value (`statistics.pearson_p`).
    Large and positive where few directions carry the variance on both sides, near 0 where many do.
    Without groups, whose rows cannot be exchanged. Memory grows with N and not with N squared.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: constant rows, fewer than 6, or too few to remove the bias.

    Reference:
        Mantel 1967, Cancer Research 27; Siemiatycki 1978, J. Math. Biol. 6, for third moments.
    """
    sides = deviations(x, LEAST), deviations(y, LEAST)
    matched(*sides)
    n = int(sides[0].shape[0])
    ways, rows, *weights = GRAPHS.T
    sums = [weights[0] * cubes + weights[1] * triangles for cubes, triangles in map(_sums, sides)]
    places = [float(math.perm(n, int(count))) for count in rows]
    third = float((ways * sums[0] * sums[1] / places).sum())
    return float(third / (2 / (n * (n - 3))) ** 1.5)


def _sums(c: Array) -> tuple[float, float]:
    """Of centred rows: sum of cubes, and of triangles, of the matrix at unit sum of squares."""
    xp, n = array_namespace(c), int(c.shape[0])
    energy = hsic(c, c)
    require_signal(energy)
    c = c / energy**0.25
    own = xp.sum(c * c, axis=1)
    edge, level = own / (n - 2), float(xp.sum(own)) / ((n - 1) * (n - 2))
    diagonal = own + 2 * edge - level
    cubes = -float(xp.sum(diagonal**3))
    for at, block in similarity_blocks(c, c):
        cubes += float(xp.sum((block + edge[at][:, None] + edge[None, :] - level) ** 3))
    ones = xp.ones((n, 1), dtype=c.dtype, device=device(c))
    factor = xp.concat([c, edge[:, None], ones], axis=1)
    turned = xp.concat([c, ones, edge[:, None] - level], axis=1)  # the matrix is factor @ turned.T
    inner = turned.T @ factor
    through = xp.sum((factor @ inner) * turned, axis=1)
    whole = float(xp.sum((inner @ inner) * inner.T))
    triangles = whole - 3 * float(xp.sum(diagonal * through)) + 2 * float(xp.sum(diagonal**3))
    return cubes, triangles
