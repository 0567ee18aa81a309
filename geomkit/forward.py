"""One forward pass of one checkpoint over one batch: inputs to pooled states.

The head is never run. Towers whose weights are equal in several checkpoints run once a batch: the
first checkpoint's tower outputs are handed to the others.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor, nn

from geomkit import pooling
from geomkit.checkpoints import Checkpoint
from geomkit.errors import CaptureError, MemoryFull
from geomkit.hooks import Pool, tap
from geomkit.pooling import media_mask, pooler

TOKENS = "tokens"  # beside the poolings, in what a site gives

Outputs = dict[str, list[Any]]
"""Tower name -> what it put out, call by call."""


class Towers:
    """Tower outputs of one batch, by the towers' weights and settings."""

    def __init__(self) -> None:
        """Nothing has run yet."""
        self._seen: dict[str, Outputs] = {}

    @contextmanager
    def shared(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Inside, towers that already ran on this batch give their output again."""
        known = self._seen.setdefault(_towers_key(checkpoint), {})
        modules = towers(checkpoint)
        before: dict[str, Any] = {
            name: vars(module).get("forward") for name, module in modules.items()
        }
        for name, module in modules.items():
            module.forward = _remembered(module.forward, known.setdefault(name, []))
        try:
            yield
        finally:
            for name, module in modules.items():
                if before[name] is None:
                    del module.forward
                else:
                    module.forward = before[name]


def _towers_key(checkpoint: Checkpoint) -> str:
    """What a tower's output depends on beside its input: weights, precision and settings.

    Settings are the whole configuration but the decoder's: which layer of a tower is read stands
    in the model's own part of it.
    """
    config = checkpoint.model.config
    text, named = config.get_text_config(), config.to_dict()
    settings = {k: v for k, v in named.items() if getattr(config, k, None) is not text}
    for about in ("_name_or_path", "architectures", "transformers_version"):
        settings.pop(about, None)
    dtype = next(checkpoint.decoder.parameters()).dtype
    told = json.dumps(settings, sort_keys=True, default=str)
    return f"{checkpoint.fingerprint.towers} {dtype} {told}"


def towers(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """The children of the body that stand beside the decoder."""
    if checkpoint.body is checkpoint.decoder:
        return {}
    return {
        name: module
        for name, module in checkpoint.body.named_children()
        if not any(inner is checkpoint.decoder for inner in module.modules())
    }


def _remembered(forward: Any, outputs: list[Any]) -> Any:
    calls = iter(range(1_000_000))

    def run(*args: Any, **kwargs: Any) -> Any:
        call = next(calls)
        if call == len(outputs):
            outputs.append(copy.copy(forward(*args, **kwargs)))
        # A copy each time: models hang further fields on the output they are given.
        return copy.copy(outputs[call])

    return run


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Pooled states of one batch, perhaps still on their way from the device to the host."""

    poolings: tuple[str, ...]
    table: Tensor  # on the host: (poolings, rows, sites, dim), float32
    tokens: Tensor | None  # on the host: (tokens of all rows, sites, dim), when they were asked for
    copied: torch.cuda.Event | None  # None where there is nothing to wait for

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Pooling -> float32 `(rows, sites, dim)`, once they have arrived."""
        self._wait()
        return dict(zip(self.poolings, self.table.numpy(), strict=True))

    def token_states(self) -> NDArray[np.float32]:
        """Float32 `(tokens of all rows, sites, dim)`, once they have arrived."""
        self._wait()
        if self.tokens is None:
            raise CaptureError("Expected token states, but only pooled ones were captured.")
        return self.tokens.numpy()

    def _wait(self) -> None:
        if self.copied is not None:
            self.copied.synchronize()


def states(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Tensor],
    sites: Sequence[str],
    poolings: Sequence[str],
    media: Sequence[int] = (),
) -> dict[str, NDArray[np.float32]]:
    """Pooled states of every row: pooling -> float32 `(rows, sites, dim)`; raises like `run`."""
    return run(checkpoint, inputs, sites, poolings, media=media).arrays()


@torch.inference_mode()
def run(
    checkpoint: Checkpoint,
    inputs: Mapping[str, Tensor],
    sites: Sequence[str],
    poolings: Sequence[str],
    *,
    media: Sequence[int] = (),
    tokens: bool = False,
) -> Pooled:
    """One forward pass; `media` are the ids of placeholder tokens, for `mean-of-media`.

    On a GPU the states are pooled there and leave it in one copy that nobody waits for.

    Raises:
        MemoryFull: the batch does not fit into memory.
        CaptureError: a site that does not fire as it should.
    """
    mask = inputs["attention_mask"]
    placeholders = media_mask(inputs["input_ids"], media) if media else None
    pool = pooler(poolings, mask, placeholders)
    if tokens:
        pool = _with_tokens(pool, mask)
    with within_memory(checkpoint, inputs):
        given = to_model(checkpoint, inputs)
        with checkpoint.active() as body, tap(checkpoint.decoder, sites, pool) as seen:
            body(**given, use_cache=False)
        return _to_host(seen, sites, poolings, tokens=tokens)


@contextmanager
def within_memory(checkpoint: Checkpoint, inputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Raises MemoryFull when what is inside finds the device's memory full."""
    try:
        yield
    except RuntimeError as cause:
        if not out_of_memory(cause):
            raise
        rows, width = inputs["input_ids"].shape
        raise MemoryFull(
            f"'{checkpoint.name}' ran out of memory on {rows} x {width} tokens: use a larger"
            " device, bfloat16, shorter texts or smaller media."
        ) from None


def out_of_memory(cause: BaseException) -> bool:
    """True for the errors with which devices say that their memory is full."""
    return isinstance(cause, torch.OutOfMemoryError) or (
        isinstance(cause, RuntimeError) and should_reduce_batch_size(cause)
    )


def _with_tokens(pool: Pool, mask: Tensor) -> Pool:
    return lambda states: {**pool(states), TOKENS: pooling.tokens(states, mask).float()}


def _to_host(
    seen: Mapping[str, Mapping[str, Tensor]],
    sites: Sequence[str],
    poolings: Sequence[str],
    *,
    tokens: bool,
) -> Pooled:
    """One table of all sites and poolings, and its copy to the host on its way."""

    def stacked(name: str) -> Tensor:
        device = seen[sites[-1]][name].device  # blocks may lie on several devices
        return torch.stack([seen[site][name].to(device) for site in sites], dim=1)

    token_states = _copy(stacked(TOKENS))[0] if tokens else None
    table, copied = _copy(torch.stack([stacked(name) for name in poolings]))  # the later of the two
    return Pooled(tuple(poolings), table, token_states, copied)


def _copy(table: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if not table.is_cuda:
        return table.cpu(), None
    host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    host.copy_(table, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch annotates it halfway
    copied.record(torch.cuda.current_stream(table.device))
    return host, copied


def to_model(checkpoint: Checkpoint, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs on the device where the model takes them, media in its precision."""
    device = next(checkpoint.body.parameters()).device
    dtype = next(checkpoint.decoder.parameters()).dtype
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
