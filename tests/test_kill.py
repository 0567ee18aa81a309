"""A capture that is killed, interrupted or terminated goes on to the bytes of one that was not.

Importing torch takes longer than the capture, so one process imports everything once and forks a
capture per attempt; five attempts more are the real command line, imports and all.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from geomkit.store import open_run, verify_run
from tests import tiny_models

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ATTEMPTS = 30
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals and fork")

WORKER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from tests import tiny_models

model, whole, killed, attempts = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
samples = tiny_models.scenes(60)
config = CaptureConfig(
    modalities=("text", "image"), batch_size=2, shard_batches=1, device="cpu", previews=True
)

def start(out):
    child = os.fork()
    if child:
        return child
    capture_run([CheckpointSpec("tiny", model)], samples, out, config)
    os._exit(0)

def shards(out):
    return len(list(out.glob("tiny/shard-*.json")))

def reach(out, count):  # so many receipts, or the end of the child
    while shards(out) < count and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.0005)

ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
begun = time.monotonic()
assert os.waitpid(start(whole), 0)[1] == 0
duration = time.monotonic() - begun
chooser = random.Random(2026)
for attempt in range(attempts):
    child = start(killed)
    if attempt % 3:  # some shards further, and a moment more
        reach(killed, shards(killed) + chooser.randint(1, 3))
        time.sleep(duration / 60 * chooser.random())
    else:  # while it loads, checks, or looks at what is there
        time.sleep(duration / 2 * chooser.random())
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    print(json.dumps([attempt, shards(killed), os.WIFSIGNALED(status)]), flush=True)
assert os.waitpid(start(killed), 0)[1] == 0
"""


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.slow
def test_a_capture_killed_thirty_times_is_the_capture(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    model = str(tiny_models.saved("qwen2_5_vl"))
    done = subprocess.run(
        [sys.executable, "-c", WORKER, model, whole, killed, str(ATTEMPTS)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    attempts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    counts = [count for _, count, _ in attempts]
    assert len(attempts) == ATTEMPTS
    assert counts == sorted(counts), "a receipt that was there has gone"
    assert sum(was_killed for *_, was_killed in attempts) >= ATTEMPTS // 2, attempts
    assert len({*counts} - {0, 60}) >= 10, f"hardly any kill met the capture itself: {attempts}"
    assert tree(killed) == tree(whole)
    assert verify_run(killed) == ()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "samples.jsonl"
    lines = [json.dumps({"id": f"s{i}", "text": f"thing number {i}"}) for i in range(400)]
    path.write_text("\n".join(lines))
    return path


def command(manifest: Path, out: Path) -> list[str]:
    options = ["--batch-size", "2", "--shard-batches", "1", "--device", "cpu"]
    model = f"tiny={tiny_models.saved('qwen2_5_vl')}"
    program = str(Path(sys.executable).with_name("geomkit"))
    return [
        program,
        "capture",
        "--ckpt",
        model,
        "--data",
        str(manifest),
        "--out",
        str(out),
        *options,
    ]


def stopped(arguments: Sequence[str], out: Path, shards: int, number: int) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal once there are so many receipts."""
    with subprocess.Popen(
        arguments, env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as running:
        deadline = time.monotonic() + 120
        while len(list(out.glob("tiny/shard-*.json"))) < shards and running.poll() is None:
            assert time.monotonic() < deadline, "the capture does not get there"
            time.sleep(0.001)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    return running.returncode, said


@pytest.mark.slow
def test_the_command_line_goes_on_after_any_signal(manifest: Path, tmp_path: Path) -> None:
    """Three kills, an interrupt and a termination of one capture, each further on."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    chooser = random.Random(1)
    ends = sorted(chooser.sample(range(150), 5))
    signals = [signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}
    for shards, number in zip(ends, signals, strict=True):
        code, said = stopped(command(manifest, out), out, shards, number)
        assert code == codes[number], said
        if number != signal.SIGKILL:
            in_words(said, out, shards)
    for folder in (out, whole):
        subprocess.run(command(manifest, folder), env=ENVIRONMENT, check=True, capture_output=True)
    assert tree(out) == tree(whole)


def in_words(said: str, out: Path, shards: int) -> None:
    assert "Traceback" not in said
    assert "the same command goes on from there" in said
    assert not list(out.rglob("*.tmp")), "there is time to clean up"
    run = open_run(out)
    kept = len(list(out.glob("tiny/shard-*.json")))
    assert shards <= kept < run.shard_count()
    assert all(run.has_shard("tiny", shard) for shard in range(kept))
