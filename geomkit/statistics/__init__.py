"""How sure is a number, and is a change a change?

One idea carries the package. To first order the error of any of our metrics is a sum over clusters
of rows, `value - truth = sum of shares`, and an `Estimate` keeps those shares:

    from_rows        exact first-order shares of means and U-statistics, from one influence per row
    from_scores      the same for means of hits and other scores in [0, 1]
    from_jackknife   shares of everything else, from the value without each fold of rows
    difference       after minus before ON THE SAME ROWS: subtract the values, subtract the shares
    interval         value +- t sd(shares); Wilson's rule for scores in [0, 1]
    ratio            one change over another, on rows that may be shared: Fieller's interval
    bands, max_t     intervals, p values of a family of the same clusters: the max-statistic
    holm             p values of any family
    permuted, cka_p  could partners by lot do as well?
    subsampled       an interval without shares, from parts of the rows

So before and after get one paired interval, whatever the metric. Clusters are groups of rows that
are the same thing; a fold never splits one. There is no bootstrap with replacement here: copies of
a row bias every metric that looks at pairs (metrics of rank, neighbours, uniformity).
"""

from __future__ import annotations

from geomkit.statistics.families import bands, holm, max_t
from geomkit.statistics.intervals import LEAST_GROUPS, interval, p_value
from geomkit.statistics.permutations import cka_p, pearson_p, permutation_p, permuted
from geomkit.statistics.ratios import ratio
from geomkit.statistics.shares import (
    FOLDS,
    Estimate,
    Method,
    difference,
    folds_of,
    from_jackknife,
    from_rows,
    from_scores,
)
from geomkit.statistics.subsampling import subsampled

__all__ = [
    "FOLDS",
    "LEAST_GROUPS",
    "Estimate",
    "Method",
    "bands",
    "cka_p",
    "difference",
    "folds_of",
    "from_jackknife",
    "from_rows",
    "from_scores",
    "holm",
    "interval",
    "max_t",
    "p_value",
    "pearson_p",
    "permutation_p",
    "permuted",
    "ratio",
    "subsampled",
]
