"""The mean of several trainings from one base: a model soup of adapters or of checkpoints.

    W_soup = W + mean_i(delta_i),   delta_i = s_i B_i A_i

The mean is of what the adapters do. The mean of the B times the mean of the A is something else:
it holds B_i A_j of different trainings, which nobody trained, and a change of basis inside one
adapter (B R, R^-1 A), which does nothing, would change it. Written side by side, in n parts,

    [A_1; A_2; ...]  and  [s_1 B_1 / n, s_2 B_2 / n, ...]

the branches give that mean exactly: the soup is an adapter whose rank is the sum of the ranks.
Reference: Wortsman et al. 2022.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from geomkit import adapters
from geomkit.errors import TrainingError
from geomkit.training.adapter import WEIGHTS
from geomkit.training.merging import copy_rest
from geomkit.vetting import ADAPTER_CONFIG, read_object

SCHEMA = "geomkit-soup/1"
TRAINING = "training.json"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ALIKE = ("base_model_name_or_path", "peft_type", "use_rslora", "fan_in_fan_out")
PATTERNS = ("rank_pattern", "alpha_pattern")


@dataclass(frozen=True, slots=True)
class Soup:
    """What was averaged; it stands in `training.json` of the soup, beside what was trained on."""

    schema: str
    kind: str  # adapters, projections or checkpoints
    parts: tuple[str, ...]
    tensors: int
    averaged: int  # tensors that were not equal in all parts
    rank: int  # of an adapter, else 0


def soup(parts: Sequence[Path], out: Path, *, names: Sequence[str] = ()) -> Soup:
    """Write the mean of adapters of one base, or of checkpoints of one shape, to `out`.

    `names` are the names of the parts to record when their paths should not be.

    Raises:
        TrainingError: fewer than two parts, parts that do not go together, an `out` in use.
    """
    if len(parts) < 2:
        raise TrainingError(f"Expected two or more checkpoints to average, got {len(parts)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"Expected {out} to be new or empty: choose another folder.")
    kinds = {_kind(part) for part in parts}
    if len(kinds) > 1:
        raise TrainingError(
            f"Expected parts of one kind, got {' and '.join(sorted(kinds))}: merge the adapters "
            "into their bases first."
        )
    told = tuple(names or (part.name for part in parts))
    (kind,) = kinds
    if kind == "checkpoints":
        found = _checkpoints(parts, out, told)
    else:
        found = _adapters(parts, out, told, kind)
    about = {**_trained(parts), **asdict(found)}
    (out / TRAINING).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return found


def _kind(part: Path) -> str:
    if adapters.is_projection(part):
        return "projections"
    if (part / ADAPTER_CONFIG).is_file():
        adapters.check_kind(part)
        return "adapters"
    if not any(part.glob("*.safetensors")):
        raise TrainingError(
            f"Expected a folder with an adapter or a checkpoint, found no weights in {part}."
        )
    return "checkpoints"


def _adapters(parts: Sequence[Path], out: Path, names: tuple[str, ...], kind: str) -> Soup:
    settings = [read_object(part / ADAPTER_CONFIG) for part in parts]
    for key in ALIKE:
        if len({str(one.get(key)) for one in settings}) > 1:
            raise TrainingError(
                f"Expected adapters of one base and one kind, their {key} differ: "
                f"{' and '.join(sorted({str(one.get(key)) for one in settings}))}."
            )
    _same_weights_below(parts)
    states = [adapters.weights(part) for part in parts]
    out.mkdir(parents=True, exist_ok=True)
    if kind == "projections":
        mean = {adapters.PROJECTION_WEIGHT: _mean([s[adapters.PROJECTION_WEIGHT] for s in states])}
        config, rank = settings[0], 0
    else:
        mean, rank = _side_by_side(parts, settings, states)
        config = _settings(settings, mean, rank)
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return Soup(SCHEMA, kind, names, len(mean), len(mean), rank)


def _side_by_side(
    parts: Sequence[Path],
    settings: Sequence[Mapping[str, Any]],
    states: Sequence[Mapping[str, Tensor]],
) -> tuple[dict[str, Tensor], int]:
    """Branches that are the mean of all; a part without a branch somewhere has zeros there."""
    for part, one in zip(parts, settings, strict=True):
        if odd := next((key for key in PATTERNS if one.get(key)), None):
            raise TrainingError(
                f"Expected one rank for all layers of {part.name}, it has a {odd}: merge the "
                "adapters into their bases first."
            )
    places = sorted({n.removesuffix(DOWN) for s in states for n in s if n.endswith(DOWN)})
    found: dict[str, Tensor] = {}
    for place in places:
        here = next(s for s in states if place + DOWN in s)
        width, height = here[place + DOWN].shape[1], here[place + UP].shape[0]
        downs, ups = [], []
        for one, state in zip(settings, states, strict=True):
            rank = int(one["r"])
            down = state.get(place + DOWN, torch.zeros(rank, width))
            up = state.get(place + UP, torch.zeros(height, rank))
            downs.append(down.float())
            ups.append(up.float() * (_scaling(one) / len(states)))
        found[place + DOWN] = torch.cat(downs).contiguous()
        found[place + UP] = torch.cat(ups, dim=1).contiguous()
    return found, sum(int(one["r"]) for one in settings)


def _scaling(settings: Mapping[str, Any]) -> float:
    rank, alpha = float(settings["r"]), float(settings["lora_alpha"])
    return alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank


def _settings(
    settings: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor], rank: int
) -> dict[str, Any]:
    """The first part's, with the rank of the soup and a scaling of 1."""
    alike = len({json.dumps(one["target_modules"], sort_keys=True) for one in settings}) == 1
    prefix = "base_model.model."
    places = sorted(n.removesuffix(DOWN).removeprefix(prefix) for n in state if n.endswith(DOWN))
    return {
        **settings[0],
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "target_modules": settings[0]["target_modules"] if alike else places,
    }


