"""Samples to plan: which row is shown, in which modality, in which batch.

It is written before anything is run, hashed, and the same for every checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.errors import SampleError, UsageError
from geomkit.prompts import PRESETS, prompts
from geomkit.sources import encoded_sha
from geomkit.types import MODALITIES, Clip, Modality, Plan, Row, Sample, Stored, Waveform

SCHEMA = "geomkit-plan/1"
POOLINGS = ("last", "mean")  # what `geomkit.pooling` has; named here so that no help needs torch


def _doc(default: Any, text: str) -> Any:
    """A field whose one line of help travels with it."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """How states are captured; every checkpoint of a run is captured with the same one."""

    prompt: str = _doc("lco", "Prompt preset (lco, e5v, none) or a sentence with {modality} in it.")
    modalities: tuple[str, ...] = _doc((), "Modalities to show; all that the samples have if none.")
    sites: tuple[str, ...] = _doc((), "Sites to store; all of the decoder if none.")
    poolings: tuple[str, ...] = _doc(("last", "mean"), "Poolings to store (last, mean).")
    limit: int = _doc(0, "Use only the first so many samples; 0 is all of them.")
    batch_size: int = _doc(8, "Rows in one forward pass.")
    shard_batches: int = _doc(32, "Batches in one shard, the unit of work that a resume repeats.")
    text_tokens: int = _doc(300, "Longest text content in tokens; the prompt is never cut.")
    dtype: str = _doc("float32", "Precision of the forward pass (float32, bfloat16, float16).")
    attention: str = _doc("sdpa", "Attention implementation (sdpa, eager, flash_attention_2).")
    device: str = _doc("auto", "Device to run on; auto takes a GPU if there is one.")
    gate: bool = _doc(True, "Stop when the capture's own checks fail; off only records them.")
    previews: bool = _doc(False, "Keep small thumbnails and short sounds for the report.")
    force: bool = _doc(False, "Replace a run of another plan in the output folder.")

    def __post_init__(self) -> None:
        """Refuse values that no capture can have."""
        lowest = {"limit": 0, "batch_size": 1, "shard_batches": 1, "text_tokens": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise UsageError(f"Expected {name} of at least {low}, got {getattr(self, name)}.")
        _known("modality", self.modalities, MODALITIES)
        _known("pooling", self.poolings, POOLINGS)
        if not self.poolings:
            raise UsageError(f"Expected at least one pooling ({', '.join(POOLINGS)}), got none.")


def _known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"Expected a {what} ({', '.join(known)}), got '{name}'.")
    if len(set(given)) < len(given):
        raise UsageError(f"Expected each {what} once, got {', '.join(given)}.")


def build_plan(dataset: str, samples: Sequence[Sample], config: CaptureConfig) -> Plan:
    """The plan of a run: rows modality by modality in sample order, batches of one modality.

    Raises:
        SampleError: no sample has any of the modalities, or an id is there twice.
    """
    chosen = samples[: config.limit or None]
    if len({s.id for s in chosen}) < len(chosen):
        raise SampleError("Expected one sample an id, got an id twice.")
    shown = [
        (sample, modality)
        for modality in MODALITIES
        if modality in (config.modalities or MODALITIES)
        for sample in chosen
        if modality in sample.modalities()
    ]
    if not shown:
        raise SampleError(
            f"Expected samples with {', '.join(config.modalities or MODALITIES)}, got none."
        )
    rows = tuple(_row(i, sample, modality) for i, (sample, modality) in enumerate(shown))
    instructions = prompts(config.prompt)
    return Plan(
        schema=SCHEMA,
        dataset=dataset,
        rows=rows,
        prompts={m: instructions[m] for m in MODALITIES if any(r.modality == m for r in rows)},
        poolings=config.poolings,
        sites=config.sites,
        batches=_batches(rows, config.batch_size),
        shard_batches=config.shard_batches,
    )


def _batches(rows: Sequence[Row], size: int) -> tuple[tuple[int, ...], ...]:
    own: dict[Modality, list[int]] = {}
    for row in rows:
        own.setdefault(row.modality, []).append(row.index)
    return tuple(
        tuple(indexes[i : i + size])
        for indexes in own.values()
        for i in range(0, len(indexes), size)
    )


def _row(index: int, sample: Sample, modality: Modality) -> Row:
    return Row(
        index=index,
        id=sample.id,
        modality=modality,
        content_sha=content_sha(getattr(sample, modality)),
        group=sample.group or sample.id,
        text=sample.text or "",
        labels=dict(sample.labels),
        controls=dict(sample.controls),
    )


def content_sha(content: Any) -> str:
    """sha256 of a text, encoded bytes, or media in memory; "" where there are no such bytes."""
    digest = hashlib.sha256()
    if isinstance(content, str):
        digest.update(content.encode())
    elif isinstance(content, Path | Stored):
        try:
            return encoded_sha(content)
        except (OSError, SampleError):
            return ""  # capture records the row with the reason
    elif isinstance(content, Waveform):
        sound = np.ascontiguousarray(content.samples, dtype="<f4")
        digest.update(f"{content.rate} {sound.size} ".encode() + sound.tobytes())
    elif isinstance(content, Clip):
        frames = np.ascontiguousarray(content.frames, dtype=np.uint8)
        digest.update(f"{content.fps} {frames.shape} ".encode() + frames.tobytes())
    else:
        digest.update(f"{content.mode} {content.size} ".encode() + content.tobytes())
    return digest.hexdigest()


def plan_options(plan: Plan) -> Iterator[tuple[str, str]]:
    """The options of `geomkit capture` that made a plan, where they are not the defaults.

    A plan does not hold which samples `--limit` and `--modalities` left out, nor where texts were
    cut, so these are not told.
    """
    usual = CaptureConfig()
    shown = plan.prompts.items()
    names = (name for name, of in PRESETS.items() if shown <= of.items())
    patterns = {prompt.replace(modality, "{modality}") for modality, prompt in shown}
    prompt = next(names, patterns.pop() if len(patterns) == 1 else usual.prompt)
    if prompt != usual.prompt:
        yield "--prompt", prompt.replace("\n", "\\n")
    yield from (("--sites", site) for site in plan.sites)
    if plan.poolings != usual.poolings:
        yield from (("--poolings", pooling) for pooling in plan.poolings)
    if plan.batches != _batches(plan.rows, usual.batch_size):
        yield "--batch-size", str(max(len(batch) for batch in plan.batches))
    if plan.shard_batches != usual.shard_batches:
        yield "--shard-batches", str(plan.shard_batches)


def shard_batches(plan: Plan, number: int) -> Sequence[tuple[int, ...]]:
    """The batches of one shard."""
    return plan.batches[number * plan.shard_batches : (number + 1) * plan.shard_batches]


def by_id(samples: Sequence[Sample]) -> Mapping[str, Sample]:
    """Samples by their id."""
    return {sample.id: sample for sample in samples}
