"""What a file does to the process that parses it, it does to a child.

The HDF5 library's own loops and crashes come and go with its versions, so the child is given a
parser here that loops, crashes or eats memory when it meets the file of that name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, open_run, quarantine, verify_run
from tests.small_run import fill, plan

POISONED = """
import ctypes, os, signal
from geomkit.store import quarantine, shard
quarantine.FILE_SECONDS = 1
parse = shard.read_table
def poisoned(stream, size, name):
    if name.endswith("shard-00001.h5"):
        {effect}
    return parse(stream, size, name)
shard.read_table = poisoned
quarantine.main()
"""
EFFECTS = {
    "loop in C": ("ctypes.PyDLL(None).sleep(60)", "did not come to an end in time"),
    "crash": ("ctypes.string_at(0)", "crashed \\(SIGSEGV\\)"),
    "abort": ("os.abort()", "crashed \\(SIGABRT\\)"),
    "memory": ("bytearray(4 << 30)", "ended with exit code 1"),
    "exit": ("os._exit(7)", "ended with exit code 7"),
}


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The children that were started; nothing is known of any file yet."""
    started: list[object] = []
    real = subprocess.Popen

    def counted(*arguments: object, **options: object) -> object:
        started.append(arguments)
        return real(*arguments, **options)  # type: ignore[call-overload]  # passed on as it came

    monkeypatch.setattr(subprocess, "Popen", counted)
    forget(monkeypatch)
    return started  # type: ignore[return-value]  # a fixture


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has neither written nor seen a file."""
    monkeypatch.setattr(quarantine, "_trusted", set())
    monkeypatch.setattr(quarantine, "_verdicts", {})


def copied(run: Run, folder: Path) -> Run:
    """The same run as files that are new here."""
    shutil.copytree(run.path, folder)
    return open_run(folder)


@pytest.mark.skipif(os.name == "nt", reason="a child has a time-out there, and no more")
@pytest.mark.parametrize("case", EFFECTS)
def test_what_ends_the_child_is_an_error_of_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object], case: str
) -> None:
    effect, message = EFFECTS[case]
    run = fill(create_run(tmp_path / "run", plan(samples=6)))
    forget(monkeypatch)
    monkeypatch.setattr(quarantine, "_CHILD", POISONED.format(effect=effect))
    with pytest.raises(StoreError, match=f"shard-00001.h5 cannot be read as HDF5: .*{message}"):
        run.check_shard("base", 1)
    problems = verify_run(run.path)
    assert len(problems) == 1, problems
    assert "shard-00001.h5" in problems[0]
    assert [run.has_shard("base", number) for number in range(4)] == [True, False, True, True]
    assert len(children) == 2, "one died, one went on with the others"


def test_one_child_for_a_run_and_none_for_what_this_process_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object]
) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=6)))
    fill(run, "lco", seed=1)
    assert verify_run(run.path) == ()
    assert len(children) == 0
    assert verify_run(copied(run, tmp_path / "copy").path) == ()
    assert len(children) == 0, "the same bytes elsewhere are the same bytes"
    forget(monkeypatch)
    assert verify_run(run.path) == ()
    assert verify_run(run.path) == ()
    assert len(children) == 1


def test_a_file_that_changes_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object]
) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    forget(monkeypatch)
    assert run.has_shard("base", 0)
    path = run.path / "base" / "shard-00000.h5"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert not run.has_shard("base", 0)
    path.write_bytes(data)
    assert run.has_shard("base", 0)
    assert len(children) == 1, "the hash refuses it before anything is parsed"


def test_the_child_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object]
) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    for name in ("h5py", "numpy", "geomkit", "json"):
        (run.path / f"{name}.py").write_text("raise SystemExit('code of a stranger has run')")
    monkeypatch.chdir(run.path)
    forget(monkeypatch)
    assert run.has_shard("base", 0)
    assert len(children) == 1


def test_a_child_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object]
) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    forget(monkeypatch)
    monkeypatch.setattr(quarantine, "_CHILD", "raise SystemExit('no numpy here')")
    with pytest.raises(StoreError, match=r"did not start \(no numpy here\)"):
        run.check_shard("base", 0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StoreError, match=r"did not start .*No such file"):
        run.check_shard("base", 0)


def test_a_child_that_says_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[object]
) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    forget(monkeypatch)
    monkeypatch.setattr(quarantine, "START_SECONDS", 0)
    monkeypatch.setattr(quarantine, "FILE_SECONDS", 0.5)
    monkeypatch.setattr(
        quarantine, "_CHILD", "print('ready', flush=True); import time; time.sleep(99)"
    )
    with pytest.raises(StoreError, match="did not come to an end in time"):
        run.check_shard("base", 0)
