"""bfloat16 on disk: exact where it can be, rounded like everyone rounds, and never silently inf."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from geomkit.errors import StoreError
from geomkit.store import bfloat16, create_run, open_run, verify_run
from geomkit.store.datasets import BOUND, new_states, read_part, write_part
from tests.small_run import SITES, fill, plan, record, shard_rows

EVERY = np.arange(1 << 16, dtype=np.uint16)
"""Every bfloat16 there is: zeros, subnormals, infinities and all NaN."""


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def test_every_word_survives_the_codec() -> None:
    assert np.array_equal(bfloat16.encode(bfloat16.decode(EVERY)), EVERY)


def test_decoding_is_what_torch_says() -> None:
    theirs = torch.from_numpy(EVERY.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    assert np.array_equal(bits(bfloat16.decode(EVERY)), bits(theirs))


def test_rounding_is_what_torch_says() -> None:
    """Random bit patterns, and every tie: halfway between two neighbours, a bit below and above."""
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, np.uint32)
    halves = (EVERY.astype(np.uint32) << 16) | 0x8000
    values = np.concatenate([random, halves, halves - 1, halves + 1]).view(np.float32)
    theirs = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    values, theirs = values[np.isfinite(theirs)], theirs[np.isfinite(theirs)]
    assert np.array_equal(bits(bfloat16.decode(bfloat16.encode(values))), bits(theirs))


@pytest.mark.parametrize("pattern", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7FC00000])
def test_a_nan_stays_a_nan_and_keeps_its_sign(pattern: int) -> None:
    value = np.array([pattern], np.uint32).view(np.float32)
    found = bfloat16.decode(bfloat16.encode(value))
    assert np.isnan(found).all()
    assert np.signbit(found) == np.signbit(value)


LARGEST = np.float32(3.3895314e38)  # the largest bfloat16


@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_infinite_is_an_error(sign: int) -> None:
    just = np.nextafter(np.float32(LARGEST + 2.0**119), np.float32(0))  # rounds down
    assert np.isfinite(bfloat16.decode(bfloat16.encode(np.array([sign * just], np.float32))))
    over = np.array([1, np.inf, sign * np.float32(3.4e38)], np.float32)
    with pytest.raises(StoreError, match=r"a state of 3.4e\+38 is too large for bfloat16"):
        bfloat16.encode(over)


def test_hdf5_shows_every_word_as_float32() -> None:
    """Any reader: HDF5's own conversion of the file type, against the shift done here."""
    values = bfloat16.decode(EVERY).reshape(-1, 1, 64)
    image = io.BytesIO()
    with h5py.File(image, "w", libver=BOUND) as file:
        write_part(new_states(file, "x", values.shape, 64, "bfloat16"), (0, 0, 0), values)
    with h5py.File(image, "r") as file:
        plain, own = file["x"][()], read_part(file["x"], (0, 0, 0), values.shape)
        assert file["x"].id.get_type().get_size() == 2
    assert plain.dtype == np.float32
    number = ~np.isnan(values)
    assert np.array_equal(bits(own), bits(values))
    assert np.array_equal(np.isnan(plain), np.isnan(values))
    assert np.array_equal(bits(plain[number]), bits(values[number]))


def test_a_run_in_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan(store_dtype="bfloat16")), bad=(3,))
    again = open_run(run.path)
    assert again.plan.store_dtype == "bfloat16"
    given = shard_rows(run, 0)
    states, ok = again.states("base", "block_00")
    assert states.dtype == np.float32
    rounded = torch.from_numpy(given.states["last"][:, 1]).bfloat16().float().numpy()
    assert np.array_equal(states[given.index], rounded)
    assert np.isnan(states[3]).all()
    assert np.flatnonzero(~ok).tolist() == [3]
    assert verify_run(run.path) == ()
    with h5py.File(run.path / "base" / "shard-00000.h5") as file:
        assert np.array_equal(file["states/last"][:, 1], rounded)


def test_half_the_bytes(tmp_path: Path) -> None:
    sizes = []
    for dtype in ("float32", "bfloat16"):
        run = fill(create_run(tmp_path / dtype, plan(300, 1000, store_dtype=dtype)))
        with h5py.File(run.path / "base" / "shard-00000.h5") as file:
            sizes.append(file["states/last"].id.get_storage_size())
    assert sizes[1] < 0.51 * sizes[0]


def test_a_state_too_large_is_refused_by_the_run(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan(store_dtype="bfloat16"))
    run.write_checkpoint(record())
    rows = shard_rows(run, 0)
    rows.states["mean"][0, 0, 0] = 3.4e38
    with pytest.raises(StoreError, match="too large for bfloat16"):
        run.write_shard("base", 0, rows, SITES)


def test_an_old_plan_keeps_its_bytes_and_its_hash(tmp_path: Path) -> None:
    old = plan()
    assert "store_dtype" not in old.to_json()
    # the sha256 that this plan had before plans knew how states are stored
    assert old.hash == "832318f66d63fb396dee38d7c237858c9d327ca101a183a3e3f3fa0592671a99"
    run = create_run(tmp_path / "run", old)
    assert open_run(run.path).plan.store_dtype == "float32"
    assert plan(store_dtype="bfloat16").hash != old.hash


def test_another_type_is_no_type(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="float32 or bfloat16, got 'float16'"):
        create_run(tmp_path / "run", plan(store_dtype="float16"))


def test_shards_of_another_type_than_the_plan_are_refused(tmp_path: Path) -> None:
    """The plan decides; a receipt that was made to fit does not help."""
    from tests.bad_input.runs import sign

    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    other = fill(create_run(tmp_path / "other", plan(samples=3, store_dtype="bfloat16")))
    path = run.path / "base" / "shard-00000.h5"
    data = (other.path / "base" / "shard-00000.h5").read_bytes()
    path.write_bytes(data.replace(other.plan_hash.encode(), run.plan_hash.encode()))
    sign(run)
    assert not run.has_shard("base", 0)
