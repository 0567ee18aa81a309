"""The tap: a context manager that reads named sites of a decoder during one forward pass.

    embed        what enters the first block, after the media were merged in
    block_00 ... what each block puts out
    final_norm   what leaves the norm after the last block

Sites are modules, never indexes into `hidden_states`: there the last entry is after the norm on
most models, before it on others, and a flag in a checkpoint's config can flip it.

A decoder with AltUp (Gemma3n) carries several streams of states between its blocks; the one that is
read is the active one (`stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from geomkit.errors import CaptureError, CheckpointError
from geomkit.sites import select

NORMS = ("norm", "final_layernorm", "embedding_norm", "norm_f", "final_layer_norm", "ln_f")

Pool = Callable[[Tensor], dict[str, Tensor]]


def sites(decoder: nn.Module) -> tuple[str, ...]:
    """Every site of a decoder, in the order in which a forward pass meets them."""
    return tuple(_modules(decoder))


def final_norm(decoder: nn.Module) -> nn.Module:
    """The norm after the last block.

    Raises:
        CheckpointError: there is none under a known name.
    """
    for name in NORMS:
        if isinstance(found := getattr(decoder, name, None), nn.Module):
            return found
    raise CheckpointError(
        f"Expected a final norm ({', '.join(NORMS)}) in {type(decoder).__name__}, found none:"
        " this architecture is not supported."
    )


def _modules(decoder: nn.Module) -> dict[str, nn.Module]:
    blocks = list(decoder.layers)  # type: ignore[arg-type]  # a ModuleList, checked on loading
    named = {f"block_{i:02d}": block for i, block in enumerate(blocks)}
    return {"embed": blocks[0], **named, "final_norm": final_norm(decoder)}


def resolve(decoder: nn.Module, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted sites in forward order; all of them when none is named."""
    return select(sites(decoder), wanted)


@contextmanager
def tap(
    decoder: nn.Module, wanted: Sequence[str], pool: Pool
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Pool the wanted sites during the one forward pass that runs inside.

    Yields site -> pooling -> `(rows, dim)`, filled when the pass is done. States are pooled where
    they are, so no site's tokens outlive its module. Hooks are removed on every way out.

    Raises:
        UsageError: an unknown site, before anything is hooked.
        CaptureError: a site did not fire exactly once, or gave no `(rows, tokens, dim)` tensor.
    """
    names = resolve(decoder, wanted)
    modules = _modules(decoder)
    seen: dict[str, dict[str, Tensor]] = {}
    fired = dict.fromkeys(names, 0)

    def record(site: str, states: Any) -> None:
        fired[site] += 1
        tensor = states[0] if isinstance(states, tuple | list) else states
        if not isinstance(tensor, Tensor):
            raise CaptureError(f"Expected a tensor at {site}, got {type(tensor).__name__}.")
        seen[site] = pool(stream(decoder, tensor))

    with ExitStack() as hooks:
        for site in names:
            hooks.callback(_hook(modules[site], site, record).remove)
        yield seen
    wrong = {site: count for site, count in fired.items() if count != 1}
    if wrong:
        raise CaptureError(
            f"Expected each site to fire once in a forward pass, got {wrong}: this architecture"
            " runs its blocks in a way that is not supported."
        )


def stream(decoder: nn.Module, states: Tensor) -> Tensor:
    """`(rows, tokens, dim)` of the states between two blocks.

    AltUp's states are `(streams, rows, tokens, dim)`. A block runs its attention and feed-forward
    on the active stream only and corrects its guesses of the others by what came out: the active
    stream is the one computed, it enters block 0 as the embeddings, and the others' mean with it is
    what the final norm gets.
    """
    active = getattr(getattr(decoder, "config", None), "altup_active_idx", None)
    return states if active is None or states.ndim != 4 else states[active]


def _hook(module: nn.Module, site: str, record: Callable[[str, Any], None]) -> Any:
    if site != "embed":
        # A hook must return None: anything else would replace the module's output.
        return module.register_forward_hook(lambda _, __, output: record(site, output))

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        record(site, args[0] if args else kwargs.get("hidden_states"))

    return module.register_forward_pre_hook(before, with_kwargs=True)
