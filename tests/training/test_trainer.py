"""Three steps of training: the adapter moves, nothing else does, and it is all on record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geomkit.errors import TrainingError, UsageError
from geomkit.training import checking, fitting, trainer
from geomkit.training.adapter import load_adapter
from geomkit.training.config import TrainConfig
from geomkit.training.embedder import DecoderEmbedder
from geomkit.training.fitting import Job
from geomkit.training.generation import Captions
from geomkit.training.pairs import PairSet, TextPair
from geomkit.training.record import TrainingRecord
from geomkit.training.scope import region_hashes
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.loaded import load

Trained = tuple[TrainingRecord, Path]


@pytest.fixture(scope="module")
def trained(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    held_out: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    out = tmp_path_factory.mktemp("trained") / "adapter"
    rows = PairSet("rows", pairs, {"duplicate": 2})
    answers = {held_out[0].id: "a red circle"}
    captions = Captions(held_out, answers=answers)
    return train(quick, base, rows, out, captions=captions, source="tiny"), out


def test_the_adapter_changed_and_nothing_else_did(trained: Trained) -> None:
    record, out = trained
    assert record.frozen_before == record.frozen_after
    assert {"decoder", "embeddings", "head"} < set(record.frozen_before)
    tensors = load_file(out / "adapter_model.safetensors")
    assert len(tensors) == record.adapter_tensors == 2 * 14
    assert all(t.dtype == torch.float32 for t in tensors.values())
    assert all(t.abs().max() > 0 for n, t in tensors.items() if "lora_B" in n)


def test_the_base_files_are_untouched(base: Path, trained: Trained) -> None:
    # the fixture trained from these files: a second load still gives the recorded hashes
    model = load(base).model
    assert region_hashes(model) == trained[0].frozen_before


def test_the_record_says_text_only_and_what_trained(trained: Trained) -> None:
    record, out = trained
    written = json.loads((out / "training.json").read_text())
    assert written == json.loads(record.to_json())
    assert written["trained"] == ["text"]
    assert written["media"] == {"image": 0, "audio": 0, "video": 0}
    assert written["trainable_outside"] == 0
    assert all(record.decoder in name for name in record.trainable_names)
    assert (written["pairs"], written["dropped"], written["source"]) == (
        60,
        {"duplicate": 2},
        "rows",
    )
    assert [step["step"] for step in written["steps"]] == [1, 2, 3]
    assert all(0 <= step["accuracy"] <= 1 and step["loss"] > 0 for step in written["steps"])
    assert written["config"]["rank"] == 4
    assert written["instruction"].startswith("\nSummarize the above text")


def test_no_path_of_the_machine_is_recorded(trained: Trained, base: Path) -> None:
    for file in ("training.json", "adapter_config.json"):
        assert str(base.parent) not in (trained[1] / file).read_text()


def test_generative_loss_is_recorded_per_modality(trained: Trained) -> None:
    found = {change.modality: change for change in trained[0].generation}
    assert list(found) == ["text", "image", "audio"]
    assert [found[m].n for m in ("text", "image", "audio")] == [6, 3, 3]
    for change in found.values():
        assert change.difference == pytest.approx(change.after - change.before, abs=1e-12)
        assert change.difference != 0
        if change.n < 5:
            assert (change.interval, change.note) == (None, "too few groups for an interval")
        else:
            assert change.interval is not None
            assert change.interval.low < change.difference < change.interval.high


def test_every_adapter_tensor_loads(trained: Trained, base: Path) -> None:
    model = load(base).model
    adapted = load_adapter(model, trained[1])
    moved = [p for n, p in adapted.named_parameters() if "lora_B" in n and p.abs().max() > 0]
    assert len(moved) == 14


def test_an_adapter_of_another_model_is_refused(trained: Trained, base: Path) -> None:
    # peft alone only warns here, and the adapter then does nothing
    with pytest.raises((TrainingError, ValueError), match=r"did not|not found in the base"):
        load_adapter(load(base).model.model.audio_tower, trained[1])


def test_a_folder_without_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    model = load(base).model
    with pytest.raises(TrainingError, match="no adapter folder"):
        load_adapter(model, tmp_path)


def test_same_seed_same_bytes_other_seed_other_bytes(
    trained: Trained, base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    again = train(quick, base, pairs, tmp_path / "again")
    assert again.adapter_sha == trained[0].adapter_sha
    weights = [f / "adapter_model.safetensors" for f in (trained[1], tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    other = train(replace(quick, seed=1), base, pairs, tmp_path / "other")
    assert other.adapter_sha != again.adapter_sha


def test_loss_falls_on_a_small_set(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, steps=25, learning_rate=1e-2)
    steps = train(config, base, pairs[:16], tmp_path / "a").steps
    assert sum(s.loss for s in steps[-5:]) < 0.7 * sum(s.loss for s in steps[:5])
    assert steps[-1].accuracy > steps[0].accuracy


def test_a_leak_into_a_tower_is_caught(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = trainer.fit

    def leaky(job: Job, *rest: Any) -> Any:
        steps = honest(job, *rest)
        tower = next(p for n, p in job.arm.model.named_parameters() if "visual" in n)
        tower.data.view(-1)[0] += 1e-3
        return steps

    monkeypatch.setattr(trainer, "fit", leaky)
    with pytest.raises(
        TrainingError, match=r"Expected frozen weights to stay, but .*visual changed"
    ):
        train(quick, base, pairs, tmp_path / "a")
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


def test_an_exploding_training_stops(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="finite loss"):
        train(replace(quick, learning_rate=1e30, steps=10), base, pairs, tmp_path / "a")


def test_what_does_not_fit_into_memory_says_what_to_lower(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(DecoderEmbedder, "forward", full)
    with pytest.raises(TrainingError, match=r"step 1 to fit into memory.*--mini-batch \(now 8\)"):
        train(quick, base, pairs, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("save_steps", [0, 2])
def test_what_a_logger_writes_stays_beside_the_result(
    save_steps: int,
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = fitting.arguments_of

    def written(job: Job, folder: Path, device: str) -> Any:
        (folder / "runs").mkdir(parents=True)
        (folder / "runs" / "curve").touch()
        silent = replace(job, config=replace(job.config, report_to="none"))
        return honest(silent, folder, device)

    monkeypatch.setattr(fitting, "arguments_of", written)
    monkeypatch.setattr(checking, "get_available_reporting_integrations", lambda: ["tensorboard"])
    config = replace(quick, report_to="tensorboard", save_steps=save_steps, geometry_every=0)
    train(config, base, pairs, tmp_path / "a")
    assert [p.parent.name for p in (tmp_path / "a").rglob("curve")] == ["runs"]


def test_two_trainings_into_one_folder_are_one_too_many(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    told = []

    def meanwhile(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            with pytest.raises(TrainingError, match=r"one process to write .*another one is at it"):
                train(quick, base, pairs, tmp_path / "a")
            told.append(done)

    train(quick, base, pairs, tmp_path / "a", progress=meanwhile)
    assert told == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_too_few_pairs(base: Path, quick: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least 8 pairs to fill one batch, got 1"):
        train(quick, base, [TextPair("a", "b", "c")], tmp_path / "a")


def test_too_many_equal_texts(base: Path, quick: TrainConfig, tmp_path: Path) -> None:
    same = [TextPair("a red circle", "one red disc", "a blue ring", str(k)) for k in range(20)]
    with pytest.raises(TrainingError, match="batches of 8 distinct texts"):
        train(quick, base, same, tmp_path / "a")


def test_some_pairs_without_negative(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    mixed = [*pairs, TextPair("a", "b")]
    with pytest.raises(TrainingError, match="in every pair or in none, got 60 of 61"):
        train(quick, base, mixed, tmp_path / "a")


def test_an_output_in_use_is_refused(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(TrainingError, match="new or empty"):
        train(quick, base, pairs, tmp_path)


def test_an_unknown_prompt_is_refused(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"prompt preset .*got 'nothing'"):
        train(replace(quick, prompt="nothing"), base, pairs, tmp_path / "a")


def test_control_tokens_in_the_text_are_refused(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    injected = [*pairs, TextPair("a<|im_end|>", "b", "c")]
    with pytest.raises(TrainingError, match=r"pair 61 holds the control token <\|im_end\|>"):
        train(quick, base, injected, tmp_path / "a")
