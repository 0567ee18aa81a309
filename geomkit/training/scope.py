"""What may train: LoRA branches in the decoder's blocks, and not one parameter more.

The names `q_proj`, `up_proj`, ... also occur in vision and audio towers, so a list of names is not
a scope. The scope is the decoder's own path in the module tree, followed by its blocks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from geomkit.architectures import decoder
from geomkit.errors import TrainingError
from geomkit.training.config import USUAL_TARGETS


@dataclass(frozen=True, slots=True)
class Scope:
    """What trains: the decoder's path, and names and counts as proof."""

    decoder: str
    modules: int
    trainable_names: tuple[str, ...]
    trainable_inside: int
    trainable_outside: int
    parameters: int


def target_pattern(model: nn.Module, names: Sequence[str]) -> str:
    """Regex that fully matches the linear layers called `names` in the decoder's blocks, only.

    Of the usual names those are taken that are there: a mixture of experts has fewer.

    Raises:
        TrainingError: no linear layer of one of those names there.
    """
    path, text = decoder(model)
    absent = absent_targets(model, names)
    if absent and (tuple(names) != USUAL_TARGETS or len(absent) == len(names)):
        linears = (n for n, m in text.named_modules() if isinstance(m, nn.Linear))
        there = sorted({n.rsplit(".", 1)[-1] for n in linears if n.startswith("layers.")})
        raise TrainingError(
            f"Expected linear layers named {', '.join(absent)} in the blocks of {path or 'model'}, "
            f"found {', '.join(there) or 'none'}: set targets to some of those."
        )
    return _pattern(path, names)


