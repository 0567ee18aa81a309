"""Hostile and damaged shards: each is refused with one sentence, none is followed, none hangs.

A hostile file comes with a receipt that matches it, so the reader's own checks are what refuses it.
A damaged file keeps the receipt of the good one. Numbers refer to nothing; names say what it is.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, open_run, verify_run
from geomkit.store.receipts import Receipt
from geomkit.store.records import from_json, to_json
from geomkit.store.shard import content_sha
from tests.small_run import DIM, SITES, fill, plan

Change = Callable[[Any, Path], None]
SECRET = b"a secret of the host" * 100


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """An endless read becomes a failure."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def expired(number: int, frame: object) -> None:
        raise TimeoutError("still reading after 30 s")

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    return fill(create_run(tmp_path / "run", plan(samples=3)))


def shard_path(run: Run) -> Path:
    return run.path / "base" / "shard-00000.h5"


def sign(run: Run) -> None:
    """Give the file that is there now a receipt that matches it."""
    path = shard_path(run)
    old = from_json(Receipt, path.with_suffix(".json"))
    data = path.read_bytes()
    receipt = dataclasses.replace(old, bytes=len(data), sha256=content_sha(data))
    path.with_suffix(".json").write_bytes(to_json(receipt))


def refused(run: Run, message: str) -> None:
    again = open_run(run.path)
    with pytest.raises(StoreError, match=message):
        again.states("base", "embed")
    assert not again.has_shard("base", 0)
    assert not again.complete("base")
    assert len(verify_run(run.path)) == 1


# ------------------------------------------------------------------------------ the container


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


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("states.npy", b"x" * 100)


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
    "archive": (archive, "not what its receipt says"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX file system")
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
}


@pytest.mark.parametrize("case", SIGNED)
def test_signed_files_of_another_kind_are_refused(run: Run, case: str) -> None:
    shard_path(run).write_bytes(SIGNED[case])
    sign(run)
    refused(run, "expected the HDF5 signature at byte 0")


def test_a_user_block_is_refused(run: Run) -> None:
    path = shard_path(run)
    path.write_bytes(b"#!/bin/sh\n".ljust(512, b"\0") + path.read_bytes())
    with h5py.File(path) as file:
        assert file.userblock_size == 512  # the library itself would read it
    sign(run)
    refused(run, "expected the HDF5 signature at byte 0")


def test_the_signature_alone_is_refused(run: Run) -> None:
    shard_path(run).write_bytes(b"\x89HDF\r\n\x1a\n\3" + bytes(19) + (2009).to_bytes(8, "little") + bytes(1973))
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


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"file": "../../secret.bin"}', '{"bytes": 1e999}', "{" * 5000]
)
def test_a_receipt_that_is_none_is_refused(run: Run, text: str) -> None:
    shard_path(run).with_suffix(".json").write_text(text)
    refused(run, "is no Receipt|not the JSON it should be")


def test_a_receipt_for_another_file_is_refused(run: Run) -> None:
    good = shard_path(run).with_suffix(".json")
    shutil.copy(good.with_name("shard-00001.json"), good)
    refused(run, "receipt is for another file")


def test_a_shard_that_stands_in_for_another_is_refused(run: Run) -> None:
    shutil.copy(shard_path(run).with_name("shard-00001.h5"), shard_path(run))
    sign(run)
    refused(run, "holds other rows, sites or hashes than the plan")


# ---------------------------------------------------------------------------------- the damage


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_shard_is_refused(run: Run, keep: float) -> None:
    data = shard_path(run).read_bytes()
    shard_path(run).write_bytes(data[: int(len(data) * keep)])
    refused(run, "not what its receipt says")


@pytest.mark.parametrize("extra", [b"\0", b"<script>", bytes(4096)])
def test_trailing_bytes_are_refused(run: Run, extra: bytes) -> None:
    shard_path(run).write_bytes(shard_path(run).read_bytes() + extra)
    refused(run, "not what its receipt says")


def test_every_flipped_byte_is_refused(run: Run) -> None:
    path = shard_path(run)
    good = path.read_bytes()
    for offset in random.Random(2).sample(range(len(good)), 200):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 0x40]) + good[offset + 1 :])
        assert not run.has_shard("base", 0), f"byte {offset}"
    path.write_bytes(good)
    assert run.has_shard("base", 0)


def test_a_zeroed_sector_is_refused(run: Run) -> None:
    data = bytearray(shard_path(run).read_bytes())
    data[1024:2048] = bytes(1024)
    shard_path(run).write_bytes(data)
    refused(run, "not what its receipt says")


def test_the_writer_open_flag_is_refused_even_when_signed(run: Run) -> None:
    data = bytearray(shard_path(run).read_bytes())
    data[11] |= 1  # the superblock's consistency flags: "open for writing"
    shard_path(run).write_bytes(data)
    sign(run)
    refused(run, "cannot be read as HDF5")


