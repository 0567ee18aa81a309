"""Merge an adapter into its base: a full generative checkpoint that differs only where it trained.

The merge works on the checkpoint's files. Every tensor outside the adapter's targets is copied
byte for byte (talker, towers, head and all), and a target becomes W + scale * B A, added in
float32 and rounded once to W's type. A target is found in the files by its content, so names may
differ between the files and the loaded model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from geomkit import adapters, hub
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.places import TRAINING, locate, training_of
from geomkit.processing import Processor, load_processor
from geomkit.prompts import prompts
from geomkit.training.adapter import load_adapter
from geomkit.training.assembly import ASSEMBLED, assemble
from geomkit.training.generation import (
    NO_CAPTIONS,
    Captions,
    GenerationChange,
    Losses,
    generative_change,
    generative_losses,
)
from geomkit.training.rewriting import differing, rewrite, shards, targets, weights_apart
from geomkit.training.scaffold import scaffold
from geomkit.training.scope import assert_scope, region_hashes, strange_regions
from geomkit.training.states import last_states, probes, say, speak
from geomkit.types import MODALITIES, Modality, Sample

SCHEMA = "geomkit-merge/1"
RECORD = "merge.json"
USUAL_PROMPT = "lco"
"""What is taken where no record says with which prompt a training was done."""
TOLERANCE: Mapping[str, float] = {"F32": 1e-4, "F16": 5e-3, "BF16": 5e-2}
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
    moved: float | None = None  # smallest over rows: |base - adapter| / |adapter|


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a model says to one sample, before and after."""

    modality: str
    id: str
    before: str
    after: str


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
    weights_apart: float = 0.0  # largest over layers: |written - base - update| / |update|
    base_regions: Mapping[str, str] = field(default_factory=dict)  # sha256 by region of the base
    prompt: str = ""  # that the adapter was trained with; "" when no record says
    adapter_sha: str = ""  # fingerprint of the adapter, as a capture records it
    assembly: tuple[str, ...] = ()  # modalities that sentence-transformers embeds as capture does
    generation: tuple[GenerationChange, ...] = ()  # on the given captions, base and merged
    spoken: tuple[Spoken, ...] = ()  # what base and merged say to one sample of each modality

    def to_json(self) -> str:
        """Strict JSON, sorted keys."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"


def merge(
    adapter: Path,
    base: str | Path,
    out: Path,
    *,
    samples: Sequence[Sample] = (),
    captions: Captions = NO_CAPTIONS,
    names: tuple[str, str] | None = None,
) -> MergeRecord:
    """Write `base` with `adapter` merged in to `out`, prove it equal, and record the proof.

    Equality is measured on `samples`, or on a few synthetic ones, in every modality they have. On
    `captions` the generative loss is measured before and after. `out` is a sentence-transformers
    model too, with the instructions that the adapter's own record says it was trained with.
    `names` are the names of adapter and base to record when their paths should not be.

    Raises:
        TrainingError: `out` in use, an adapter that does not fit, or a proof that fails; `out` is
            then not written.
    """
    with scaffold(out, purpose="merge") as work, writing(out):
        return _merge(
            adapter, base_folder(str(base)), work, samples, captions,
            names=names or (str(adapter), str(base)),
        )  # fmt: skip


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A full disk, or a file that may not be read, in words.

    Raises:
        TrainingError: what the system says.
    """
    try:
        yield
    except (OSError, SafetensorError) as cause:
        raise TrainingError(
            f"Expected to write {out}, but {cause}: make room, or permit it; nothing was written."
        ) from cause


