"""InfoNCE over the batch with gradient caching, where equal things are never negatives.

    loss_i = -log( exp(s_ii) / sum_j m_ij exp(s_ij) ),   s_ij = cos(anchor_i, candidate_j) / T

Candidates are all positives, then all hard negatives. m_ij is 0 for another row's positive of the
same group and for any candidate whose text is the anchor's or its positive's own text.

Reference: van den Oord et al. 2018 (InfoNCE); Gao et al. 2021 (gradient caching).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor
from torch.nn import functional


class MaskedRankingLoss(CachedMultipleNegativesRankingLoss):  # type: ignore[misc]  # untyped
    """The library's cached ranking loss with a mask on false negatives.

    `labels` is int64 `(batch, 1 + columns)`: the group's code, then one code per text of the row
    (anchor, positive, negative); equal codes mean equal group or equal text. The share of anchors
    whose own positive scored highest in the last batch is left in `accuracy`.
    """

    accuracy: float = 0.0

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Loss of one batch; caches gradients only when the batch exceeds `mini_batch_size`."""
        features = list(sentence_features)
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
        candidates = functional.normalize(torch.cat(columns), dim=1)
        total, hits = torch.zeros((), device=anchors.device), 0
        for start in range(0, len(anchors), self.mini_batch_size):
            stop = min(start + self.mini_batch_size, len(anchors))
            rows = torch.arange(start, stop, device=anchors.device)
            # normalised per chunk, so that each chunk's backward frees its own graph
            scores = functional.normalize(anchors[rows], dim=1) @ candidates.T * self.scale
            scores = scores.masked_fill(false_negatives(labels, rows), -torch.inf)
            loss = functional.cross_entropy(scores, rows, reduction="sum") / len(anchors)
            hits += int((scores.argmax(dim=1) == rows).sum())
            if with_backward:
                # the chunks share the candidates' normalisation
                loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch
                loss = loss.detach()
            total = total + loss
        self.accuracy = hits / len(anchors)
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """The library's record of the loss."""
        config: dict[str, Any] = super().get_config_dict()
        return config


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
