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
from geomkit.training import fitting
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


def _launched(rank: int, port: int) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }


def _one(rank: int, port: int, folder: str, base: str, given: dict[str, Any]) -> None:
    """Train every case as one of two processes."""
    torch.set_num_threads(1)
    for number, name in enumerate(CASES):
        _launched(rank, port + number)
        out = Path(folder) / name
        rows = given["scenes" if config_of(name).method == "clip" else "pairs"]
        with seen() as live:
            record = train(config_of(name), base, rows, out, source="tiny")
        torch.save(pack(live, record), Path(folder) / f"{name}-{rank}.pt")


class _Cut(Exception):
    """The system ends a process."""


def _twice(rank: int, port: int, folder: str, base: str, pairs: Any) -> None:
    """Train with dropout; and again, cut in two."""
    torch.set_num_threads(1)
    given = {"steps": 5, "save_steps": 2, "dropout": 0.3}
    config = replace(config_of("direct"), **given)
    _launched(rank, port)
    whole = train(config, base, pairs, Path(folder) / "whole", source="tiny")
    honest = fitting._Trainer.training_step

    def cut(self: Any, *rest: Any) -> Any:
        if self.state.global_step == 3:
            raise _Cut
        return honest(self, *rest)

    _launched(rank, port + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting._Trainer, "training_step", cut)
        with pytest.raises(_Cut):
            train(config, base, pairs, Path(folder) / "cut", source="tiny")
    _launched(rank, port + 2)
    again = train(config, base, pairs, Path(folder) / "cut", source="tiny")
    told = [[whole.adapter_sha, again.adapter_sha], [len(r.steps) for r in (whole, again)]]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(told))


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


@pytest.mark.slow
def test_two_that_were_interrupted_go_on_to_the_same_bits(
    base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    """Each with the dice it had: they draw other masks."""
    args = (free_port(), str(tmp_path), str(base), pairs)
    multiprocessing.spawn(_twice, args=args, nprocs=2)  # type: ignore[no-untyped-call]  # torch
    for rank in (0, 1):
        (whole, again), steps = json.loads((tmp_path / f"{rank}.json").read_text())
        assert whole == again
        assert steps == [5, 5]


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
