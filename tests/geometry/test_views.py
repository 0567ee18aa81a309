from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import lidar

SAMPLES, VIEWS, DIM = 50, 4, 24


def views(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Fifty samples that differ less and less along the axes, four noisy views of each."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((SAMPLES, 1, DIM)) * np.linspace(2, 0.2, DIM)
    rows = samples + 0.5 * rng.standard_normal((SAMPLES, VIEWS, DIM))
    return rows.reshape(-1, DIM), np.repeat(np.arange(SAMPLES), VIEWS)


def by_definition(x: np.ndarray, labels: np.ndarray, ridge: float) -> float:
    """Loops over samples and views, and the generalised eigenproblem of scipy."""
    means = np.stack([x[labels == g].mean(0) for g in np.unique(labels)])
    between = sum(np.outer(d, d) for d in means - means.mean(0)) / len(means)
    within = np.mean([np.cov(x[labels == g].T, bias=True) for g in np.unique(labels)], axis=0)
    within = within + ridge * np.trace(within) / DIM * np.eye(DIM)
    p = np.clip(eigh(between, within, eigvals_only=True), 1e-300, None)
    p = p / p.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize("ridge", [1e-4, 1.0])
def test_lidar_is_its_definition(ridge):
    assert lidar(*views(), ridge=ridge) == pytest.approx(by_definition(*views(), ridge), rel=1e-9)


def test_samples_with_unequal_numbers_of_views_weigh_the_same():
    x, labels = views()
    kept = np.random.default_rng(0).permutation(len(x))[:150]
    x, labels = x[kept], labels[kept]
    assert lidar(x, labels) == pytest.approx(by_definition(x, labels, 1e-4), rel=1e-9)


def test_lidar_with_fewer_samples_than_columns():
    x, labels = views()
    x, labels = x[:40], labels[:40]  # ten samples
    assert lidar(x, labels) == pytest.approx(by_definition(x, labels, 1e-4), rel=1e-8)
    assert lidar(x, labels) <= 9


def test_equal_separation_along_k_axes_gives_k():
    """Samples at the corners of a cross on k axes, views that scatter alike everywhere."""
    k = 5
    corners = np.concatenate([np.eye(k, DIM), -np.eye(k, DIM)])
    scatter = np.concatenate([np.eye(DIM), -np.eye(DIM)]) * 0.1
    x = (corners[:, None] + scatter[None]).reshape(-1, DIM)
    assert lidar(x, np.repeat(np.arange(2 * k), 2 * DIM)) == pytest.approx(k, rel=1e-9)


def test_no_linear_map_and_no_scale_moves_lidar_but_its_ridge():
    x, labels = views()
    skew = np.random.default_rng(1).standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
    free = lidar(x, labels, ridge=1e-10)
    assert lidar(x @ skew + 3, labels, ridge=1e-10) == pytest.approx(free, rel=1e-4)
    assert lidar(x * 1e6, labels) == pytest.approx(lidar(x, labels), rel=1e-10)


def test_names_and_numbers_label_alike_and_torch_agrees():
    x, labels = views()
    names = [f"sample {i}" for i in labels]
    assert lidar(x, names) == pytest.approx(lidar(x, labels), rel=1e-12)
    assert lidar(torch.tensor(x), labels) == pytest.approx(lidar(x, labels), rel=1e-10)


def test_what_has_no_lidar():
    x, labels = views()
    with pytest.raises(DegenerateInput, match="got 1 samples with variance"):
        lidar(x, np.zeros(len(x), int))
    with pytest.raises(DegenerateInput, match="0 within them; give several views"):
        lidar(x, np.arange(len(x)))
    with pytest.raises(DegenerateInput, match="views that differ, got 50"):
        lidar(np.repeat(x[::VIEWS], 3, axis=0), np.repeat(np.arange(SAMPLES), 3))
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        lidar(np.ones((200, 3)), labels)
    with pytest.raises(UsageError, match="got 199 groups for 200 rows"):
        lidar(x, labels[1:])
    with pytest.raises(UsageError, match="ridge above 0, got 0"):
        lidar(x, labels, ridge=0)
