"""One file instead of a folder: the same values, the same suspicion, whole or absent."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, latest_run, open_run, pack_run, verify_run
from geomkit.store.packed import PackedRun
from geomkit.store.seal import SIZE, seal
from geomkit.store.shard import content_sha
from tests.small_run import SITES, fill, plan, record, shard_rows, token_rows
from tests.store.test_records import analysis


def rich(folder: Path, store_dtype: str = "float32") -> Run:
    """Two checkpoints with bad rows, tokens, events, previews and an analysis."""
    run = create_run(folder, plan(samples=20, shard_batches=3, store_dtype=store_dtype))
    for seed, name in enumerate(("tuned", "base")):
        run.write_checkpoint(record(name))
        for number in range(run.shard_count()):
            rows = shard_rows(run, number, seed, bad=(3, 5 + seed))
            run.write_shard(
                name, number, rows, SITES, tokens=token_rows(rows), events=(f"event {number}",)
            )
    run.save_media("sample 1", "image", b"RIFF....WEBP")
    run.save_media("sample 2", "image", b"RIFF")
    run.write_analysis(analysis(run.plan_hash))
    return run


def columns(run: Run, checkpoint: str) -> dict[int, tuple[object, ...]]:
    """What the samples table says of each row, by its number in the plan."""
    return {
        int(part.table.index[k]): (
            part.table.ids[k], part.table.modality[k], bool(part.table.ok[k]),
            int(part.table.n_tokens[k]), part.table.token_sha[k], part.table.notes[k],
        )
        for part in run.parts(checkpoint)
        for k in range(len(part.table.index))
    }  # fmt: skip


@pytest.fixture(params=["float32", "bfloat16"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return rich(tmp_path / "run", request.param)


def test_a_packed_run_says_the_same(run: Run, tmp_path: Path) -> None:
    packed = open_run(pack_run(run, tmp_path / "run.h5"))
    assert isinstance(packed, PackedRun)
    assert (packed.plan, packed.plan_hash) == (run.plan, run.plan_hash)
    assert packed.checkpoints() == run.checkpoints()
    assert packed.skipped() == run.skipped()
    for record_ in run.checkpoints():
        name = record_.name
        assert packed.complete(name)
        assert packed.events(name) == run.events(name)
        assert columns(packed, name) == columns(run, name)
        for site in SITES:
            for pooling in run.plan.poolings:
                for mine, its in zip(
                    run.states(name, site, pooling), packed.states(name, site, pooling), strict=True
                ):
                    assert mine.tobytes() == its.tobytes()
                one = run.activations(name, site, "image", pooling)
                two = packed.activations(name, site, "image", pooling)
                assert one.rows == two.rows
                assert one.states.tobytes() == two.states.tobytes()
            for index in range(0, len(run.plan.rows), 7):
                its_tokens = packed.tokens(name, site, index)
                assert np.array_equal(run.tokens(name, site, index), its_tokens)
    assert packed.preview("sample 1", "image") == b"RIFF....WEBP"
    assert packed.preview("sample 2", "image") == b"RIFF"
    assert packed.preview("sample 3", "image") is None
    assert packed.read_analysis() == run.read_analysis()
    assert verify_run(packed.path) == ()
    assert latest_run(packed.path) == packed.path


def test_it_reads_with_plain_h5py(run: Run, tmp_path: Path) -> None:
    path = pack_run(run, tmp_path / "run.h5")
    with h5py.File(path) as file:
        base = file["checkpoints/base"]
        states, good = base["states/last"][:, -1], base["samples/ok"][:].astype(bool)
        assert [site.decode() for site in base["sites"]] == list(SITES)
        assert base["samples/id"][2].decode() == run.plan.rows[2].id
        first, last = base["tokens/offsets"][2:4]
        tokens = base["tokens/states"][first:last, 0]
    expected, ok = run.states("base", "final_norm")
    assert np.array_equal(states, expected, equal_nan=True)
    assert np.array_equal(good, ok)
    assert np.array_equal(tokens, run.tokens("base", "embed", 2))


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    one = pack_run(rich(tmp_path / "one"), tmp_path / "1.h5").read_bytes()
    two = pack_run(rich(tmp_path / "two"), tmp_path / "2.h5").read_bytes()
    assert one == two


def test_a_run_without_extras(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    packed = open_run(pack_run(run, tmp_path / "run.h5"))
    assert packed.events("base") == ()
    assert not packed.has_analysis()
    assert packed.preview("sample 1", "image") is None
    with pytest.raises(StoreError, match="no token states of row 0"):
        packed.tokens("base", "embed", 0)
    with pytest.raises(StoreError, match="is not analyzed yet"):
        packed.read_analysis()


def test_an_analysis_of_a_packed_run_goes_beside_it(tmp_path: Path) -> None:
    run = rich(tmp_path / "run")
    packed = open_run(pack_run(run, tmp_path / "run.h5"))
    before = packed.path.read_bytes()
    again = analysis(run.plan_hash, note="newer")
    packed.write_analysis(again)
    assert packed.read_analysis() == again
    assert packed.path.read_bytes() == before
    names = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert names == {"run", "run.h5", "run.analysis.json", "run.analysis.csv"}


def test_nothing_is_added_to_a_packed_run(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    packed = open_run(pack_run(run, tmp_path / "run.h5"))
    with pytest.raises(StoreError, match="packed run and only read"):
        packed.write_checkpoint(record("other"))
    with pytest.raises(StoreError, match="packed run and only read"):
        packed.write_shard("base", 0, shard_rows(run, 0), SITES)
    with pytest.raises(StoreError, match="packed run and only read"):
        packed.save_media("x", "image", b"")
    with pytest.raises(StoreError, match="packed already"):
        pack_run(packed, tmp_path / "again.h5")


def test_what_is_there_is_not_lost(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    (tmp_path / "thesis.h5").write_bytes(b"years of work")
    for force in (False, True):
        with pytest.raises(StoreError, match="is there and no packed run"):
            pack_run(run, tmp_path / "thesis.h5", force=force)
    path = pack_run(run, tmp_path / "run.h5")
    with pytest.raises(StoreError, match="replace it"):
        pack_run(run, path)
    pack_run(run, path, force=True)
    assert verify_run(path) == ()


def test_an_incomplete_run_is_not_packed(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    run.write_checkpoint(record("lco"))
    with pytest.raises(StoreError, match="lco is incomplete: shard 0 of 4"):
        pack_run(run, tmp_path / "run.h5")
    (run.path / "lco" / "checkpoint.json").unlink()
    damaged = run.path / "base" / "shard-00001.h5"
    damaged.write_bytes(damaged.read_bytes() + b"x")
    with pytest.raises(StoreError, match="not what its receipt says"):
        pack_run(run, tmp_path / "run.h5")
    with pytest.raises(StoreError, match="holds no checkpoint yet"):
        pack_run(create_run(tmp_path / "empty", plan()), tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


# ----------------------------------------------------------------------------------- suspicion


def resealed(path: Path) -> None:
    """Put a seal that holds on whatever is before the old one."""
    data = path.read_bytes()[:-SIZE]
    path.write_bytes(data + seal(content_sha(data)))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack_run(fill(create_run(tmp_path / "run", plan())), tmp_path / "run.h5")


def test_every_flipped_byte_breaks_the_seal(packed: Path) -> None:
    good = packed.read_bytes()
    for offset in np.random.default_rng(0).integers(0, len(good), 100).tolist():
        packed.write_bytes(good[:offset] + bytes([good[offset] ^ 0x40]) + good[offset + 1 :])
        with pytest.raises(StoreError, match=r"seal|no packed run"):
            open_run(packed)
    packed.write_bytes(good)
    assert verify_run(packed) == ()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_no_packed_run(packed: Path, keep: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(StoreError, match="is no run"):
        open_run(packed)
    assert len(verify_run(packed)) == 1


def test_damage_after_opening_is_noticed(packed: Path) -> None:
    run = open_run(packed)
    run.states("base", "embed")
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    with pytest.raises(StoreError, match="not what its seal says"):
        run.states("base", "embed")


def outside(file: h5py.File) -> None:
    del file["checkpoints/base/states/last"]
    file["checkpoints/base/states/last"] = h5py.ExternalLink("/etc/passwd", "/x")


def swapped(file: h5py.File) -> None:
    file["checkpoints/base/samples/id"][0] = b"sample 9"


def more(file: h5py.File) -> None:
    file["more"] = np.zeros(3)


def renamed(file: h5py.File) -> None:
    file.move("checkpoints/base", "checkpoints/lco")


def escaped(file: h5py.File) -> None:
    file.move("checkpoints/base", "checkpoints/media")


def unhashed(file: h5py.File) -> None:
    file.attrs["plan_hash"] = np.bytes_("0" * 64)


def packed_plan(file: h5py.File) -> None:
    data = file["plan"][()]
    del file["plan"]
    file.create_dataset("plan", data=data, chunks=data.shape, compression="gzip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "link to elsewhere"),
        (swapped, "other rows, sites or hashes than the plan"),
        (more, "expected exactly"),
        (renamed, "another name or plan"),
        (escaped, "checkpoint name"),
        (unhashed, "expected the plan with hash 000000000000"),
        (packed_plan, "one filter fletcher32"),
    ],
)
def test_hostile_files_are_refused_though_sealed(packed: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    data = packed.read_bytes()
    packed.write_bytes(data[:-SIZE])
    with h5py.File(packed, "r+", libver=("v114", "v114")) as file:
        change(file)
    packed.write_bytes(packed.read_bytes() + seal("0" * 64))
    resealed(packed)
    with pytest.raises(StoreError, match=message):
        open_run(packed)
    assert len(verify_run(packed)) == 1


def test_a_sealed_state_that_contradicts_its_flag_is_refused(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-SIZE])
    with h5py.File(packed, "r+", libver=("v114", "v114")) as file:
        file["checkpoints/base/states/mean"][4, 1, 2] = np.inf
    data = packed.read_bytes()
    packed.write_bytes(data + seal(content_sha(data)))
    with pytest.raises(StoreError, match="the contrary"):
        open_run(packed).states("base", "block_00", "mean")
    assert "the contrary" in verify_run(packed)[0]


# ----------------------------------------------------------------------------------- full disk


def test_a_full_disk_at_any_write_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rich(tmp_path / "run")
    whole = pack_run(run, tmp_path / "whole.h5")
    real, calls, allowed = os.write, [0], [sys.maxsize]

    def failing(descriptor: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] > allowed[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:5000])  # and a write may be short

    monkeypatch.setattr(os, "write", failing)
    assert pack_run(run, tmp_path / "run.h5").read_bytes() == whole.read_bytes()
    (tmp_path / "run.h5").unlink()
    for good in {*range(0, calls[0], max(1, calls[0] // 25)), calls[0] - 1}:
        calls[0], allowed[0] = 0, good
        with pytest.raises(StoreError, match="could not be written: No space left"):
            pack_run(run, tmp_path / "run.h5")
        assert {p.name for p in tmp_path.iterdir()} <= {"run", "whole.h5", ".lock"}


LIMITED = """
import resource, sys
from pathlib import Path
from geomkit import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
sys.argv = ["geomkit", "pack", sys.argv[1], sys.argv[2]]
cli.main()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of the system")
def test_a_refusal_of_the_system_is_one_sentence_and_exit_3(tmp_path: Path) -> None:
    run = rich(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run.path), str(tmp_path / "run.h5")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "could not be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run.h5").exists()


def test_a_killed_packer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    (tmp_path / ".run.h5.tmp").write_bytes(b"half a file")
    assert verify_run(pack_run(run, tmp_path / "run.h5")) == ()
    assert not (tmp_path / ".run.h5.tmp").exists()


def test_a_packed_run_moves(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    path = pack_run(run, tmp_path / "run.h5")
    states, _ = run.states("base", "embed")
    shutil.rmtree(run.path)
    path.rename(tmp_path / "moved.bin")
    assert np.array_equal(open_run(tmp_path / "moved.bin").states("base", "embed")[0], states)
