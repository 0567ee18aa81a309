"""The floor: no capture is faster than the arithmetic of its forward passes and the disk.

On a CPU that others use, seconds are the process's own CPU seconds: a share of the floor is then
not a share of how busy the machine happened to be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import Clock, spent


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine does: multiply-adds count as two operations."""

    flops: float  # a second of the clock, of one large matrix product
    disk: float  # bytes a second, written and synced

    def floor(self, flops: float, written: float) -> float:
        """Seconds that cannot be undercut; computing and writing run beside each other."""
        return max(flops / self.flops, written / self.disk)


def flops(work: Callable[[], Any]) -> int:
    """Operations of the matrix products and attentions that a call runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def rates(scratch: Path, device: str, dtype: torch.dtype, side: int, clock: Clock) -> Rates:
    """The best of several tries: others use the machine too."""
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))

    def product() -> None:
        a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    product()
    fastest = min(getattr(spent(product), clock) for _ in range(8))
    block = os.urandom(1 << 20) * 64
    written = min(spent(lambda: _write(scratch / "disk", block)).wall for _ in range(3))
    return Rates(2 * side**3 / fastest, len(block) / written)


def _write(path: Path, block: bytes) -> None:
    with path.open("wb") as file:
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
