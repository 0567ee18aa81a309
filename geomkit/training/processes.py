"""Several processes of one training, as `torchrun` starts them: who is first, and what they share.

Every process has the whole model and a share of every batch. After the backward pass gradients are
averaged, so all take the same step and stay equal to the bit; the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from torch import Tensor, distributed

PATIENCE = timedelta(hours=12)  # that others wait while the first one measures and writes


def asked() -> int:
    """How many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one; 0 writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def begin(*, cpu: bool) -> None:
    """Find the other processes, where a launcher started several."""
    if asked() > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=PATIENCE)


def end() -> None:
    """Part from the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def wait() -> None:
    """Until all are here."""
    if count() > 1:
        distributed.barrier()


def total(value: Tensor) -> Tensor:
    """The sum of a value over all processes."""
    summed = value.detach().clone()
    if count() > 1:
        distributed.all_reduce(summed)
    return summed


def average(gradients: Iterable[Tensor]) -> None:
    """The mean over all processes, in place, of gradients that all have in the same order."""
    if count() == 1:
        return
    for gradient in gradients:
        distributed.all_reduce(gradient)
        gradient.div_(count())


def from_first(value: Any) -> Any:
    """What the first process has."""
    if count() == 1:
        return value
    told = [value]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


def all_have(value: Any) -> bool:
    """Whether all processes have the same."""
    if count() == 1:
        return True
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value)
    return all(one == value for one in found)
