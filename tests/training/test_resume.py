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

import pytest
from safetensors.torch import load_file

from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train

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
    kept = tmp_path / "cut" / "checkpoints"
    assert sorted(p.name for p in kept.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    (kept / "checkpoint-6").mkdir()  # as a kill while it is written leaves it
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


def test_another_training_does_not_go_on_from_it(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    out = tmp_path / "cut"

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, base, pairs, out, progress=stop)
    with pytest.raises(TrainingError, match="interrupted, but its config differ"):
        train(replace(config, seed=1), base, pairs, out)
    with pytest.raises(TrainingError, match="interrupted, but its pairs differ"):
        train(config, base, pairs[1:], out)
    with pytest.raises(TrainingError, match="new or empty"):
        train(replace(config, save_steps=0), base, pairs, out)
    assert len(train(config, base, pairs, out).steps) == 7
    with pytest.raises(TrainingError, match="new or empty"):
        train(config, base, pairs, out)


def test_a_folder_that_it_did_not_make_is_left_alone(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    precious = tmp_path / "out" / "checkpoints" / "checkpoint-500" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    with pytest.raises(TrainingError, match="a folder that it did not make"):
        train(config, base, pairs, tmp_path / "out")
    assert precious.exists()


def test_nothing_is_kept_where_nothing_is_asked_for(
    config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], tmp_path: Path
) -> None:
    train(replace(config, save_steps=0, steps=2), base, pairs, tmp_path / "a")
    assert not (tmp_path / "a" / "checkpoints").exists()
