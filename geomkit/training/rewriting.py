"""A checkpoint's files with some layers changed: find each by its content, copy all else.

Names in the files may differ from names in the loaded model, so a layer is recognised by what it
holds and by its place counted from its block.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from geomkit.errors import TrainingError
from geomkit.training.scope import tensor_bytes
from geomkit.vetting import weight_files

ORDER = 1e-2
"""Largest accepted share of an update by which what is written may differ: additions in another
order move a sum by 1e-7 of it, and now and then the rounding of a weight with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A layer to change: its path in the model, the hash of its frozen weight, its update.

    The hash is of the weight in float32, which holds every half value exactly: so it finds the
    weight in the files whatever type the model was loaded in.
    """

    path: str
    sha: str
    update: Tensor  # float32, scale * B A


def targets(adapted: Any) -> tuple[Target, ...]:
    """The layers the adapter changes, and by how much.

    Raises:
        TrainingError: an adapter that is more than low-rank updates of linear layers.
    """
    config = adapted.peft_config["default"]
    if getattr(config, "use_dora", False) or getattr(config, "bias", "none") != "none":
        raise TrainingError(
            "Expected plain LoRA, this adapter uses DoRA or trains biases: merge it with peft."
        )
    return tuple(
        _target(name, layer)
        for name, layer in adapted.named_modules()
        if isinstance(layer, LoraLayer)
    )


def _target(path: str, layer: Any) -> Target:
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    update = layer.scaling["default"] * (up.detach().float() @ down.detach().float())
    weight = layer.get_base_layer().weight
    if weight.shape != update.shape:
        raise TrainingError(
            f"Expected a plain weight of shape {tuple(update.shape)} at {path}, got "
            f"{tuple(weight.shape)} {weight.dtype}: load the base unquantised to merge."
        )
    return Target(path, _sha(weight.detach().float()), update.cpu())


def rewrite(base: Path, out: Path, layers: Sequence[Target]) -> tuple[dict[str, str], float]:
    """Write the checkpoint `base` to `out` with the layers updated; all else is copied.

    Returns name -> path in the model of the tensors that were updated, and the largest change of
    one weight.

    Raises:
        TrainingError: no safetensors in `base`, or a layer not found there exactly once.
    """
    files = shards(base)
    if not files:
        raise TrainingError(
            f"Expected *.safetensors in {base}, found none: convert the base first."
        )
    by_sha: dict[str, list[Target]] = {}
    for layer in layers:
        by_sha.setdefault(layer.sha, []).append(layer)
    found: dict[str, str] = {}
    largest = 0.0
    for shard in files:
        tensors, metadata = _read(shard)
        hits = {n: hit for n, t in tensors.items() if (hit := _match(n, t, by_sha))}
        for name, hit in hits.items():
            old = tensors[name]
            tensors[name] = (old.float() + hit.update).to(old.dtype)
            largest = max(largest, float((tensors[name].float() - old.float()).abs().max()))
            found[name] = hit.path
        shutil.copyfile(shard, out / shard.name)
        if hits:
            save_file(tensors, out / shard.name, metadata=metadata)
            shutil.copymode(shard, out / shard.name)  # safetensors makes it private
    if sorted(found.values()) != sorted(layer.path for layer in layers):
        missing = sorted({layer.path for layer in layers} - set(found.values()))
        raise TrainingError(
            f"Expected each of {len(layers)} adapted layers once in the files of {base}, found "
            f"{len(found)} (missing: {missing[0] if missing else 'none, some occur twice'}): the "
            "adapter was made for another base, or its layers are stored fused."
        )
    return found, largest


def weights_apart(base: Path, out: Path, written: Mapping[str, str], adapted: Any) -> float:
    """How far what was written is from base plus PEFT's own update, rounded to the files' type.

    The largest over layers of the sum of what is apart, over that of the update. States alone
    would let a wrong merge pass where an update is small and the type coarse.

    Raises:
        TrainingError: more than the order of additions explains.
    """
    largest = 0.0
    for name, old, new in _both(base, out, written):
        update = adapted.get_submodule(written[name]).get_delta_weight("default").float().cpu()
        expected = (old.float() + update).to(old.dtype)
        apart, all_ = (new.float() - expected.float()).abs().sum(), update.abs().sum()
        share = float(apart / all_) if all_ else float(apart)
        if not share <= ORDER:
            raise TrainingError(
                f"Expected {name} to be written as base plus update, what is apart is {share:.2g} "
                f"of the update (accepted below {ORDER}): the merge is not the model that was "
                "trained."
            )
        largest = max(largest, share)
    return largest


def _both(base: Path, out: Path, names: Collection[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, old and new value of tensors, one at a time."""
    for shard in shards(base):
        files = (safe_open(folder / shard.name, framework="pt") for folder in (base, out))
        with next(files) as before, next(files) as after:
            for name in (n for n in before.keys() if n in names):  # noqa: SIM118  # no mapping
                yield name, before.get_tensor(name), after.get_tensor(name)


def shards(folder: Path) -> list[Path]:
    """The files that a model is loaded from: some repositories hold it twice, in another format."""
    return [path for name in weight_files(folder) if (path := folder / name).is_file()]


def differing(base: Path, out: Path) -> tuple[int, frozenset[str]]:
    """How many tensors `base` has, and the names of those that are not byte-identical in `out`."""
    before, after = _fingerprints(base), _fingerprints(out)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return len(before), frozenset(names)


def _match(name: str, tensor: Tensor, by_sha: Mapping[str, list[Target]]) -> Target | None:
    """The layer stored under `name`: same values, and the same place counted from its block."""
    if tensor.ndim != 2 or not tensor.is_floating_point():
        return None
    place = _place(name.removesuffix(".weight"))
    layers = by_sha.get(_sha(tensor.float()), ())
    return next((layer for layer in layers if _place(layer.path) == place), None)


def _place(path: str) -> str:
    """`model.language_model.layers.3.mlp.up_proj` -> `layers.3.mlp.up_proj`."""
    head, separator, tail = path.rpartition("layers.")
    return separator + tail if separator else head + tail


def _read(shard: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(shard, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return tensors, dict(file.metadata() or {"format": "pt"})


def _fingerprints(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for shard in shards(folder):
        with safe_open(shard, framework="pt") as file:
            found |= {name: _sha(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  # no mapping
    return found


def _sha(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
