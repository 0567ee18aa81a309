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
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geomkit import adapters
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.places import TRAINING, Place
from geomkit.processing import Processor, load_processor
from geomkit.prompts import prompts
from geomkit.training.adapter import WEIGHTS, finite_weights, load_adapter
from geomkit.training.assembly import assemble
from geomkit.training.generation import NO_CAPTIONS, Captions, generative_losses
from geomkit.training.ingredients import (
    Ingredient,
    common_base,
    ingredients,
    measured_base,
    shared_regions,
)
from geomkit.training.merging import (
    USUAL_PROMPT,
    copy_rest,
    settings_of,
    writing,
)
from geomkit.training.rewriting import shards
from geomkit.training.scaffold import scaffold
from geomkit.training.scope import assert_scope, region_hashes
from geomkit.training.states import probes, speak
from geomkit.types import MODALITIES
from geomkit.vetting import ADAPTER_CONFIG, read_object

SCHEMA = "geomkit-soup/1"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ALIKE = ("peft_type", "use_rslora", "fan_in_fan_out")
PATTERNS = ("rank_pattern", "alpha_pattern")
BASE = "base_model_name_or_path"


@dataclass(frozen=True, slots=True)
class Saying:
    """Mean generative loss of one model in one modality, in nats a token; lower is better."""

    name: str
    modality: str
    n: int
    loss: float


@dataclass(frozen=True, slots=True)
class Soup:
    """What was averaged; it stands in `training.json` of the soup, beside what was trained on.

    `frozen_before` is sha256 by region of the base of adapters, or of what is equal in all
    checkpoints; `frozen_after` is the same, measured in the soup.
    """

    schema: str
    kind: str  # adapters, projections or checkpoints
    parts: tuple[str, ...]
    tensors: int
    averaged: int  # tensors that were not equal in all parts
    rank: int  # of an adapter, else 0
    frozen_before: Mapping[str, str] = field(default_factory=dict)
    frozen_after: Mapping[str, str] = field(default_factory=dict)
    assembly: tuple[str, ...] = ()  # modalities that sentence-transformers embeds with it
    generated: int = 0  # tokens that a checkpoint said when asked
    losses: tuple[Saying, ...] = ()  # of the given captions: by the base or the parts, and by it
    notices: tuple[str, ...] = ()


def soup(
    parts: Sequence[Path],
    out: Path,
    *,
    names: Sequence[str] = (),
    captions: Captions = NO_CAPTIONS,
) -> Soup:
    """Write the mean of adapters of one base, or of checkpoints trained from one, to `out`.

    That they have one base is measured. `names` are the names of the parts to record when their
    paths should not be. The generative loss is measured on `captions`.

    Raises:
        TrainingError: fewer than two parts, parts that do not go together, an `out` in use.
        CheckpointError: a part, or the base of an adapter, cannot be found or loaded.
    """
    if len(parts) < 2:
        raise TrainingError(f"Expected two or more checkpoints to average, got {len(parts)}.")
    with scaffold(out, purpose="soup") as work, writing(out):
        found = ingredients(parts, tuple(names or (part.name for part in parts)))
        if found[0].kind == "checkpoints":
            record, found = _checkpoints(found, work, captions)
        else:
            record = _adapters(found, work, captions)
            _name_base(parts[0], work, out)
        about = {**_trained(found), **asdict(record)}
        (work / TRAINING).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return record


