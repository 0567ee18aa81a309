"""What one change may claim: better, worse, no clear change, or nothing; one rule for all tellers.

    PASS     clearly better
    FAIL     clearly worse
    WARN     no clear change: the interval holds zero, the correction of its family takes it away,
             or it is less than rounding can do
    NOT RUN  there is no change to speak of
    info     no claim either way: a metric without a better way, or a distance that the spread of
             the states explains

Distances between modalities are never judged without uniformity: when states spread over the
sphere every distance grows, and when they collapse everything meets; neither says anything about
the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

from geomkit.types import Difference, Status

FINAL = "final_norm"
"""The site that verdicts are made at."""

LEVEL = 0.05
"""Error rate of a whole family of tests."""

FEW = 20
"""Groups of samples below which a claim says how few they were: one of them can decide it."""

LEAST: Mapping[str, float] = {
    "mean_cosine": 1e-3,
    "uniformity": 1e-3,
    "effective_rank": 1e-2,
    "alignment": 1e-3,
    "modality_gap": 1e-3,
    "mutual_knn": 1e-3,
    "generative_loss": 1e-3,
    "mean_cosine_ablated": 1e-3,
    "cosine_contribution": 1e-3,
    "mean_norm_share": 1e-3,
    "self_cluster": 1e-3,
    "participation_ratio": 1e-2,
    "iso_score": 1e-4,
    "rank_me": 1e-2,
    "stable_rank": 1e-2,
    "spectral_decay": 1e-3,
    "vendi_score": 1e-2,
    "hubness": 1e-2,
    "robin_hood": 1e-3,
    "two_nn": 1e-2,
    "modality_gap_plug_in": 1e-3,
    "relative_modality_gap": 1e-3,
    "cknna": 1e-3,
    "linear_cka": 1e-3,
    "linear_cka_ablated": 1e-3,
    "procrustes": 1e-3,
    "cca": 1e-3,
    "rsa": 1e-3,
    "retrieval_r1": 1e-3,
    "retrieval_r5": 1e-3,
    "retrieval_mrr": 1e-3,
    "gallery_hubness": 1e-3,
}
"""Changes below these are none, however sure: merging an adapter into float16 weights moves every
state by 1e-4 of its length, and many samples make any shift significant."""

DISTANCES = ("alignment", "modality_gap", "modality_gap_plug_in")
"""Distances on the sphere, which grow when the states spread."""


def claim(difference: Difference, p: float | None = None, spread: Status = "NOT RUN") -> Status:
    """What a change may claim.

    Args:
        difference: the change.
        p: what is left of it in its family of tests; judged alone without one.
        spread: what the change of uniformity says in the medium that a distance is of.
    """
    if difference.better == "neither":
        return "NOT RUN" if difference.value is None else "info"
    told = judged(difference, p)
    return tempered(told, spread) if difference.metric in DISTANCES else told


def judged(difference: Difference, p: float | None = None) -> Status:
    """PASS or FAIL for a change that is clear and stays so in its family; WARN for none."""
    if difference.value is None or difference.interval is None:
        return "NOT RUN"
    if difference.improved is None or negligible(difference):
        return "WARN"
    if p is not None and p >= LEVEL:
        return "WARN"
    return "PASS" if difference.improved else "FAIL"


def tempered(distance: Status, uniformity: Status) -> Status:
    """A distance's status once uniformity is known: a spread or a collapse explains it away."""
    explained = {"PASS": "FAIL", "FAIL": "PASS"}.get(distance)
    return "info" if explained and uniformity in {explained, "NOT RUN"} else distance


def clearly(difference: Difference) -> bool:
    """Does the interval exclude zero, and is the change more than rounding can do?"""
    return difference.clear and not negligible(difference)


def negligible(difference: Difference) -> bool:
    """Is the change smaller than what rounding can do to this metric?"""
    return abs(difference.value or 0.0) < LEAST.get(difference.metric, 0.0)


def sides(modality: str) -> tuple[str, ...]:
    """`image->text` and `image-text` -> ("image", "text"); `image` -> ("image",)."""
    return tuple(modality.replace("->", "-").split("-"))


def medium_of(modality: str) -> str:
    """The side of a pair that is not text."""
    return next((side for side in sides(modality) if side != "text"), "text")
