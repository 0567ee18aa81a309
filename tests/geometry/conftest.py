"""Data of the geometry tests: two pairs of spaces with values known from outside, and hard rows."""

from __future__ import annotations

import numpy as np
import pytest

Pair = tuple[np.ndarray, np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def pair_s() -> Pair:
    """Mean cosine and CKA near 0.5, N < dim: like a contrastive two-tower model."""
    rng = np.random.default_rng(0)
    n, dim, rank = 500, 512, 128
    scale = np.arange(1, rank + 1) ** -0.4
    z, z1, z2 = rng.standard_normal((3, n, rank)) * scale
    a, b = rng.standard_normal((2, rank, dim))
    mean_x, mean_y = rng.standard_normal((2, dim)) * 3.5
    x = (z + 0.6 * z1) @ a + rng.standard_normal((n, dim)) * 0.8 + mean_x
    y = (z + 0.6 * z2) @ (0.3 * a + 0.91**0.5 * b) + rng.standard_normal((n, dim)) * 0.8 + mean_y
    return unit(x), unit(y)


@pytest.fixture(scope="session")
def pair_q() -> Pair:
    """Small, N >> dim."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 10)) + 1
    return x, rng.standard_normal((100, 10)) + x


@pytest.fixture(scope="session")
def massive() -> np.ndarray:
    """Rows with two massive dimensions, as hidden states of language models have them."""
    x = np.random.default_rng(2).standard_normal((300, 256))
    x[:, 7] += 8000
    x[:, 100] -= 3000
    return x.astype(np.float32)
