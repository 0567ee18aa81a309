"""The gate's own checks, each with the fault that it is there for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from geomkit import forward, gate, hooks
from geomkit.batches import Batch, Reader
from geomkit.capture import CaptureConfig
from geomkit.checkpoints import Checkpoint, load_checkpoint
from geomkit.plans import build_plan, by_id
from geomkit.processing import Processor, load_processor
from tests.families import SITES
from tests.tiny_models import saved, scenes

POOLINGS = ("last", "mean")
Ready = tuple[Checkpoint, Processor, Batch]


@pytest.fixture(scope="module")
def ready() -> Ready:
    folder, samples = saved("qwen2_5_vl"), scenes(3)
    plan = build_plan("set", samples, CaptureConfig(modalities=("text",)))
    processor = load_processor(folder)
    batch = Reader(plan, by_id(samples), processor, 300).read(plan.batches[0])
    return load_checkpoint("c", str(folder), device="cpu"), processor, batch


def checked(ready: Ready) -> Mapping[str, Mapping[str, Any]]:
    return gate.check(*ready, SITES, POOLINGS)


def test_all_is_well(ready: Ready) -> None:
    found = checked(ready)
    assert all(result["passed"] for result in found.values())
    assert found["text.hook_equals_hf"] == {"passed": True, "value": 0.0, "tolerance": 0.0}


def test_hidden_states_that_are_a_little_other_do_not_pass(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = hooks.stream

    def off(*args: Any) -> torch.Tensor:
        return stream(*args) + 1e-4

    monkeypatch.setattr(gate, "stream", off)
    found = checked(ready)["text.hook_equals_hf"]
    assert not found["passed"]
    assert 0 < found["value"] < 1e-3


@pytest.mark.parametrize("end", [0, -1])
def test_a_row_that_its_neighbours_move_is_seen_at_either_end(
    end: int, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortest row is padded most; the longest is where a budget of attention would end."""
    batch = ready[2]
    order = sorted(batch.shown, key=lambda index: batch.n_tokens[index])
    assert batch.n_tokens[order[0]] < batch.n_tokens[order[-1]]
    place, states = list(batch.shown).index(order[end]), forward.states

    def moved(one: Checkpoint, inputs: Mapping[str, Any], *rest: Sequence[Any]) -> Any:
        found = {name: np.array(table) for name, table in states(one, inputs, *rest).items()}
        if len(inputs["input_ids"]) > 1:
            found["mean"][place] += 1.0
        return found

    monkeypatch.setattr(gate, "states", moved)
    found = checked(ready)
    assert not found["text.alone_equals_batched"]["passed"]
    assert found["text.left_equals_right"]["passed"]  # it moved on both sides
