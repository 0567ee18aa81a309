"""A writer that is killed, or whose disk is full, loses at most the shard in flight."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geomkit.errors import StoreError
from geomkit.store import create_run, files, open_run, verify_run
from tests.small_run import SITES, fill, plan, record, shard_rows

WRITER = """
import sys
from pathlib import Path
from geomkit.store import create_run
from tests.small_run import fill, plan
print("ready", flush=True)
fill(create_run(Path(sys.argv[1]), plan(samples=120)))
"""


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def kill_after(folder: Path, shards: int) -> None:
    """Start a writer, wait for that many receipts or its end, then SIGKILL it wherever it is."""
    root = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    while writer.poll() is None and len(list(folder.glob("base/shard-*.json"))) < shards:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_a_killed_capture_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole = fill(create_run(tmp_path / "whole", plan(samples=120)))
    chooser = random.Random(7)
    folder = tmp_path / "killed"
    interrupted = 0
    for done in sorted(chooser.sample(range(1, whole.shard_count() - 5), 4)):
        kill_after(folder, done)
        run = open_run(folder)
        receipts = sorted(folder.glob("base/shard-*.json"))
        assert len(receipts) >= done
        for receipt in receipts:
            run.check_shard("base", int(receipt.stem.removeprefix("shard-")))
        interrupted += not run.complete("base")
    assert interrupted > 0, "every writer finished before it was killed: nothing was tested"
    fill(create_run(folder, plan(samples=120)))
    assert verify_run(folder) == ()
    assert tree(folder) == tree(whole.path)


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("forever", [False, True])
def test_a_full_disk_at_any_call_is_an_error_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, forever: bool
) -> None:
    """Fail the k-th call for k = 0, 1, ... until a write gets through untouched."""
    k = 0
    while True:
        run = create_run(tmp_path / f"{k}", plan(samples=3))
        run.write_checkpoint(record())
        run.write_shard("base", 0, shard_rows(run, 0), SITES)
        before = tree(run.path)
        calls = _fail(monkeypatch, call, k, forever)
        message = ""
        try:
            run.write_shard("base", 1, shard_rows(run, 1), SITES)
        except StoreError as error:
            message = str(error)
        monkeypatch.undo()
        if calls[0] <= k:  # the k-th call was never made
            assert run.complete("base")
            break
        assert "No space left" in message
        after = tree(run.path)
        assert {name: after[name] for name in before} == before
        assert not [name for name in after if name.endswith(".tmp")]
        assert run.has_shard("base", 0)
        run.write_shard("base", 1, shard_rows(run, 1), SITES)  # room was made
        assert verify_run(run.path) == ()
        k += 1
    assert k >= 2, "file and receipt are each written"


def _fail(monkeypatch: pytest.MonkeyPatch, call: str, k: int, forever: bool) -> list[int]:
    real = getattr(os, call)
    calls = [0]

    def failing(descriptor: int, *data: object) -> object:
        number, calls[0] = calls[0], calls[0] + 1
        if number == k or (forever and number > k):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, *data)

    monkeypatch.setattr(os, call, failing)
    return calls


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:100]))
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    monkeypatch.undo()
    assert verify_run(run.path) == ()


def test_an_interrupt_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(tmp_path / "run", plan(samples=3))
    run.write_checkpoint(record())
    before = tree(run.path)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.write_shard("base", 0, shard_rows(run, 0), SITES)
    monkeypatch.undo()
    assert tree(run.path) == before


@pytest.mark.skipif(os.name == "nt", reason="folders have no write permission on Windows")
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="could not be created"):
        files.make_folder(tmp_path / "file" / "media")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match=r"file is a file, .* choose another folder"):
            create_run(path, plan(samples=3))
