"""InfoNCE over the batch with gradient caching, where equal things are never negatives.

    loss_i = -log( exp(s_ii) / sum_j m_ij exp(s_ij) ),   s_ij = cos(anchor_i, candidate_j) / T

Candidates are all positives, then all hard negatives. m_ij is 0 for another row's positive of the
same group and for any candidate whose text is the anchor's or its positive's own text. In both
directions, the loss is the mean of that and of the same with anchors and positives exchanged.

With several processes every process sees all candidates, and scores its own anchors.

Reference: van den Oord et al. 2018 (InfoNCE); Gao et al. 2021 (gradient caching).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.util.distributed import all_gather_with_grad
from torch import Tensor, distributed
from torch.nn import functional


class MaskedRankingLoss(CachedMultipleNegativesRankingLoss):  # type: ignore[misc]  # untyped
    """The library's cached ranking loss with a mask on false negatives.

    `labels` is int64 `(batch, 1 + columns)`: the group's code, then one code per text of the row
    (anchor, positive, negative); equal codes mean equal group or equal text. The share of anchors
    whose own positive scored highest in the last batch is left in `accuracy`. With `speech` the
    last column is what is said, and the loss is a mapping of its parts.
    """

    accuracy: float = 0.0

    def __init__(
        self,
        model: Any,
        *,
        scale: float,
        mini_batch_size: int,
        symmetric: bool = False,
        speech: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> None:
        super().__init__(model, scale=scale, mini_batch_size=mini_batch_size)
        self.symmetric = symmetric
        self.speech = speech

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor
    ) -> Tensor | dict[str, Tensor]:
        """Loss of one batch; caches gradients only when the batch exceeds `mini_batch_size`."""
        features = list(sentence_features)
        if self.speech is None:
            return self._ranking(features, labels)
        return {"contrastive": self._ranking(features[:-1], labels), **self.speech(features[-1])}

    def _ranking(self, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        if len(labels) > self.mini_batch_size:
            cached: Tensor = self.forward_cached(features, labels)
            return cached
        reps = [[self.model(column)["sentence_embedding"]] for column in features]
        return self.calculate_loss(reps, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """InfoNCE of the whole batch, a few rows of the score matrix at a time."""
        if labels is None:
            raise ValueError("MaskedRankingLoss needs the label column with group and text codes.")
        anchors, *columns = (torch.cat(column).float() for column in reps)
        everyone, first = labels, 0
        if distributed.is_initialized():
            everyone, first = _gathered(labels), distributed.get_rank() * len(anchors)
            anchors, *columns = (_gathered_states(column) for column in (anchors, *columns))
        ways = [(anchors, columns, everyone)]
        if self.symmetric:
            back = everyone.clone()
            back[:, 1], back[:, 2] = everyone[:, 2], everyone[:, 1]
            ways.append((columns[0], [anchors], back[:, :3]))
        total, found = torch.zeros((), device=anchors.device), 0
        for rows in torch.split(torch.arange(first, first + len(labels)), self.mini_batch_size):
            for number, way in enumerate(ways):
                loss, hits = self._scored(*way, rows.to(anchors.device))
                loss = loss / (len(labels) * len(ways))
                if with_backward:
                    # each part made its own normalisation, so its graph is free now
                    loss.backward()  # type: ignore[no-untyped-call]  # torch
                    loss = loss.detach()
                total = total + loss
                found += hits if number == 0 else 0
        self.accuracy = found / len(labels)
        return total

    def _scored(
        self, anchors: Tensor, columns: Sequence[Tensor], labels: Tensor, rows: Tensor
    ) -> tuple[Tensor, int]:
        """Summed loss of some anchors, and how many of them found their positive."""
        candidates = functional.normalize(torch.cat(list(columns)), dim=1)
        scores = functional.normalize(anchors[rows], dim=1) @ candidates.T * self.scale
        scores = scores.masked_fill(false_negatives(labels, rows), -torch.inf)
        loss = functional.cross_entropy(scores, rows, reduction="sum")
        return loss, int((scores.argmax(dim=1) == rows).sum())

    def get_config_dict(self) -> dict[str, Any]:
        """The library's record of the loss."""
        config: dict[str, Any] = super().get_config_dict()
        return config


def _gathered_states(column: Tensor) -> Tensor:
    """The states of all processes, in order of rank, through which gradients reach them."""
    with warnings.catch_warnings():
        # the library calls what torch has renamed
        warnings.filterwarnings("ignore", message=".*all_gather is deprecated")
        found: Tensor = all_gather_with_grad(column)
    return found


def _gathered(labels: Tensor) -> Tensor:
    """The labels of all processes, in order of rank."""
    parts = [torch.empty_like(labels) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, labels.contiguous())
    return torch.cat(parts)


def false_negatives(labels: Tensor, rows: Tensor) -> Tensor:
    """Bool `(rows, candidates)`: True where a candidate means the same as the row's anchor.

    `labels` are those of the whole batch, `rows` the indexes of some anchors in it. An anchor's own
    positive is never masked.
    """
    group, anchor, positive = (labels[rows, column, None] for column in range(3))
    texts = labels[:, 2:].T.reshape(1, -1)  # positives of all rows, then negatives of all rows
    mask = (texts == anchor) | (texts == positive)
    mask[:, : len(labels)] |= labels[None, :, 0] == group
    mask[torch.arange(len(rows), device=rows.device), rows] = False
    return mask