def test_a_flip_that_is_signed_is_caught_by_the_checksums_within(run: Run) -> None:
    path = shard_path(run)
    with h5py.File(path) as file:
        offset = file["states/last"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    sign(run)
    with pytest.raises(StoreError, match="states cannot be read"):
        open_run(run.path).states("base", "embed")
    assert len(verify_run(run.path)) == 1


# --------------------------------------------------------------------------------- the hostile


def replace(name: str, data: Any = None, **options: Any) -> Change:
    """Put another dataset in the place of `name`."""

    def change(file: Any, _: Path) -> None:
        old = file[name][()]
        del file[name]
        given = old if data is None else data(old)
        settings = {"chunks": given.shape, "fletcher32": True, **options}
        file.create_dataset(name, data=given, **settings)

    return change


def external(target: str) -> Change:
    def change(file: Any, folder: Path) -> None:
        shape = file["states/last"].shape
        path = str(folder / "secret.bin") if target == "absolute" else target
        del file["states/last"]
        file.create_dataset("states/last", shape, "<f4", external=[(path, 0, h5py.h5f.UNLIMITED)])

    return change


def linked(link: Any) -> Change:
    def change(file: Any, _: Path) -> None:
        del file["states/last"]
        file["states/last"] = link

    return change


def virtual(file: Any, folder: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    layout = h5py.VirtualLayout(shape, "<f4")
    layout[...] = h5py.VirtualSource(folder / "absent.h5", "x", shape)
    file.create_virtual_dataset("states/last", layout)


def bomb(size: int) -> Change:
    def change(file: Any, _: Path) -> None:
        del file["states/last"]
        chunks = (1, len(SITES), DIM)
        file.create_dataset(
            "states/last", (size, len(SITES), DIM), "<f4", chunks=chunks, fletcher32=True
        )

    return change


def unallocated(file: Any, _: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    file.create_dataset("states/last", shape, "<f4", chunks=shape, fletcher32=True)


def unknown_filter(file: Any, _: Path) -> None:
    values = file["states/last"][()]
    del file["states/last"]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(values.shape)
    creation.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    h5py.h5d.create(
        file["states"].id, b"last", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(values.shape),
        creation,
    )  # fmt: skip


def cycle(file: Any, _: Path) -> None:
    file["states/again"] = file["/"]


def deep(file: Any, _: Path) -> None:
    group = file["states"]
    for _level in range(300):
        group = group.create_group("g")


def many_links(file: Any, _: Path) -> None:
    for number in range(5000):
        file[f"l{number}"] = file["sites"]


def extra_attribute(file: Any, _: Path) -> None:
    file.attrs["note"] = np.bytes_(b"x" * 60_000)


def attribute(name: str, value: Any) -> Change:
    def change(file: Any, _: Path) -> None:
        file.attrs[name] = value

    return change


def bfloat(file: Any, _: Path) -> None:
    """Two-byte floats that h5py would hand out as float32."""
    shape = file["states/last"].shape
    del file["states/last"]
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(shape)
    creation.set_fletcher32()
    h5py.h5d.create(
        file["states"].id, b"last", kind, h5py.h5s.create_simple(shape), creation
    ).write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(shape, "<f4"))


def first(value: bytes) -> Callable[[Any], Any]:
    def change(old: Any) -> Any:
        width = max(len(value), old.dtype.itemsize)
        return np.array([value, *old[1:]], dtype=h5py.string_dtype("utf-8", width))

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "external storage, absolute": (external("absolute"), "chunked storage inside the file"),
    "external storage, relative": (external("secret.bin"), "chunked storage inside the file"),
    "external storage, device": (external("/dev/urandom"), "chunked storage inside the file"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "link to elsewhere"),
    "soft link": (linked(h5py.SoftLink("/states/mean")), "link to elsewhere"),
    "soft link to itself": (linked(h5py.SoftLink("/states/last")), "link to elsewhere"),
    "dangling soft link": (linked(h5py.SoftLink("/nowhere")), "link to elsewhere"),
    "virtual dataset": (virtual, "chunked storage inside the file"),
    "hard-link cycle": (cycle, "is no dataset"),
    "deep groups": (deep, "is no dataset"),
    "thousands of links": (many_links, "expected exactly"),
    "one more dataset": (lambda f, _: _ignore(f.create_dataset("x", data=[1])), "expected exactly"),
    "one less dataset": (lambda f, _: f.__delitem__("samples/note"), "expected exactly"),
    "no states": (lambda f, _: f["states"].clear(), "1 to 16 poolings"),
    "shape bomb": (bomb(1 << 36), "declares"),
    "gigabyte": (bomb(1 << 24), "declares"),
    "unallocated": (unallocated, "declares"),
    "compressed": (replace("states/last", compression="gzip"), "one filter fletcher32"),
    "lzf": (replace("states/last", compression="lzf"), "one filter fletcher32"),
    "no checksum": (replace("states/last", fletcher32=False), "one filter fletcher32"),
    "not chunked": (replace("states/last", chunks=None, fletcher32=False), "chunked storage"),
    "unknown filter": (unknown_filter, "one filter fletcher32"),
    "float64": (replace("states/last", lambda x: x.astype("<f8")), "expected float32"),
    "float16": (replace("states/last", lambda x: x.astype("<f2")), "expected float32"),
    "bfloat16": (bfloat, "expected float32"),
    "big-endian": (replace("states/last", lambda x: x.astype(">f4")), "expected float32"),
    "integers": (replace("states/last", lambda x: x.astype("<i4")), "expected float32"),
    "transposed": (replace("states/last", lambda x: x.T), "sizes disagree"),
    "flat": (replace("states/last", lambda x: x.ravel()), "expected rank 3"),
    "one row less": (replace("states/last", lambda x: x[:-1]), "sizes disagree"),
    "other dim in one pooling": (replace("states/last", lambda x: x[..., :-1]), "sizes disagree"),
    "one site less": (replace("sites", lambda x: x[:-1]), "sizes disagree"),
    "other site": (replace("sites", first(b"block_07")), "other rows, sites or hashes"),
    "compound": (replace("samples/ok", lambda x: x.astype([("a", "u1")])), "expected uint8"),
    "flags above one": (replace("samples/ok", lambda x: x + np.uint8(7)), "expected 0 or 1"),
    "unordered index": (replace("samples/index", lambda x: x[::-1]), "other rows, sites"),
    "huge index": (replace("samples/index", lambda x: x + 2**40), "other rows, sites"),
    "other id": (replace("samples/id", first(b"sample 7")), "other rows, sites"),
    "id with an escape": (replace("samples/id", first(b"\x1b[2J")), "printable"),
    "id with a path and NUL": (replace("samples/id", first(b"../x\0y")), "printable"),
    "id that is no UTF-8": (replace("samples/id", first(b"\xff\xfe")), "expected UTF-8"),
    "id of 5000 bytes": (replace("samples/id", first(b"x" * 5000)), "fixed-size strings"),
    "unknown modality": (replace("samples/modality", first(b"smell")), "unknown modality"),
    "token hash that is none": (replace("samples/token_sha", first(b"<script>")), "64 hex digits"),
    "another format": (attribute("format", np.bytes_(b"other")), "expected the format"),
    "version 0": (attribute("version", np.int64(0)), "expected version 1"),
    "version 999": (attribute("version", np.int64(999)), "expected version 1"),
    "version as text": (attribute("version", np.bytes_(b"1")), "expected one int64"),
    "versions": (attribute("version", np.ones(9, "<i8")), "expected one int64"),
    "object attribute": (attribute("format", "variable length"), "one fixed string"),
    "another plan": (attribute("plan_hash", np.bytes_(b"0" * 64)), "other rows, sites or hashes"),
    "hash that is no ASCII": (attribute("plan_hash", np.bytes_(b"\xff" * 64)), "expected ASCII"),
    "large attribute": (extra_attribute, "and no others"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_shards_are_refused(run: Run, tmp_path: Path, case: str) -> None:
    change, message = HOSTILE[case]
    with h5py.File(shard_path(run), "r+", libver=("v114", "v114")) as file:
        change(file, tmp_path)
    sign(run)
    refused(run, message)
    assert (tmp_path / "secret.bin").read_bytes() == SECRET


def variable_strings(file: Any, _: Path) -> None:
    ids = [value.decode() for value in file["samples/id"][()]]
    del file["samples/id"]
    file.create_dataset("samples/id", data=ids, dtype=h5py.string_dtype(), chunks=(len(ids),))


def group_for_dataset(file: Any, _: Path) -> None:
    del file["sites"]
    file.create_group("sites")


def dataset_for_group(file: Any, _: Path) -> None:
    del file["states"]
    file.create_dataset("states", data=[1.0])


def references(file: Any, _: Path) -> None:
    count = len(file["samples/index"])
    del file["samples/index"]
    file.create_dataset("samples/index", (count,), h5py.ref_dtype, chunks=(count,))


def nan_in_a_good_row(file: Any, _: Path) -> None:
    file["states/last"][0, 0, 0] = np.nan


def numbers_in_a_bad_row(file: Any, _: Path) -> None:
    file["samples/ok"][0] = 0


MORE: dict[str, tuple[Change, str]] = {
    "variable-length strings": (variable_strings, "fixed-size strings"),
    "group in place of a dataset": (group_for_dataset, "is no dataset"),
    "dataset in place of a group": (dataset_for_group, "expected a group"),
    "references": (references, "expected int64"),
}


@pytest.mark.parametrize("case", MORE)
def test_objects_of_another_kind_are_refused(run: Run, tmp_path: Path, case: str) -> None:
    change, message = MORE[case]
    with h5py.File(shard_path(run), "r+", libver=("v114", "v114")) as file:
        change(file, tmp_path)
    sign(run)
    refused(run, message)


@pytest.mark.parametrize("change", [nan_in_a_good_row, numbers_in_a_bad_row])
def test_states_that_contradict_their_flag_are_refused(
    run: Run, tmp_path: Path, change: Change
) -> None:
    with h5py.File(shard_path(run), "r+", libver=("v114", "v114")) as file:
        change(file, tmp_path)
    sign(run)
    with pytest.raises(StoreError, match="the contrary"):
        open_run(run.path).states("base", "embed")
    assert "the contrary" in verify_run(run.path)[0]
