"""The embedded default: a tiny omni world and a tiny real MLLM that was trained on it.

`checkpoint_path` names the two checkpoints in the package, `samples` the scenes, `text_pairs` the
sentences that text-only training sees. No download, no GPU; see `weights/MODEL_CARD.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from geomkit.errors import UsageError
from geomkit.sandbox import render, world
from geomkit.sandbox.world import SPOKEN, UNSPOKEN, Kind, Scene, Split
from geomkit.types import Modality, Sample

COUNTS: Mapping[Kind, int] = {"image": 300, "audio": 260}
"""Scenes of each kind in `samples`: at most one per combination, so no two share a caption."""

_SEEDS: Mapping[Split, int] = {"train": 101, "validation": 102, "test": 103}


def checkpoint_path(name: str) -> Path:
    """Folder of a shipped checkpoint: "base" (a full model) or "lco" (its text-only adapter).

    Raises:
        UsageError: no such checkpoint.
    """
    folder = Path(__file__).parent / "weights" / name
    if not folder.is_dir() or name not in {"base", "lco"}:
        raise UsageError(f"expected a sandbox checkpoint (base, lco), got '{name}'")
    return folder


def scenes(split: Split, kind: Kind, count: int) -> tuple[Scene, ...]:
    """`count` scenes of distinct combinations of a split, the same on every machine."""
    combos = list(world.combinations(kind, split))
    rng = np.random.default_rng([_SEEDS[split], list(SPOKEN).index(kind)])
    picks = rng.permutation(len(combos))[:count]
    return tuple(world.scene(kind, combos[i], rng) for i in picks)


@cache
def samples(split: Split = "test", *, images: int = 0, sounds: int = 0) -> tuple[Sample, ...]:
    """Scenes of a split as samples: an image or a sound with one caption, labels and controls.

    Args:
        split: "test" holds combinations that neither pretraining nor the text pairs ever saw.
        images: how many image scenes; 0 means `COUNTS`.
        sounds: how many audio scenes; 0 means `COUNTS`.
    """
    if split not in _SEEDS:
        raise UsageError(f"expected a sandbox split ({', '.join(_SEEDS)}), got '{split}'")
    found = []
    for kind, count in (("image", images), ("audio", sounds)):
        rng = np.random.default_rng([_SEEDS[split], 7])
        for k, scene in enumerate(scenes(split, kind, count or COUNTS[kind])):  # type: ignore[arg-type, index]  # literals
            found.append(_sample(f"{kind}-{k:04d}", scene, world.caption(scene, rng)))
    return tuple(found)


def _sample(name: str, scene: Scene, caption: str) -> Sample:
    return Sample(
        id=name,
        text=caption,
        image=render.image(scene) if scene.kind == "image" else None,
        audio=render.waveform(scene) if scene.kind == "audio" else None,
        labels=dict(scene.spoken),
        controls=dict(scene.unspoken),
        group=scene.group,
    )


INSTRUCTIONS: Mapping[Modality, str] = {
    "text": "\n" + world.DESCRIBE["text"][0],
    "image": "\n" + world.DESCRIBE["image"][0],
    "audio": "\n" + world.DESCRIBE["audio"][0],
}
"""How the base was asked for a sentence: what its generative loss is measured under."""


def paraphrases(found: Sequence[Sample], seed: int = 11) -> dict[str, str]:
    """Another caption of every sample, by id: what a rewrite or a description may say."""
    rng = np.random.default_rng(seed)
    told = {}
    for sample in found:
        kind: Kind = "image" if sample.image is not None else "audio"
        told[sample.id] = world.caption(Scene(kind, sample.labels, sample.controls, 0), rng)
    return told


def text_pairs(count: int = 20_000, seed: int = 0) -> tuple[tuple[str, str, str, str], ...]:
    """Training triplets as (anchor, positive, negative, group): text of `train` scenes only.

    The positive is a paraphrase, the negative a caption of a scene that differs in exactly one
    attribute. Scenes of equal group have equal meaning and must not be each other's negatives.
    """
    rng = np.random.default_rng(seed)
    combos = {kind: list(world.combinations(kind, "train")) for kind in SPOKEN}
    pairs = []
    for _ in range(count):
        kind: Kind = "image" if rng.random() < 0.5 else "audio"
        scene = world.scene(kind, combos[kind][int(rng.integers(len(combos[kind])))], rng)
        first, second = rng.choice(len(world.TEMPLATES[kind]), 2, replace=False)
        pairs.append(
            (
                world.caption(scene, rng, int(first)),
                world.caption(scene, rng, int(second)),
                world.caption(world.neighbour(scene, rng), rng),
                scene.group,
            )
        )
    return tuple(pairs)


__all__ = [
    "COUNTS",
    "INSTRUCTIONS",
    "SPOKEN",
    "UNSPOKEN",
    "checkpoint_path",
    "paraphrases",
    "samples",
    "scenes",
    "text_pairs",
]
