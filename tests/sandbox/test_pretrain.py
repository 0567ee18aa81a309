"""Pretraining resumes exactly, ships what it trained, and climbs the ladder; all at toy sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM

from geomkit.sandbox.architecture import Size
from geomkit.sandbox.ladder import climb
from geomkit.sandbox.pretrain import Mix, Pretraining, Scenes, pretrain

TOY = Size(
    hidden=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    vision_hidden=32,
    vision_layers=1,
    audio_hidden=32,
    audio_layers=1,
)
QUICK = Pretraining(
    steps=4, warmup=2, mixes=(Mix(0, 2, 2, 2),), evaluate_every=2, evaluation_scenes=4
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _weights(snapshot: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(snapshot, weights_only=True)["model"]
    return found


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path) -> None:
    pretrain(tmp_path / "whole", QUICK, TOY, workers=0)
    half = tmp_path / "whole" / "snapshot-00002.pt"
    pretrain(tmp_path / "resumed", QUICK, TOY, resume=half, workers=0)
    name = "snapshot-00004.pt"
    whole, resumed = (_weights(tmp_path / run / name) for run in ("whole", "resumed"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not all(torch.equal(whole[k], _weights(half)[k]) for k in whole)


def test_the_rate_warms_up_holds_and_decays() -> None:
    schedule = Pretraining(steps=1000, warmup=100, learning_rate=1.0)
    rates = [schedule.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100:800] == [1.0] * 700
    assert rates[900] == pytest.approx(0.5)
    assert rates[999] == pytest.approx(1 / 200)


def test_a_step_draws_its_mix_from_training_scenes_only() -> None:
    schedule = Pretraining(mixes=(Mix(0, 2, 2, 2), Mix(10, 0, 0, 4)))
    scenes = Scenes(schedule)
    early, late = scenes[0], scenes[10]
    assert [len(batch["input_ids"]) for batch in early] == [3, 3]
    assert [len(batch["input_ids"]) for batch in late] == [2, 2]
    assert "pixel_values" in early[0]
    assert "pixel_values" not in late[0]


def test_the_ladder_measures_every_rung_and_keeps_what_is_there(tmp_path: Path) -> None:
    rungs = climb(tmp_path, (2, 4), {"toy": TOY}, schedule=QUICK, scenes=4)
    assert [r["steps"] for r in rungs] == [2, 4]
    assert set(rungs[0]["caption_loss"]) == {
        *("text about image", "text about audio", "image", "audio")
    }
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path / rungs[0]["path"])
    assert next(loaded.parameters()).dtype == torch.float16
    before = (tmp_path / rungs[1]["path"] / "model.safetensors").stat().st_mtime_ns
    assert climb(tmp_path, (2, 4), {"toy": TOY}, schedule=QUICK, scenes=4) == rungs
    assert (tmp_path / rungs[1]["path"] / "model.safetensors").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "ladder.json").read_text()) == rungs
