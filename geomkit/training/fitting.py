"""The optimiser's loop: sentence-transformers' trainer, with our table, loss, guards and saving.

A kept step holds what trains, so it is small; the optimiser's state is beside it until the training
is done. What is interrupted goes on from the last whole step, to the same bits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from transformers import PrinterCallback, TrainerCallback

from geomkit.checkpoints import Checkpoint
from geomkit.errors import TrainingError
from geomkit.processing import Processor
from geomkit.progress import Progress, silent
from geomkit.prompts import prompts
from geomkit.training import processes
from geomkit.training.checking import as_read
from geomkit.training.columns import dataset, media_datasets
from geomkit.training.config import TrainConfig
from geomkit.training.embedder import DecoderEmbedder, MediaEmbedder
from geomkit.training.generation import DESCRIBE
from geomkit.training.geometry import Geometry, GeometryCallback, recorded
from geomkit.training.guards import CollapseGuard, LossGuard, Notice
from geomkit.training.loss import MaskedRankingLoss
from geomkit.training.methods import Arm, save_small, writes_checkpoint
from geomkit.training.pairs import TextPair
from geomkit.training.record import Step
from geomkit.training.resuming import STEP, TRAINABLE, last_step, number, seal
from geomkit.training.sampling import Coverage, DistinctTexts, Epoch, covered, few
from geomkit.training.speech import Speech, as_it_was, without_branches
from geomkit.types import Modality, Sample

PARTS = ("contrastive", "generative", "kl")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Everything a training needs, loaded and prepared."""

    config: TrainConfig
    checkpoint: Checkpoint
    processor: Processor
    arm: Arm
    pairs: Sequence[TextPair] | Sequence[Sample]
    kept: Path | None = None  # the folder of kept steps
    logs: Path | None = None  # where a logger writes that needs a folder; beside the kept steps
    base: str = ""  # the name of the base, for adapters that are kept
    saying: str = DESCRIBE["text"]
    watched: Sequence[Sample] = ()  # the probe set
    mixed: Sequence[Sample] = ()  # samples with a medium, beside pairs of texts


@dataclass(frozen=True, slots=True)
class Fit:
    """What a training leaves in its log."""

    steps: tuple[Step, ...]
    geometry: tuple[Geometry, ...]
    notices: tuple[Notice, ...]
    epochs: tuple[Epoch, ...]
    earlier: int = 0  # steps that were done before an interruption


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]  # untyped
    """The library's trainer, without its model card, which asks the hub about models and data."""

    job: Job
    coverage: Coverage
    started = 0.0

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No card: training.json is the record."""

    def get_batch_sampler(self, *args: Any, **kwargs: Any) -> DistinctTexts:
        """Batches of distinct texts, counted."""
        return self.coverage.sampler(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the log history should keep of a step."""
        if "loss" in logs:
            own = torch.tensor(getattr(self.loss, "accuracy", 0.0), dtype=torch.float64)
            accuracy = float(processes.total(own)) / processes.count()
            logs = {**logs, "accuracy": accuracy, "seconds": time.perf_counter() - self.started}
        super().log(logs, start_time)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Start the step's clock; afterwards all processes have the same gradients."""
        self.started = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        processes.average(p.grad for p in self.job.arm.trainable().values())
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002  # the library's signature
        if processes.rank():
            return
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        arm = self.job.arm
        tensors = {n: t.detach().cpu().contiguous() for n, t in arm.trainable().items()}
        save_file(tensors, folder / TRAINABLE)
        if not writes_checkpoint(self.job.config):
            save_small(arm, folder, base=self.job.base)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"{STEP}{self.state.global_step}"
        with _kept(folder):
            super()._save_checkpoint(model, trial)
        processes.wait()  # each writes the state of its own dice
        if processes.rank() == 0:
            with _kept(folder):
                seal(folder)

    def _load_from_checkpoint(self, checkpoint: str, _model: Any = None) -> None:
        own = self.job.arm.trainable()
        stored = load_file(Path(checkpoint) / TRAINABLE)
        if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in own.items()}:
            raise TrainingError(f"Expected {len(own)} trained tensors in {checkpoint}, got others.")
        with torch.no_grad():
            for name, tensor in stored.items():
                own[name].copy_(tensor)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """The library looks whether it is done after a step, so it would do one too many."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """A disk that takes no more, in words."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as cause:  # torch has errors of its own
        raise TrainingError(
            f"Expected to keep step {number(folder)} in {folder.parent}, but {cause}: make room or "
            "permit writing; the same command then goes on from the last kept step."
        ) from cause


