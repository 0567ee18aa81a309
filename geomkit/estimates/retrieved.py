"""The metrics of queries in one modality and answers in another.

Queries are the units; the gallery is taken as given, as it is the same before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from geomkit import statistics
from geomkit.estimates.metric import Metric
from geomkit.estimates.space import NEIGHBOURS, WHOLE, Rows, Space
from geomkit.estimates.within import from_rows
from geomkit.geometry import ranking
from geomkit.geometry.ranking import Retrieval
from geomkit.geometry.removals import robin_hood_influence
from geomkit.geometry.struck import near
from geomkit.statistics import Estimate


@dataclass(frozen=True, eq=False)
class Search:
    """Queries `x` in the gallery `y`, and the ranks of their right answers, found once."""

    x: Space
    y: Space
    cosines: Rows | None = None
    """`x` times `y` where the caller has it."""

    @cached_property
    def found(self) -> Retrieval:
        """Rank of the best right answer of each query."""
        x, y = self.x, self.y
        return ranking.rank_answers(x.unit, y.unit, x.clusters, y.clusters, self.cosines)


def searches(x: Space, y: Space) -> tuple[Search, Search]:
    """`x` in `y`, and `y` in `x`, from one product where it is kept."""
    if x.flaw or y.flaw or x.n > WHOLE:
        return Search(x, y), Search(y, x)
    cosines = x.device.gram(x.unit, y.unit)
    return Search(x, y, cosines), Search(y, x, cosines.T)


def recall_1(of: Search) -> Estimate:
    """The share of queries whose answer comes first."""
    return _scored(of, of.found.hits(1), of.found.chance_recall(1))


def recall_5(of: Search) -> Estimate:
    """The share of queries whose answer is among the first five."""
    return _scored(of, of.found.hits(5), of.found.chance_recall(5))


def mrr(of: Search) -> Estimate:
    """Mean reciprocal rank."""
    return _scored(of, 1 / of.found.ranks, of.found.chance_mrr())


def _scored(of: Search, scores: Rows, chance: float) -> Estimate:
    return statistics.from_scores(scores, of.x.clusters, chance=chance, names=of.x.groups)


def hubness(of: Search) -> Estimate:
    """How unevenly the gallery's items are found, counted again without each group."""
    lists = near(of.x.unit, of.x.folds, NEIGHBOURS, items=of.y.unit, cosines=of.cosines)
    found, slope = robin_hood_influence(lists, of.x.clusters)
    return from_rows(of.x, found.robin_hood, slope, chance=None)


_TIES = "equal groups are right answers; a tie is a miss"

RETRIEVED: Mapping[str, Metric[Search]] = {
    "retrieval_r1": Metric(
        recall_1, "retrieval", "higher", (0.0, 1.0), "Radford et al. 2021, arXiv:2103.00020", _TIES
    ),
    "retrieval_r5": Metric(
        recall_5, "retrieval", "higher", (0.0, 1.0), "Radford et al. 2021, arXiv:2103.00020", _TIES
    ),
    "retrieval_mrr": Metric(mrr, "retrieval", "higher", (0.0, 1.0), "Voorhees 1999, TREC-8", _TIES),
    "gallery_hubness": Metric(
        hubness,
        "retrieval",
        "lower",
        (0.0, 1.0),
        "Feldbauer et al. 2018",
        f"share of places in lists of {NEIGHBOURS} answers that would have to move to make all "
        "items alike",
    ),
}
"""Metrics of a direction, by name, in the order in which they are recorded."""
