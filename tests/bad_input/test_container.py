"""Group A, the container: what stands at a shard's name is no shard file at all.

1 missing             CONTAINERS            9 FIFO                 CONTAINERS
2 empty               CONTAINERS, SIGNED   10 endless device       CONTAINERS
3 one byte            CONTAINERS, SIGNED   11 loop of links        CONTAINERS
4 random bytes        CONTAINERS, SIGNED   12 link out of the run  CONTAINERS, folders, JSON
5 web page            SIGNED               13 unreadable           test_what_may_not_be...
6 large-file pointer  SIGNED               14 user block           test_a_user_block_is_refused
7 archive             CONTAINERS, SIGNED   15 newer format         test_a_newer_superblock_is...
8 folder              CONTAINERS           16 read-only output     test_a_folder_that_is...
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, open_run, verify_run
from tests.bad_input.runs import put, refused, shard_path, sign
from tests.small_run import SITES, fill, plan, record, shard_rows

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX file system")
NOBODY = 65534


def remove(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to(target: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return replace


def link_to_a_good_copy(path: Path) -> None:
    copy = path.parents[2] / "copy.h5"
    shutil.move(path, copy)
    path.symlink_to(copy)


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: _ignore(path.write_bytes(data))


def _ignore(_: object) -> None:
    return None


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("states.npy", b"x" * 100)
    return stream.getvalue()


CONTAINERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (remove, "does not exist"),
    "folder": (folder, "got a folder"),
    "fifo": (fifo, "got a FIFO"),
    "link to an endless device": (link_to("/dev/zero"), "expected a regular file"),
    "link to itself": (link_to("shard-00000.h5"), "expected a regular file"),
    "link to the host's file": (link_to("../../secret.bin"), "expected a regular file"),
    "link to a good shard": (link_to_a_good_copy, "expected a regular file"),
    "empty": (content(b""), "not what its receipt says"),
    "one byte": (content(b"\x89"), "not what its receipt says"),
    "random bytes": (content(random.Random(0).randbytes(5000)), "not what its receipt says"),
    "archive": (content(archive()), "not what its receipt says"),
}


@posix
@pytest.mark.parametrize("case", CONTAINERS)
def test_what_is_no_shard_file_is_refused(run: Run, case: str) -> None:
    spoil, message = CONTAINERS[case]
    spoil(shard_path(run))
    refused(run, message)


SIGNED = {
    "empty": b"",
    "one byte": b"\x89",
    "web page": b"<!DOCTYPE html><title>404</title>",
    "pointer of a large-file store": b"version https://git-lfs.example/spec/v1\noid sha256:0\n",
    "random bytes": random.Random(1).randbytes(5000),
    "archive": archive(),
    "pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
}


@pytest.mark.parametrize("case", SIGNED)
def test_signed_files_of_another_kind_are_refused(run: Run, case: str) -> None:
    put(run, SIGNED[case])
    refused(run, "expected the HDF5 signature at byte 0")


def test_a_user_block_is_refused(run: Run) -> None:
    path = shard_path(run)
    path.write_bytes(b"#!/bin/sh\n".ljust(512, b"\0") + path.read_bytes())
    with h5py.File(path) as file:
        assert file.userblock_size == 512  # the library itself would read it
    sign(run)
    refused(run, "expected the HDF5 signature at byte 0")


def test_the_signature_alone_is_refused(run: Run) -> None:
    shard_path(run).write_bytes(
        b"\x89HDF\r\n\x1a\n\3" + bytes(19) + (2009).to_bytes(8, "little") + bytes(1973)
    )
    sign(run)
    refused(run, "cannot be read as HDF5")


def test_a_checkpoint_folder_that_is_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    shutil.move(run.path / "base", tmp_path / "elsewhere")
    (run.path / "base").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="holds no checkpoint 'base'"):
        open_run(run.path).states("base", "embed")


@pytest.mark.parametrize("name", ["plan.json", "base/checkpoint.json", "base/shard-00000.json"])
def test_json_that_is_a_link_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    shutil.move(run.path / name, tmp_path / "elsewhere.json")
    (run.path / name).symlink_to(tmp_path / "elsewhere.json")
    assert "expected a regular file" in verify_run(run.path)[0]


def test_a_newer_superblock_is_refused(run: Run) -> None:
    data = bytearray(shard_path(run).read_bytes())
    data[8] = 99
    put(run, bytes(data))
    refused(run, "cannot be read as HDF5")


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder that everyone may enter, for a test that gives up its rights."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def without_rights(action: Callable[[], object]) -> None:
    """Run `action` as a user who owns nothing, if we are the one who may do everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        action()
    finally:
        if root:
            os.seteuid(0)


@posix
@pytest.mark.parametrize("name", ["plan.json", "base/checkpoint.json", "base/shard-00000.h5"])
def test_what_may_not_be_read_is_refused(stranger: Path, name: str) -> None:
    run = fill(create_run(stranger / "run", plan(samples=3)))
    (run.path / name).chmod(0)

    def check() -> None:
        problems = verify_run(run.path)
        assert len(problems) == 1
        assert "Permission denied" in problems[0]

    without_rights(check)


@posix
@pytest.mark.parametrize("name", [".", "base"])
def test_a_folder_that_may_not_be_entered_is_refused(stranger: Path, name: str) -> None:
    run = fill(create_run(stranger / "run", plan(samples=3)))
    (run.path / name).chmod(0)

    def check() -> None:
        assert verify_run(run.path)
        with pytest.raises(StoreError):
            open_run(run.path).states("base", "embed")

    try:
        without_rights(check)
    finally:
        (run.path / name).chmod(0o755)


@posix
def test_a_folder_that_is_read_only_is_an_error(stranger: Path) -> None:
    run = create_run(stranger / "run", plan(samples=3))
    run.write_checkpoint(record())
    rows = shard_rows(run, 0)
    for folder in (stranger, run.path, run.path / "base"):
        folder.chmod(0o555)

    def check() -> None:
        with pytest.raises(StoreError, match="Permission denied"):
            create_run(stranger / "other", plan(samples=3))
        with pytest.raises(StoreError, match="Permission denied"):
            run.write_shard("base", 0, rows, SITES)

    try:
        without_rights(check)
    finally:
        for folder in (stranger, run.path, run.path / "base"):
            folder.chmod(0o755)
