"""Two processes with half of each batch train what one does with all of it, and one writes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from geomkit.errors import TrainingError, UsageError
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.live import Live, seen

CASES: dict[str, dict[str, Any]] = {
    "direct": {"save_steps": 2, "geometry_every": 2},
    "cached": {"mini_batch": 3},
    "joint and kl": {"method": "joint", "kl": 5.0, "mini_batch": 3},
    "full": {"method": "full", "kl": 5.0, "mini_batch": 3},
    "clip": {"method": "clip", "mini_batch": 3},
}


def config_of(name: str) -> TrainConfig:
    return TrainConfig.of(
        "sandbox",
        **{
            "rank": 4,
            "steps": 3,
            "batch": 8,
            "mini_batch": 8,
            "warmup_steps": 0,
            "temperature": 0.3,
            "learning_rate": 5e-3,
            "geometry_every": 0,
            **CASES[name],
        },
    )


def pack(live: Live, record: Any) -> dict[str, Any]:
    parts = {"losses": live.losses, "gradients": live.gradients, "weights": live.weights[-1]}
    rows = [given["label"][:, 1].tolist() for given in live.inputs]
    return {**parts, "rows": rows, "record": record.to_json()}


def _one(rank: int, port: int, folder: str, base: str, given: dict[str, Any]) -> None:
    """Train every case as one of two processes."""
    torch.set_num_threads(1)
    for number, name in enumerate(CASES):
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port + number),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
        }
        out = Path(folder) / name
        rows = given["scenes" if config_of(name).method == "clip" else "pairs"]
        with seen() as live:
            record = train(config_of(name), base, rows, out, source="tiny")
        torch.save(pack(live, record), Path(folder) / f"{name}-{rank}.pt")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


Both = Callable[[str], tuple[dict[str, Any], list[dict[str, Any]], Path]]


@pytest.fixture(scope="module")
def both(
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Both:
    """A case as one process trains it, as each of two does, and the folder of the two."""
    folder = tmp_path_factory.mktemp("two")
    scenes = [
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {'x' * k}", group="")
        for k in range(3)
        for s in held_out
    ]
    grouped = [replace(pair, group=str(k // 2)) for k, pair in enumerate(pairs)]
    given = {"pairs": grouped, "scenes": scenes}
    args = (free_port(), str(folder), str(base), given)
    multiprocessing.spawn(_one, args=args, nprocs=2)  # type: ignore[no-untyped-call]  # torch

    def get(name: str) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
        out = tmp_path_factory.mktemp("one") / "out"
        with seen() as live:
            rows: Any = scenes if config_of(name).method == "clip" else grouped
            record = train(config_of(name), base, rows, out, source="tiny")
        two = [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)]
        return pack(live, record), two, folder / name

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_train_what_one_does(name: str, both: Both) -> None:
    one, two, _ = both(name)
    # the same rows in the same order, each process with its half
    assert [a + b for a, b in zip(two[0]["rows"], two[1]["rows"], strict=True)] == one["rows"]
    for step in range(3):
        for other in two:
            assert one["gradients"][step].keys() == other["gradients"][step].keys()
            for tensor, gradient in one["gradients"][step].items():
                found = other["gradients"][step][tensor]
                assert torch.allclose(gradient, found, atol=2e-6, rtol=2e-3), (step, tensor)
    records = [json.loads(run["record"]) for run in (one, *two)]
    for field in ("loss", "grad_norm", "accuracy", "learning_rate"):
        told = [[step[field] for step in record["steps"]] for record in records]
        assert told[1] == told[2]
        assert told[0] == pytest.approx(told[1], rel=1e-4, abs=1e-5)
    for tensor, weight in one["weights"].items():
        assert torch.equal(two[0]["weights"][tensor], two[1]["weights"][tensor])
        assert torch.allclose(weight, two[0]["weights"][tensor], atol=2e-5), tensor


@pytest.mark.slow
def test_one_of_them_writes_and_all_know_what(both: Both) -> None:
    _, two, out = both("direct")
    assert two[0]["record"] == two[1]["record"] == (out / "training.json").read_text()
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert [name for name in kept if name.startswith("checkpoint-")] == [
        "checkpoint-2",
        "checkpoint-3",
    ]
    assert sorted(path.name for path in (out / "checkpoints" / "checkpoint-2").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not list(out.parent.glob(".*"))


def test_a_batch_must_be_shared_evenly(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="3 processes share evenly, got 8"):
        train(quick, base, pairs, tmp_path / "a")


def test_a_number_without_a_launcher_is_refused(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match=r"2 processes that find each other.*torchrun"):
        train(quick, base, pairs, tmp_path / "a")
