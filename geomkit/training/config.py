"""The training recipe as data: one frozen record, presets that fill it, any field overridable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from geomkit.errors import UsageError

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The text-only recipe of LCO-Embedding (arXiv:2510.11693); its released scripts use alpha 128.
    "lco-text": {},
    # What its released scripts run: they see images too, but the recipe also fits text alone. They
    # set no schedule, so transformers' linear one; targets and dropout are those of the default.
    "lco-released": {"alpha": 128.0, "batch": 1056, "schedule": "linear"},
    # E5-V (arXiv:2407.12580): the same decoder-only recipe on short texts, with its own prompt.
    "e5v": {"prompt": "e5v", "temperature": 0.05, "max_tokens": 32},
    # A decoder of about a million parameters on two CPU cores, in about a minute. Chosen before
    # looking at any result: common small-model values, one pass over fresh pairs. No dropout:
    # every pair is seen once, and drawing the masks would take a third of the time.
    "sandbox": {
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "learning_rate": 1e-3,
        "steps": 100,
        "batch": 96,
        "mini_batch": 96,
        "temperature": 0.05,
        "warmup_steps": 10,
        "max_tokens": 128,
        "save_steps": 0,
        "geometry_every": 25,
    },
}
"""Presets by name: what each changes in `TrainConfig`'s defaults."""

METHODS: Mapping[str, str] = {
    "lora": "low-rank branches in the decoder's blocks; the result is an adapter",
    "full": "the whole decoder but its embeddings; the result is a checkpoint",
    "linear": "one matrix on frozen states, the identity at first; the result is that matrix",
    "clip": "like lora, on pairs of a medium and its text, in both directions",
    "joint": "like lora, plus `generative` times the loss of saying the positive to the anchor",
}
"""What may train, by `TrainConfig.method`."""