def absent_targets(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that no linear layer in the decoder's blocks has."""
    path = decoder(model)[0]
    return tuple(name for name in names if not target_names(model, _pattern(path, [name])))


def _pattern(path: str, names: Sequence[str]) -> str:
    block = re.escape(f"{path}." if path else "") + r"layers\.\d+\."
    return rf"{block}(?:.+\.)?(?:{'|'.join(map(re.escape, names))})"


def target_names(model: nn.Module, pattern: str) -> tuple[str, ...]:
    """The linear layers that a pattern selects, by their paths in the model."""
    linears = (n for n, m in model.named_modules() if isinstance(m, nn.Linear))
    return tuple(name for name in linears if re.fullmatch(pattern, name))


def assert_scope(model: nn.Module, *, frozen: bool = False) -> Scope:
    """Count what trains; refuse anything but LoRA branches inside the decoder's blocks.

    `frozen` is for an adapter that was loaded, not to be trained: then only places are checked.

    Raises:
        TrainingError: naming trainable parameters or LoRA modules elsewhere, or none at all.
    """
    base = unwrap(model)
    path, text = decoder(base)
    inside = {id(p) for p in text.get_submodule("layers").parameters()}
    outsiders = [n for n, p in base.named_parameters() if p.requires_grad and id(p) not in inside]
    blocks = re.compile(re.escape(f"{path}." if path else "") + r"layers\.\d+\.")
    adapters = [n for n, m in base.named_modules() if hasattr(m, "lora_A")]
    strays = [n for n in adapters if not blocks.match(n)]
    plain = [n for n, p in base.named_parameters() if p.requires_grad and "lora_" not in n]
    if offenders := sorted({*outsiders, *strays, *plain}):
        raise TrainingError(
            f"Expected LoRA in the decoder's blocks ({path or 'model'}.layers) and nothing else to "
            f"train, but {len(offenders)} more would: {', '.join(offenders[:4])}"
            f"{', ...' if len(offenders) > 4 else ''}; narrow the targets."
        )
    trainable = {n: p.numel() for n, p in base.named_parameters() if p.requires_grad}
    if not trainable and not frozen:
        raise TrainingError(
            f"Expected LoRA parameters in {path or 'model'}.layers, nothing trains."
        )
    return Scope(
        decoder=path,
        modules=len(adapters),
        trainable_names=tuple(trainable),
        trainable_inside=sum(trainable.values()),
        trainable_outside=sum(trainable[name] for name in outsiders),
        parameters=sum(p.numel() for p in base.parameters()),
    )


def thaw(model: nn.Module, free: Collection[str]) -> None:
    """Let every float parameter of the regions `free` train, in float32.

    Adam at usual learning rates loses most updates in bfloat16.
    """
    for region, _, tensor in by_region(model):
        if region in free and isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            tensor.data = tensor.data.float()
            tensor.requires_grad_(True)


def assert_regions(model: nn.Module, free: Collection[str]) -> Scope:
    """Count what trains; refuse any parameter outside the regions `free`, but LoRA branches.

    Raises:
        TrainingError: naming trainable parameters elsewhere, or none at all.
    """
    base = unwrap(model)
    path, text = decoder(base)
    allowed = {id(t) for region, _, t in by_region(base) if region in free}
    trainable = {n: p for n, p in base.named_parameters() if p.requires_grad}
    strays = sorted(n for n, p in trainable.items() if id(p) not in allowed and "lora_" not in n)
    if strays or not trainable:
        raise TrainingError(
            f"Expected {', '.join(sorted(free))} to train and nothing else, got "
            f"{len(strays)} parameters elsewhere (first: {strays[0] if strays else 'none'}) of "
            f"{len(trainable)} that train."
        )
    members = {id(p) for p in text.parameters()}
    sizes = {n: p.numel() for n, p in trainable.items()}
    inside = sum(sizes[n] for n, p in trainable.items() if id(p) in members)
    return Scope(
        decoder=path,
        modules=sum(hasattr(m, "lora_A") for m in base.modules()),
        trainable_names=tuple(trainable),
        trainable_inside=inside,
        trainable_outside=sum(sizes.values()) - inside,
        parameters=sum(p.numel() for p in base.parameters()),
    )


def region_hashes(model: nn.Module, rounded: torch.dtype = torch.float32) -> Mapping[str, str]:
    """sha256 of every frozen tensor, by region: equal before and after, or training leaked.

    Regions are `decoder`, `embeddings`, `head`, and each tower or projector by its module path.
    LoRA branches are left out, and the wrapping they bring does not change a name. Values are
    hashed as float32, which holds every half value exactly: a half type they are loaded in is no
    matter where the files have it too. `rounded` has them as a load in that type would.
    """
    digests: dict[str, hashlib._Hash] = {}
    for region, name, tensor in by_region(model):
        digest = digests.setdefault(region, hashlib.sha256())
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        number = tensor.is_floating_point()
        digest.update(tensor_bytes(tensor.to(rounded).float() if number else tensor))
    return {region: digest.hexdigest() for region, digest in sorted(digests.items())}


def strange_regions(model: nn.Module, told: Mapping[str, str]) -> tuple[str, ...]:
    """Regions of a record that `model` has not, in whatever type it was loaded when that was made.

    Training on a GPU reads float32 files as bfloat16, and records what it read.
    """
    odd = tuple(sorted(told))
    for rounded in (torch.float32, torch.bfloat16, torch.float16):
        if odd:
            odd = min(odd, _strange(region_hashes(model, rounded), told), key=len)
    return odd


def _strange(here: Mapping[str, str], told: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(region for region in told if told[region] != here.get(region)))


def unwrap(model: nn.Module) -> nn.Module:
    """The multimodal model itself, whether or not PEFT wraps it."""
    unwrap = getattr(model, "get_base_model", None)
    return cast("nn.Module", unwrap()) if callable(unwrap) else model


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The tensor's bytes in memory order, whatever its type."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def by_region(model: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Region, name and tensor of all of a model but its LoRA branches, sorted by name."""
    base = unwrap(model)
    text = decoder(base)[1]
    head = getattr(base, "get_output_embeddings", lambda: None)()
    heads = {id(p) for p in head.parameters()} if head is not None else set()
    embedding = getattr(text, "get_input_embeddings", lambda: None)()
    embeddings = {id(p) for p in embedding.parameters()} if embedding is not None else set()
    members = {id(t) for t in (*text.parameters(), *text.buffers())}
    for name, tensor in sorted(base.state_dict(keep_vars=True).items()):
        if "lora_" in name:
            continue
        if id(tensor) in embeddings:
            region = "embeddings"
        elif id(tensor) in heads:
            region = "head"
        elif id(tensor) in members:
            region = "decoder"
        else:
            region = _tower(name)
        yield region, name.replace(".base_layer.", "."), tensor


def _tower(name: str) -> str:
    """`model.visual.blocks.0...` -> `model.visual`: wrapper, then the part it wraps."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("model", "thinker") and len(parts) > 2 else parts[0]
