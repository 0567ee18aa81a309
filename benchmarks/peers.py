"""One batch, every site pooled the same way, by geomkit and by what people use instead.

All of them run the model's body on the same tensors and give site -> pooling -> `(rows, dim)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from geomkit.checkpoints import Checkpoint
from geomkit.forward import run, to_model
from geomkit.pooling import pooler

POOLINGS = ("last", "mean")

Inputs = Mapping[str, Tensor]
Peer = Callable[[Checkpoint, Inputs], Any]


@torch.inference_mode()
def bare(checkpoint: Checkpoint, inputs: Inputs) -> None:
    """The forward pass alone: nothing is read."""
    with checkpoint.active() as body:
        body(**to_model(checkpoint, inputs), use_cache=False)


def tapped(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, Tensor]:
    """geomkit's forward pass: all sites, pooled in the hooks, on the host at the end."""
    pooled = run(checkpoint, inputs, checkpoint.sites, POOLINGS)
    tables = pooled.arrays()
    return {name: torch.from_numpy(tables[name]) for name in POOLINGS}


@torch.inference_mode()
def hidden_states(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, Tensor]:
    """transformers' own hidden states, pooled after the pass; it has no last block's output."""
    pool = pooler(POOLINGS, inputs["attention_mask"])
    with checkpoint.active() as body:
        given = to_model(checkpoint, inputs)
        out = body(**given, use_cache=False, output_hidden_states=True)
    return _table([pool(one) for one in out.hidden_states])


def nnsight(checkpoint: Checkpoint) -> Peer:
    """An nnsight trace that pools inside of it."""
    from nnsight import NNsight

    wrapped = NNsight(checkpoint.body)
    path = checkpoint.decoder_path.removeprefix("model").strip(".")

    @torch.inference_mode()
    def way(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, Tensor]:
        pool = pooler(POOLINGS, inputs["attention_mask"])
        given = to_model(checkpoint, inputs)
        decoder = getattr(wrapped, path) if path else wrapped
        with wrapped.trace(**given, use_cache=False):
            seen = list().save()  # noqa: C408 - the trace saves what it can mark, not a literal
            seen.append(pool(decoder.layers[0].input))
            for block in decoder.layers:
                seen.append(pool(block.output))
            seen.append(pool(decoder.norm.output))
        return _table(seen)

    return way


def baukit(checkpoint: Checkpoint) -> Peer:
    """A baukit TraceDict that keeps references, pooled after the pass."""
    from baukit import TraceDict

    blocks = [f"layers.{i}" for i in range(len(checkpoint.sites) - 2)]

    @torch.inference_mode()
    def way(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, Tensor]:
        pool = pooler(POOLINGS, inputs["attention_mask"])
        given = to_model(checkpoint, inputs)
        names = [*blocks, "norm"]
        with TraceDict(checkpoint.decoder, names, retain_input=True) as seen:
            checkpoint.body(**given, use_cache=False)
        states = [seen[blocks[0]].input, *(seen[name].output for name in names)]
        return _table([pool(one) for one in states])

    return way


def _table(seen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in seen], dim=1).cpu() for name in POOLINGS}


def installed(name: str) -> str:
    """The version of a peer, "" where it is not installed."""
    if find_spec(name) is None:
        return ""
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source"
