"""Two processes with half the batch each do what one does with all of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from tests.training.test_loss import PAIRS, batch, make

MINI_BATCHES = (4, 1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _half(rank: int, port: int, folder: str) -> None:
    """Gradient and loss of one half, averaged over both as DDP does; direct and cached."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    features, labels = batch(PAIRS[:4])
    own = slice(2 * rank, 2 * rank + 2)
    found = []
    for mini_batch in MINI_BATCHES:
        model, loss = make(mini_batch)
        value = loss([{n: t[own] for n, t in column.items()} for column in features], labels[own])
        value.backward()
        both = [model[0].weight.grad, value.detach().clone()]
        for part in both:
            distributed.all_reduce(part)
        found.append([part / 2 for part in both])
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(  # type: ignore[no-untyped-call]  # torch
        _half, args=(_free_port(), str(tmp_path)), nprocs=2
    )
    model, loss = make(4)
    features, labels = batch(PAIRS[:4])  # rows 0 and 2, in other halves, are of one group
    value = loss(features, labels)
    value.backward()
    for rank in (0, 1):
        for gradient, mean in torch.load(tmp_path / f"{rank}.pt"):
            assert torch.allclose(gradient, model[0].weight.grad, atol=1e-7)
            assert float(mean) == pytest.approx(float(value.detach()), abs=1e-6)
