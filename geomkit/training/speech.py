"""What training does to what the model would say: a loss that keeps it, and a penalty on drift.

    generative = lambda * mean nats of the positive's tokens, said to the anchor
    kl         = beta * mean over tokens of KL(p_base(. | before) || p_now(. | before))

Both are read from one forward pass of the whole model over the turns of the speech column, of the
first rows of a batch: rows come in random order, so that is a fair sample of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """The parts of the loss that are about speech, as a function of the speech column."""

    model: nn.Module  # the whole model, with its head
    base: Callable[[Mapping[str, Tensor]], Tensor]  # logits of the model as it was
    generative: float
    kl: float
    rows: int

    def __call__(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name -> weighted part of the loss."""
        given = {name: features[name][: self.rows] for name in ("input_ids", "attention_mask")}
        given = _trimmed(given)
        logits = self.model(**given, use_cache=False).logits.float()
        parts = {}
        if self.generative:
            targets = features["targets"][: self.rows]
            parts["generative"] = self.generative * answer_loss(logits, given, targets)
        if self.kl:
            parts["kl"] = self.kl * drift(logits, self.base(given), given["attention_mask"])
        return parts


def answer_loss(logits: Tensor, given: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    """Mean nats over the last `targets[row]` real tokens of all rows, given all before them."""
    ids, mask = given["input_ids"], given["attention_mask"].bool()
    place = mask.cumsum(dim=1)
    answer = mask & (place > (place.amax(dim=1) - targets)[:, None])
    return functional.cross_entropy(logits[:, :-1][answer[:, 1:]], ids[:, 1:][answer[:, 1:]])


def drift(logits: Tensor, base: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens of KL(base || now), in nats."""
    now, before = (functional.log_softmax(t.float(), dim=-1) for t in (logits, base))
    apart = functional.kl_div(now, before, log_target=True, reduction="none").sum(dim=-1)
    return apart[mask.bool()].mean()


def without_branches(adapted: Any) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Logits of an adapted model with its adapter off: the base, at no cost in memory."""

    def logits(given: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad(), _evaluating(adapted), adapted.disable_adapter():
            found: Tensor = adapted(**given, use_cache=False).logits
        return found

    return logits


def as_it_was(model: nn.Module) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Logits of the model as it is now, from a second copy in memory."""
    kept = copy.deepcopy(model).eval().requires_grad_(False)

    def logits(given: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = kept(**given, use_cache=False).logits
        return found

    return logits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards every module as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _trimmed(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the columns that are padding in every row."""
    width = int(given["attention_mask"].sum(dim=1).max())
    return {name: tensor[:, :width] for name, tensor in given.items()}
