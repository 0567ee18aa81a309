"""Train a decoder-only LoRA adapter on text pairs, and prove that it saw and changed nothing else.

The loop, sampler, optimiser and gradient cache are sentence-transformers' and transformers'. Ours
are the scope, the prompt, the mask on false negatives and the proof.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from transformers import PrinterCallback, TrainerCallback, set_seed

from geomkit.checkpoints import Checkpoint, load_checkpoint
from geomkit.errors import TrainingError
from geomkit.processing import Processor, load_processor
from geomkit.progress import Progress, silent
from geomkit.prompts import control_tokens, prompts
from geomkit.training.adapter import adapt, adapter_digest, save_adapter
from geomkit.training.columns import dataset
from geomkit.training.config import TrainConfig
from geomkit.training.embedder import DecoderEmbedder
from geomkit.training.generation import (
    NO_CAPTIONS,
    Captions,
    Losses,
    generative_change,
    generative_losses,
)
from geomkit.training.loss import MaskedRankingLoss
from geomkit.training.pairs import PairSet, TextPair, fingerprint
from geomkit.training.record import RECORD, SCHEMA, Step, TrainingRecord
from geomkit.training.scope import assert_scope, region_hashes

_PACKAGES = ("torch", "transformers", "peft", "sentence-transformers", "accelerate", "datasets")


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]  # untyped
    """The library's trainer without its model card, which asks the hub about models and data."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No card: training.json is the record."""


