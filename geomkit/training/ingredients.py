"""What a soup may be made of: trainings of one base that are read with one prompt, as proven here.

A mean of weights means something only where all began at the same ones. Adapters name their base:
it is found, loaded and hashed region by region, and each adapter's own record must say the same. Of
checkpoints every region is hashed as it is: what their records call frozen must be as they say, the
bases they name must be one, and no training here touches the embeddings, so those must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from geomkit import adapters
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.places import Place, locate, same_weights, training_of
from geomkit.prompts import prompts
from geomkit.training.merging import RECORD, base_of, refuse_other_base, settings_of
from geomkit.training.scope import region_hashes, strange_regions
from geomkit.vetting import ADAPTER_CONFIG, CONFIG, read_object

ANCHOR = "embeddings"  # the region that no method trains
TRAINED_BY_MERGE = "decoder"


@dataclass(frozen=True, slots=True, eq=False)
class Ingredient:
    """One part of a soup, and what is on paper of it."""

    folder: Path
    name: str
    kind: str  # adapters, projections or checkpoints
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The prompt that it was trained with, "" when no record says."""
        merged = read_object(self.folder / RECORD)
        return str(settings_of(self.told).get("prompt") or merged.get("prompt") or "")

    @property
    def base(self) -> Mapping[str, str]:
        """Region -> sha256 of what it was trained on, as far as a record says.

        That of a merge was measured on the files; a training may have read them rounded.
        """
        return base_of(read_object(self.folder / RECORD)) or base_of(self.told)


def ingredients(parts: Sequence[Path], names: Sequence[str]) -> tuple[Ingredient, ...]:
    """The parts, all of one kind and read with one prompt.

    Raises:
        TrainingError: a folder without weights, parts of two kinds or prompts.
    """
    found = [
        Ingredient(part, name, _kind(part), training_of(part))
        for part, name in zip(parts, names, strict=True)
    ]
    kinds = sorted({one.kind for one in found})
    if len(kinds) > 1:
        raise TrainingError(
            f"Expected parts of one kind, got {' and '.join(kinds)}: merge the adapters into their "
            "bases first."
        )
    asked = {one.prompt: one.name for one in found if one.prompt}
    if len({tuple(prompts(prompt).items()) for prompt in asked}) > 1:
        each = " and ".join(f"'{prompt}' ({name})" for prompt, name in sorted(asked.items()))
        raise TrainingError(
            f"Expected parts that were trained with one prompt, got {each}: a soup is read with "
            "one; average those that share it."
        )
    return tuple(found)


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
    if not (part / CONFIG).is_file():
        raise TrainingError(
            f"Expected an adapter or a whole checkpoint, {part} holds trained weights alone, as a "
            "step that method full keeps: no model can be read from it."
        )
    return "checkpoints"


def common_base(parts: Sequence[Ingredient]) -> Place:
    """The one base that all adapters name.

    Raises:
        CheckpointError: it cannot be found.
        TrainingError: they name bases of other weights.
    """
    first, *others = [locate(str(part.folder)).model for part in parts]
    for part, other in zip(parts[1:], others, strict=True):
        if not same_weights(first, other):
            raise TrainingError(
                f"Expected adapters of one base, got {parts[0].name} on {first.described} and "
                f"{part.name} on {other.described}, whose weights differ."
            )
    return first


def measured_base(parts: Sequence[Ingredient], model: nn.Module) -> Mapping[str, str]:
    """Region -> sha256 of the base in memory, which is the one of every part's record.

    Raises:
        TrainingError: a part was trained on other weights.
    """
    for part in parts:
        refuse_other_base(part.name, part.told, model)
    return region_hashes(model)


def shared_regions(
    parts: Sequence[Ingredient],
) -> tuple[Mapping[str, str], tuple[Ingredient, ...]]:
    """Region -> sha256 of what is equal in all checkpoints, and those that were trained at all.

    Each is measured, one after another; one that is the base of another was not trained.

    Raises:
        TrainingError: one is not what its record says, or they are not trainings of one base.
    """
    each = [_measured(part) for part in parts]
    shared = {r: sha for r, sha in each[0].items() if all(own.get(r) == sha for own in each)}
    if ANCHOR not in shared:
        raise TrainingError(
            f"Expected trainings of one base, the {ANCHOR} of "
            f"{', '.join(part.name for part in parts)} differ, which no training here changes: the "
            "mean of unrelated weights is no model."
        )
    for part in parts:
        told, other = _two_bases(parts, part)
        if told:
            raise TrainingError(
                f"Expected trainings of one base, got {part.name} and {other}, whose records name "
                f"bases that differ in {', '.join(told)}."
            )
    bases = [dict(part.base) for part in parts]
    trained = (p for p, own in zip(parts, each, strict=True) if p.told or dict(own) not in bases)
    return shared, tuple(trained)


def _measured(part: Ingredient) -> Mapping[str, str]:
    model = load_checkpoint(part.name, str(part.folder)).model
    merged = (part.folder / RECORD).is_file()
    told = part.told.get("frozen_after")
    known = told if isinstance(told, Mapping) else {}
    frozen = {r: sha for r, sha in known.items() if not (merged and r == TRAINED_BY_MERGE)}
    if odd := strange_regions(model, frozen):
        raise TrainingError(
            f"Expected the {', '.join(odd)} of {part.name} as its record says, got others: its "
            "files were changed after the training."
        )
    return region_hashes(model)


def _two_bases(parts: Sequence[Ingredient], part: Ingredient) -> tuple[list[str], str]:
    """Regions in which the base of `part` is not another's, and that other; as they are told."""
    for other in parts:
        shared = part.base.keys() & other.base.keys()
        if odd := sorted(r for r in shared if part.base[r] != other.base[r]):
            return odd, other.name
    return [], ""