def _checkpoints(parts: Sequence[Path], out: Path, names: tuple[str, ...]) -> Soup:
    with ExitStack() as opened:
        files = [
            {
                name: file
                for shard in sorted(part.glob("*.safetensors"))
                for file in [opened.enter_context(safe_open(shard, framework="pt"))]
                for name in file.keys()  # noqa: SIM118  # no mapping
            }
            for part in parts
        ]
        for part, own in zip(parts[1:], files[1:], strict=True):
            if odd := sorted(own.keys() ^ files[0].keys()):
                raise TrainingError(
                    f"Expected checkpoints of one shape, {part.name} and {parts[0].name} differ in "
                    f"{len(odd)} weights (first: {odd[0]})."
                )
        copy_rest(parts[0], out)
        averaged = 0
        for shard in sorted(parts[0].glob("*.safetensors")):
            with safe_open(shard, framework="pt") as first:
                metadata = dict(first.metadata() or {"format": "pt"})
                mean = {n: [own[n].get_tensor(n) for own in files] for n in first.keys()}  # noqa: SIM118  # no mapping
            own_mean, moved = _means(mean)
            averaged += moved
            shutil.copyfile(shard, out / shard.name)
            if moved:
                save_file(own_mean, out / shard.name, metadata=metadata)
                shutil.copymode(shard, out / shard.name)  # safetensors makes it private
        return Soup(SCHEMA, "checkpoints", names, len(files[0]), averaged, 0)


def _means(tensors: Mapping[str, Sequence[Tensor]]) -> tuple[dict[str, Tensor], int]:
    """The mean of every tensor, where its parts differ; and in how many they do."""
    found, moved = {}, 0
    for name, each in tensors.items():
        found[name] = each[0]
        if all(torch.equal(each[0], other) for other in each[1:]):
            continue
        if len({(t.shape, t.dtype) for t in each}) > 1 or not each[0].is_floating_point():
            raise TrainingError(
                f"Expected {name} to have one shape and one float type in all checkpoints, got "
                f"{', '.join(sorted({f'{t.dtype} {tuple(t.shape)}' for t in each}))}."
            )
        found[name], moved = _mean(each), moved + 1
    return found, moved


def _mean(each: Sequence[Tensor]) -> Tensor:
    """Added in float64 and rounded once."""
    return torch.stack([t.double() for t in each]).mean(dim=0).to(each[0].dtype).contiguous()


def _same_weights_below(parts: Sequence[Path]) -> None:
    """Raise when the parts' own records say that they were trained on other weights."""
    below = [read_object(part / TRAINING).get("frozen_before") or {} for part in parts]
    for part, own in zip(parts[1:], below[1:], strict=True):
        shared = own.keys() & below[0].keys()
        if odd := sorted(region for region in shared if own[region] != below[0][region]):
            raise TrainingError(
                f"Expected {part.name} and {parts[0].name} to have one base, their {', '.join(odd)}"
                " differ."
            )


def _trained(parts: Sequence[Path]) -> dict[str, Any]:
    """What the parts were trained on, together, as far as they say."""
    told = [read_object(part / TRAINING) for part in parts]
    media: dict[str, int] = {}
    for one in told:
        for modality, count in (one.get("media") or {}).items():
            media[modality] = media.get(modality, 0) + int(count)
    regions = [one.get("frozen_before") or {} for one in told]
    shared = set.intersection(*(set(own) for own in regions))
    return {
        "trained": list(dict.fromkeys(m for one in told for m in one.get("trained") or ())),
        "media": media,
        "frozen_before": {region: regions[0][region] for region in sorted(shared)},
    }
