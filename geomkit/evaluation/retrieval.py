"""Retrieval between text and each medium of a run, both ways, and what changed between checkpoints.

Samples that show the same medium, or are of one group, are one thing: any of its texts is a right
answer to the medium. An item that stands in the data twice is one item of the gallery. A tie with a
wrong answer is a miss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit import statistics
from geomkit.errors import DegenerateInput, SampleError
from geomkit.estimates.retrieved import Search, mrr, searches
from geomkit.estimates.space import space
from geomkit.statistics import Estimate
from geomkit.store import Run
from geomkit.types import MODALITIES, Activations, Interval, Modality, Row

SITE = "final_norm"
CAPTURED: Mapping[str, Any] = {
    "sites": (SITE,), "poolings": ("last",), "previews": False, "tokens": False,
}  # fmt: skip
"""What a capture for retrieval keeps, whatever a project's own defaults are."""
CUTS = (1, 5, 10)
METRICS = (*(f"R@{k}" for k in CUTS), "MRR")
WITHIN = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one checkpoint in one direction, such as `image->text`."""

    checkpoint: str
    direction: str
    metric: str
    value: float
    interval: Interval
    chance: float | None
    queries: int
    gallery: int


@dataclass(frozen=True, slots=True)
class Change:
    """What `after` has more than `before`, on the same queries; `p` is Holm's over all changes."""

    before: str
    after: str
    direction: str
    metric: str
    value: float
    interval: Interval
    p: float


@dataclass(frozen=True, slots=True)
class Retrieved:
    """All scores of a suite, the changes against the first checkpoint, and what to know of it."""

    dataset: str
    checkpoints: tuple[str, ...]
    scores: tuple[Score, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False)


def measure(run: Run, checkpoints: Sequence[str]) -> Retrieved:
    """R@1, R@5, R@10 and MRR of every checkpoint, between text and every medium, both ways.

    Raises:
        SampleError: the run has no two samples with a text and a medium.
        DegenerateInput: a checkpoint's states all point one way.
    """
    found = {name: dict(_estimates(run, name)) for name in checkpoints}
    first = checkpoints[0]
    if not found[first]:
        raise SampleError(
            "Expected at least two different samples with a text and an image, a sound or a video"
            f" that can be shown, got none in {run.plan.dataset}."
        )
    scores = (_score(n, key, e, size) for n in checkpoints for key, (e, size) in found[n].items())
    return Retrieved(
        run.plan.dataset,
        tuple(checkpoints),
        tuple(scores),
        tuple(_changes(first, {n: {k: e for k, (e, _) in f.items()} for n, f in found.items()})),
        (*_skipped(run), *_notes(run)),
    )


Key = tuple[str, str]
"""Direction and metric."""


def _estimates(run: Run, checkpoint: str) -> Iterator[tuple[Key, tuple[Estimate, int]]]:
    """Every estimate of a checkpoint, and how many items were searched."""
    try:
        for medium in _media(run):
            for direction, search in _searches(run, checkpoint, medium).items():
                for metric in METRICS:
                    yield (direction, metric), (_estimate(search, metric), search.y.n)
    except DegenerateInput as flaw:
        raise DegenerateInput(
            f"Nothing can be found with the states of '{checkpoint}': {flaw}"
        ) from flaw


def _estimate(search: Search, metric: str) -> Estimate:
    if metric == "MRR":
        return mrr(search)
    k = int(metric.removeprefix("R@"))
    found = search.found
    return statistics.from_scores(
        found.hits(k), search.x.clusters, chance=found.chance_recall(k), names=search.x.groups
    )


def _media(run: Run) -> tuple[Modality, ...]:
    """The media that share samples with text, in canonical order."""
    ids = {m: {row.id for row in run.plan.rows if row.modality == m} for m in MODALITIES}
    return tuple(m for m in MODALITIES if m != "text" and ids["text"] & ids[m])


def _searches(run: Run, checkpoint: str, medium: Modality) -> dict[str, Search]:
    """The medium in the texts and the texts in the medium; none where there are no two things."""
    shown = run.activations(checkpoint, SITE, medium)
    said = run.activations(checkpoint, SITE, "text")
    both = {row.id for row in shown.rows} & {row.id for row in said.rows}
    thing = things([row for row in shown.rows if row.id in both])
    if len(set(thing.values())) < 2:
        return {}
    x, y = (space(*_items(side, thing)) for side in (shown, said))
    there, back = searches(x, y)
    return {f"{medium}->text": there, f"text->{medium}": back}


def _items(
    side: Activations, thing: Mapping[str, str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """States and things of the rows of samples that both sides have, each item once."""
    once: dict[tuple[str, str], int] = {}
    for number, row in enumerate(side.rows):
        if row.id in thing:
            once.setdefault((thing[row.id], row.content_sha), number)
    return side.states[list(once.values())], tuple(name for name, _ in once)


def things(rows: Sequence[Row]) -> dict[str, str]:
    """Sample id -> the first id of its thing: rows of one group or one content are one thing."""
    parent = {row.id: row.id for row in rows}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for key in ("group", "content_sha"):
        first: dict[str, str] = {}
        for row in rows:
            if value := getattr(row, key):  # a medium that cannot be read has no hash
                one = root(first.setdefault(value, row.id))
                parent[root(row.id)] = one
    return {row.id: root(row.id) for row in rows}


def _score(checkpoint: str, key: Key, estimate: Estimate, gallery: int) -> Score:
    made = statistics.interval(estimate, within=WITHIN)
    direction, metric = key
    return Score(
        checkpoint, direction, metric, estimate.value, made, estimate.chance, estimate.n, gallery
    )


def _changes(first: str, found: Mapping[str, Mapping[Key, Estimate]]) -> Iterator[Change]:
    """Every later checkpoint against the first one, query by query."""
    paired = {
        (name, *key): statistics.difference(found[first][key], estimate)
        for name, own in found.items()
        if name != first
        for key, estimate in own.items()
    }
    names = {"\0".join(key): key for key in paired}
    p = statistics.holm({name: statistics.p_value(paired[key]) for name, key in names.items()})
    for name, (after, direction, metric) in names.items():
        one = paired[after, direction, metric]
        made = statistics.interval(one, within=(-1.0, 1.0))
        yield Change(first, after, direction, metric, one.value, made, p[name])


def _skipped(run: Run) -> list[str]:
    skipped = run.skipped()
    few = "; ".join(f"{s['modality']} of {s['id']}: {s['reason']}" for s in skipped[:3])
    return [f"{len(skipped)} rows could not be shown and are left out ({few})"] if skipped else []


def _notes(run: Run) -> Iterator[str]:
    """What makes a suite harder or easier than its rows look."""
    rows = [row for row in run.plan.rows if row.modality == "text"]
    for medium in _media(run):
        shown = [row for row in run.plan.rows if row.modality == medium]
        thing = things(shown)
        if len(set(thing.values())) < len(shown):
            yield f"{len(shown)} {medium} rows show {len(set(thing.values()))} different things"
        said: dict[str, set[str]] = {}
        for row in rows:
            if row.id in thing:
                said.setdefault(row.content_sha, set()).add(thing[row.id])
        shared = sum(len(of) > 1 for of in said.values())
        if shared:
            yield f"{shared} texts are said of several {medium} things: a tie, which is a miss"
