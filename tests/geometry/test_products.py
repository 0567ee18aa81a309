"""Whichever library makes a large product or a spectrum, it is the one that NumPy would make."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from geomkit.geometry import products
from geomkit.geometry.products import (
    Scatter,
    eigenvalues,
    exponential,
    product,
    singular_values,
)

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 40, 30))


@pytest.fixture(params=[False, True], ids=["small", "large"])
def size(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(products, "LARGE", 1)
        monkeypatch.setattr(products, "WIDE", 8)


def sealed(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


WAYS = {
    "as they are": (A.T, B),
    "backwards": (A.T[::-1], B[:, ::-1]),
    "every second": (A[::2].T, B[::2]),
    "read-only": (sealed(A).T, sealed(B)),
    "float32": (A.T.astype(np.float32), B.astype(np.float32)),
}


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("way", WAYS)
def test_a_product(way):
    a, b = WAYS[way]
    found = product(a, b)
    assert found.dtype == a.dtype
    np.testing.assert_allclose(found, a @ b, rtol=1e-12 if a.dtype == np.float64 else 1e-5)


@pytest.mark.usefixtures("size")
def test_spectra():
    s = A.T @ A
    below = np.triu(s) + np.tril(RNG.standard_normal(s.shape), -1)
    np.testing.assert_allclose(eigenvalues(below), np.linalg.eigvalsh(s), rtol=1e-10)
    np.testing.assert_allclose(eigenvalues(torch.tensor(below)), np.linalg.eigvalsh(s), rtol=1e-10)
    want = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(singular_values(A), want, rtol=1e-12)
    np.testing.assert_allclose(singular_values(torch.tensor(A)), want, rtol=1e-12)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponentials(dtype):
    values = -RNG.uniform(0, 8, (30, 30)).astype(dtype)
    whole, less = values.copy(), values * dtype(1e-5)
    tiny = less.copy()
    exponential(whole)
    exponential(less, less_one=True)
    np.testing.assert_allclose(whole, np.exp(values.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(less, np.expm1(tiny.astype(float)), rtol=1e-6)


@pytest.mark.usefixtures("size")
def test_scatter_of_parts():
    own, across = Scatter(30), Scatter(30, 30)
    for part in (slice(15), slice(15, 40)):
        own.add(A[part])
        across.add(A[part], B[part])
    np.testing.assert_allclose(np.triu(own.sums), np.triu(A.T @ A), atol=1e-12)
    np.testing.assert_allclose(across.sums, A.T @ B, atol=1e-12)
    assert own.energy() == pytest.approx(float(((A.T @ A) ** 2).sum()), rel=1e-12)
    assert across.energy() == pytest.approx(float(((A.T @ B) ** 2).sum()), rel=1e-12)


def test_few_rows_need_no_torch():
    code = (
        "import sys, numpy as np; from geomkit import geometry as g;"
        "x = np.random.default_rng(0).standard_normal((300, 40));"
        "[f(x) for f in (g.mean_cosine, g.uniformity, g.rank_me, g.iso_score, g.two_nn)];"
        "g.mutual_knn(x, x), g.procrustes(x, x), g.linear_cka(x, x);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
