"""Merge an adapter into its base: a full generative checkpoint that differs only where it trained.

The merge works on the checkpoint's files. Every tensor outside the adapter's targets is copied
byte for byte (talker, towers, head and all), and a target becomes W + scale * B A, added in
float32 and rounded once to W's type. A target is found in the files by its content, so names may
differ between the files and the loaded model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from geomkit import adapters, hub
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.places import locate
from geomkit.processing import Processor, load_processor
from geomkit.prompts import prompts
from geomkit.training.adapter import load_adapter
from geomkit.training.assembly import assemble
from geomkit.training.generation import (
    NO_CAPTIONS,
    Captions,
    GenerationChange,
    Losses,
    generative_change,
    generative_losses,
)
from geomkit.training.rewriting import differing, rewrite, targets
from geomkit.training.scope import assert_scope, region_hashes
from geomkit.training.states import last_states, probes, say, speak
from geomkit.types import MODALITIES, Modality, Sample
from geomkit.vetting import read_object

SCHEMA = "geomkit-merge/1"
RECORD = "merge.json"
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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"Expected {out} to be new or empty: choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        work = Path(scratch) / "merged"
        folder = base_folder(str(base))
        told = names or (str(adapter), str(base))
        record = _merge(adapter, folder, work, samples, captions, names=told)
        if out.exists():
            out.rmdir()
        work.rename(out)
    return record


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
    copied = copy_rest(base, work)
    model, processor = load_checkpoint("base", str(base)).model, load_processor(base)
    _refuse_other_base(adapter, model)
    voice = _Voice(processor, captions, captions.samples or samples or probes(processor))
    said, losses = voice.says(model), voice.losses(model)
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
    dtype = file_dtype(base, merged)
    merged_checkpoint = load_checkpoint("merged", str(work))
    again = merged_checkpoint.model
    agreement = agree(expected, last_states(again, processor, samples), dtype)
    now = voice.says(again)
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
        adapter_sha=adapters.sha(adapter),
        assembly=assemble(work, processor, merged_checkpoint.dim, prompts(_prompt(adapter))),
        generation=generative_change(losses, voice.losses(again)),
        spoken=tuple(Spoken(*key, said[key], now[key]) for key in said),
    )
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


def _prompt(adapter: Path) -> str:
    """The prompt preset that an adapter says it was trained with, else the usual one."""
    config = read_object(adapter / "training.json").get("config") or {}
    return str(config.get("prompt", "lco"))


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


def copy_rest(base: Path, work: Path) -> tuple[str, ...]:
    """Copy everything but the weights: config, tokenizer, processor, chat template, voices.

    What an earlier training or merge left on paper is about other weights, and stays behind.
    """
    work.mkdir(parents=True, exist_ok=True)
    own = {RECORD, "training.json"}
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
    for shard in base.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as file:
            found |= {file.get_slice(n).get_dtype() for n in file.keys() if n in names}  # noqa: SIM118  # no mapping
    return str(min(found, key=["BF16", "F16", "F32"].index))


def agree(
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
