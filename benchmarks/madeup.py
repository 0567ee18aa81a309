"""A made-up run with everything that an analysis can hold, for what is measured of the report.

records    an `Analysis` with all metrics, probes, label bits, transfers, bindings, drifts and logs
album      maps, neighbours, pairs and spectra, by the package's own code from made-up states
rows       samples seen in all three modalities
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from geomkit.pictures.album import make_album
from geomkit.pictures.records import Album
from geomkit.types import (
    Analysis,
    Better,
    Binding,
    Difference,
    Drift,
    Interval,
    Measurement,
    Modality,
    ProbeResult,
    Row,
    Transfer,
    Verdict,
)

CHECKPOINTS = ("base", "lco")
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio")
WITHIN = (
    *("mean_cosine", "uniformity", "effective_rank", "mean_cosine_ablated", "cosine_contribution"),
    *("mean_norm_share", "self_cluster", "participation_ratio", "iso_score", "rank_me"),
    *("stable_rank", "spectral_decay", "vendi_score", "hubness", "robin_hood", "two_nn"),
)
BETWEEN = (
    *("alignment", "modality_gap", "modality_gap_plug_in", "relative_modality_gap"),
    *("mutual_knn", "cknna", "linear_cka", "linear_cka_ablated"),
)
RETRIEVED = ("retrieval_r1", "retrieval_r5", "retrieval_mrr", "gallery_hubness")
ATTRIBUTES: dict[str, Modality] = {
    "colour": "image", "shape": "image", "size": "image", "position": "image", "tilt": "image",
    "background": "image", "texture": "image", "pitch": "audio", "timbre": "audio",
    "count": "audio", "length": "audio", "contour": "audio", "loudness": "audio",
    "reverberation": "audio",
}  # fmt: skip
SILENT = frozenset({"tilt", "texture", "loudness", "reverberation"})
QUANTITIES = ("r2", "r2_centred", "mean_cosine", "uniformity", "recall@1")
PREDICTORS = ("text", "own", "shift", "turned", "text-own", "text-shift")
DIM = 48
STEPS = 100
"""Steps of the made-up training log."""


class MadeUp:
    """Numbers of full precision and intervals about them, from one seed."""

    def __init__(self, seed: int, groups: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.groups = groups

    def value(self) -> float:
        """A number of full precision: digits are what a page is made of."""
        return float(self.rng.normal())

    def around(self, value: float, method: str = "row means") -> Interval:
        """An interval about a value, of its own width."""
        half = 0.01 + 0.05 * float(self.rng.random())
        return Interval(
            value - half, value + half, 0.95, f"{method}, {self.groups} groups", self.groups
        )


def sites_of(count: int) -> tuple[str, ...]:
    """So many sites: the embeddings, the blocks, the final norm."""
    return ("embed", *(f"block_{i:02d}" for i in range(count - 2)), "final_norm")


def cells() -> Iterator[tuple[str, str, Better]]:
    """Every metric with every modality, pair or direction it is of."""
    for metric in WITHIN:
        yield from ((metric, modality, "higher") for modality in MODALITIES)
    for metric in BETWEEN:
        yield from ((metric, pair, "lower") for pair in ("image-text", "audio-text"))
    for metric in RETRIEVED:
        for way in ("image->text", "text->image", "audio->text", "text->audio"):
            yield metric, way, "higher"


def records(sites: tuple[str, ...], samples: int) -> Analysis:
    """Everything that an analysis holds."""
    own = MadeUp(0, samples)
    probed = (*sites[:-1][::2], sites[-1])  # the default: every other block and the final norm
    found = [*changes(own, sites, samples), *label_bits(own, probed, samples)]
    read = list(probes(own, probed, samples))
    differences = tuple(d for _, _, d in found)
    last = [d for d in differences if d.site == sites[-1]]
    return Analysis(
        "geomkit-analysis/1", "0" * 64, "made up", CHECKPOINTS, sites, MODALITIES,
        ("image-text", "audio-text"), ("text",), "Made-up records.",
        tuple(
            Verdict(d.metric, d.modality, "untrained", "PASS", f"{d.metric} of {d.modality}.")
            for d in last[:33]
        ),
        tuple(m for before, after, _ in found for m in (before, after)), differences,
        tuple(p for before, after, _ in read for p in (before, after)),
        tuple(d for _, _, d in read), (), provenance(own),
        tuple(transfers(own, last)), tuple(bindings(own, probed, samples)),
        tuple(drifts(own, probed, samples)),
    )  # fmt: skip


Change = tuple[Measurement, Measurement, Difference]


def changed(own: MadeUp, first: Measurement) -> Change:
    """A measurement, the same of the second checkpoint, and their difference with both bands."""
    moved = own.value()
    value = (first.value or 0.0) + moved
    after = replace(first, checkpoint=CHECKPOINTS[1], value=value, interval=own.around(value))
    difference = Difference(
        first.metric, *CHECKPOINTS, first.site, first.modality, moved, own.around(moved),
        first.better, first.n, "", own.around(moved, "row means, simultaneous over 28"),
    )  # fmt: skip
    return first, after, difference


def measured(own: MadeUp, metric: str, site: str, modality: str, better: Better, n: int) -> Change:
    """One number before and after; at the embeddings there is none."""
    value = own.value()
    note = "equal groups are right answers; a tie is a miss" if "retrieval" in metric else ""
    first = Measurement(
        metric, CHECKPOINTS[0], site, modality, value, own.around(value), 0.0, better, n,
        "Somebody et al. 2024, arXiv:2401.00000", note,
    )  # fmt: skip
    if site != "embed":
        return changed(own, first)
    why = f"Expected rows that differ, got {n} rows that are equal to float32 resolution."
    gap = replace(first, value=None, interval=None, note=why)
    none = Difference(metric, *CHECKPOINTS, site, modality, None, None, better, n, why)
    return gap, replace(gap, checkpoint=CHECKPOINTS[1]), none


def changes(own: MadeUp, sites: tuple[str, ...], n: int) -> Iterator[Change]:
    """Every metric at every site, and the losses at the head."""
    for metric, modality, better in cells():
        for site in sites:
            yield measured(own, metric, site, modality, better, n)
    for modality in MODALITIES:
        yield measured(own, "generative_loss", "lm_head", modality, "lower", n)


def label_bits(own: MadeUp, sites: tuple[str, ...], n: int) -> Iterator[Change]:
    """Code lengths of every attribute, and how well modalities are told apart."""
    for site in sites:
        for name, medium in ATTRIBUTES.items():
            for modality in ("text", medium):
                yield measured(own, f"mdl:{name}", site, modality, "lower", n // 2)
        for pair in ("image-text", "audio-text"):
            yield measured(own, "modality_separability", site, pair, "lower", n // 2)


def probes(
    own: MadeUp, sites: tuple[str, ...], n: int
) -> Iterator[tuple[ProbeResult, ProbeResult, Difference]]:
    """Every attribute within and across modalities, before and after."""
    for site in sites:
        for name, medium in ATTRIBUTES.items():
            for train, test in ((a, b) for a in ("text", medium) for b in ("text", medium)):
                first = probe(own, name, cast("Modality", train), cast("Modality", test), site, n)
                after = replace(first, checkpoint=CHECKPOINTS[1], accuracy=own.rng.random())
                moved = own.value()
                yield first, after, Difference(
                    f"probe:{name}", *CHECKPOINTS, site, f"{train}->{test}", moved,
                    own.around(moved), "higher", n // 2,
                )  # fmt: skip


def probe(
    own: MadeUp, name: str, train: Modality, test: Modality, site: str, n: int
) -> ProbeResult:
    """One probe with all its company."""
    accuracy, control, uncentred = own.rng.random(3)
    return ProbeResult(
        name, name not in SILENT, train, test, CHECKPOINTS[0], site, accuracy,
        own.around(accuracy, "Wilson"), 0.265151515, 0.25, control, accuracy - control, n // 2,
        n // 2, f"{uncentred:.3f} when the tested modality keeps its own mean",
        own.around(accuracy - control, "paired scores"), accuracy + 0.1, 0.1, uncentred,
    )  # fmt: skip


def transfers(own: MadeUp, last: list[Difference]) -> Iterator[Transfer]:
    """Every difference at the final norm that is not of the trained modality."""
    for d in last:
        if d.modality == "text":
            continue
        share, way = own.value(), own.value()
        yield Transfer(
            d.metric, *CHECKPOINTS, d.site, "text", d.modality, own.value(), d.value, share,
            own.around(share, "Fieller"), "transferred nearly in full",
            f"in the same samples; text went {share:.0%} of its way, {d.modality} {way:.0%}",
            0.0, own.value(), own.value(), way, own.around(way, "Fieller"),
        )  # fmt: skip


def bindings(own: MadeUp, sites: tuple[str, ...], n: int) -> Iterator[Binding]:
    """What text rows foretell, quantity by quantity and predictor by predictor."""
    for site in sites:
        for modality in MODALITIES:
            for quantity in QUANTITIES:
                for predictor in PREDICTORS:
                    value = own.value()
                    yield Binding(
                        *CHECKPOINTS, site, modality, quantity, predictor, value,
                        own.around(value), n // 2, n // 2,
                    )  # fmt: skip


def drifts(own: MadeUp, sites: tuple[str, ...], n: int) -> Iterator[Drift]:
    """How far rows moved."""
    for site in sites:
        for modality in MODALITIES:
            for metric in ("drift_cka", "drift_overlap", "drift_angle"):
                value = own.value()
                yield Drift(
                    metric, *CHECKPOINTS, site, modality, value, own.around(value), 0.078125, n
                )


def provenance(own: MadeUp) -> dict[str, Any]:
    """Both checkpoints' records; the second was trained, with its log."""
    steps = [
        {"step": i + 1, "loss": own.value(), "accuracy": own.value(), "grad_norm": own.value(),
         "learning_rate": own.value()}
        for i in range(STEPS)
    ]  # fmt: skip
    geometry = [
        {"step": step, "metric": metric, "modality": modality, "value": own.value()}
        for step in range(0, STEPS, 10)
        for metric in ("mean_cosine", "uniformity", "effective_rank")
        for modality in MODALITIES
    ]
    record = {
        "source": "made-up", "weights_sha": "9d1f" * 16, "decoder_sha": "17ce" * 16,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "gate": {f"check_{i}": {"passed": True, "value": 0.0, "tolerance": 1e-6} for i in range(8)},
    }  # fmt: skip
    return {
        "checkpoints": [
            {"name": CHECKPOINTS[0], **record, "training": {}},
            {"name": CHECKPOINTS[1], **record, "training": {"steps": steps, "geometry": geometry}},
        ],
        "prompts": {m: f"\nSummarize the above {m} in one word:" for m in MODALITIES},
        "commands": ["geomkit capture --ckpt base --ckpt lco", "geomkit report"],
    }  # fmt: skip


