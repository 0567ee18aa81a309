"""Plan x checkpoints -> shards.

    samples -> plan (written, hashed) -> engine -> workers -> shards, each with its receipt

The plan is made and written before any weights are loaded. All checkpoints see the first one's
processor and chat template: only weights differ. An engine decides which process captures which
shard; a shard with a receipt is done, any other is captured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from geomkit.architectures import skeleton
from geomkit.batches import Reader
from geomkit.buckets import longest, pieces, within
from geomkit.engines import Engine, inline
from geomkit.errors import CaptureError, MemoryFull, ProvenanceMismatch, UsageError
from geomkit.places import CheckpointSpec, check_distinct, locate, same_weights
from geomkit.plans import CaptureConfig, build_plan, by_id
from geomkit.processing import Processor, load_processor
from geomkit.progress import Progress, silent
from geomkit.sites import select
from geomkit.store import Run, create_run
from geomkit.store.door import MAX_FILE_BYTES
from geomkit.types import Plan, Sample
from geomkit.worker import Session, Worker

__all__ = ["CaptureConfig", "Job", "Preflight", "Progress", "capture_run", "preflight"]


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that another process needs to capture shards of a run that has its plan."""

    checkpoints: tuple[CheckpointSpec, ...]
    samples: tuple[Sample, ...]
    out: Path
    config: CaptureConfig

    def groups(self) -> tuple[tuple[CheckpointSpec, ...], ...]:
        """Checkpoints to hold in memory at the same time: all, or those on the same weights."""
        if not self.config.one_by_one:
            return (self.checkpoints,)
        first: list[CheckpointSpec] = []
        for spec in self.checkpoints:
            known = first and same_weights(
                locate(first[-1].source).model, locate(spec.source).model
            )
            first.append(first[-1] if known else spec)
        pairs = zip(first, self.checkpoints, strict=True)
        return tuple(tuple(s for _, s in group) for _, group in groupby(pairs, lambda p: p[0]))

    def session(self, run: Run, progress: Progress = silent) -> Session:
        """What the workers of one process share: the run, the reader, the config."""
        processor, templates = shared_processor(self.checkpoints)
        reader = _reader(run.plan, self.samples, processor, self.config)
        return Session(run, reader, self.config, templates, progress)

    def worker(self, session: Session, group: int) -> Worker:
        """The checkpoints of a group in memory, checked, their records written."""
        return Worker.ready(session, self.groups()[group])


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a capture would do: its plan, how long the batches are, what it would store."""

    plan: Plan
    tokens: tuple[int, ...]  # of the row of each batch that looks longest
    sites: dict[str, tuple[str, ...]]  # checkpoint -> sites
    dims: dict[str, int]
    parameters: dict[str, int]

    @property
    def padded_tokens(self) -> int:
        """Tokens of all batches, padding counted."""
        pairs = zip(self.plan.batches, self.tokens, strict=True)
        return sum(len(batch) * longest for batch, longest in pairs)

    def pooled_bytes(self, checkpoint: str) -> int:
        """Bytes of the pooled states of one checkpoint."""
        return len(self.plan.rows) * len(self.plan.poolings) * self._site_bytes(checkpoint)

    def token_bytes(self, checkpoint: str) -> int:
        """Bytes of the states of every token of one checkpoint, at most."""
        return self.padded_tokens * self._site_bytes(checkpoint)

    def largest_token_file(self, checkpoint: str) -> int:
        """Bytes of the token states of the largest shard of one checkpoint, at most."""
        pairs = zip(self.plan.batches, self.tokens, strict=True)
        sizes = [len(batch) * longest for batch, longest in pairs]
        shards = pieces(sizes, self.plan.shard_batches)
        return max(map(sum, shards), default=0) * self._site_bytes(checkpoint)

    def _site_bytes(self, checkpoint: str) -> int:
        width = 2 if self.plan.store_dtype == "bfloat16" else 4
        return len(self.sites[checkpoint]) * self.dims[checkpoint] * width


def capture_run(
    checkpoints: Sequence[CheckpointSpec],
    samples: Sequence[Sample],
    out: Path,
    config: CaptureConfig,
    *,
    dataset: str = "samples",
    progress: Progress = silent,
    engine: Engine = inline,
) -> Run:
    """Capture every checkpoint over the samples into the run folder `out`; resumes what is there.

    Raises:
        CaptureError: a gate check failed, or states did not appear.
        CheckpointError: a checkpoint cannot be found or loaded.
        ProvenanceMismatch: checkpoints cannot be shown the same tokens.
        StoreError: `out` holds another plan, or other weights under one of the names.
    """
    job = Job(tuple(checkpoints), tuple(samples), out, config)
    plan = preflight(checkpoints, samples, config, dataset=dataset, progress=progress).plan
    run = create_run(out, plan, force=config.force)
    try:
        engine(job, run, progress)
    except MemoryFull:
        apart = replace(job, config=replace(config, one_by_one=True))
        if len(apart.groups()) == len(job.groups()):
            raise
    else:
        return run
    # Here, not in the handler: the error's frames hold the models that did not fit together.
    progress("out of memory: one checkpoint after the other", 0, 1)
    engine(apart, run, progress)
    return run


def preflight(
    checkpoints: Sequence[CheckpointSpec],
    samples: Sequence[Sample],
    config: CaptureConfig,
    *,
    dataset: str = "samples",
    progress: Progress = silent,
) -> Preflight:
    """The plan and its sizes; processors are loaded and no weights. Raises like `capture_run`."""
    if not checkpoints:
        raise CaptureError("Expected at least one checkpoint to capture, got none.")
    check_distinct(checkpoints)
    progress("plan", 0, 1)
    bones = {spec.name: skeleton(spec) for spec in checkpoints}
    sites = {name: select(bone.sites, config.sites) for name, bone in bones.items()}
    draft = build_plan(dataset, samples, config)
    processor, _ = shared_processor(checkpoints)
    reader = _reader(draft, samples, processor, config)
    lengths: dict[int, int] = {}

    def tokens(index: int) -> int:
        if index not in lengths:
            lengths[index] = reader.read([index]).n_tokens.get(index, 0)
        return lengths[index]

    plan = replace(draft, batches=within(draft.batches, config.batch_tokens, tokens))
    progress("plan", 1, 1)
    look = Preflight(
        plan=plan,
        tokens=tuple(longest(batch, tokens) for batch in plan.batches),
        sites=sites,
        dims={name: bone.dim for name, bone in bones.items()},
        parameters={name: bone.parameters for name, bone in bones.items()},
    )
    if config.tokens:
        _check_token_files(look, config)
    return look


def _check_token_files(look: Preflight, config: CaptureConfig) -> None:
    """Refuse shards whose token states would be met as too many in the writer, memory full."""
    most, name = max((look.largest_token_file(name), name) for name in look.sites)
    if most > MAX_FILE_BYTES:
        raise UsageError(
            f"Expected at most {MAX_FILE_BYTES:,} bytes of token states in one shard, got up to"
            f" {most:,} of '{name}': use a smaller --shard-batches (now {config.shard_batches}) or"
            f" --batch-size (now {config.batch_size}), or fewer --sites."
        )


def _reader(
    plan: Plan, samples: Sequence[Sample], processor: Processor, config: CaptureConfig
) -> Reader:
    return Reader(plan, by_id(samples), processor, config.text_tokens, config.max_pixels)


def shared_processor(specs: Sequence[CheckpointSpec]) -> tuple[Processor, dict[str, str]]:
    """The first checkpoint's processor, and every checkpoint's own template sha.

    Raises:
        ProvenanceMismatch: a checkpoint's vocabulary differs, so the same ids mean other words.
    """
    places = [locate(spec.source).model for spec in specs]
    first = load_processor(places[0].where, revision=places[0].revision)
    templates = {}
    for spec, place in zip(specs, places, strict=True):
        own = first
        if (place.where, place.revision) != (places[0].where, places[0].revision):
            own = load_processor(place.where, revision=place.revision)
        if own.vocabulary_sha != first.vocabulary_sha:
            raise ProvenanceMismatch(
                f"Expected '{spec.name}' to have the tokenizer of '{specs[0].name}', got another"
                " vocabulary: capture models of different families into different runs."
            )
        templates[spec.name] = own.template_sha
    return first, templates