class _Ticker(TrainerCallback):  # type: ignore[misc]  # untyped
    """Tells the progress of steps."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """One step more."""
        self.progress("train", state.global_step, state.max_steps)


def fit(job: Job, progress: Progress = silent) -> Fit:
    """Run the optimiser over the pairs; what trains changes in place.

    Raises:
        TrainingError: a guard stopped it, or no batch of distinct texts could be filled.
    """
    config = job.config
    if config.gradient_checkpointing:
        decoder = job.checkpoint.decoder
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # new, old
        next(getattr(decoder, n) for n in names if hasattr(decoder, n))()
    model = SentenceTransformer(modules=[_embedder(job)], device=str(job.checkpoint.model.device))
    loss = MaskedRankingLoss(
        model,
        scale=config.scale,
        mini_batch_size=config.mini_batch,
        symmetric=config.method == "clip",
        speech=_speech(job),
    )
    guard, watch, coverage = LossGuard(config), _watch(job), Coverage()
    callbacks: list[TrainerCallback] = [guard, coverage]
    if watch is not None:
        callbacks += [
            watch,
            collapse := CollapseGuard(watch, config.collapse, stops=not config.shuffle_pairs),
        ]
    with tempfile.TemporaryDirectory() as scratch:  # the library makes a folder in any case
        trainer = _Trainer(
            model=model,
            args=arguments_of(job, job.kept or job.logs or Path(scratch), model.device.type),
            train_dataset=_table(job),
            loss=loss,
            callbacks=callbacks,
        )
        trainer.job, trainer.coverage = job, coverage
        if processes.count() > 1:
            _share(trainer)
        trainer.add_callback(_Ticker(progress))
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, which carries results only
        last = processes.first(lambda: last_step(job.kept))
        try:
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except torch.OutOfMemoryError as cause:
            raise TrainingError(
                f"Expected step {trainer.state.global_step + 1} to fit into memory, it did not: "
                f"lower --mini-batch (now {config.mini_batch}) or --max-tokens, or add "
                "--gradient-checkpointing."
            ) from cause
    notices = (*guard.notices, *(collapse.notices if watch is not None else ()))
    return _fitted(config, trainer.state.log_history, notices, 0 if last is None else number(last))


def _share(trainer: _Trainer) -> None:
    """Gradients are averaged here, not by a wrapper; dropout differs from process to process."""
    accelerator = trainer.accelerator
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)
    if rank := processes.rank():
        torch.manual_seed(trainer.args.seed + rank)


def _fitted(
    config: TrainConfig,
    history: Sequence[Mapping[str, Any]],
    notices: tuple[Notice, ...],
    earlier: int,
) -> Fit:
    steps = tuple(_step(row) for row in history if "loss" in row)
    if not steps or (config.steps and len(steps) < config.steps):
        raise TrainingError(
            f"Expected batches of {config.batch} distinct texts, only {len(steps)} could "
            "be filled: lower batch or bring more varied pairs."
        )
    # a history that was read from a file has its keys in another order
    seen = sorted(recorded(history), key=lambda one: (one.step, one.modality, one.metric))
    epochs = covered(history)
    return Fit(steps, tuple(seen), (*notices, *few(epochs, len(steps))), epochs, earlier)


def _step(row: Mapping[str, Any]) -> Step:
    return Step(
        step=int(row["step"]),
        loss=float(row["loss"]),
        accuracy=float(row["accuracy"]),
        grad_norm=float(row.get("grad_norm", 0.0)),
        learning_rate=float(row.get("learning_rate", 0.0)),
        seconds=round(float(row["seconds"]), 4),
        parts={name: float(row[name]) for name in PARTS if name in row},
    )


def _embedder(job: Job) -> DecoderEmbedder | MediaEmbedder:
    config, checkpoint = job.config, job.checkpoint
    instructions = prompts(config.prompt)
    if config.method == "clip" or job.mixed:
        return MediaEmbedder(
            checkpoint.body,
            checkpoint.decoder,
            job.processor,
            instructions,
            config.max_tokens,
            _samples(job),
        )
    return DecoderEmbedder(
        checkpoint.decoder,
        job.processor,
        instructions["text"],
        config.max_tokens,
        saying=job.saying,
        projection=job.arm.projection,
    )


def _speech(job: Job) -> Speech | None:
    config, model = job.config, job.arm.model
    if not config.speaks:
        return None
    branched = hasattr(model, "disable_adapter")
    return Speech(
        model,
        without_branches(model) if branched or not config.kl else as_it_was(model),
        config.generative if config.method == "joint" else 0.0,
        config.kl,
        config.mini_batch,
    )


def _watch(job: Job) -> GeometryCallback | None:
    if not (job.config.geometry_every and job.watched):
        return None
    return GeometryCallback(
        job.watched,
        job.processor,
        model=job.arm.model,
        every=job.config.geometry_every,
        prompt=job.config.prompt,
        projection=job.arm.projection,
    )


def _table(job: Job) -> Any:
    """One table of texts, or one a medium: a batch is of one kind."""
    masks = job.config.mask_equal
    read = partial(as_read, job.processor, limit=job.config.max_tokens)
    media: Mapping[Modality, Any] = media_datasets(_samples(job), mask_equal=masks, read=read)
    if job.config.method == "clip":
        return dict(media)
    pairs = [pair for pair in job.pairs if isinstance(pair, TextPair)]
    texts = dataset(pairs, mask_equal=masks, speech=job.config.speaks, read=read)
    return {"text": texts, **media} if media else texts


def _samples(job: Job) -> list[Sample]:
    return [sample for sample in (*job.pairs, *job.mixed) if isinstance(sample, Sample)]


def arguments_of(job: Job, folder: Path, device: str) -> SentenceTransformerTrainingArguments:
    """The library's arguments of a job; what it writes goes to `folder`."""
    config = job.config
    keeps = job.kept is not None and config.save_steps > 0
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch,
        num_train_epochs=config.epochs,
        max_steps=config.steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch",
        seed=config.seed,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        dataloader_drop_last=True,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=device == "cuda",
        bf16=device == "cuda" and writes_checkpoint(config),  # float32 weights, half arithmetic
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if keeps else "no",
        save_steps=config.save_steps or 1,
        report_to=[config.report_to],
        disable_tqdm=True,
        accelerator_config={"split_batches": True},  # several processes share a batch
        use_cpu=device == "cpu",
    )
    # With several GPUs in sight the library would split each batch, and with it the negatives.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001  # no public setter
    return arguments