class _Recorder(TrainerCallback):  # type: ignore[misc]  # untyped
    """Collects one `Step` per optimiser step."""

    def __init__(self, loss: MaskedRankingLoss, total: int, progress: Progress) -> None:
        self.loss = loss
        self.total = total
        self.progress = progress
        self.steps: list[Step] = []
        self.started = 0.0

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Keep the numbers; a loss that is not finite ends the training."""
        if not logs or "loss" not in logs:
            return  # the summary at the end
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"Expected a finite loss, got {logs['loss']} at step {state.global_step}: lower "
                "the learning rate or raise the temperature."
            )
        seconds = time.perf_counter() - self.started
        self.steps.append(
            Step(
                step=state.global_step,
                loss=float(logs["loss"]),
                accuracy=self.loss.accuracy,
                grad_norm=float(logs.get("grad_norm", 0.0)),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                seconds=round(seconds, 4),
            )
        )
        self.progress("train", state.global_step, self.total)


def train(
    config: TrainConfig,
    base: str | Path,
    pairs: Sequence[TextPair],
    out: Path,
    *,
    captions: Captions = NO_CAPTIONS,
    source: str = "",
    progress: Progress = silent,
) -> TrainingRecord:
    """Train an adapter of `base` on `pairs`; write adapter and `training.json` to `out`.

    Held-out `captions` give the generative loss before and after, per modality.
    `source` is the name of the base to record when its path should not be.

    Raises:
        TrainingError: too few pairs, an `out` in use, a leak out of the decoder, a loss that is
            not finite.
    """
    _check(config, pairs, out)
    checkpoint, processor = _load(config, str(base))
    _refuse_control_tokens(pairs, processor)
    before = region_hashes(checkpoint.model)
    set_seed(config.seed)
    adapted = adapt(checkpoint.model, config)
    scope, fresh = assert_scope(adapted), adapter_digest(adapted)

    def losses() -> tuple[Losses, ...]:
        return generative_losses(
            adapted,
            processor,
            captions.samples,
            instructions=captions.instructions,
            answers=captions.answers,
        )

    spoke = losses()
    started = time.perf_counter()
    steps = fit(config, checkpoint, processor, pairs, progress)
    seconds = time.perf_counter() - started
    after = region_hashes(adapted)
    _prove(before, after, changed=adapter_digest(adapted) != fresh)
    name = source or str(base)
    record = TrainingRecord(
        schema=SCHEMA,
        config=config,
        instruction=prompts(config.prompt)["text"],
        base=name,
        source=pairs.source if isinstance(pairs, PairSet) else "",
        pairs=len(pairs),
        pairs_sha=fingerprint(pairs),
        dropped=pairs.dropped if isinstance(pairs, PairSet) else {},
        trained=("text",),
        media={"image": 0, "audio": 0, "video": 0},
        decoder=scope.decoder,
        targets=str(adapted.peft_config["default"].target_modules),
        lora_modules=scope.modules,
        parameters=scope.parameters,
        trainable_inside=scope.trainable_inside,
        trainable_outside=scope.trainable_outside,
        trainable_names=scope.trainable_names,
        frozen_before=before,
        frozen_after=after,
        adapter_tensors=len(scope.trainable_names),
        adapter_sha=save_adapter(adapted, out, base=name),
        steps=steps,
        seconds=round(seconds, 2),
        steps_per_second=round(len(steps) / seconds, 3),
        generation=generative_change(spoke, losses()),
        versions={package: version(package) for package in _PACKAGES},
    )
    (out / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


def fit(
    config: TrainConfig,
    checkpoint: Checkpoint,
    processor: Processor,
    pairs: Sequence[TextPair],
    progress: Progress = silent,
) -> tuple[Step, ...]:
    """Run the optimiser over the pairs; the decoder's trainable parameters change in place.

    Raises:
        TrainingError: the loss is not finite, or no batch of distinct texts could be filled.
    """
    if config.gradient_checkpointing:
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # new, old
        next(getattr(checkpoint.decoder, n) for n in names if hasattr(checkpoint.decoder, n))()
    instruction = prompts(config.prompt)["text"]
    embedder = DecoderEmbedder(checkpoint.decoder, processor, instruction, config.max_tokens)
    model = SentenceTransformer(modules=[embedder], device=str(checkpoint.model.device))
    loss = MaskedRankingLoss(model, scale=config.scale, mini_batch_size=config.mini_batch)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _Trainer(
            model=model,
            args=_arguments(config, scratch, model.device.type),
            train_dataset=dataset(pairs, mask_equal=config.mask_equal),
            loss=loss,
        )
        total = config.steps or round(config.epochs * len(pairs) / config.batch)
        recorder = _Recorder(loss, total, progress)
        trainer.add_callback(recorder)
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, which carries results only
        trainer.train()
    if not recorder.steps or (config.steps and len(recorder.steps) < config.steps):
        raise TrainingError(
            f"Expected batches of {config.batch} distinct texts, only {len(recorder.steps)} could "
            "be filled: lower batch or bring more varied pairs."
        )
    return tuple(recorder.steps)


def _arguments(
    config: TrainConfig, scratch: str, device: str
) -> SentenceTransformerTrainingArguments:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=scratch,
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
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
    )
    # With several GPUs in sight the library would split each batch, and with it the negatives.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001  # no public setter
    return arguments


def _load(config: TrainConfig, base: str) -> tuple[Checkpoint, Processor]:
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
    """Half precision is slow on a CPU, and float32 holds every half value exactly."""
    if config.dtype != "auto":
        return config.dtype
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return "bfloat16" if on_gpu else "float32"


def _check(config: TrainConfig, pairs: Sequence[TextPair], out: Path) -> None:
    """Refuse what can be refused before the model is loaded."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "Expected one process, got WORLD_SIZE above 1: start without a launcher; gradient "
            "caching makes any batch fit one device."
        )
    if len(pairs) < config.batch:
        raise TrainingError(
            f"Expected at least {config.batch} pairs to fill one batch, got {len(pairs)}: lower "
            "batch or bring more pairs."
        )
    negatives = sum(pair.negative is not None for pair in pairs)
    if 0 < negatives < len(pairs):
        raise TrainingError(
            f"Expected a hard negative in every pair or in none, got {negatives} of {len(pairs)}."
        )
    prompts(config.prompt)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"Expected {out} to be new or empty: choose another folder.")


def _refuse_control_tokens(pairs: Sequence[TextPair], processor: Processor) -> None:
    """Raise when a text holds a token that the model obeys: better now than at step 4,000.

    Raises:
        TrainingError: naming the pair and the token.
    """
    tokens = re.compile("|".join(map(re.escape, control_tokens(processor.tokenizer))) or r"(?!)")
    for number, pair in enumerate(pairs, 1):
        for text in (pair.anchor, pair.positive, pair.negative or ""):
            if found := tokens.search(text):
                raise TrainingError(
                    f"Expected plain text, pair {number} holds the control token {found[0]}, which "
                    "would be obeyed and not read: remove the pair."
                )


def _prove(before: Mapping[str, str], after: Mapping[str, str], *, changed: bool) -> None:
    """The frozen regions stayed, the adapter moved.

    Raises:
        TrainingError: naming the regions that changed, or saying that the adapter did not.
    """
    if leaked := sorted(region for region in before if before[region] != after.get(region)):
        raise TrainingError(
            f"Expected frozen weights to stay, but {', '.join(leaked)} changed: this adapter is no "
            "proof of anything, do not use it."
        )
    if not changed:
        raise TrainingError("Expected the adapter to change, it did not: raise the learning rate.")