def _adapters(parts: Sequence[Ingredient], work: Path, captions: Captions) -> Soup:
    settings = [read_object(part.folder / ADAPTER_CONFIG) for part in parts]
    for key in ALIKE:
        if len({str(one.get(key)) for one in settings}) > 1:
            raise TrainingError(
                f"Expected adapters of one kind, their {key} differ: "
                f"{' and '.join(sorted({str(one.get(key)) for one in settings}))}."
            )
    base = common_base(parts)
    states = [finite_weights(part.folder) for part in parts]
    if parts[0].kind == "projections":
        mean, config, rank = _mean_projection(states), settings[0], 0
    else:
        mean, rank = _side_by_side([part.folder for part in parts], settings, states)
        config = _settings(settings, mean, rank)
    save_file(mean, work / WEIGHTS, metadata={"format": "pt"})
    (work / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    before, after, losses = _on_base(parts, base, work, captions)
    return Soup(
        SCHEMA, parts[0].kind, tuple(part.name for part in parts), len(mean), len(mean), rank,
        before, after, losses=losses, notices=tuple(_notices(parts)),
    )  # fmt: skip


def _on_base(
    parts: Sequence[Ingredient], base: Place, work: Path, captions: Captions
) -> tuple[Mapping[str, str], Mapping[str, str], tuple[Saying, ...]]:
    """The base's regions, alone and under the soup, and how well both say the captions."""
    model, processor = load_checkpoint("base", base.where).model, load_processor(base.where)
    before = measured_base(parts, model)
    losses = [*_sayings("base", model, processor, captions)]
    if parts[0].kind == "projections":  # they come after the decoder: it says what the base says
        return before, before, tuple(losses)
    adapted = load_adapter(model, work)
    assert_scope(adapted, frozen=True)
    losses += _sayings("soup", adapted, processor, captions)
    return before, region_hashes(adapted), tuple(losses)


def _sayings(
    name: str, model: nn.Module, processor: Processor, captions: Captions
) -> Iterator[Saying]:
    for found in generative_losses(
        model,
        processor,
        captions.samples,
        instructions=captions.instructions,
        answers=captions.answers,
    ):
        yield Saying(name, found.modality, len(found.values), float(found.values.mean()))


def _mean_projection(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    name = adapters.PROJECTION_WEIGHT
    return {name: _mean([state[name] for state in states])}


def _name_base(first: Path, work: Path, out: Path) -> None:
    """Name the base as seen from `out`, where the first part names it as seen from its folder."""
    path = work / ADAPTER_CONFIG
    config = read_object(path)
    near = [first / config[BASE], first.resolve().parent / config[BASE]]
    if not Path(config[BASE]).is_absolute() and (found := [p for p in near if p.is_dir()]):
        config[BASE] = os.path.relpath(found[0].resolve(), out.resolve())
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


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
    for part, one, state in zip(parts, settings, states, strict=True):
        _check_branches(part, one, state)
    places = sorted({n.removesuffix(DOWN) for s in states for n in s if n.endswith(DOWN)})
    found: dict[str, Tensor] = {}
    for place in places:
        own = [s for s in states if place + UP in s]
        sizes = {(s[place + UP].shape[0], s[place + DOWN].shape[1]) for s in own}
        if len(sizes) > 1:
            raise TrainingError(
                f"Expected adapters of one base, {place} has {len(sizes)} sizes in them."
            )
        ((height, width),) = sizes
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


def _check_branches(part: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise TrainingError unless an adapter is pairs of matrices of the rank it names."""
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not _is_number(alpha):
        raise TrainingError(
            f"Expected a rank r and a lora_alpha in {part / ADAPTER_CONFIG}, got {rank!r} and "
            f"{alpha!r}."
        )
    downs = {n.removesuffix(DOWN): t.shape[0] for n, t in state.items() if n.endswith(DOWN)}
    ups = {n.removesuffix(UP): t.shape[-1] for n, t in state.items() if n.endswith(UP)}
    odd = sorted(p for p in downs.keys() | ups.keys() if {downs.get(p), ups.get(p)} != {rank})
    odd += sorted(n for n in state if not n.endswith((DOWN, UP)))
    if odd:
        raise TrainingError(
            f"Expected branches of rank {rank} and nothing else in {part}, {odd[0]} is none: it is "
            "incomplete, or of another kind; merge it into its base first."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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


def _checkpoints(
    parts: Sequence[Ingredient], work: Path, captions: Captions
) -> tuple[Soup, tuple[Ingredient, ...]]:
    """The soup, and those of the parts that were trained: the base itself can be one."""
    shared, trained = shared_regions(parts)
    losses: list[Saying] = []
    for part in parts if captions.samples else ():
        one = load_checkpoint(part.name, str(part.folder)).model
        losses += _sayings(part.name, one, load_processor(part.folder), captions)
        del one
    tensors, averaged = _averaged([part.folder for part in parts], work)
    checkpoint, processor = load_checkpoint("soup", str(work)), load_processor(work)
    after = region_hashes(checkpoint.model)
    if odd := sorted(region for region in shared if after.get(region) != shared[region]):
        raise TrainingError(f"Expected the {', '.join(odd)} of all parts to stay in their mean.")
    prompt = next((part.prompt for part in parts if part.prompt), USUAL_PROMPT)
    losses += _sayings("soup", checkpoint.model, processor, captions)
    return Soup(
        SCHEMA, "checkpoints", tuple(part.name for part in parts), tensors, averaged, 0,
        shared, {region: after[region] for region in shared},
        assembly=assemble(work, processor, checkpoint.dim, prompts(prompt)),
        generated=speak(checkpoint.model, processor, probes(processor)),
        losses=tuple(losses), notices=tuple(_notices(trained)),
    ), trained  # fmt: skip


def _averaged(parts: Sequence[Path], out: Path) -> tuple[int, int]:
    """Write the mean of the files; returns how many tensors there are, and how many differed."""
    with ExitStack() as opened:
        files = [
            {
                name: file
                for shard in shards(part)
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
        for shard in shards(parts[0]):
            with safe_open(shard, framework="pt") as first:
                metadata = dict(first.metadata() or {"format": "pt"})
                mean = {n: [own[n].get_tensor(n) for own in files] for n in first.keys()}  # noqa: SIM118  # no mapping
            own_mean, moved = _means(mean)
            averaged += moved
            shutil.copyfile(shard, out / shard.name)
            if moved:
                save_file(own_mean, out / shard.name, metadata=metadata)
                shutil.copymode(shard, out / shard.name)  # safetensors makes it private
        return len(files[0]), averaged


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
        if not found[name].isfinite().all():
            raise TrainingError(f"Expected numbers in the mean of {name}, it holds others.")
    return found, moved


def _mean(each: Sequence[Tensor]) -> Tensor:
    """Added in float64 and rounded once."""
    return torch.stack([t.double() for t in each]).mean(dim=0).to(each[0].dtype).contiguous()


def _notices(parts: Sequence[Ingredient]) -> Iterator[str]:
    """What no record says, and what is taken for it."""
    if silent := [part.name for part in parts if not part.prompt]:
        asked = next((part.prompt for part in parts if part.prompt), USUAL_PROMPT)
        yield f"no record says with which prompt {', '.join(silent)} trained: '{asked}' is taken"
    if unknown := [part.name for part in parts if not part.told.get("trained")]:
        yield f"no record says what {', '.join(unknown)} was trained on, so none of the soup does"


def _trained(parts: Sequence[Ingredient]) -> dict[str, Any]:
    """What the parts were trained on, together, and the settings that all records share."""
    seen = [t if isinstance(t := one.told.get("trained"), list) else [] for one in parts]
    media: dict[str, int] = {}
    for told in (part.told.get("media") for part in parts):
        for modality, count in told.items() if isinstance(told, Mapping) else ():
            media[modality] = media.get(modality, 0) + (count if isinstance(count, int) else 0)
    settings = [settings_of(one.told) for one in parts if one.told]
    first = settings[0] if settings else {}
    shared = {k: v for k, v in first.items() if all(own.get(k) == v for own in settings)}
    prompt = next((part.prompt for part in parts if part.prompt), "")
    return {
        "trained": [m for m in MODALITIES if all(seen) and any(m in own for own in seen)],
        "media": media,
        "config": {**shared, **({"prompt": prompt} if prompt else {})},
        "base_regions": dict(next((part.base for part in parts if part.base), {})),
    }
