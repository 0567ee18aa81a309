"""Samples to plan: which row is shown, in which modality, in which batch.

It is written before anything is run, hashed, and the same for every checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.buckets import extent, grouped
from geomkit.data.sources import encoded_sha
from geomkit.errors import SampleError, UsageError
from geomkit.prompts import prompts
from geomkit.sites import check_pattern
from geomkit.types import MODALITIES, Clip, Modality, Plan, Row, Sample, Stored, Waveform

SCHEMA = "geomkit-plan/1"
POOLINGS = (
    "last",
    "mean",
    "mean-of-media",
)  # what `geomkit.pooling` has; named here so that no help needs torch

COUNTS = ("limit", "batch_size", "batch_tokens", "shard_batches", "text_tokens", "max_pixels")
STORE_DTYPES = ("float32", "bfloat16")
SHAPING = (  # the options that decide what is shown, in which batches, and what is kept of it
    "prompt", "modalities", "sites", "poolings", "limit", "batch_size", "batch_tokens",
    "shard_batches", "text_tokens", "max_pixels", "store_dtype", "tokens",
)  # fmt: skip


SHOWN, KEPT = "What is shown", "What is kept"
MODEL, RULES = "Model and memory", "Rules"


def _doc(panel: str, default: Any, text: str, **more: Any) -> Any:
    """A field whose one line of help travels with it, and where the help has it."""
    return field(default=default, metadata={"help": text, "panel": panel, **more})


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """How states are captured; every checkpoint of a run is captured with the same one."""

    prompt: str = _doc(
        SHOWN, "lco", "Prompt preset (lco, e5v, none) or a sentence with {modality} in it."
    )
    modalities: tuple[str, ...] = _doc(SHOWN, (), "Modalities to show.", empty="all")
    sites: tuple[str, ...] = _doc(
        KEPT, (), "Sites to store: names, ranges (block_04..block_08), every:4.", empty="all"
    )
    poolings: tuple[str, ...] = _doc(
        KEPT, ("last", "mean"), f"Poolings to store ({', '.join(POOLINGS)})."
    )
    limit: int = _doc(
        SHOWN,
        0,
        "Show only so many samples, evenly spread over every kind that there is; 0 is all.",
    )
    batch_size: int = _doc(
        MODEL, 32, "Most rows in one forward pass; rows of like length go together."
    )
    batch_tokens: int = _doc(
        MODEL, 16_384, "Most tokens in one pass, by the row that looks longest."
    )
    shard_batches: int = _doc(
        KEPT, 8, "Batches in one shard, the unit of work that a resume repeats."
    )
    text_tokens: int = _doc(SHOWN, 300, "Longest text content in tokens; the prompt is never cut.")
    max_pixels: int = _doc(
        SHOWN, 50_000_000, "Largest image that is decoded; a larger one is a bad row."
    )
    store_dtype: str = _doc(KEPT, "float32", "Precision of the states on disk (float32, bfloat16).")
    tokens: bool = _doc(KEPT, False, "Store the states of every token too: large, asks for --yes.")
    dtype: str = _doc(
        MODEL, "float32", "Precision of the forward pass (float32, bfloat16, float16)."
    )
    attention: str = _doc(
        MODEL,
        "sdpa",
        "Attention implementation (sdpa, eager, flash_attention_2).",
        also=("--attn",),
    )
    device: str = _doc(MODEL, "auto", "Device to run on; auto takes a GPU if there is one.")
    device_map: str = _doc(MODEL, "", "Spread one model over devices: auto, balanced, sequential.")
    one_by_one: bool = _doc(
        MODEL, False, "Load one checkpoint at a time; done anyway when memory is full."
    )
    gate: bool = _doc(
        RULES, True, "Stop when the capture's own checks fail; off only records them."
    )
    strict: bool = _doc(
        RULES, False, "Stop at a sample that cannot be shown; off records it and goes on."
    )
    previews: bool = _doc(KEPT, False, "Keep small thumbnails and short sounds for the report.")
    force: bool = _doc(RULES, False, "Replace a run of another plan in the output folder.")

    def __post_init__(self) -> None:
        """Refuse values that no capture can have."""
        for name in COUNTS:
            low = int(name != "limit")  # 0 is no limit
            if getattr(self, name) < low:
                raise UsageError(
                    f"Expected {_flagged(name)} of at least {low}, got {getattr(self, name)}."
                )
        _known("modality", self.modalities, MODALITIES)
        _known("pooling", self.poolings, POOLINGS)
        _known(_flagged("store_dtype"), (self.store_dtype,), STORE_DTYPES)
        for pattern in self.sites:
            check_pattern(pattern)
        if not self.poolings:
            raise UsageError(f"Expected at least one pooling ({', '.join(POOLINGS)}), got none.")


def _flagged(name: str) -> str:
    """A field by its name in Python, and as the option that it is on the command line."""
    return f"{name} ({_flag(name)})"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
    if len({s.id for s in samples}) < len(samples):
        raise SampleError("Expected one sample an id, got an id twice.")
    asked = config.modalities or MODALITIES
    kinds = [tuple(m for m in s.modalities() if m in asked) for s in samples]
    if not any(kinds):
        raise SampleError(
            f"Expected samples with {' or '.join(asked)}, got {_inventory(samples)}: name other"
            " modalities, or other data."
        )
    chosen = spread(kinds, config.limit)
    shown = [(samples[i], m) for m in MODALITIES for i in chosen if m in kinds[i]]
    rows = tuple(_row(i, sample, modality) for i, (sample, modality) in enumerate(shown))
    extents = [extent(getattr(sample, modality), modality) for sample, modality in shown]
    instructions = prompts(config.prompt)
    return Plan(
        schema=SCHEMA,
        dataset=dataset,
        rows=rows,
        prompts={m: instructions[m] for m in MODALITIES if any(r.modality == m for r in rows)},
        poolings=config.poolings,
        sites=config.sites,
        batches=grouped(rows, extents, config.batch_size),
        shard_batches=config.shard_batches,
        store_dtype=config.store_dtype,
        options=_options(config),
    )


def _inventory(samples: Sequence[Sample]) -> str:
    """How many samples have which modality, for a message."""
    counts = Counter(m for sample in samples for m in sample.modalities())
    return ", ".join(f"{counts[m]} with {m}" for m in MODALITIES if m in counts) or "none"


def spread(kinds: Sequence[tuple[Modality, ...]], limit: int) -> list[int]:
    """Positions of `limit` samples that show something, evenly spread, in order; 0 is all of them.

    A kind is the modalities that a sample shows. Each gets places in proportion to its size, at
    least one as long as there are as many places as kinds (Adams' method). Every n-th of all
    samples would miss kinds that take turns.
    """
    able = [i for i, kind in enumerate(kinds) if kind]
    if not 0 < limit < len(able):
        return able
    members = {kind: [i for i in able if kinds[i] == kind] for kind in dict.fromkeys(kinds) if kind}
    places = dict.fromkeys(members, 0)
    for _ in range(limit):
        places[max(places, key=lambda k: _claim(len(members[k]), places[k]))] += 1
    return sorted(
        those[i * len(those) // places[kind]]
        for kind, those in members.items()
        for i in range(places[kind])
    )


def _claim(size: int, places: int) -> tuple[float, int]:
    """A kind's claim to the next place; those that have none come first, the largest of them."""
    return size / places if places else math.inf, size


def _options(config: CaptureConfig) -> tuple[tuple[str, str], ...]:
    """The options that shape a plan, where they are not the defaults, as one would type them."""
    usual = CaptureConfig()
    given = {name: getattr(config, name) for name in SHAPING}
    return tuple(
        (_flag(name), str(one).replace("\n", "\\n"))
        for name, value in given.items()
        if value != getattr(usual, name)
        for one in ("",) * (value is True) or _each(value)
    )


def _each(value: Any) -> Sequence[Any]:
    """A list or tuple as it is, as the command line or Python give it; anything else as one."""
    return value if isinstance(value, tuple | list) else (value,)


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
        try:
            seen = _as_seen(content)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, capture records the reason
            return ""
        digest.update(f"{content.mode} {seen.size} ".encode() + seen.tobytes())
    return digest.hexdigest()


def _as_seen(image: Any) -> Any:
    """The image upright, in colours where its values stand for others."""
    from PIL import ImageOps  # no help needs the decoders

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged EXIF block is not the picture
        upright = ImageOps.exif_transpose(image)
    seen = image.mode in {"P", "PA"} or upright.has_transparency_data
    return upright.convert("RGBA") if seen else upright


def shard_batches(plan: Plan, number: int) -> Sequence[tuple[int, ...]]:
    """The batches of one shard."""
    return plan.batches[number * plan.shard_batches : (number + 1) * plan.shard_batches]


def by_id(samples: Sequence[Sample]) -> Mapping[str, Sample]:
    """Samples by their id."""
    return {sample.id: sample for sample in samples}
