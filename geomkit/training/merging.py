"""Merge an adapter into its base: a full generative checkpoint that differs only where it trained.

The merge works on the checkpoint's files. Every tensor outside the adapter's targets is copied
byte for byte (talker, towers, head and all), and a target becomes W + scale * B A, added in
float32 and rounded once to W's type. A target is found in the files by its content, so names may
differ between the files and the loaded model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from geomkit.checkpoints import load_checkpoint, locate
from geomkit.errors import TrainingError
from geomkit.processing import load_processor
from geomkit.training.adapter import load_adapter
from geomkit.training.scope import assert_scope, region_hashes, tensor_bytes
from geomkit.training.states import last_states, probes, speak
from geomkit.types import Modality, Sample

SCHEMA = "geomkit-merge/1"
RECORD = "merge.json"
TOLERANCE: Mapping[str, float] = {"F32": 1e-4, "F16": 2e-2, "BF16": 1e-1}
"""Largest accepted relative distance of merged and adapter states, by the files' type.

In float32 only the order of additions differs. In half types a merged weight is rounded to 11 or 8
bits while the unmerged branch is not, and the difference grows through the blocks.
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far states of the merged checkpoint are from base plus adapter, in one modality."""

    modality: str
    n: int
    relative: float  # largest over rows: |merged - adapter| / |adapter|
    cosine: float  # smallest over rows
    tolerance: float


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """What was merged and the proof; `merge.json`."""

    schema: str
    base: str
    adapter: str
    dtype: str
    tensors: int
    merged: int
    identical: int
    largest_change: float
    agreement: tuple[Agreement, ...]
    generated: int
    copied: tuple[str, ...]

    def to_json(self) -> str:
        """Strict JSON, sorted keys."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"


def merge(
    adapter: Path,
    base: str | Path,
    out: Path,
    *,
    samples: Sequence[Sample] = (),
    names: tuple[str, str] | None = None,
) -> MergeRecord:
    """Write `base` with `adapter` merged in to `out`, prove it equal, and record the proof.

    Equality is measured on `samples`, or on a few synthetic ones, in every modality they have.
    `names` are the names of adapter and base to record when their paths should not be.

    Raises:
        TrainingError: `out` in use, an adapter that does not fit, or a proof that fails; `out` is
            then not written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"Expected {out} to be new or empty: choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        work = Path(scratch) / "merged"
        folder = _folder(str(base))
        record = _merge(adapter, folder, work, samples, names or (str(adapter), str(base)))
        if out.exists():
            out.rmdir()
        work.rename(out)
    return record


def _merge(
    adapter: Path, base: Path, work: Path, samples: Sequence[Sample], names: tuple[str, str]
) -> MergeRecord:
    copied = _copy_rest(base, work)
    model, processor = load_checkpoint("base", str(base)).model, load_processor(base)
    _refuse_other_base(adapter, model)
    adapted = load_adapter(model, adapter)
    assert_scope(adapted, frozen=True)
    samples = samples or probes(processor)
    expected = last_states(adapted, processor, samples)
    merged, largest = rewrite(base, work, targets(adapted))
    del adapted, model  # the merged model needs the memory

    total, changed = differing(base, work)
    if strays := sorted(changed - merged):
        raise TrainingError(
            f"Expected only adapted layers to change, {len(strays)} more did (first: {strays[0]})."
        )
    dtype = _dtype(base, merged)
    again = load_checkpoint("merged", str(work)).model
    agreement = _agree(expected, last_states(again, processor, samples), dtype)
    record = MergeRecord(
        schema=SCHEMA,
        adapter=names[0],
        base=names[1],
        dtype=dtype,
        tensors=total,
        merged=len(merged),
        identical=total - len(changed),
        largest_change=largest,
        agreement=agreement,
        generated=speak(again, processor, samples),
        copied=copied,
    )
    (work / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


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


def rewrite(base: Path, out: Path, layers: Sequence[Target]) -> tuple[frozenset[str], float]:
    """Write the checkpoint `base` to `out` with the layers updated; all else is copied.

    Returns the names of the tensors that were updated, and the largest change of one weight.

    Raises:
        TrainingError: no safetensors in `base`, or a layer not found there exactly once.
    """
    shards = sorted(base.glob("*.safetensors"))
    if not shards:
        raise TrainingError(
            f"Expected *.safetensors in {base}, found none: convert the base first."
        )
    by_sha: dict[str, list[Target]] = {}
    for layer in layers:
        by_sha.setdefault(layer.sha, []).append(layer)
    found: dict[str, str] = {}
    largest = 0.0
    for shard in shards:
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
    return frozenset(found), largest


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
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            found |= {name: _sha(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  # no mapping
    return found


def _folder(base: str) -> Path:
    """The folder of a base: itself, a built-in's, or what the hub's cache holds of an id.

    Raises:
        TrainingError: the base is an adapter.
    """
    place = locate(base)
    if place.base is not None:
        raise TrainingError(f"Expected a full model as the base, {base} is an adapter.")
    if place.local:
        return Path(place.where)
    return Path(snapshot_download(place.where, revision=place.revision))


def _refuse_other_base(adapter: Path, model: nn.Module) -> None:
    """Raise when the adapter's own record says that it was trained on other weights.

    Raises:
        TrainingError: naming the regions that differ.
    """
    record = adapter / "training.json"
    if not record.is_file():
        return  # made by another tool: nothing to compare with
    trained_on = json.loads(record.read_text(encoding="utf-8")).get("frozen_before", {})
    here = region_hashes(model)
    if other := sorted(region for region in trained_on if trained_on[region] != here.get(region)):
        raise TrainingError(
            f"Expected the base that {adapter.name} was trained on, but {', '.join(other)} differ: "
            "give that base."
        )


def _copy_rest(base: Path, work: Path) -> tuple[str, ...]:
    """Copy everything but the weights: config, tokenizer, processor, chat template, voices."""
    work.mkdir()
    rest = sorted(p for p in base.iterdir() if p.is_file() and p.suffix != ".safetensors")
    for file in rest:
        shutil.copyfile(file, work / file.name)
    return tuple(file.name for file in rest)


def _dtype(base: Path, names: Collection[str]) -> str:
    """The files' type of the merged tensors ("F32", "F16", "BF16")."""
    found = set()
    for shard in base.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as file:
            found |= {file.get_slice(n).get_dtype() for n in file.keys() if n in names}  # noqa: SIM118  # no mapping
    return str(min(found, key=["BF16", "F16", "F32"].index))


def _agree(
    expected: Mapping[Modality, Tensor], got: Mapping[Modality, Tensor], dtype: str
) -> tuple[Agreement, ...]:
    """How near the states are, in each modality.

    Raises:
        TrainingError: beyond the tolerance of the weights' type.
    """
    found = []
    for modality, before in expected.items():
        apart = (got[modality] - before).norm(dim=1) / before.norm(dim=1)
        cosine = functional.cosine_similarity(got[modality], before, dim=1)
        found.append(
            Agreement(
                modality, len(before), float(apart.max()), float(cosine.min()), TOLERANCE[dtype]
            )
        )
        if not float(apart.max()) <= TOLERANCE[dtype]:
            raise TrainingError(
                f"Expected merged {modality} states within {TOLERANCE[dtype]} of the adapter's, "
                f"got {float(apart.max()):.2g}: the merge is not the model that was trained."
            )
    return tuple(found)


def _sha(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
