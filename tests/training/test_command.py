"""`geomkit train` as one types it: leaks, kills and mistakes end in a sentence and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from geomkit import cli
from geomkit.training import trainer
from geomkit.training.pairs import TextPair

Command = Callable[..., tuple[int, str]]
QUICK = (
    "--preset", "sandbox", "--rank", "4", "--steps", "2", "--batch", "6", "--mini-batch", "6",
    "--warmup-steps", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(pairs: tuple[TextPair, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "pairs.jsonl"
    path.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in pairs))
    return str(path)


@pytest.fixture
def train(
    base: Path,
    texts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Run it in this process, into `lco` of the test's folder: (exit code, stderr)."""

    def run(*given: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        start = ("geomkit", "train", "--ckpt", str(base), "--pairs", texts, "--out", "lco")
        monkeypatch.setattr(sys, "argv", [*start, *QUICK, *given])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return int(stopped.value.code or 0), " ".join(said.split())

    return run


def test_a_leak_into_a_tower_is_caught_before_the_first_step(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of names, as scripts have it, is no scope: towers have layers of these names too."""

    def names(_model: Any, wanted: tuple[str, ...]) -> str:
        return rf".*\.(?:{'|'.join(wanted)})"

    for module in ("adapter", "methods"):
        monkeypatch.setattr(f"geomkit.training.{module}.target_pattern", names)
    steps: list[Any] = []
    monkeypatch.setattr(trainer, "fit", lambda *job: steps.append(job))
    code, said = train()
    assert code == 3
    assert "Expected LoRA in the decoder's blocks" in said
    assert "more would: model.audio_tower.layers.0.self_attn." in said
    assert steps == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [
        (("--report-to", "foo"), 2, "Expected a place to report to, got 'foo'"),
        (("--report-to", "mlflow"), 4, "Expected mlflow to report to, it is not installed"),
        (("--seed", "99999999999"), 2, "Expected seed of 4294967295 or less"),
        (("--out", "file"), 3, "Expected file to be new or empty"),
        (("--out", "file/lco"), 3, "Expected a folder file/lco that can be written"),
        (("--out", "."), 3, ". is a disk or where you are"),
        (("--out", "x" * 250), 3, "File name too long"),
        (("--method", "clip", "--train-towers", "--qlora"), 2, "--qlora without --train-towers"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    train: Command, tmp_path: Path, given: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "file").write_text("mine")
    got, said = train(*given)
    assert (got, sentence in said) == (code, True), said
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


PROGRAM = """
import os, signal, sys
from geomkit import cli
from geomkit.training import fitting

honest, last = fitting._Ticker.on_step_end, int(sys.argv.pop(1))

def killing(self, args, state, control, **given):
    honest(self, args, state, control, **given)
    if state.global_step == last:
        os.kill(os.getpid(), signal.SIGKILL)

fitting._Ticker.on_step_end = killing
cli.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_what_is_killed_goes_on_to_the_same_bits(base: Path, texts: str, tmp_path: Path) -> None:
    """With dropout, both guards and the callback on; killed in the middle and at the last step."""
    given = (
        *QUICK, "--steps", "7", "--batch", "12", "--save-steps", "2", "--geometry-every", "3",
        "--dropout", "0.2", "--spike", "1.5", "--collapse", "0.25",
    )  # fmt: skip

    def program(out: str, kill: int) -> int:
        start = ("train", "--ckpt", str(base), "--pairs", texts, "--out", out)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(kill), *start, *given],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode

    assert program("whole", 0) == 0
    assert program("cut", 5) == program("cut", 7) == -signal.SIGKILL
    assert not (tmp_path / "cut").exists()
    assert program("cut", 0) == 0
    names = ("adapter_model.safetensors", "adapter_config.json", "checkpoints/resume.json")
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    whole, cut = (
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("whole", "cut")
    )
    assert [(s["step"], s["loss"]) for s in cut["steps"]] == [
        (s["step"], s["loss"]) for s in whole["steps"]
    ]
    assert cut["notices"] == whole["notices"]
    assert [g["step"] for g in cut["geometry"]] == [g["step"] for g in whole["geometry"]]
    assert {g["step"] for g in cut["geometry"]} == {0, 3, 6, 7}
    for one, other in zip(cut["geometry"], whole["geometry"], strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-9)
