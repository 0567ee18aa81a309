"""A disk that is full, small, or fails once: one sentence and exit code 3, and it goes on later.

Every call that changes the disk fails once, at its first, second, ... use, until a capture gets
through untouched; after each failure the same capture goes on to the same bytes. A full disk is a
real one, where the tests may mount it; a limit on the size of files works everywhere.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geomkit.errors import StoreError
from geomkit.store import create_run, open_run, verify_run
from tests.small_run import SITES, plan, record, shard_rows
from tests.tiny_models import saved

CALLS = ("open", "write", "fsync", "replace", "mkdir", "close")
PLAN = plan(samples=3)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls of a POSIX system fail here")


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def capture(folder: Path) -> None:
    run = create_run(folder, PLAN)
    run.write_checkpoint(record())
    for number in range(run.shard_count()):
        run.write_shard("base", number, shard_rows(run, number), SITES)


def failing(
    monkeypatch: pytest.MonkeyPatch, root: Path, call: str, which: int, code: int
) -> list[str]:
    """Let one use of a call below `root` fail; the list says what the uses were."""
    real = getattr(os, call)
    uses: list[str] = []
    below: set[int] = set()
    opening = os.open

    def opened(path: object, *arguments: object, **options: object) -> int:
        if call == "open" and str(root) in str(path):
            fail(str(path))
        descriptor: int = opening(path, *arguments, **options)  # type: ignore[arg-type]
        written = bool(int(str(arguments[0])) & os.O_WRONLY)  # nothing is lost by closing others
        if str(root) in str(path) and (written or call != "close"):
            below.add(descriptor)
        else:
            below.discard(descriptor)
        return descriptor

    def fail(what: str) -> None:
        uses.append(what)
        if len(uses) - 1 == which:
            raise OSError(code, os.strerror(code))

    def called(target: object, *arguments: object, **options: object) -> object:
        if target in below or str(root) in str(target):
            if call == "close":  # the descriptor is gone all the same
                real(target)
                fail(str(target))
                return None
            fail(str(target))
        return real(target, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)
    if call != "open":
        monkeypatch.setattr(os, call, called)
    return uses


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
def test_each_call_may_fail_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    capture(tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    for which in range(500):
        folder = tmp_path / f"{which}"
        with monkeypatch.context() as patched:
            uses = failing(patched, folder, call, which, code)
            message = ""
            try:
                capture(folder)
            except StoreError as error:
                message = str(error)
        if len(uses) <= which:
            break
        kept = len(list(folder.glob("base/shard-*.json")))
        if message:
            assert os.strerror(code) in message
            assert str(folder) in message
        if kept:
            run = open_run(folder)
            assert [run.has_shard("base", n) for n in range(kept)] == [True] * kept
        capture(folder)
        assert tree(folder) == whole, f"{call} {which}: {uses[which]}"
    assert which >= 1, "the call is never used: nothing was tested"
    assert verify_run(folder) == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of some size in memory, or change its size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        again = "remount," if os.path.ismount(folder) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"needs the right to mount a disk: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk in memory")
@pytest.mark.parametrize("size", ["4k", "8k", "12k", "16k", "20k", "24k"])
def test_a_full_disk_is_an_error_and_room_makes_it_go_on(
    tmp_path: Path, small_disk: Callable[[str], Path], size: str
) -> None:
    capture(tmp_path / "whole")
    folder = small_disk(size) / "run"
    with pytest.raises(StoreError, match="No space left on device"):
        capture(folder)
    small_disk("1m")
    capture(folder)
    assert tree(folder) == tree(tmp_path / "whole")


# ---------------------------------------------------------------------------- the program itself


def program(data: Path, out: Path, **options: object) -> subprocess.CompletedProcess[str]:
    geomkit = str(Path(sys.executable).with_name("geomkit"))
    model = f"tiny={saved('qwen2_5_vl')}"
    given = ["--ckpt", model, "--data", str(data), "--out", str(out)]
    return subprocess.run(
        [geomkit, "capture", *given, "--batch-size", "2", "--shard-batches", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120, **options,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"s{i}", "text": f"a {i}"}) for i in range(100)))
    return path


def in_words(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 3, done.stderr
    assert reason in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk in memory")
def test_the_program_says_that_the_disk_is_full_and_goes_on(
    data: Path, small_disk: Callable[[str], Path]
) -> None:
    out = small_disk("300k") / "run"
    in_words(program(data, out), "No space left on device")
    kept = tree(out)
    assert any(name.endswith(".h5") for name in kept)
    small_disk("8m")
    assert program(data, out).returncode == 0
    assert kept.items() <= tree(out).items()
    assert verify_run(out) == ()


@pytest.mark.slow
def test_the_program_says_that_a_file_may_not_be_that_large(tmp_path: Path, data: Path) -> None:
    import resource

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    out = tmp_path / "run"
    in_words(program(data, out, preexec_fn=bounded), "File too large")
    assert program(data, out).returncode == 0
    assert verify_run(out) == ()