def rows(samples: int) -> tuple[Row, ...]:
    """Samples with a caption as long as they come, each in all modalities."""
    return tuple(
        Row(
            i * len(MODALITIES) + j, f"sample-{i:06d}", modality, "0" * 64, f"group-{i}",
            f"a picture or a sound of thing {i}, with some more words to say about it",
            {"label": f"class {i % 8}"},
        )
        for i in range(samples)
        for j, modality in enumerate(MODALITIES)
    )  # fmt: skip


class States:
    """The part of a run that pictures are made from: states that move from site to site."""

    def __init__(self, sites: tuple[str, ...], plan: tuple[Row, ...]) -> None:
        self.sites, self.rows = sites, plan
        self.plan = SimpleNamespace(rows=plan)

    def captured(self) -> Any:
        """Both checkpoints, complete."""
        return tuple(SimpleNamespace(name=name, sites=self.sites) for name in CHECKPOINTS)

    def states(self, checkpoint: str, site: str, pooling: str = "last") -> Any:
        """A sample's meaning, stronger with depth and later; a modality's place; chance."""
        assert pooling == "last"
        late, depth = CHECKPOINTS.index(checkpoint), self.sites.index(site) / len(self.sites)
        noise = np.random.default_rng([self.sites.index(site), late])
        fixed = np.random.default_rng(7)
        meaning = fixed.standard_normal((len(self.rows) // len(MODALITIES), DIM))
        centre = fixed.standard_normal((len(MODALITIES), DIM)) * 2
        chance = noise.standard_normal((len(self.rows), DIM))
        each = np.repeat(meaning, len(MODALITIES), axis=0) * (0.3 + late) * (0.2 + depth)
        states = each + np.tile(centre, (len(meaning), 1)) / (1 + late) + 0.5 * chance
        return states.astype(np.float32), np.ones(len(self.rows), bool)


def album(sites: tuple[str, ...], plan: tuple[Row, ...]) -> Album:
    """What the page draws from states, made as for a real run; all samples are shown."""
    return make_album(cast("Any", States(sites, plan)))
