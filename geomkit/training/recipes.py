"""Named sets of pairs: where each comes from, how large it is, and how it is read from disk.

    all-nli[:PATH]          the SimCSE triplets of SNLI and MNLI: entailment, contradiction
    scale-1m:PATH           a million pairs drawn from parallel sentences of many languages
    multimodal-94k:PATH     images with texts, mixed in: documents, COCO, interleaved

Two public sets are called all-nli. The one here is the SimCSE set, 274,951 triplets on the hub (its
authors' file has 275,601 rows; the papers say 276k). The other, `sentence-transformers/all-nli`,
has 557,850 triplets: it is another training. The authors of the other two recipes published neither
their rows nor their draws, so those are read from what you have, and the record says of what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.errors import TrainingError
from geomkit.training.pairs import PairSet, select
from geomkit.training.tables import READERS, read_rows
from geomkit.types import Sample

TABLES = tuple(READERS)
MANIFESTS = (".jsonl", ".csv", ".parquet")
TRANSLATED: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "english", "source", "sentence1"),
    "positive": ("positive", "non_english", "target", "sentence2"),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a name stands for."""

    rows: int  # how many it has, or how many are drawn
    hub: tuple[str, str, str] = ("", "", "")  # dataset, configuration, split
    media: bool = False


RECIPES: Mapping[str, Recipe] = {
    "all-nli": Recipe(274_951, ("sentence-transformers/nli-for-simcse", "triplet", "train")),
    "scale-1m": Recipe(1_000_000),
    "multimodal-94k": Recipe(94_000, media=True),
}


def named(spec: str) -> Recipe | None:
    """The recipe that a source names, if it does."""
    return RECIPES.get(spec.partition(":")[0])


def load_recipe(spec: str, *, seed: int = 0) -> PairSet:
    """The text pairs of a recipe.

    Raises:
        TrainingError: it has media, needs a path, or what is there is not what it should be.
    """
    name, _, path = spec.partition(":")
    recipe = RECIPES[name]
    if recipe.media:
        raise TrainingError(
            f"Expected text pairs, {name} has images: mix it in with --mix, or take --method clip."
        )
    if not path and not recipe.hub[0]:
        raise TrainingError(
            f"Expected {name}:PATH with a folder of parallel sentences, got no path: its authors "
            "did not publish their rows."
        )
    if not path:
        return select(_from_hub(recipe), source=spec)
    if name == "scale-1m":
        return _drawn(spec, Path(path), recipe.rows, seed)
    rows = (row for file in _files(Path(path)) for row in read_rows(file))
    return select(rows, source=spec)


def media_samples(spec: str) -> Iterator[Sample]:
    """The samples of every manifest in a folder, under the manifest's name.

    Raises:
        TrainingError: no path, or no manifest.
    """
    from geomkit.data.samples import load_samples

    name, _, path = spec.partition(":")
    if not path:
        raise TrainingError(f"Expected {name}:PATH with a folder of manifests, got no path.")
    for file in _files(Path(path), MANIFESTS):
        for sample in load_samples(file)[1]:
            yield replace(sample, id=f"{file.stem}/{sample.id}")


def _files(path: Path, suffixes: Sequence[str] = TABLES) -> list[Path]:
    """The tables of a folder, or the one that a path names."""
    if path.is_file():
        return [path]
    found = sorted(p for p in path.glob("*") if p.suffix.lower() in suffixes)
    if not found:
        raise TrainingError(f"Expected {', '.join(suffixes)} files in {path}, found none.")
    return found


def _drawn(spec: str, path: Path, count: int, seed: int) -> PairSet:
    """`count` distinct pairs by lot, or all of them; every row has the same chance."""
    rows = (_translated(row) for file in _files(path) for row in read_rows(file))
    found = select(rows, source=spec)
    if len(found) <= count:
        return found
    chosen = np.random.default_rng(seed).choice(len(found), count, replace=False)
    pairs = tuple(found.pairs[row] for row in np.sort(chosen))
    return PairSet(spec, pairs, {**found.dropped, "not drawn": len(found) - count})


def _translated(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        ours: next((row[name] for name in theirs if row.get(name) is not None), None)
        for ours, theirs in TRANSLATED.items()
    }
    return found if any(found.values()) else dict(row)  # its own columns, to be named


def _from_hub(recipe: Recipe) -> Iterator[Mapping[str, Any]]:
    import datasets

    name, part, split = recipe.hub
    try:
        found = datasets.load_dataset(name, part, split=split)
    except Exception as cause:  # no network, no such set: whatever the library says
        raise TrainingError(
            f"Expected the dataset {name} on the hub, it cannot be loaded ({cause}): name a local "
            "copy, as in all-nli:PATH."
        ) from cause
    yield from found
