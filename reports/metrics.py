"""What the metrics are called, what they ask, and which of them are read together.

A metric that is not listed keeps its own name; a prefix up to "@" or the longest known beginning
decides, so that `recall@5` and `outlier_ablated_3` find their place.
"""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = "drift:"
"""Begins the names of drifts where they are filed with the measurements."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is called and read."""

    title: str
    meaning: str
    family: str = "other"


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that answer one question; the first family is the one that verdicts are made of."""

    key: str
    title: str
    question: str


FAMILIES: tuple[Family, ...] = (
    Family("headline", "Headline", "The measures that the verdicts are made of."),
    Family("cone", "Isotropy", "Do the states point one way, and which dimensions make them?"),
    Family("spectrum", "Spectrum", "How many directions carry the variance?"),
    Family("diversity", "Diversity", "How unlike are the rows, and do samples stand out?"),
    Family("dimension", "Dimension", "How many dimensions does the cloud have near each row?"),
    Family("gap", "Gap", "How far apart are the modalities' clouds?"),
    Family("neighbours", "Neighbours", "Who is near whom, and is it the same in both modalities?"),
    Family("arrangement", "Arrangement", "Are two modalities arranged alike?"),
    Family("retrieval", "Retrieval", "Is the right partner found?"),
    Family("readout", "Read-outs", "What can be read off the states, in how few bits?"),
    Family("drift", "Drift", "How far did the same rows move? No way is better."),
    Family("other", "Other measures", "Measures without a family of their own."),
)

METRICS: dict[str, Metric] = {
    "mean_cosine": Metric(
        "Anisotropy",
        "Mean cosine of distinct samples: 1 when all point one way, 0 when spread.",
        "headline",
    ),
    "uniformity": Metric(
        "Uniformity",
        "Log of the mean Gaussian potential: lower fills the sphere more evenly.",
        "headline",
    ),
    "effective_rank": Metric(
        "Effective rank",
        "How many directions carry the variance: the exponential of its entropy.",
        "headline",
    ),
    "alignment": Metric(
        "Alignment",
        "Mean squared distance of the two views of one sample: 0 when they coincide.",
        "headline",
    ),
    "modality_gap": Metric(
        "Modality gap",
        "Squared distance of the modalities' centres, without the bias of few samples.",
        "headline",
    ),
    "mutual_knn": Metric(
        "Shared neighbours",
        "Share of nearest neighbours that two modalities agree on.",
        "headline",
    ),
    "retrieval_r1": Metric(
        "Retrieval at 1",
        "How often the nearest neighbour in the other modality is the right one.",
        "headline",
    ),
    "cross_mean_cosine": Metric(
        "Cross anisotropy", "Mean cosine of unrelated samples across two modalities.", "cone"
    ),
    "mean_norm_share": Metric(
        "Share of the mean", "How much of the states' squared length is their common mean.", "cone"
    ),
    "iso_score": Metric(
        "IsoScore", "How evenly the dimensions are used: 1 is isotropic.", "cone"
    ),
    "partition_isotropy": Metric(
        "Partition isotropy", "Least over largest partition sum: 1 is isotropic.", "cone"
    ),
    "cosine_contribution": Metric(
        "Largest contribution", "Share of the mean cosine that single dimensions make.", "cone"
    ),
    "outlier": Metric(
        "Without outlier dimensions", "The measure after its loudest dimensions are taken out.",
        "cone",
    ),
    "participation_ratio": Metric(
        "Participation ratio",
        "How many directions carry the variance: its sum squared, over squares.",
        "spectrum",
    ),
    "rank_me": Metric(
        "RankMe", "Effective rank of the states with their mean: singular values as shares.",
        "spectrum",
    ),
    "stable_rank": Metric(
        "Stable rank", "Total variance over that of the strongest direction.", "spectrum"
    ),
    "spectral_decay": Metric(
        "Spectral decay", "Exponent of the fall of the spectrum: 0 is isotropic.", "spectrum"
    ),
    "vendi_score": Metric(
        "Vendi score", "How many unlike rows there are, in effect.", "diversity"
    ),
    "self_cluster": Metric(
        "Self-clustering", "How much rows crowd together, against spread on the sphere.",
        "diversity",
    ),
    "lidar": Metric(
        "LiDAR", "How many directions tell samples apart beyond their own views.", "diversity"
    ),
    "two_nn": Metric(
        "TwoNN dimension", "Dimension near each row, from its two nearest neighbours.",
        "dimension",
    ),
    "gride": Metric(
        "Gride dimension", "Dimension near each row, over a range of scales.", "dimension"
    ),
    "modality_gap_unbiased": Metric(
        "Modality gap, unbiased", "The squared gap without the bias of small samples.", "gap"
    ),
    "relative_modality_gap": Metric(
        "Relative gap", "Gap over distances within: one half is no nearer than one's own side.",
        "gap",
    ),
    "modality_separability": Metric(
        "Separability", "How well a linear classifier tells the modalities apart.", "gap"
    ),
    "cknna": Metric(
        "CKNNA", "Kernel alignment on rows that are neighbours in both modalities.", "neighbours"
    ),
    "hub": Metric("Hubness", "How unevenly rows appear in others' neighbour lists.", "neighbours"),
    "anti_hub": Metric(
        "Anti-hubs", "Share of rows that are in nobody's neighbour list.", "neighbours"
    ),
    "linear_cka": Metric(
        "Linear CKA", "Agreement of the two modalities' geometry, up to rotation and scale.",
        "arrangement",
    ),
    "rsa": Metric(
        "RSA", "Rank correlation of the two modalities' distances.", "arrangement"
    ),
    "procrustes": Metric(
        "Procrustes", "Agreement of the two modalities after the best rotation.", "arrangement"
    ),
    "cca": Metric("CCA", "Agreement of the two modalities up to a linear map.", "arrangement"),
    "principal_angle": Metric(
        "Principal angles", "Angles between the two modalities' leading directions.",
        "arrangement",
    ),
    "retrieval_mrr": Metric(
        "Mean reciprocal rank", "One over the rank of the right answer, on average.", "retrieval"
    ),
    "gallery_hubness": Metric(
        "Hubness of answers", "How unevenly answers are given in retrieval.", "retrieval"
    ),
    "mean_cosine_ablated": Metric(
        "Anisotropy without outlier dimensions",
        "Mean cosine after the loudest dimensions are taken out.", "cone",
    ),
    "linear_cka_ablated": Metric(
        "Linear CKA without outlier dimensions",
        "Linear CKA after the loudest dimensions are taken out.", "arrangement",
    ),
    "robin_hood": Metric(
        "Robin Hood index", "Share of neighbour slots to move until all rows have as many.",
        "neighbours",
    ),
    "hubness": Metric(
        "Hubness", "How unevenly rows appear in others' neighbour lists.", "neighbours"
    ),
    "modality_gap_plug_in": Metric(
        "Modality gap, plug-in", "Distance of the two means, small samples make it larger.", "gap"
    ),
    "mrr": Metric(
        "Mean reciprocal rank", "One over the rank of the right answer, on average.", "retrieval"
    ),
    "retrieval_r5": Metric(
        "Retrieval at 5", "How often the right one is among the nearest five.", "retrieval"
    ),
    "retrieval": Metric("Retrieval", "How often the right partner is found.", "retrieval"),
    "recall": Metric("Recall", "How often the right partner is found.", "retrieval"),
    "label_bits": Metric("Label bits", "Bits to tell the labels, given the states.", "readout"),
    "mdl": Metric(
        "Compression",
        "Length of the labels' uniform code over that of a probe's code: 1 saves nothing.",
        "readout",
    ),
    "separability": Metric(
        "Separability", "How well a linear classifier tells the modalities apart.", "gap"
    ),
    "curvature": Metric("Curvature", "How bent a sample's path over the layers is."),
    "logit_lens": Metric("Logit lens", "What the head would say of this layer's state."),
    "drift_cka": Metric(
        "CKA with its own past", "Agreement of the same rows before and after: 1 is no change.",
        "drift",
    ),
    "drift_overlap": Metric(
        "Overlap of leading axes", "Mean squared cosine of the leading subspaces: 1 is no change.",
        "drift",
    ),
    "drift_angle": Metric(
        "Turn of leading axes", "Angle of the leading subspaces in degrees: 0 is no change.",
        "drift",
    ),
    "probe": Metric("Probes", "spoken attributes"),
    "generative_loss": Metric(
        "Generative loss", "Cross-entropy of the caption given the input, in nats a token."
    ),
}  # fmt: skip


def known_as(metric: str) -> Metric | None:
    """What is known of a metric: by its own name, or by the longest beginning that is listed."""
    metric = metric.removeprefix(DRIFT)
    if metric in METRICS:
        return METRICS[metric]
    begun = [
        name
        for name in METRICS
        if metric.startswith(name) and metric[len(name) : len(name) + 1] in {"@", "_", ":", "-"}
    ]
    return METRICS[max(begun, key=len)] if begun else None


def family_of(metric: str) -> str:
    """The key of the family that a metric is read in; only exact names are headline ones."""
    if metric.startswith(DRIFT):
        return "drift"
    known = known_as(metric)
    if known is None:
        return "other"
    return known.family if metric in METRICS or known.family != "headline" else "other"
