"""The program itself over a sample of the corpus: one sentence, exit code 3, and little memory.

Every group is tested in depth beside this; here is shown that nothing between the reader and the
shell turns an error into a traceback, and that memory stays under a cap that the system enforces.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geomkit.store import Run, create_run
from tests.bad_input import test_container as container
from tests.bad_input import test_hostile as hostile
from tests.bad_input.runs import put, shard_path, spoil
from tests.small_run import fill, plan
from tests.tiny_models import saved

ROOT = Path(__file__).parents[2]
MEMORY = 3 << 30  # of addresses; the interpreter with NumPy and h5py has 0.6 of them
SECONDS = 60  # seconds on an idle machine take this long on one that is not
Spoil = Callable[[Run], object]

SPOILED: dict[str, Spoil] = {
    "no plan": lambda run: (run.path / "plan.json").unlink(),
    "plan cut off": lambda run: (run.path / "plan.json").write_text('{"rows": ['),
    "deep plan": lambda run: (run.path / "plan.json").write_bytes(b"[" * 10_000_000),
    "plan is a device": lambda run: linked(run.path / "plan.json", "/dev/zero"),
    "plan is a folder": lambda run: container.folder(run.path / "plan.json"),
    "record is a pipe": lambda run: container.fifo(run.path / "base" / "checkpoint.json"),
}
DAMAGED: dict[str, Spoil] = {
    "shard missing": lambda run: shard_path(run).unlink(),
    "shard is a pipe": lambda run: container.fifo(shard_path(run)),
    "shard is a device": lambda run: linked(shard_path(run), "/dev/zero"),
    "web page": lambda run: put(run, container.SIGNED["web page"]),
    "pickle": lambda run: put(run, container.SIGNED["pickle"]),
    "terabytes": lambda run: spoil(run, hostile.bomb(1 << 36)),
    "bomb of zeros": lambda run: spoil(run, hostile.bomb_of_zeros),
    "external storage": lambda run: spoil(run, hostile.external("/dev/urandom")),
    "links": lambda run: spoil(run, hostile.many_links),
    "deep": lambda run: spoil(run, hostile.deep),
}


TEMPLATE = "{{ cycler.__init__.__globals__.os.system('touch MARK') }}"


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def program(*arguments: object, memory: int = MEMORY) -> subprocess.CompletedProcess[str]:
    """Run it with bounded memory; the time is asserted by the time-out."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    return subprocess.run(
        [str(Path(sys.executable).with_name("geomkit")), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=SECONDS, preexec_fn=bounded,
    )  # fmt: skip


def in_words(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    said = done.stderr if code == 3 else done.stdout
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_run_is_one_sentence_from_every_command(run: Run, case: str) -> None:
    SPOILED[case](run)
    in_words(program("info", run.path), 3)
    in_words(program("verify", run.path), 1)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_shard_is_one_sentence_from_verify(run: Run, case: str) -> None:
    DAMAGED[case](run)
    done = program("verify", run.path)
    in_words(done, 1)
    assert "shard-00000" in done.stdout


@pytest.mark.parametrize("command", ["analyze", "report"])
def test_a_damaged_shard_stops_what_reads_it(tmp_path: Path, command: str) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=6)))
    spoil(run, hostile.external("/dev/urandom"))
    done = program(command, run.path, memory=8 << 30)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "chunked storage inside the file" in done.stderr


@pytest.mark.parametrize("command", ["info", "verify", "analyze", "report"])
def test_what_is_no_run_is_refused(tmp_path: Path, command: str) -> None:
    for path in (tmp_path, tmp_path / "absent", Path("/dev/zero"), tmp_path / ("x" * 300)):
        done = program(command, path)
        in_words(done, 3)


def test_code_in_a_checkpoint_is_refused_by_the_program(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("qwen2_5_vl"), tmp_path / "model"))
    mark = tmp_path / "mark"
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("MARK", str(mark)))
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": "1", "text": "a thing"}')
    done = program(
        "capture", "--ckpt", f"x={folder}", "--data", data, "--out", tmp_path / "run",
        memory=16 << 30,
    )  # fmt: skip
    in_words(done, 3)
    assert not mark.exists()
