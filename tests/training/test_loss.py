"""The loss against InfoNCE written out, with hard negatives and equal things masked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from geomkit.training.columns import dataset
from geomkit.training.loss import MaskedRankingLoss, false_negatives
from geomkit.training.pairs import TextPair

TEMPERATURE = 0.05


class Table(InputModule):  # type: ignore[misc]  # untyped
    """A text is a number, its embedding a learnable row."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(rows, dim, dtype=torch.float64))

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        return {**features, "sentence_embedding": self.weight[features["input_ids"][:, 0]]}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def info_nce(anchors: Tensor, columns: list[Tensor], masked: set[tuple[int, int]]) -> float:
    """Mean of -log softmax of the own positive over all candidates that are not masked."""
    candidates = torch.cat(columns)
    total = 0.0
    for i, anchor in enumerate(anchors):
        scores = [
            float(anchor @ c / (anchor.norm() * c.norm())) / TEMPERATURE
            for j, c in enumerate(candidates)
            if (i, j) not in masked
        ]
        own = float(anchor @ candidates[i] / (anchor.norm() * candidates[i].norm())) / TEMPERATURE
        total += math.log(sum(math.exp(s) for s in scores)) - own
    return total / len(anchors)


PAIRS = [
    TextPair("a0", "p0", "n0", "red"),
    TextPair("a1", "p1", "n1", "blue"),
    TextPair("a2", "p2", "n2", "red"),  # same group as row 0
    TextPair("a3", "a0", "n3", ""),  # its positive is row 0's anchor
    TextPair("a4", "p4", "p1", ""),  # its negative is row 1's positive
]
MASKED = {(0, 2), (2, 0), (0, 3), (1, 5 + 4)}  # candidate 5 + j is the negative of row j


def batch(
    pairs: list[TextPair], *, mask_equal: bool = True
) -> tuple[list[dict[str, Tensor]], Tensor]:
    table = dataset(pairs, mask_equal=mask_equal)
    words: dict[str, int] = {}
    columns = [name for name in ("anchor", "positive", "negative") if name in table.column_names]
    features = [
        {"input_ids": torch.tensor([[words.setdefault(t, len(words))] for t in table[name]])}
        for name in columns
    ]
    return features, torch.tensor(table["label"][:])


def make(mini_batch: int) -> tuple[SentenceTransformer, MaskedRankingLoss]:
    model = SentenceTransformer(modules=[Table(16, 8)], device="cpu")
    return model, MaskedRankingLoss(model, scale=1 / TEMPERATURE, mini_batch_size=mini_batch)


def expected(
    model: SentenceTransformer, features: list[dict[str, Tensor]], masked: set[Any]
) -> float:
    rows = [model[0].weight[f["input_ids"][:, 0]].detach().float() for f in features]
    return info_nce(rows[0], rows[1:], masked)


@pytest.mark.parametrize("mini_batch", [5, 2])
def test_equals_info_nce_with_hard_negatives_and_masks(mini_batch: int) -> None:
    model, loss = make(mini_batch)
    features, labels = batch(PAIRS)
    value = float(loss(features, labels).detach())
    assert value == pytest.approx(expected(model, features, MASKED), abs=1e-5)
    # the mask matters on this batch, so a loss without it would be caught
    assert value != pytest.approx(expected(model, features, set()), abs=1e-3)


def test_without_mask_it_is_the_plain_loss() -> None:
    model, loss = make(5)
    features, labels = batch(PAIRS, mask_equal=False)
    assert float(loss(features, labels).detach()) == pytest.approx(
        expected(model, features, set()), abs=1e-5
    )


def test_pairs_without_negatives() -> None:
    model, loss = make(5)
    features, labels = batch([TextPair(p.anchor, p.positive, None, p.group) for p in PAIRS])
    masked = {(i, j) for i, j in MASKED if j < len(PAIRS)}
    assert float(loss(features, labels).detach()) == pytest.approx(
        expected(model, features, masked), abs=1e-5
    )


@pytest.mark.parametrize("mini_batch", [5, 2])
def test_both_directions_are_the_mean_of_two_losses(mini_batch: int) -> None:
    model = SentenceTransformer(modules=[Table(16, 8)], device="cpu")
    loss = MaskedRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=mini_batch, symmetric=True
    )
    features, labels = batch([TextPair(p.anchor, p.positive, None, p.group) for p in PAIRS])
    anchors, positives = (model[0].weight[f["input_ids"][:, 0]].detach().float() for f in features)
    there = info_nce(anchors, [positives], {(0, 2), (2, 0), (0, 3)})
    back = info_nce(positives, [anchors], {(0, 2), (2, 0), (3, 0)})
    assert float(loss(features, labels).detach()) == pytest.approx((there + back) / 2, abs=1e-5)


def test_parts_about_speech_are_added_and_named() -> None:
    _, loss = make(5)
    features, labels = batch(PAIRS)
    plain = loss(features, labels).detach()
    loss.speech = lambda column: {"generative": column["input_ids"].float().sum()}
    found = loss([*features, {"input_ids": torch.tensor([[2.0]])}], labels)
    assert {name: float(part.detach()) for name, part in found.items()} == {
        "contrastive": pytest.approx(float(plain)),
        "generative": 2.0,
    }


def test_cached_gradients_equal_direct_gradients() -> None:
    gradients = []
    for mini_batch in (5, 2):
        model, loss = make(mini_batch)
        loss(*batch(PAIRS)).backward()
        gradients.append(model[0].weight.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().max() > 0.01


def test_accuracy_counts_own_positive_on_top() -> None:
    model, loss = make(5)
    features, labels = batch(PAIRS[:2])
    with torch.no_grad():
        model[0].weight.copy_(torch.randn_like(model[0].weight))
        anchors, positives = features[0]["input_ids"][:, 0], features[1]["input_ids"][:, 0]
        model[0].weight[positives] = model[0].weight[anchors]
    loss(features, labels)
    assert loss.accuracy == 1.0
    with torch.no_grad():
        model[0].weight[positives] = -model[0].weight[anchors]
    loss(features, labels)
    assert loss.accuracy == 0.0


def test_own_positive_is_never_masked() -> None:
    codes = torch.tensor([[0, 1, 1, 2], [0, 1, 1, 3]])  # positive equal to anchor, equal groups
    mask = false_negatives(codes, torch.arange(2))
    assert mask.tolist() == [[False, True, False, False], [True, False, False, False]]


def test_a_batch_without_codes_is_refused() -> None:
    _, loss = make(5)
    with pytest.raises(ValueError, match="needs the label column"):
        loss.calculate_loss([[torch.ones(2, 3)], [torch.ones(2, 3)]], None)
