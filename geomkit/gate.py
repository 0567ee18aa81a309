"""Checks of the capture itself, on the first batch of each modality, before the first shard.

    hook_equals_hf        sites are what transformers calls hidden states, where it has them
    alone_equals_batched  a row's states do not depend on the rows beside it
    left_equals_right     nor on the side and amount of the padding
    finite                no state is NaN or infinite
    merged_equals_adapter a merged checkpoint agrees with the adapter it was made from, if here

Deviations are the largest relative distance `||a - b|| / ||b||` over rows, sites and poolings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomkit.batches import Batch
from geomkit.checkpoints import Checkpoint
from geomkit.errors import CaptureError
from geomkit.forward import states, to_model, within_memory
from geomkit.hooks import stream, tap
from geomkit.places import json_beside
from geomkit.pooling import pooler
from geomkit.processing import Processor, repad

TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}
ROWS = 8  # of a batch that are looked at: checks repeat the forward pass several times
EXTRA_PADDING = 2  # so that a batch of equal lengths is padded too

States = Mapping[str, NDArray[np.float32]]


def check(
    checkpoint: Checkpoint,
    processor: Processor,
    batch: Batch,
    sites: Sequence[str],
    poolings: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """All checks of one checkpoint on one batch: "modality.check" -> passed, value, tolerance."""
    dtype = str(next(checkpoint.decoder.parameters()).dtype).removeprefix("torch.")
    tolerance = TOLERANCE[dtype]
    media = processor.media_tokens.get(batch.rows[0].modality, ())
    here = states(checkpoint, batch.inputs, sites, poolings, media)
    finite = all(bool(np.isfinite(table).all()) for table in here.values())
    pad = processor.tokenizer.pad_token_id

    def padded(side: str) -> States:
        shifted = repad(batch.inputs, side, EXTRA_PADDING, pad)
        return states(checkpoint, shifted, sites, poolings, media)

    found = {
        "hook_equals_hf": _verdict(_hook_against_hf(checkpoint, batch, sites), 0.0),
        "alone_equals_batched": _verdict(
            _alone(checkpoint, processor, batch, here, sites, poolings), tolerance
        ),
        "left_equals_right": _verdict(deviation(padded("left"), padded("right")), tolerance),
        "finite": {"passed": finite, "value": None, "tolerance": None},
    }
    return {f"{batch.rows[0].modality}.{name}": result for name, result in found.items()}


def merged_pairs(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[Checkpoint, Checkpoint], ...]:
    """Merged checkpoints with the adapters they were made from, by the adapter's hash."""
    adapters = {c.fingerprint.adapter: c for c in checkpoints if c.adapter}
    made_from = {c.name: json_beside(c.place, "merge.json").get("adapter_sha") for c in checkpoints}
    return tuple(
        (c, adapters[sha])
        for c in checkpoints
        if not c.adapter and (sha := made_from[c.name]) in adapters
    )


def check_merged(
    merged: Checkpoint, adapter: Checkpoint, batch: Batch
) -> dict[str, dict[str, Any]]:
    """Whether both give the same states; the files' precision, if lower, sets the tolerance."""
    written = str(json_beside(merged.place, "merge.json").get("dtype", "")).removeprefix("torch.")
    running = str(next(merged.decoder.parameters()).dtype).removeprefix("torch.")
    tolerance = max(TOLERANCE[running], TOLERANCE.get(written, 0.0))
    both = [s for s in merged.sites if s in adapter.sites]
    ours, theirs = (states(one, batch.inputs, both, ("last", "mean")) for one in (merged, adapter))
    name = f"{batch.rows[0].modality}.merged_equals_adapter"
    return {name: _verdict(deviation(ours, theirs), tolerance)}


def require(name: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CaptureError with the numbers when a check failed."""
    failed = {k: r for k, r in results.items() if not r["passed"]}
    if failed:
        told = "; ".join(
            f"{k} = {r['value']} (allowed {r['tolerance']})" for k, r in failed.items()
        )
        raise CaptureError(
            f"The capture of '{name}' does not pass its own checks: {told}. Use a smaller batch"
            " size or float32, or turn the gate off to record the failure and go on."
        )


def deviation(a: States, b: States) -> float:
    """Largest relative distance between two sets of states, in [0, inf]."""
    worst = 0.0
    for name, table in b.items():
        ours, theirs = a[name].astype(np.float64), table.astype(np.float64)
        apart = np.linalg.norm(ours - theirs, axis=-1)
        size = np.linalg.norm(theirs, axis=-1)
        ratio = np.divide(apart, size, out=np.where(apart > 0, np.inf, 0.0), where=size > 0)
        worst = max(worst, float(np.where(np.isnan(ratio), np.inf, ratio).max()))
    return worst


def _verdict(value: float | None, tolerance: float) -> dict[str, Any]:
    """A check's result; one that cannot be made (`None`) has not failed. JSON has no infinity."""
    passed = value is None or value <= tolerance
    shown = value if value is None or np.isfinite(value) else float(np.finfo(np.float64).max)
    return {"passed": passed, "value": shown, "tolerance": tolerance}


@torch.inference_mode()
def _hook_against_hf(checkpoint: Checkpoint, batch: Batch, sites: Sequence[str]) -> float | None:
    """Largest absolute difference of the tapped sites to transformers' own hidden states.

    `hidden_states[i + 1]` is block i's output, but for the last block, which transformers does not
    give; the final norm is `last_hidden_state`, whatever the config makes of `hidden_states[-1]`.
    """
    given = to_model(checkpoint, batch.inputs)
    pool = pooler(("last", "mean"), given["attention_mask"])
    with (
        within_memory(checkpoint, batch.inputs),
        checkpoint.active() as body,
        tap(checkpoint.decoder, sites, pool) as seen,
    ):
        out = body(**given, use_cache=False, output_hidden_states=True)
    theirs = {"final_norm": out.last_hidden_state}
    if out.hidden_states is not None:
        hidden = out.hidden_states[:-1]
        theirs |= dict(zip(("embed", *checkpoint.sites[1:]), hidden, strict=False))
    worst: float | None = None
    for site in sites:
        if site not in theirs:
            continue
        for name, pooled in pool(stream(checkpoint.decoder, theirs[site])).items():
            apart = float((pooled - seen[site][name]).abs().max())
            worst = max(worst or 0.0, apart if np.isfinite(apart) else np.inf)
    return worst


def _alone(
    checkpoint: Checkpoint,
    processor: Processor,
    batch: Batch,
    here: States,
    sites: Sequence[str],
    poolings: Sequence[str],
) -> float:
    """Deviation of the shortest and the longest row when shown alone."""
    order = sorted(batch.shown, key=lambda index: batch.n_tokens[index])
    worst = 0.0
    for index in {order[0], order[-1]}:
        place = list(batch.shown).index(index)
        shown = batch.shown[index]
        media = processor.media_tokens.get(shown.modality, ())
        alone = states(checkpoint, processor.encode([shown]), sites, poolings, media)
        beside = {name: table[place : place + 1] for name, table in here.items()}
        worst = max(worst, deviation(beside, alone))
    return worst
