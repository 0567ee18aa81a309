"""What training does to what the model would say: a loss that keeps it, and a penalty on drift.

    generative = lambda * mean nats of the positive's tokens, said to the anchor
    kl         = beta * mean over tokens of KL(p_base(. | before) || p_now(. | before))

Both are read from forward passes of the whole model over the turns of the speech column, so many
rows at a time; where that takes several passes, each is run again for its gradients, so that one
after the other is in memory. Means are over the tokens of the whole batch, of all processes.
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
from torch.utils.checkpoint import checkpoint

from geomkit.training import processes

GIVEN = ("input_ids", "attention_mask", "targets")


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """The parts of the loss that are about speech, as a function of the speech column."""

    model: nn.Module  # the whole model, with its head
    base: Callable[[Mapping[str, Tensor]], Tensor]  # logits of the model as it was
    generative: float
    kl: float
    mini_batch: int  # rows of a forward pass

    def __call__(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name -> weighted part of the loss."""
        columns = (torch.split(features[name], self.mini_batch) for name in GIVEN)
        turns = list(zip(*columns, strict=True))
        if len(turns) == 1:
            sums = [self._sums(*turns[0])]
        else:
            sums = [checkpoint(self._sums, *turn, use_reentrant=False) for turn in turns]
        said, apart = (torch.stack(column).sum() for column in zip(*sums, strict=True))
        parts = {}
        if self.generative:
            parts["generative"] = self.generative * said / _share(features["targets"])
        if self.kl:
            parts["kl"] = self.kl * apart / _share(features["attention_mask"])
        return parts

    def _sums(self, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of the answers of some turns, and the divergence from the base over their tokens."""
        given = _trimmed({"input_ids": ids, "attention_mask": mask})
        logits = self.model(**given, use_cache=False).logits.float()
        said = apart = logits.new_zeros(())
        if self.generative:
            said = answer_loss(logits, given, targets, reduction="sum")
        if self.kl:
            mask = given["attention_mask"]
            apart = drift(logits, self.base(given), mask, reduction="sum")
        return said, apart


def _share(counts: Tensor) -> Tensor:
    """Tokens of all processes, shared evenly: gradients are averaged over the processes."""
    return processes.total(counts.sum()) / processes.count()


def answer_loss(
    logits: Tensor, given: Mapping[str, Tensor], targets: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean nats over the last `targets[row]` real tokens of all rows, given all before them."""
    ids, mask = given["input_ids"], given["attention_mask"].bool()
    place = mask.cumsum(dim=1)
    answer = mask & (place > (place.amax(dim=1) - targets)[:, None])
    asked, told = logits[:, :-1][answer[:, 1:]], ids[:, 1:][answer[:, 1:]]
    return functional.cross_entropy(asked, told, reduction=reduction)


def drift(logits: Tensor, base: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Mean over real tokens of KL(base || now), in nats."""
    now, before = (functional.log_softmax(t.float(), dim=-1) for t in (logits, base))
    apart = functional.kl_div(now, before, log_target=True, reduction="none").sum(dim=-1)
    found = apart[mask.bool()]
    return found.mean() if reduction == "mean" else found.sum()


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
