"""Does it still speak? Loss of captions given their media, before and after, paired by sample.

Refining the representation moves the last states of the same decoder that generates. The price is
measured where the model is asked to describe: nats a token of the reference caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geomkit import statistics
from geomkit.errors import DegenerateInput, TrainingError
from geomkit.processing import Processor
from geomkit.training.states import shown
from geomkit.types import MODALITIES, Interval, Modality, Sample

DESCRIBE: Mapping[Modality, str] = {m: f"\nDescribe the above {m}:" for m in MODALITIES}
"""Instruction after the content, by modality."""


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """Held-out samples, how to ask for their captions, and what to answer instead, by id."""

    samples: Sequence[Sample] = ()
    instructions: Mapping[Modality, str] = field(default_factory=lambda: DESCRIBE)
    answers: Mapping[str, str] = field(default_factory=dict)


NO_CAPTIONS = Captions()


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Loss of each sample's caption in one modality: mean nats a target token."""

    modality: Modality
    instruction: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GenerationChange:
    """Mean loss before and after in one modality, and the paired difference; lower is better."""

    modality: Modality
    n: int
    before: float
    after: float
    difference: float
    interval: Interval | None  # of the difference
    instruction: str
    note: str = ""
    before_interval: Interval | None = None
    after_interval: Interval | None = None


def generative_losses(
    model: nn.Module,
    processor: Processor,
    samples: Sequence[Sample],
    *,
    instructions: Mapping[Modality, str] = DESCRIBE,
    answers: Mapping[str, str] | None = None,
    batch: int = 16,
) -> tuple[Losses, ...]:
    """Loss of every sample's caption in every modality it has, in canonical order of modality.

    The caption is `answers[id]`, else the sample's own text; samples without one are left out.
    In the text modality the caption is also what is shown, unless `answers` has another one. The
    model is left in evaluation mode.

    Raises:
        TrainingError: the tokenizer does not keep the prompt's tokens when an answer follows.
    """
    model.eval()  # dropout would add noise to the difference
    answers = answers or {}
    told = [s for s in samples if answers.get(s.id, s.text)]
    found = []
    for modality in MODALITIES:
        rows = [s for s in told if modality in s.modalities()]
        if rows:
            parts = [
                _losses(
                    model,
                    processor,
                    rows[at : at + batch],
                    modality,
                    instructions[modality],
                    answers,
                )
                for at in range(0, len(rows), batch)
            ]
            found.append(
                Losses(
                    modality,
                    instructions[modality],
                    tuple(s.id for s in rows),
                    tuple(s.group or s.id for s in rows),
                    np.concatenate(parts),
                )
            )
    return tuple(found)


def generative_change(
    before: Sequence[Losses], after: Sequence[Losses]
) -> tuple[GenerationChange, ...]:
    """After minus before, paired by sample, with a 95 % interval over groups.

    Raises:
        TrainingError: the two were not measured on the same samples with the same instruction.
    """
    names = [[(x.modality, x.instruction, x.ids) for x in side] for side in (before, after)]
    if names[0] != names[1]:
        raise TrainingError(
            "Expected losses of the same samples before and after, got different ones: measure "
            "both with the same samples and instructions."
        )
    return tuple(_change(*pair) for pair in zip(before, after, strict=True))


def target_losses(logits: Tensor, ids: Tensor, mask: Tensor, targets: Sequence[int]) -> list[float]:
    """Mean nats of each row's last `targets[row]` real tokens, given all before them."""
    losses = []
    for row, count in enumerate(targets):
        at = mask[row].nonzero()[-count:, 0]
        losses.append(float(functional.cross_entropy(logits[row, at - 1].float(), ids[row, at])))
    return losses


def _change(before: Losses, after: Losses) -> GenerationChange:
    moved = after.values - before.values
    clusters = np.unique(np.array(before.groups), return_inverse=True)[1].astype(np.int64)
    return GenerationChange(
        modality=before.modality,
        n=len(moved),
        before=float(before.values.mean()),
        after=float(after.values.mean()),
        difference=float(moved.mean()),
        interval=_interval(moved, clusters),
        instruction=before.instruction,
        note="too few groups for an interval" if _interval(moved, clusters) is None else "",
        before_interval=_interval(before.values, clusters),
        after_interval=_interval(after.values, clusters),
    )


def _interval(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> Interval | None:
    """95 % interval of a mean over groups; None when they are too few to have one."""
    mean = float(values.mean())
    try:
        return statistics.interval(statistics.from_rows(mean, values - mean, clusters))
    except DegenerateInput:
        return None


def _losses(
    model: nn.Module,
    processor: Processor,
    samples: Sequence[Sample],
    modality: Modality,
    instruction: str,
    answers: Mapping[str, str],
) -> NDArray[np.float64]:
    """Losses of one batch."""
    end = str(processor.tokenizer.eos_token)  # the model must also know when to stop
    asked, told = [], []
    for sample in samples:
        row = shown(processor, sample, modality, instruction)
        answer = (answers.get(sample.id) or str(sample.text)) + end
        asked.append(row.rendered)
        told.append(replace(row, rendered=row.rendered + answer))
    targets = [
        _extra(processor.tokenizer, short, long.rendered)
        for short, long in zip(asked, told, strict=True)
    ]
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in processor.encode(told).items()}
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
    return np.array(target_losses(logits, inputs["input_ids"], inputs["attention_mask"], targets))


def _extra(tokenizer: Any, short: str, long: str) -> int:
    """How many tokens `long` has beyond `short`.

    Raises:
        TrainingError: the tokens of `short` are not the beginning of those of `long`.
    """
    first, all_ = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (short, long))
    if all_[: len(first)] != first:
        raise TrainingError(
            "Expected the answer to start a new token after the prompt, the tokenizer joins them: "
            "end the chat template's generation prompt with a line break."
        )
    return len(all_) - len(first)
