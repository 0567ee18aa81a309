"""What is interrupted goes on, to the same bits; steps that are kept are checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.sandbox import architecture
from geomkit.store.records import from_json
from geomkit.training import trainer
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import PairSet, TextPair
from geomkit.training.record import TrainingRecord
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.conftest import SMALL

KILLED = textwrap.dedent(
    """
    import json, os, signal, sys
    import torch
    from pathlib import Path
    from geomkit.training.config import TrainConfig
    from geomkit.training.pairs import TextPair
    from geomkit.training.trainer import train

    torch.set_num_threads(1)
    config, base, pairs, out, last = json.loads(sys.stdin.read())

    def progress(_stage, done, _total):
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    rows = tuple(TextPair(**pair) for pair in pairs)
    train(TrainConfig(**config), base, rows, Path(out), source="tiny", progress=progress)
    """
)


@pytest.fixture(scope="module")
def config(quick: TrainConfig) -> TrainConfig:
    """Seven steps over more than one epoch, with dropout: all that draws lots is in it."""
    return replace(quick, steps=7, save_steps=2, dropout=0.2, geometry_every=2, batch=12)


def killed(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], out: Path, last: int
) -> None:
    given = json.dumps([asdict(config), str(base), [asdict(p) for p in pairs], str(out), last])
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=given,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_training_goes_on_to_the_same_bits(
    method: str, config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    config = replace(config, method=method)
    base = Path(base)
    whole = train(config, base, pairs, tmp_path / "whole", source="tiny")
    killed(config, base, pairs, tmp_path / "cut", last=5)
    assert not (tmp_path / "cut").exists()
    kept = tmp_path / ".cut.training" / "result" / "checkpoints"
    assert sorted(p.name for p in kept.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    (kept / "checkpoint-6").mkdir()  # as a kill while it is written leaves it
    assert (kept / "checkpoint-4" / "optimizer.pt").stat().st_size > 0
    again = train(config, base, pairs, tmp_path / "cut", source="tiny")
    assert again.adapter_sha == whole.adapter_sha
    assert [(s.step, s.loss) for s in again.steps] == [(s.step, s.loss) for s in whole.steps]
    # the weights are equal to the bit; a sum over them in another process may differ in its last
    for one, other in zip(again.geometry, whole.geometry, strict=True):
        assert replace(one, value=None) == replace(other, value=None)
        assert one.value == pytest.approx(other.value, rel=1e-9)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    files = [(tmp_path / run / name).read_bytes() for run in ("whole", "cut")]
    assert files[0] == files[1]


def timeless(record: TrainingRecord) -> TrainingRecord:
    """A record without what a clock says."""
    steps = tuple(replace(step, seconds=0.0) for step in record.steps)
    return replace(record, steps=steps, seconds=0.0, steps_per_second=0.0)


def stopped(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("steps", "epochs"), [(7, 1.0), (0, 2.0)])
def test_after_the_last_step_there_is_not_one_more(
    steps: int,
    epochs: float,
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(config, steps=steps, epochs=epochs)
    whole = train(config, base, pairs, tmp_path / "whole", source="tiny")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_prove", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, base, pairs, tmp_path / "cut", source="tiny")
    again = train(config, base, pairs, tmp_path / "cut", source="tiny")
    assert [step.step for step in again.steps] == list(range(1, (steps or 10) + 1))
    assert timeless(again) == timeless(whole)


def test_kept_steps_are_adapters_on_the_way(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    train(config, base, pairs, tmp_path / "lco", source=str(base))
    kept = tmp_path / "lco" / "checkpoints"
    steps = [load_file(kept / f"checkpoint-{k}" / "adapter_model.safetensors") for k in (2, 4, 6)]
    last = load_file(tmp_path / "lco" / "adapter_model.safetensors")
    name = min(n for n in last if "lora_B" in n)
    gone = [float((table[name] - last[name]).norm()) for table in steps]
    assert gone[0] > gone[1] > gone[2] > 0
    assert load_checkpoint("early", str(kept / "checkpoint-2")).adapter
    assert sorted(p.name for p in (kept / "checkpoint-2").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def interrupted(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], out: Path, last: int
) -> None:
    def stop(_stage: str, done: int, _total: int) -> None:
        if done == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, base, pairs, out, progress=stop)


def test_another_training_does_not_go_on_from_it(
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    tmp_path: Path,
) -> None:
    out = tmp_path / "cut"
    interrupted(config, base, pairs, out, last=3)
    with pytest.raises(TrainingError, match=r"interrupted, but its seed \(0, now 1\) differ"):
        train(replace(config, seed=1), base, pairs, out)
    with pytest.raises(TrainingError, match="interrupted, but its pairs"):
        train(config, base, pairs[1:], out)
    with pytest.raises(TrainingError, match="interrupted, but its probe set differ"):
        train(config, base, pairs, out, watched=held_out)
    with pytest.raises(TrainingError, match=r"save_steps .*remove that one to begin anew"):
        train(replace(config, save_steps=0), base, pairs, out)
    other = tmp_path / "other"
    torch.manual_seed(7)
    architecture.save(architecture.build(SMALL), other)
    with pytest.raises(TrainingError, match="interrupted, but its base differ"):
        train(config, other, pairs, out)
    assert len(train(config, base, pairs, out).steps) == 7
    with pytest.raises(TrainingError, match="new or empty"):
        train(config, base, pairs, out)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["cut", "other"]


@pytest.mark.parametrize(
    "given",
    [
        {"method": "linear"},
        {"method": "joint", "kl": 0.1},
        {"method": "full", "kl": 0.1, "gradient_checkpointing": True},
        {"method": "clip", "batch": 3},
        {"method": "clip", "batch": 3, "train_towers": True},
        {"method": "lora", "mixed": True, "batch": 3, "mini_batch": 2},
        {"shuffle_pairs": True, "epochs": 1.5, "steps": 0},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_every_method_goes_on_to_the_same_bits(
    given: dict[str, Any],
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    tmp_path: Path,
) -> None:
    mixed = held_out if given.pop("mixed", False) else ()
    config = replace(config, **given)
    rows: Any = held_out if config.method == "clip" else PairSet("rows", pairs[:30], {}, mixed)
    if config.method != "clip" and not mixed:
        rows = pairs
    whole = train(config, base, rows, tmp_path / "whole", source="tiny")
    interrupted(config, base, rows, tmp_path / "cut", last=5)
    again = train(config, base, rows, tmp_path / "cut", source="tiny")
    assert timeless(again) == timeless(whole)


def test_a_step_that_is_kept_is_a_checkpoint_before_the_end(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            kept = tmp_path / ".cut.training" / "result" / "checkpoints" / "checkpoint-2"
            assert load_checkpoint("early", str(kept)).adapter

    train(config, base, pairs, tmp_path / "cut", source=str(base), progress=stop)


@pytest.mark.parametrize("save_steps", [0, 2])
def test_what_is_whole_waits_until_it_can_be_renamed(
    save_steps: int,
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Someone wrote into OUT while it was trained: the training is not lost."""
    out = tmp_path / "cut"
    config = replace(config, save_steps=save_steps, geometry_every=0)

    def meanwhile(_stage: str, done: int, _total: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "mine").touch()

    with pytest.raises(TrainingError, match=r"which is whole, to .*cut, but .*not empty"):
        train(config, base, pairs, out, progress=meanwhile)
    with pytest.raises(TrainingError, match="new or empty"):
        train(config, base, pairs, out)
    (out / "mine").unlink()
    with pytest.raises(TrainingError, match="interrupted, but its alpha"):
        train(replace(config, alpha=3.0), base, pairs, out)
    monkeypatch.setattr(trainer, "fit", stopped)  # not one step more
    record = train(config, base, pairs, out)
    assert record == from_json(TrainingRecord, out / "training.json")
    assert len(record.steps) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["cut"]


def test_an_interruption_before_the_first_kept_step_leaves_nothing(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    interrupted(config, base, pairs, tmp_path / "cut", last=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["optimizer.pt", "trainable.safetensors", "trainer_state.json"])
def test_a_damaged_step_is_none(
    name: str, config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    """As a power cut leaves it: a name without the bytes."""
    whole = train(config, base, pairs, tmp_path / "whole", source="tiny")
    interrupted(config, base, pairs, tmp_path / "cut", last=5)
    kept = tmp_path / ".cut.training" / "result" / "checkpoints"
    (kept / "checkpoint-4" / name).write_bytes(b"")
    again = train(config, base, pairs, tmp_path / "cut", source="tiny")
    assert again.adapter_sha == whole.adapter_sha


def test_nothing_is_kept_where_nothing_is_asked_for(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    train(replace(config, save_steps=0, steps=2), base, pairs, tmp_path / "a")
    assert not (tmp_path / "a" / "checkpoints").exists()
