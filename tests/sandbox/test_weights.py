"""What ships is what its papers say: size, mastery, and an adapter that saw text only."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open

from geomkit import sandbox
from geomkit.checkpoints import load_checkpoints
from geomkit.places import CheckpointSpec
from geomkit.sandbox.pretrain import evaluate

BASE, LCO = (sandbox.checkpoint_path(name) for name in ("base", "lco"))
MEGABYTES = 12


def _json(path: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_both_checkpoints_together_are_small() -> None:
    size = sum(f.stat().st_size for folder in (BASE, LCO) for f in folder.rglob("*"))
    assert size < MEGABYTES * 2**20


def test_the_base_is_in_half_precision() -> None:
    with safe_open(BASE / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118 - no mapping


def test_the_base_answers_as_well_as_its_record_says() -> None:
    """Fewer scenes than the record: each accuracy may differ by its own sampling error."""
    torch.set_num_threads(1)
    (base,) = load_checkpoints(
        [CheckpointSpec("base", "sandbox:base")], dtype="float32", attn="sdpa", device="cpu"
    )
    told = _json(BASE / "mastery.json")
    scenes = 40
    found = evaluate(base.model, "test", scenes=scenes, seed=1)
    for name, accuracies in told["accuracy"].items():
        for attribute, share in accuracies.items():
            slack = 4 * (share * (1 - share) / scenes) ** 0.5 + 0.06
            assert found["accuracy"][name][attribute] == pytest.approx(share, abs=slack), attribute


def test_the_adapter_saw_text_only_and_changed_nothing_else() -> None:
    record = _json(LCO / "training.json")
    assert record["media"] == {"image": 0, "audio": 0, "video": 0}
    assert record["trained"] == ["text"]
    assert record["trainable_outside"] == 0
    assert record["frozen_before"] == record["frozen_after"]


def test_the_adapter_belongs_to_this_base() -> None:
    """A base that is shipped anew without its adapter would compare two different models."""
    base, lco = load_checkpoints(
        [CheckpointSpec("base", "sandbox:base"), CheckpointSpec("lco", "sandbox:lco")],
        dtype="float32",
        attn="sdpa",
        device="cpu",
    )
    assert base.model is lco.model
    told = _json(LCO / "training.json")
    from geomkit.training.scope import region_hashes

    loaded = region_hashes(base.model)
    shared = {k: v for k, v in loaded.items() if k in told["frozen_before"]}
    assert shared == told["frozen_before"]
