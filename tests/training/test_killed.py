"""A training that is killed between any two writes goes on, and what it leaves is whole or absent.

Importing torch takes longer than such a training, so one process imports everything once and forks
a training an attempt; each kills itself with SIGKILL before a write of its own, the first, the
second, and so on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals and fork")

WORKER = """
import json, os, shutil, signal, sys
from pathlib import Path
import torch
from geomkit.errors import TrainingError
from geomkit.training import trainer
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair

torch.set_num_threads(1)
root = Path(sys.argv[1])
given = json.loads(sys.stdin.read())
config = TrainConfig(**given["config"])
rows = tuple(TextPair(**pair) for pair in given["pairs"])
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile")
count = 0

def arm(which):
    def hook(event, args):
        global count
        flags = args[2] if event == "open" and isinstance(args[2], int) else 0
        opened = flags & (os.O_WRONLY | os.O_RDWR) and str(root) in str(args[0])
        if opened or event in CHANGES:
            count += 1
            if count == which:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def start(out, which, at_the_end):  # 0: not killed
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    honest = trainer.fit
    def fit(*args, **kwargs):
        done = honest(*args, **kwargs)
        if at_the_end:
            arm(which)
        return done
    trainer.fit = fit
    if which and not at_the_end:
        arm(which)
    try:
        trainer.train(config, given["base"], rows, out, source="tiny")
    except TrainingError as error:
        print(error, file=sys.stderr)
        os._exit(3)
    os._exit(0)

def tell(**what):
    print(json.dumps(what), flush=True)

assert start(root / "whole", 0, False) == 0
if given["at_the_end"] and config.save_steps:  # all steps are done and kept: what follows is short
    assert start(root / "all" / "out", 1, True) == signal.SIGKILL
for which in range(given["first"], 1000, given["stride"]):
    place = root / str(which)
    if (root / "all").is_dir():
        shutil.copytree(root / "all", place)
    died = start(place / "out", which, given["at_the_end"])
    if died != signal.SIGKILL:
        break
    left = sorted(p.name for p in place.iterdir()) if place.exists() else []
    shutil.copytree(place, root / f"{which}-left") if place.exists() else None
    tell(which=which, left=left, again=os.waitstatus_to_exitcode(start(place / "out", 0, False)))
tell(which=which, left=["out"], again=os.waitstatus_to_exitcode(died))
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A training that was killed before its n-th write, and given again."""

    which: int
    left: list[str]  # beside each other, after the kill
    again: int  # exit code of the second


def attempts(
    root: Path, config: TrainConfig, base: Path, pairs: tuple[TextPair, ...], **given: Any
) -> Iterator[Attempt]:
    told = {"config": asdict(config), "base": str(base), "pairs": [asdict(p) for p in pairs]}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(root)],
        input=json.dumps({**told, "first": 1, "stride": 1, **given}),
        text=True, capture_output=True, check=False, timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (Attempt(**json.loads(line)) for line in done.stdout.splitlines())


def tree(folder: Path) -> dict[str, Any]:
    """What is in a folder; of the record, all but what a clock says and the last digits."""
    files = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    found: dict[str, Any] = {str(name): path.read_bytes() for name, path in files.items()}
    record = json.loads(found.pop("training.json"))
    for step in (record, *record["steps"]):
        step.pop("seconds")
    record.pop("steps_per_second")
    for one in record["geometry"]:
        one["value"] = float(f"{one['value']:.8g}")
    return {**found, "training.json": record}


@pytest.fixture(scope="module")
def config(quick: TrainConfig) -> TrainConfig:
    """Three steps, each kept and each looked at, with dropout: all that draws lots is in it."""
    return replace(quick, steps=3, save_steps=1, dropout=0.2, geometry_every=1)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stride"), [("lora", 2), ("full", 6)])
def test_killed_between_the_writes_of_the_end(
    method: str,
    stride: int,
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    tmp_path: Path,
) -> None:
    """Every other write of an adapter, every sixth of a checkpoint: with all of them, minutes."""
    config = replace(config, method=method)
    seen = list(attempts(tmp_path, config, base, pairs, at_the_end=True, stride=stride))
    whole = tree(tmp_path / "whole")
    assert len(seen) > 4, "nothing was written: nothing was tested"
    for attempt in seen:
        renamed = "out" in attempt.left
        assert attempt.again == (3 if renamed and attempt is not seen[-1] else 0)
        assert tree(tmp_path / str(attempt.which) / "out") == whole
        # nothing is there before all of it is
        left = tmp_path / f"{attempt.which}-left" / "out"
        assert not left.exists() or tree(left) == whole
        assert [p.name for p in (tmp_path / str(attempt.which)).iterdir()] == ["out"]
    assert {"out" in attempt.left for attempt in seen} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("save_steps", [1, 0])
def test_killed_at_any_write_at_all(
    save_steps: int,
    config: TrainConfig,
    base: Path,
    pairs: tuple[TextPair, ...],
    tmp_path: Path,
) -> None:
    config = replace(config, save_steps=save_steps)
    stride = 17 if save_steps else 5
    seen = list(attempts(tmp_path, config, base, pairs, at_the_end=False, stride=stride))
    assert len(seen) > 2
    for attempt in seen:
        assert attempt.again in ((0, 3) if "out" in attempt.left else (0,))
        assert tree(tmp_path / str(attempt.which) / "out") == tree(tmp_path / "whole")
        assert [p.name for p in (tmp_path / str(attempt.which)).iterdir()] == ["out"]
