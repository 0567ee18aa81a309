"""What the machine does at most: large products a second, and bytes copied a second.

Each is the best of several tries by the process's own CPU time, since others use the machine; of
NumPy's and torch's libraries the faster counts. Multiply-adds are two operations; a copy reads and
writes, and its arrays are larger than a processor's cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SIDE = 2048
COPIED = 2**29  # bytes
TRIES = 5


def rates(*_: Any) -> dict[str, float]:
    """Operations a second in both precisions, bytes a second."""
    return {"float32": _products(np.float32), "float64": _products(np.float64), "bytes": _copies()}


def _products(dtype: type[np.floating[Any]]) -> float:
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(dtype)
    b = torch.from_numpy(a)
    return float(2 * SIDE**3 / min(_least(lambda: a @ a), _least(lambda: b @ b)))


def _copies() -> float:
    source = torch.ones(COPIED // 4)
    target = torch.zeros_like(source)
    return 2 * COPIED / _least(lambda: target.copy_(source))


def _least(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(TRIES):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
