"""Group B, the damage: a shard that was good once.

17 half of it          truncated             25 flip in the ids      inside (fletcher32)
18 all but a byte      truncated             26 input that hangs     test_quarantine.py
19 the superblock      truncated, inside     27 open for writing     left open, "killed writer"
20 end beyond the file inside                28 killed SWMR          left open
21 zeroed sector       test_a_zeroed...      29 SWMR, flag cleared   left open
22 flip in a chunk     inside (fletcher32)   30 killed, no flush     left open
23 flip in an index    inside (checksum)     31 ragged poolings      test_schema.py
24 flip in an attribute inside (checksum)    32 trailing bytes       appended, inside
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, open_run, verify_run
from tests.bad_input.runs import put, refused, shard_path


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9999])
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


def flipped(place: Callable[[h5py.File], int]) -> Callable[[Path], bytes]:
    """The shard with one bit changed at an offset that the open file tells."""

    def change(path: Path) -> bytes:
        with h5py.File(path) as file:
            offset = place(file)
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        return bytes(data)

    return change


def end_at(size: int) -> Callable[[Path], bytes]:
    """The superblock says another end of the file."""

    def change(path: Path) -> bytes:
        data = path.read_bytes()
        return data[:28] + size.to_bytes(8, "little") + data[36:]

    return change


def found(path: Path, word: bytes) -> int:
    return path.read_bytes().index(word)


INSIDE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "chunk": (
        flipped(lambda f: f["states/last"].id.get_chunk_info(0).byte_offset + 5),
        "states cannot be read",
    ),
    "ids": (flipped(lambda f: f["samples/id"].id.get_chunk_info(0).byte_offset), "HDF5"),
    "index of chunks": (lambda p: flipped(lambda _: found(p, b"FAHD") + 12)(p), "HDF5|sites"),
    "object header": (lambda p: flipped(lambda _: found(p, b"OHDR") + 12)(p), "HDF5"),
    "attribute": (lambda p: flipped(lambda _: found(p, b"geomkit-shard"))(p), "HDF5"),
    "superblock": (flipped(lambda _: 40), "HDF5"),
    "end beyond the file": (end_at(1 << 40), "as it says itself"),
    "end before the end": (end_at(1000), "as it says itself"),
    "half": (lambda p: p.read_bytes()[:2000], "as it says itself"),
    "trailing": (lambda p: p.read_bytes() + b"<script>", "as it says itself"),
    "open for writing": (lambda p: p.read_bytes()[:11] + b"\1" + p.read_bytes()[12:], "HDF5"),
}


@pytest.mark.parametrize("case", INSIDE)
def test_damage_that_is_signed_is_caught_by_the_checks_within(run: Run, case: str) -> None:
    change, message = INSIDE[case]
    put(run, change(shard_path(run)))
    refused(run, message)


def left_open(folder: Path, bound: tuple[str, str], *, swmr: bool, flush: bool) -> bytes:
    """The bytes on the disk while a writer has the file open, as a kill leaves them."""
    path = folder / "open.h5"
    with h5py.File(path, "w", libver=bound) as file:
        states = file.create_dataset("states/last", (0, 4, 8), "<f4", maxshape=(None, 4, 8))
        if swmr:
            file.swmr_mode = True
        for number in range(1, 4):
            states.resize(number, axis=0)
            states[-1] = number
            if flush:
                file.flush()
        return path.read_bytes()


@pytest.mark.parametrize("cleared", [False, True])
@pytest.mark.parametrize(
    ("bound", "swmr", "flush"),
    [
        (("v114", "v114"), False, True),
        (("v114", "v114"), True, True),
        (("v114", "v114"), False, False),
        (("earliest", "v108"), False, True),
        (("earliest", "v108"), False, False),
    ],
)
def test_a_file_that_a_killed_writer_left_is_refused(
    run: Run, tmp_path: Path, bound: tuple[str, str], swmr: bool, flush: bool, cleared: bool
) -> None:
    data = bytearray(left_open(tmp_path, bound, swmr=swmr, flush=flush))
    if cleared and len(data) > 11:
        data[11] = 0  # the superblock's flags: "open for writing", "open for SWMR"
    put(run, bytes(data))
    refused(run, "expected|cannot be read as HDF5")


def test_damage_in_one_site_is_found_where_it_is_read(run: Run) -> None:
    """A checksum covers a chunk, so a site elsewhere still reads; verify reads them all."""
    path = shard_path(run)
    with h5py.File(path) as file:
        chunks = file["states/last"].id
        offset = chunks.get_chunk_info(chunks.get_num_chunks() - 1).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    put(run, bytes(data))
    again = open_run(run.path)
    assert np.isfinite(again.states("base", "embed")[0]).all()
    with pytest.raises(StoreError, match="states cannot be read"):
        again.states("base", "final_norm")
    assert len(verify_run(run.path)) == 1
