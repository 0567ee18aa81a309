"""Several processes of one training, as `torchrun` starts them: who is first, and what they share.

Every process has the whole model and an even share of every batch. After the backward pass the
gradients are averaged, so all take the same step and stay equal to the bit; the first one proves
and writes. That is what torch's own wrapper does, but for the place: it averages during a backward
pass, and the gradient cache runs several, one inside the other.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from geomkit.errors import GeomkitError, TrainingError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # that others wait while the first one measures and writes
SOON = timedelta(seconds=5)
TOLD = "geomkit/told"


def asked() -> int:
    """How many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one; 0 writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def follows() -> bool:
    """Whether another process of the launcher's is the first, before and after they train."""
    return asked() > 1 and os.environ.get("RANK", "0") != "0"


@contextmanager
def together() -> Iterator[None]:
    """With the other processes, where a launcher started several; only the first one warns.

    Raises:
        TrainingError: they cannot be found.
    """
    if asked() == 1 or distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as cause:
        raise TrainingError(
            f"Expected {asked()} processes that find each other, as WORLD_SIZE says, but {cause}: "
            "start them with torchrun, or unset WORLD_SIZE."
        ) from cause
    if rank():
        logging.getLogger("geomkit").setLevel(logging.ERROR)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def one_voice() -> Iterator[None]:
    """A mistake is told by one process: the first that comes to it."""
    try:
        yield
    except GeomkitError as mistake:
        if asked() > 1 and not _tells():
            raise SystemExit(mistake.exit_code) from mistake
        raise
    except RuntimeError as cause:
        if asked() > 1 and (isinstance(cause, distributed.DistError) or "gloo" in str(cause)):
            raise SystemExit(GeomkitError.exit_code) from cause  # another one ended, and told why
        raise


def _tells() -> bool:
    """Whether this is the first to ask, as the launcher's memory has it."""
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    try:
        store = distributed.TCPStore(host, int(port), is_master=False, timeout=SOON)  # type: ignore[attr-defined]  # torch exports it
        return bool(store.add(TOLD, 1) == 1)
    except (ValueError, RuntimeError):  # no launcher: each speaks for itself
        return True


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


def average(gradients: Iterable[Tensor | None]) -> None:
    """The mean over all processes, in place, of gradients that all have in the same order."""
    if count() == 1:
        return
    for gradient in gradients:
        if gradient is not None:  # as it is then in all: a batch is of one kind
            distributed.all_reduce(gradient)
            gradient.div_(count())


def first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; the others wait for it."""
    if count() == 1:
        return make()
    made: list[Any] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(made, src=0)
    return made[0]  # type: ignore[no-any-return]  # as it was made


def check_equal(value: Any) -> None:
    """Raise where processes that take the same steps have come to differ.

    Raises:
        TrainingError: they have.
    """
    if count() == 1:
        return
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value)
    if any(one != value for one in found):
        raise TrainingError(
            f"Expected equal weights in all {count()} processes after the last step, they differ: "
            "look for processes on machines of different kinds, and train on one kind."
        )
