"""The peers' own packages, each called as its documentation says. None of them is a dependency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

Rows = np.ndarray[Any, np.dtype[np.float32]]
Way = TypeVar("Way", bound=Callable[..., float])


def of(package: str) -> Callable[[Way], Way]:
    """Says whose version is to be told."""

    def mark(way: Way) -> Way:
        way.package = package  # type: ignore[attr-defined]  # functions take attributes
        return way

    return mark


@of("torchmetrics")
def torchmetrics(x: Rows) -> float:
    """All cosines with an empty diagonal; its own mean would divide by N, not N - 1."""
    from torchmetrics.functional.pairwise import pairwise_cosine_similarity

    n = len(x)
    return float(pairwise_cosine_similarity(torch.from_numpy(x)).sum()) / (n * (n - 1))


@of("IsoScore")
def isoscore(x: Rows) -> float:
    from IsoScore.IsoScore import IsoScore

    return float(IsoScore(x))


@of("torch-cka")
def torch_cka(x: Rows, y: Rows) -> float:
    """Two models that give what they are given, and one batch of all rows: a mean over small
    batches is another number."""
    from torch.utils.data import DataLoader, TensorDataset
    from torch_cka import CKA

    sides = [DataLoader(TensorDataset(torch.from_numpy(s)), batch_size=len(s)) for s in (x, y)]
    layer = ["0"]
    models = [torch.nn.Sequential(torch.nn.Identity()) for _ in sides]
    compared = CKA(*models, "x", "y", model1_layers=layer, model2_layers=layer)
    compared.compare(*sides)
    return float(compared.export()["CKA"][0, 0])


@of("reptrix")
def reptrix(x: Rows) -> float:
    from reptrix.rankme import get_rankme

    return float(get_rankme(torch.from_numpy(x)))


@of("scikit-dimension")
def skdim(x: Rows) -> float:
    from skdim.id import TwoNN

    return float(TwoNN().fit(x).dimension_)
