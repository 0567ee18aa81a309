"""What training did to the model's own job: the loss of captions, read from training's record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geomkit.errors import StoreError
from geomkit.types import MODALITIES, CheckpointRecord, Difference, Interval, Measurement

METRIC = "generative_loss"
SITE = "lm_head"
"""Where a loss is read; no state is captured there."""


def generative_loss(
    records: Sequence[CheckpointRecord],
) -> tuple[tuple[Measurement, ...], tuple[Difference, ...]]:
    """Mean nats a caption token before and after training, by modality; lower is better.

    Empty when no later checkpoint's record has it. The values are training's own, on its held-out
    samples and not on the samples of the run.

    Raises:
        StoreError: when a record has losses that cannot be read.
    """
    measurements: dict[tuple[str, str], Measurement] = {}
    differences: list[Difference] = []
    for record in records[1:]:
        names = (records[0].name, record.name)
        try:
            for modality, change in _changes(record.training):
                for name, at in zip(names, ("before", "after"), strict=True):
                    measurements.setdefault((name, modality), _measured(name, modality, change, at))
                differences.append(_difference(names, modality, change))
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"Expected generative losses with before, after and n in the training record of "
                f"{record.name}, got something else; train again or drop the record."
            ) from error
    return tuple(measurements.values()), tuple(differences)


def _changes(training: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(modality, its record), in canonical order; from `generation` or from `generative_loss`."""
    found = {change["modality"]: change for change in training.get("generation", ())}
    found |= training.get("generative_loss", {})
    return ((m, found[m]) for m in MODALITIES if m in found)


def _measured(name: str, modality: str, change: Mapping[str, Any], at: str) -> Measurement:
    return Measurement(
        metric=METRIC,
        checkpoint=name,
        site=SITE,
        modality=modality,
        value=float(change[at]),
        interval=_interval(change.get(f"{at}_interval")),
        chance=None,
        better="lower",
        n=int(change["n"]),
        reference="",
        note="nats a token of held-out captions, measured when the checkpoint was trained",
    )


def _difference(names: tuple[str, str], modality: str, change: Mapping[str, Any]) -> Difference:
    """The interval is a field of its own, or the bounds lie in the difference."""
    bounds = change.get("interval") or change.get("difference")
    interval = _interval(bounds)
    return Difference(
        metric=METRIC,
        before=names[0],
        after=names[1],
        site=SITE,
        modality=modality,
        value=float(change["after"]) - float(change["before"]),
        interval=interval,
        better="lower",
        n=int(change["n"]),
        note=str(change.get("note", "")),
    )


def _interval(bounds: object) -> Interval | None:
    """An interval from a record, or None where it keeps none."""
    if not isinstance(bounds, Mapping):
        return None
    return Interval(
        low=float(bounds["low"]),
        high=float(bounds["high"]),
        level=float(bounds.get("level", 0.95)),
        method=str(bounds.get("method", "")),
        groups=int(bounds.get("groups", 0)),
    )
