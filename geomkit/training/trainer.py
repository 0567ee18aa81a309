"""Train on pairs, and prove that nothing changed but what the method says.

The loop, sampler, optimiser and gradient cache are sentence-transformers' and transformers'. Ours
are the scope, the prompt, the mask on false negatives, the guards and the proof.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import set_seed

from geomkit.checkpoints import Checkpoint, load_checkpoint
from geomkit.errors import TrainingError
from geomkit.processing import Processor, load_processor
from geomkit.progress import Progress, silent
from geomkit.prompts import cut, prompts
from geomkit.store.files import write_atomic
from geomkit.store.records import from_json
from geomkit.training import processes, quantising
from geomkit.training.checking import check, how_many_are_cut, refuse_control_tokens, texts_of
from geomkit.training.config import TrainConfig
from geomkit.training.doubts import doubts
from geomkit.training.fitting import Fit, Job, fit
from geomkit.training.generation import (
    NO_CAPTIONS,
    Captions,
    Losses,
    generative_change,
    generative_losses,
)
from geomkit.training.media import MEDIA, MediaSet, Pairs, check_filled, visible_only
from geomkit.training.merging import base_folder
from geomkit.training.methods import Arm, prepare, save_small, writes_checkpoint
from geomkit.training.pairs import PairSet, TextPair, fingerprint, shuffled
from geomkit.training.record import RECORD, SCHEMA, TrainingRecord
from geomkit.training.resuming import LOGS, begin_again, check_same, finish, worth_keeping
from geomkit.training.scaffold import scaffold
from geomkit.training.scope import region_hashes
from geomkit.training.states import last_states
from geomkit.training.writing import Written, write_checkpoint
from geomkit.types import Sample

NULL = "every anchor has another row's positive, and the hard negative of a third, by lot"
PROBES = 32  # texts of the pairs that are looked at where no probe set is given
_PACKAGES = ("torch", "transformers", "peft", "sentence-transformers", "accelerate", "datasets")


def train(
    config: TrainConfig,
    base: str | Path,
    pairs: Pairs,
    out: Path,
    *,
    captions: Captions = NO_CAPTIONS,
    watched: Sequence[Sample] = (),
    source: str = "",
    progress: Progress = silent,
) -> TrainingRecord:
    """Train `base` on `pairs` by the config's method; write the result and `training.json`.

    The pairs are texts; with method clip, samples with a medium and a text. Samples that a
    `PairSet` brings as its `media` are mixed in: every batch is of one kind, drawn by their shares.
    Held-out `captions` give the generative loss before and after, per modality; `watched` is the
    probe set whose geometry is followed, some of the pairs' own texts by default. `source` is the
    name of the base to record when its path should not be. `out` is there when all of it is; an
    interrupted training goes on from its last kept step, when everything is as it was.

    Raises:
        TrainingError: pairs that do not fit, an `out` in use, a leak, a training that went wrong.
    """
    mixed = pairs.media if isinstance(pairs, PairSet) else ()
    check(config, pairs, mixed)
    given = _Given(config, str(base), pairs, tuple(mixed), tuple(watched), captions, source)
    with processes.together():
        shown = silent if processes.rank() else progress
        with _one_place(out) as result:
            return _train(given, result, shown)


@contextmanager
def _one_place(out: Path) -> Iterator[Path]:
    """The folder that the first process writes, which all leave when it is `out`."""
    if processes.rank():
        yield processes.first(Path)  # the first one's
    else:
        with scaffold(out, worth_keeping) as result:
            yield processes.first(lambda: result)
    processes.wait()


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """What `train` was asked for."""

    config: TrainConfig
    base: str
    pairs: Pairs
    mixed: tuple[Sample, ...]
    watched: tuple[Sample, ...]
    captions: Captions
    source: str

    def asked(self, before: Mapping[str, str]) -> dict[str, Any]:
        """What decides every bit of the result; `before` are the hashes of the base."""
        return {
            "config": asdict(self.config),
            "pairs": fingerprint((*self.pairs, *self.mixed)),
            "probe set": fingerprint(self.watched),
            "base": dict(before),
            "number of processes": processes.count(),
        }


def _train(given: _Given, result: Path, progress: Progress) -> TrainingRecord:
    """Train, prove and write to `result`, the record last."""
    config, captions = given.config, given.captions
    checkpoint, processor = load_base(config, given.base)
    refuse_control_tokens((*given.pairs, *given.mixed), processor)
    given = _visible(given, processor, progress)
    if config.shuffle_pairs:
        given = replace(given, pairs=_shuffled(given))
    before = processes.first(lambda: region_hashes(checkpoint.model))
    kept = processes.first(
        lambda: check_same(result, given.asked(before), keeps=config.save_steps > 0)
    )
    if (record := processes.first(lambda: _finished(result, config))) is not None:
        return record
    if config.qlora:
        quantising.quantise(checkpoint.model, config.targets)
    set_seed(config.seed)
    arm = prepare(checkpoint.model, config)
    job = Job(
        config,
        checkpoint,
        processor,
        arm,
        given.pairs,
        kept=kept,
        logs=result / LOGS if config.report_to in ("tensorboard", "all") else None,
        base=given.source or given.base,
        saying=captions.instructions["text"],
        watched=given.watched,
        mixed=given.mixed,
    )
    start = processes.first(
        lambda: _Start(
            before,
            region_hashes(arm.model) if config.qlora else before,
            arm.digest(),
            _losses(arm, processor, captions),
        )
    )
    clock = time.perf_counter()
    done = fit(job, progress)
    seconds = time.perf_counter() - clock
    processes.check_equal(arm.digest())
    seconds += sum(step.seconds for step in done.steps[: done.earlier])
    return processes.first(lambda: _proven(given, job, start, result, _record(job, done, seconds)))


def _finished(result: Path, config: TrainConfig) -> TrainingRecord | None:
    """The record, when all was done but taking away and renaming."""
    if not (result / RECORD).is_file():
        return None
    finish(result, adapters=not writes_checkpoint(config))
    return from_json(TrainingRecord, result / RECORD)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """What the proof compares with."""

    base: Mapping[str, str]  # hashes of the base
    model: Mapping[str, str]  # of what is trained on: the base rounded, with --qlora
    trained: str  # digest of what trains
    said: tuple[Losses, ...]


def _proven(
    given: _Given, job: Job, start: _Start, result: Path, record: TrainingRecord
) -> TrainingRecord:
    """Prove and write the result; the record last, completed."""
    config, arm = job.config, job.arm
    end = region_hashes(arm.model)
    _prove(start.model, end, arm.free, changed=arm.digest() != start.trained)
    _check_finite(job)
    with _told(result):
        begin_again(result)
        sha, written = _write(job, given.base, result)
    now = _losses(arm, job.processor, given.captions)
    record = replace(
        record,
        frozen_before=_without(start.base, arm.free),
        frozen_after=_without(start.base if config.qlora else end, arm.free),
        adapter_sha=sha,
        base_regions=start.base,
        agreement=written.agreement,
        assembly=written.assembly,
        generation=generative_change(start.said, now),
    )
    write_atomic(result / RECORD, record.to_json().encode())
    finish(result, adapters=not writes_checkpoint(config))
    return record


def _visible(given: _Given, processor: Processor, progress: Progress) -> _Given:
    """Without samples that the model cannot be shown."""
    pairs = visible_only(given.pairs, processor, progress)
    mixed = pairs.media if isinstance(pairs, PairSet) else ()
    check_filled((s for s in (*pairs, *mixed) if isinstance(s, Sample)), given.config.batch)
    return replace(given, pairs=pairs, mixed=mixed, watched=given.watched or _some(pairs))


def _shuffled(given: _Given) -> Pairs:
    other = shuffled(given.pairs, given.config.seed)
    if not isinstance(given.pairs, MediaSet):
        return other
    return replace(given.pairs, samples=tuple(s for s in other if isinstance(s, Sample)))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """A full disk, in words."""
    try:
        yield
    except (OSError, SafetensorError) as cause:
        raise TrainingError(
            f"Expected to write the result to {folder}, but {cause}: make room or permit writing; "
            "the same command then goes on from the last kept step."
        ) from cause


def _check_finite(job: Job) -> None:
    """Raise when what the last step left is no model: the loss was of the weights before it.

    Raises:
        TrainingError: a trained weight, or a state of the probe set, is no number.
    """
    odd = [name for name, tensor in job.arm.trainable().items() if not tensor.isfinite().all()]
    shown = [_short(job, pair) for pair in job.pairs[:2]]
    if not last_states(job.arm.model, job.processor, shown)["text"].isfinite().all():
        odd.append("the states of texts")
    if odd:
        raise TrainingError(
            f"Expected finite weights and states after the last step, but {odd[0]} hold a value "
            "that is no number: lower the learning rate."
        )


def _short(job: Job, pair: TextPair | Sample) -> Sample:
    text, _ = cut(job.processor.tokenizer, texts_of(pair)[0], job.config.max_tokens)
    return Sample("a pair", text=text)


def _losses(arm: Arm, processor: Processor, captions: Captions) -> tuple[Losses, ...]:
    return generative_losses(
        arm.model,
        processor,
        captions.samples,
        instructions=captions.instructions,
        answers=captions.answers,
    )


def _record(job: Job, done: Fit, seconds: float) -> TrainingRecord:
    """The record without its proofs."""
    config, scope, pairs = job.config, job.arm.scope, job.pairs
    everything: Sequence[TextPair | Sample] = (*pairs, *job.mixed)
    media: dict[str, int] = {
        m: sum(m in s.modalities() for s in everything if isinstance(s, Sample)) for m in MEDIA
    }
    return TrainingRecord(
        schema=SCHEMA,
        config=config,
        instruction=prompts(config.prompt)["text"],
        base=job.base,
        source=pairs.source if isinstance(pairs, PairSet | MediaSet) else "",
        pairs=len(everything),
        pairs_sha=fingerprint(everything),
        dropped=pairs.dropped if isinstance(pairs, PairSet | MediaSet) else {},
        trained=("text", *(m for m in MEDIA if media[m])),
        media=media,
        decoder=scope.decoder,
        targets=job.arm.targets,
        lora_modules=scope.modules,
        parameters=scope.parameters,
        trainable_inside=scope.trainable_inside,
        trainable_outside=scope.trainable_outside,
        trainable_names=scope.trainable_names,
        frozen_before={},
        frozen_after={},
        adapter_tensors=len(job.arm.trainable()),
        adapter_sha="",
        steps=done.steps,
        seconds=round(seconds, 2),
        steps_per_second=round(len(done.steps) / sum(max(s.seconds, 1e-9) for s in done.steps), 3),
        generation=(),
        versions={package: version(package) for package in _PACKAGES},
        geometry=done.geometry,
        epochs=done.epochs,
        notices=(
            *doubts(config, everything, job.processor, job.arm.absent, len(done.steps)),
            *done.notices,
        ),
        cut=how_many_are_cut(everything, job.processor, config.max_tokens),
        null=NULL if config.shuffle_pairs else "",
    )


def _write(job: Job, base: str, out: Path) -> tuple[str, Written]:
    """Write the result; returns its sha256, and of a whole checkpoint what was proven."""
    out.mkdir(parents=True, exist_ok=True)
    if not writes_checkpoint(job.config):
        return save_small(job.arm, out, base=job.base), Written((), ())
    prompt = job.config.prompt
    written = write_checkpoint(job.arm, job.processor, base_folder(base), out, prompt=prompt)
    return job.arm.digest(), written


def load_base(config: TrainConfig, base: str) -> tuple[Checkpoint, Processor]:
    """The base and its processor.

    Raises:
        TrainingError: the base is an adapter.
    """
    checkpoint = load_checkpoint(
        "base", base, dtype=_dtype(config), device=config.device, attn=config.attention
    )
    if checkpoint.place.base is not None:
        raise TrainingError(f"Expected a full model as the base, {base} is an adapter: merge it.")
    place = checkpoint.place
    return checkpoint, load_processor(place.where, revision=place.revision)


def _dtype(config: TrainConfig) -> str:
    """Half precision is slow on a CPU, and float32 holds every half value exactly.

    Weights that are trained themselves, not by branches, are kept in float32.
    """
    if config.dtype != "auto":
        return config.dtype
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return "bfloat16" if on_gpu and not writes_checkpoint(config) else "float32"


def _some(pairs: Pairs) -> tuple[Sample, ...]:
    """A probe set of the pairs' own first texts, or samples."""
    first: Sequence[TextPair | Sample] = pairs[:PROBES]
    return tuple(
        Sample(f"pair-{k}", text=p.anchor, group=p.group) if isinstance(p, TextPair) else p
        for k, p in enumerate(first)
    )


def _without(hashes: Mapping[str, str], free: Collection[str]) -> dict[str, str]:
    return {region: sha for region, sha in hashes.items() if region not in free}


def _prove(
    before: Mapping[str, str], after: Mapping[str, str], free: Collection[str], *, changed: bool
) -> None:
    """The frozen regions stayed, what trains moved.

    Raises:
        TrainingError: naming the regions that changed, or saying that nothing did.
    """
    frozen = _without(before, free)
    if leaked := sorted(region for region in frozen if before[region] != after.get(region)):
        raise TrainingError(
            f"Expected frozen weights to stay, but {', '.join(leaked)} changed: this adapter is no "
            "proof of anything, do not use it."
        )
    if not changed:
        raise TrainingError(
            "Expected the adapter to change, it did not: raise the learning rate, or look "
            "whether the texts differ in what is read of them."
        )