def _doc(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


NOT_NEGATIVE = (
    "generative", "kl", "spike", "collapse", "save_steps", "geometry_every", "steps",
    "warmup_steps", "weight_decay", "workers", "seed",
)  # fmt: skip
USUAL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LARGEST_SEED = 2**32 - 1  # of numpy
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial")
"""Schedules that need no further numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides the adapter, given the base and the pairs."""

    preset: str = _doc("lco-text", "recipe the other fields start from")
    method: str = _doc("lora", f"what trains: {', '.join(METHODS)}")
    prompt: str = _doc("lco", "prompt preset whose text instruction follows every text")
    rank: int = _doc(64, "LoRA rank")
    alpha: float = _doc(16.0, "LoRA alpha; the update is scaled by alpha / rank")
    dropout: float = _doc(0.05, "dropout on the input of the LoRA branch")
    targets: tuple[str, ...] = _doc(
        USUAL_TARGETS, "linear layers of a decoder block that get a LoRA branch"
    )
    learning_rate: float = _doc(4e-4, "peak learning rate of AdamW")
    schedule: str = _doc("cosine", "learning-rate schedule after the warm-up")
    warmup_steps: int = _doc(100, "steps of linear warm-up")
    weight_decay: float = _doc(0.0, "weight decay of AdamW")
    max_grad_norm: float = _doc(1.0, "gradient norm is clipped to this")
    epochs: float = _doc(2.0, "passes over the pairs; unused when steps is set")
    steps: int = _doc(0, "optimiser steps; 0 means: by epochs")
    batch: int = _doc(768, "pairs a step; all are each other's negatives")
    mini_batch: int = _doc(32, "texts a forward pass; below batch, gradients are cached")
    temperature: float = _doc(0.03, "InfoNCE temperature")
    mask_equal: bool = _doc(True, "never treat equal groups or equal texts as negatives")
    shuffle_pairs: bool = _doc(
        False, "give every anchor another's positive: the null arm, InfoNCE on noise"
    )
    generative: float = _doc(0.1, "weight of the generative loss, with method joint")
    kl: float = _doc(0.0, "weight of KL(base || trained) of the next token, on the pairs' texts")
    train_towers: bool = _doc(False, "with method clip, train towers and projectors too, in full")
    max_tokens: int = _doc(650, "texts are cut to this before the prompt is added")
    gradient_checkpointing: bool = _doc(False, "recompute activations to save memory")
    dtype: str = _doc(
        "auto",
        "type of frozen weights; auto: bfloat16 on a GPU, else float32; LoRA is always float32",
    )
    qlora: bool = _doc(False, "keep the decoder's frozen linear layers in 4 bits (NF4)")
    attention: str = _doc("sdpa", "attention kernel of transformers")
    device: str = _doc("auto", "where to train: auto, cpu, cuda")
    workers: int = _doc(0, "processes that tokenise ahead")
    seed: int = _doc(0, "seed of initialisation, dropout and order")
    save_steps: int = _doc(
        100, "steps between checkpoints that are kept, and resumed from; 0: none"
    )
    geometry_every: int = _doc(50, "steps between looks at the geometry of a probe set; 0: never")
    spike: float = _doc(2.0, "a loss above this multiple of its recent median is a spike; 0: off")
    collapse: float = _doc(
        0.25, "stop when the probe set's rank falls below this share of its highest; 0: off"
    )
    report_to: str = _doc("none", "also log to: tensorboard, wandb, ... as transformers names them")

    def __post_init__(self) -> None:
        """Refuse values that no training can mean."""
        object.__setattr__(self, "targets", tuple(self.targets))  # the command line gives a list
        _typed(self)
        _positive(self, "rank", "alpha", "learning_rate", "batch", "mini_batch", "max_tokens")
        _positive(self, "temperature", "max_grad_norm", "epochs")
        if self.batch < 2:
            raise UsageError(
                f"Expected batch of 2 or more (others are the negatives), got {self.batch}."
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"Expected dropout in [0, 1), got {self.dropout}.")
        if not self.targets:
            raise UsageError("Expected at least one layer name in targets, got none.")
        self._check_method()
        self._check_sizes()

    def _check_method(self) -> None:
        """Refuse options that would do nothing with the method."""
        if self.method not in METHODS:
            raise UsageError(f"Expected a method of {', '.join(METHODS)}, got {self.method!r}.")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise UsageError(f"Expected {name} of 0 or more, got {getattr(self, name)}.")
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"Expected a schedule of {', '.join(SCHEDULES)}, got {self.schedule!r}."
            )
        if self.schedule == "constant" and self.warmup_steps:
            raise UsageError(
                f"Expected no warm-up with schedule constant, got warmup_steps {self.warmup_steps}:"
                " set that to 0, or take constant_with_warmup."
            )
        if self.train_towers and self.method != "clip":
            raise UsageError(f"Expected --train-towers with method clip, got {self.method}.")
        if self.kl and self.method in ("linear", "clip"):
            raise UsageError(
                f"Expected --kl with a method that trains the decoder on text, got {self.method}."
            )
        if self.qlora and self.method in ("full", "linear"):
            raise UsageError(f"Expected --qlora with a method that uses LoRA, got {self.method}.")
        if self.qlora and self.train_towers:
            raise UsageError(
                "Expected --qlora without --train-towers, got both: the result would be a "
                "checkpoint, and weights of 4 bits cannot be written back into its files."
            )

    def _check_sizes(self) -> None:
        """Refuse numbers that are too large to mean anything."""
        for name in (f.name for f in fields(self)):
            if getattr(self, name) in (math.inf, -math.inf):
                raise UsageError(f"Expected a finite {name}, got {getattr(self, name)}.")
        if 0 < self.spike <= 1:
            raise UsageError(f"Expected spike above 1, or 0 for off, got {self.spike}.")
        if self.collapse > 1:
            raise UsageError(f"Expected collapse in [0, 1], got {self.collapse}.")
        if self.seed > LARGEST_SEED:
            raise UsageError(f"Expected seed of {LARGEST_SEED} or less, got {self.seed}.")

    @classmethod
    def of(cls, preset: str = "lco-text", **overrides: Any) -> TrainConfig:
        """The preset's config with `overrides` on top.

        Raises:
            UsageError: unknown preset or field, or a value out of range.
        """
        if preset not in PRESETS:
            raise UsageError(f"Expected a preset of {', '.join(PRESETS)}, got {preset!r}.")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(overrides) - known):
            raise UsageError(
                f"Unknown training option {unknown[0]!r}: choose of {', '.join(sorted(known))}."
            )
        return replace(cls(preset=preset), **{**PRESETS[preset], **overrides})

    @property
    def speaks(self) -> bool:
        """True when training also looks at what the model would say."""
        return self.kl > 0 or (self.method == "joint" and self.generative > 0)

    @property
    def scale(self) -> float:
        """Factor on the cosines: 1 / temperature."""
        return 1.0 / self.temperature


def _typed(config: TrainConfig) -> None:
    """Each value is of the kind of its default; a whole number will do for another."""
    kinds = {bool: bool, int: Integral, float: Real, str: str, tuple: tuple}
    for one in fields(config):
        value, kind = getattr(config, one.name), type(one.default)
        number = isinstance(value, bool) and kind in (int, float)
        if number or not isinstance(value, kinds[kind]):
            raise UsageError(f"Expected {one.name} of type {kind.__name__}, got {value!r}.")


def _positive(config: TrainConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:  # also catches NaN
            raise UsageError(f"Expected {name} above 0, got {value}.")
