"""Samples with a medium and its text, to train on: which are usable, and a count of the others.

A source is `sandbox[:count]` (scenes that training may see), `multimodal-94k:PATH`, or whatever
`--data` of capture may name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from geomkit.errors import SampleError, TrainingError, UsageError
from geomkit.processing import Processor
from geomkit.progress import Progress, silent
from geomkit.training.pairs import PairSet, TextPair
from geomkit.training.states import shown
from geomkit.types import MODALITIES, Modality, Sample

MEDIA: tuple[Modality, ...] = tuple(m for m in MODALITIES if m != "text")
SANDBOX = "sandbox"

Pairs = Sequence[TextPair] | Sequence[Sample]


@dataclass(frozen=True, slots=True)
class MediaSet(Sequence[Sample]):
    """The usable samples of a source, and how many were left out and why."""

    source: str
    samples: tuple[Sample, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        """The sample at `index`."""
        return self.samples[index]

    def __len__(self) -> int:
        """How many samples are usable."""
        return len(self.samples)

    def __add__(self, other: MediaSet) -> MediaSet:
        """The samples of both."""
        dropped = dict(Counter(self.dropped) + Counter(other.dropped))
        source = f"{self.source} + {other.source}"
        return MediaSet(source, (*self.samples, *other.samples), dropped)


def load_media(spec: str) -> MediaSet:
    """The samples of a source that have a medium and a text; the others are only counted.

    Raises:
        TrainingError: none has both, or a recipe without a path.
        UsageError: `sandbox:<count>` without a whole number of 2 or more.
        SampleError: a source that cannot be found or read.
    """
    from geomkit.data.samples import load_samples
    from geomkit.training import recipes

    if spec.partition(":")[0] == SANDBOX:
        return MediaSet(spec, _scenes(spec))
    recipe = recipes.named(spec)
    if recipe is not None and recipe.media:
        return complete(spec, recipes.media_samples(spec))
    return complete(spec, load_samples(spec)[1])


def complete(source: str, samples: Iterable[Sample]) -> MediaSet:
    """Those of `samples` with a medium and a text.

    Raises:
        TrainingError: there is none.
    """
    kept: list[Sample] = []
    dropped: Counter[str] = Counter()
    for sample in samples:
        if not (sample.text and sample.text.strip()):
            dropped["without a text"] += 1
        elif not shows(sample):
            dropped["without a medium"] += 1
        else:
            kept.append(sample)
    if not kept:
        raise TrainingError(
            f"Expected samples with a medium and a text in {source}, found none"
            f" ({_listed(dropped)})."
        )
    return MediaSet(source, tuple(kept), dict(dropped))


def visible(samples: MediaSet, processor: Processor, progress: Progress = silent) -> MediaSet:
    """Those of `samples` whose media can be decoded and are read by a model, each looked at once.

    Better now than at step 4,000. A medium that the model does not read is left out of its sample.
    """
    kept: list[Sample] = []
    dropped = Counter(samples.dropped)
    blind: list[str] = []
    for number, sample in enumerate(samples, 1):
        strange = [m for m in shows(sample) if m not in processor.modalities]
        seen = replace(sample, **dict.fromkeys(strange))  # type: ignore[arg-type]  # media alone
        if reason := _blind(seen, processor):
            blind.append(f"{sample.id}: {reason}")
        elif not shows(seen):
            dropped[f"with {' and '.join(strange)} alone, which the model does not read"] += 1
        else:
            kept.append(seen)
        progress("look at media", number, len(samples))
    if blind:
        dropped[f"whose medium cannot be decoded (the first is {blind[0]})"] = len(blind)
    return replace(samples, samples=tuple(kept), dropped=dict(dropped))


def visible_only(pairs: Pairs, processor: Processor, progress: Progress = silent) -> Pairs:
    """The same pairs without samples that the model cannot be shown, wherever they are."""
    if isinstance(pairs, PairSet):
        if not pairs.media:
            return pairs
        seen = visible(MediaSet("", pairs.media, pairs.dropped), processor, progress)
        return replace(pairs, media=seen.samples, dropped=seen.dropped)
    if samples := tuple(sample for sample in pairs if isinstance(sample, Sample)):
        given = pairs if isinstance(pairs, MediaSet) else MediaSet("", samples)
        return visible(given, processor, progress)
    return pairs


def check_filled(samples: Iterable[Sample], batch: int) -> None:
    """Raise where the samples of a medium fill no batch: they would never be trained on.

    Raises:
        TrainingError: naming the medium.
    """
    counts = Counter(medium for sample in samples for medium in shows(sample))
    if few := sorted(medium for medium, count in counts.items() if count < batch):
        raise TrainingError(
            f"Expected at least {batch} samples of a medium to fill one batch, got "
            f"{counts[few[0]]} of {few[0]}: lower batch, bring more, or leave that medium out."
        )


def shows(sample: Sample) -> tuple[Modality, ...]:
    """The media that a sample has."""
    return tuple(m for m in MEDIA if m in sample.modalities())


def _blind(sample: Sample, processor: Processor) -> str:
    """Why a medium of a sample cannot be shown."""
    try:
        for modality in shows(sample):
            one = shown(processor, sample, modality, "")
            if modality == "audio":
                processor.encode([one])  # which refuses a sound that is too short for a token
    except (SampleError, ValueError) as cause:
        return str(cause)
    return ""


def _scenes(spec: str) -> tuple[Sample, ...]:
    """Scenes that training may see; of a count, half are pictures and half are sounds."""
    from geomkit import sandbox

    count = spec.partition(":")[2]
    if not count:
        return sandbox.samples("train")
    if not count.isdecimal() or int(count) < 2:
        raise UsageError(f"Expected sandbox:<count> with a count of 2 or more, got {spec!r}.")
    images = int(count) // 2
    found = sandbox.samples("train", images=images, sounds=int(count) - images)
    if len(found) < int(count):
        raise UsageError(f"Expected sandbox:<count> of at most {len(found)}, got {spec!r}.")
    return found


def _listed(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "no row"