def _merge(
    adapter: Path,
    base: Path,
    work: Path,
    samples: Sequence[Sample],
    captions: Captions,
    *,
    names: tuple[str, str],
) -> MergeRecord:
    if adapters.is_projection(adapter):
        raise TrainingError(
            f"Expected branches in the decoder to merge, {adapter.name} is a matrix after it: there"
            " is nothing to merge, the base generates as it did; capture it as it is."
        )
    told = training_of(adapter)
    copied = copy_rest(base, work)
    model, processor = load_checkpoint("base", str(base)).model, load_processor(base)
    refuse_other_base(adapter.name, told, model)
    regions = region_hashes(model)
    samples = samples or probes(processor)
    voice = _Voice(processor, captions, captions.samples or samples)
    said, losses = voice.says(model), voice.losses(model)
    own = last_states(model, processor, samples)
    adapted = load_adapter(model, adapter)
    assert_scope(adapted, frozen=True)
    expected = last_states(adapted, processor, samples)
    merged, largest = rewrite(base, work, targets(adapted))
    apart = weights_apart(base, work, merged, adapted)
    del adapted, model  # the merged model needs the memory

    total, changed = differing(base, work)
    if strays := sorted(changed - merged.keys()):
        raise TrainingError(
            f"Expected only adapted layers to change, {len(strays)} more did (first: {strays[0]})."
        )
    dtype = file_dtype(base, merged)
    merged_checkpoint = load_checkpoint("merged", str(work))
    again = merged_checkpoint.model
    agreement = agree(expected, last_states(again, processor, samples), dtype, own)
    now, prompt = voice.says(again), str(settings_of(told).get("prompt", ""))
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
        weights_apart=apart,
        base_regions=regions,
        prompt=prompt,
        adapter_sha=adapters.sha(adapter),
        assembly=assemble(work, processor, merged_checkpoint.dim, prompts(prompt or USUAL_PROMPT)),
        generation=generative_change(losses, voice.losses(again)),
        spoken=tuple(Spoken(*key, said[key], now[key]) for key in said),
    )
    if told.get("trained"):  # what capture asks of a checkpoint, merged or not
        (work / TRAINING).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    (work / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


@dataclass(frozen=True, slots=True, eq=False)
class _Voice:
    """What a model says, and how well it says what is given."""

    processor: Processor
    captions: Captions
    samples: Sequence[Sample]

    def says(self, model: nn.Module) -> dict[tuple[Modality, str], str]:
        """Modality and id of its first sample -> the beginning of what is said to it."""
        found = {}
        for modality in MODALITIES:
            one = next((s for s in self.samples if modality in s.modalities()), None)
            if one is not None and modality in self.processor.modalities:
                asked = self.captions.instructions[modality]
                found[modality, one.id] = say(model, self.processor, one, modality, asked)
        return found

    def losses(self, model: nn.Module) -> tuple[Losses, ...]:
        """Of the captions, by modality."""
        return generative_losses(
            model,
            self.processor,
            self.captions.samples,
            instructions=self.captions.instructions,
            answers=self.captions.answers,
        )


def base_folder(base: str) -> Path:
    """The folder of a base: itself, a built-in's, or what the hub's cache holds of an id.

    Raises:
        TrainingError: the base is an adapter.
    """
    place = locate(base)
    if place.base is not None:
        raise TrainingError(f"Expected a full model as the base, {base} is an adapter.")
    if not place.repo:
        return Path(place.where)
    # All of the repository: what is beside the weights is copied, though never opened.
    return hub.everything(place.repo, str(place.revision))


def settings_of(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that a record has of a training; {} when it has none."""
    found = told.get("config")
    return found if isinstance(found, Mapping) else {}


def base_of(told: Mapping[str, Any]) -> Mapping[str, str]:
    """Region -> sha256 of what a record says was trained on."""
    found = told.get("base_regions") or told.get("frozen_before")
    return found if isinstance(found, Mapping) else {}


def refuse_other_base(name: str, told: Mapping[str, Any], model: nn.Module) -> None:
    """Raise when the record of `name` says that it was trained on other weights than `model`'s.

    Raises:
        TrainingError: naming the regions that differ.
    """
    if odd := strange_regions(model, base_of(told)):
        raise TrainingError(
            f"Expected the base that {name} was trained on, but {', '.join(odd)} differ: give that "
            "base."
        )


def copy_rest(base: Path, work: Path) -> tuple[str, ...]:
    """Copy everything but the weights: config, tokenizer, processor, chat template, voices.

    What an earlier training, merge or assembly left on paper is about other weights, and stays
    behind.
    """
    work.mkdir(parents=True, exist_ok=True)
    own = {RECORD, TRAINING, *ASSEMBLED}
    rest = sorted(
        p
        for p in base.iterdir()
        if p.is_file() and p.suffix != ".safetensors" and p.name not in own
    )
    for file in rest:
        shutil.copyfile(file, work / file.name)
    return tuple(file.name for file in rest)


def file_dtype(base: Path, names: Collection[str]) -> str:
    """The files' type of the merged tensors ("F32", "F16", "BF16")."""
    found = set()
    for shard in shards(base):
        with safe_open(shard, framework="pt") as file:
            found |= {file.get_slice(n).get_dtype() for n in file.keys() if n in names}  # noqa: SIM118  # no mapping
    return str(min(found, key=["BF16", "F16", "F32"].index))


def agree(
    expected: Mapping[Modality, Tensor],
    got: Mapping[Modality, Tensor],
    dtype: str,
    base: Mapping[Modality, Tensor] | None = None,
) -> tuple[Agreement, ...]:
    """How near the states are, in each modality, and how far those of the base were.

    Raises:
        TrainingError: beyond the tolerance of the weights' type.
    """
    found = []
    for modality, before in expected.items():
        apart = _relative(got[modality], before)
        cosine = functional.cosine_similarity(got[modality], before, dim=1)
        found.append(
            Agreement(
                modality,
                len(before),
                float(apart.max()),
                float(cosine.min()),
                TOLERANCE[dtype],
                moved=None if base is None else float(_relative(base[modality], before).min()),
            )
        )
        if not float(apart.max()) <= TOLERANCE[dtype]:
            raise TrainingError(
                f"Expected merged {modality} states within {TOLERANCE[dtype]} of the adapter's, "
                f"got {float(apart.max()):.2g}: the merge is not the model that was trained."
            )
    return tuple(found)


def _relative(states: Tensor, expected: Tensor) -> Tensor:
    apart: Tensor = (states - expected).norm(dim=1) / expected.norm(dim=1)
    return apart
