from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.store import FORMAT, VERSION, create_run, latest_run, open_run, verify_run
from geomkit.store import files as store_files
from geomkit.types import MODALITIES
from tests.small_run import DIM, SITES, fill, plan, record, shard_rows, two_checkpoints


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    again = open_run(tmp_path / "run")
    assert again == run
    for number in range(run.shard_count()):
        given = shard_rows(run, number)
        for pooling, array in given.states.items():
            for position, site in enumerate(SITES):
                states, ok = again.states("base", site, pooling)
                assert np.array_equal(states[given.index], array[:, position])
                assert ok.all()
    assert again.checkpoint("base") == record("base")
    assert verify_run(run.path) == ()


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    one = fill(create_run(tmp_path / "one", plan()))
    time.sleep(1.1)  # HDF5 stamps objects in whole seconds, unless it is told not to
    two = fill(create_run(tmp_path / "two", plan()))
    assert tree(one.path) == tree(two.path)


def test_other_rows_give_other_bytes(tmp_path: Path) -> None:
    one = fill(create_run(tmp_path / "one", plan()), seed=0)
    two = fill(create_run(tmp_path / "two", plan()), seed=1)
    assert tree(one.path) != tree(two.path)


def test_a_shard_reads_with_plain_h5py(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=70, shard_batches=100)))
    with h5py.File(run.path / "base" / "shard-00000.h5") as file:
        assert file.attrs["format"].decode() == FORMAT
        assert file.attrs["version"] == VERSION
        assert file.attrs["plan_hash"].decode() == run.plan.hash
        states = file["states/last"]
        assert states.shape == (140, len(SITES), DIM)
        assert states.chunks == (64, 1, DIM)
        assert states.fletcher32
        assert file["samples/id"][0].decode() == "sample 0"
        assert [site.decode() for site in file["sites"]] == list(SITES)


def test_a_bad_sample_stays_as_a_row(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()), bad=(3,))
    states, ok = run.states("base", "final_norm")
    assert np.flatnonzero(~ok).tolist() == [3]
    assert np.isnan(states[3]).all()
    assert run.skipped() == (
        {"id": "sample 1", "modality": "image", "reason": "image is truncated"},
    )


def test_activations_are_paired_over_checkpoints(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    fill(run, "base", seed=0, bad=(3,))
    fill(run, "lco", seed=1, bad=(5,))
    before = run.activations("base", "block_00", "image")
    after = run.activations("lco", "block_00", "image")
    assert before.rows == after.rows
    assert [row.index for row in before.rows] == [1, 7, 9, 11]
    everything, _ = run.states("lco", "block_00")
    assert np.array_equal(after.states, everything[[1, 7, 9, 11]])
    assert np.isfinite(before.states).all()
    views = run.views("lco", "block_00")
    assert list(views) == sorted({r.modality for r in run.plan.rows}, key=MODALITIES.index)
    assert views["image"].rows == after.rows
    assert np.array_equal(views["image"].states, after.states)


def test_an_incomplete_checkpoint_does_not_change_the_pairing(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    fill(run, "base")
    run.write_checkpoint(record("lco"))
    run.write_shard("lco", 0, shard_rows(run, 0, bad=(0, 2, 4)), SITES)
    assert len(run.activations("base", "embed", "text").rows) == 6
    assert not run.complete("lco")
    with pytest.raises(StoreError, match="lco is incomplete: shard 1 of 4"):
        run.states("lco", "embed")


def test_damage_raises_instead_of_changing_the_pairing(tmp_path: Path) -> None:
    run = two_checkpoints(tmp_path / "run")
    path = run.path / "lco" / "shard-00002.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not run.has_shard("lco", 2)
    assert not run.complete("lco")
    with pytest.raises(StoreError, match="is not what its receipt says"):
        run.activations("base", "embed", "text")
    assert len(verify_run(run.path)) == 1


def test_different_tokens_refuse_to_be_compared(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    run.write_checkpoint(record("lco"))
    for number in range(run.shard_count()):
        rows = shard_rows(run, number, seed=1)
        if number == 3:
            rows = dataclasses.replace(rows, token_sha=["f" * 64, *rows.token_sha[1:]])
        run.write_shard("lco", number, rows, SITES)
    with pytest.raises(ProvenanceMismatch, match=r"base and lco were shown different tokens"):
        run.activations("base", "embed", "text")
    assert "different tokens" in verify_run(run.path)[0]


def test_checkpoints_keep_the_order_of_capture(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    for name in ("tuned", "base", "merged"):
        run.write_checkpoint(record(name))
    run.write_checkpoint(record("tuned"))  # resumed
    assert [r.name for r in open_run(run.path).checkpoints()] == ["tuned", "base", "merged"]


def test_the_same_plan_resumes_and_another_is_refused(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    assert create_run(run.path, plan()).complete("base")
    (run.path / "umap-0123456789abcdef.json").write_text("{}")  # the report's, of these states
    other = plan(samples=3)
    with pytest.raises(StoreError, match=f"{run.plan_hash[:12]}.*{other.hash[:12]}"):
        create_run(run.path, other)
    replaced = create_run(run.path, other, force=True)
    assert replaced.checkpoints() == ()
    assert set(tree(run.path)) == {"plan.json"}


def test_force_leaves_what_is_not_ours(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    (run.path / "base" / "notes.txt").write_text("mine")
    create_run(run.path, plan(samples=3), force=True)
    assert (run.path / "base" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty and no run"):
        create_run(tmp_path, plan(), force=force)
    assert tree(tmp_path) == {"thesis.tex": b"x"}


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    with pytest.raises(StoreError, match="weights_sha differ"):
        run.write_checkpoint(record("base", weights_sha="other"))
    with pytest.raises(StoreError, match=r"versions \(torch .* and 2\.14\.0\) differ"):
        run.write_checkpoint(record("base", versions={"torch": "2.14.0"}))
    run.write_checkpoint(record("base", gate={}, source="moved"))  # not part of the identity


def test_a_finished_shard_is_kept(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    before = tree(run.path)
    fill(run, seed=9)
    assert tree(run.path) == before


def test_latest_run_is_the_newest_plan(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    for age, name in enumerate(("old", "new")):
        create_run(demo / name, plan())
        os.utime(demo / name / "plan.json", (1000 + age, 1000 + age))
    assert latest_run(demo) == demo / "new"
    assert latest_run(demo / "old") == demo / "old"
    assert latest_run(tmp_path) == demo / "new"  # two levels below, where `geomkit demo` puts it
    with pytest.raises(StoreError, match="no run at"):
        latest_run(tmp_path / "nowhere")


def test_previews_are_found_by_id_and_modality(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    run.save_media("a/../b <script>", "image", b"RIFF")
    path = run.media("a/../b <script>", "image")
    assert path is not None
    assert path.parent == run.path / "media"
    assert path.read_bytes() == b"RIFF"
    assert run.media("a/../b <script>", "audio") is None
    assert run.media("other", "image") is None
    with pytest.raises(StoreError, match="no preview of 'text'"):
        run.save_media("x", "text", b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": []}, "columns of one length"),
        ({"notes": ["", "", ""], "ok": np.array([True, False, True])}, "gives no reason"),
        ({"index": np.array([0, 2, 6])}, "other rows than the plan says"),
        ({"ids": ["sample 0", "sample 1", "sample 9"]}, "other rows than the plan says"),
        ({"states": {"last": np.ones((3, 3, DIM), np.float32)}}, "expected sites"),
    ],
)
def test_rows_that_are_not_the_slice_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    rows = dataclasses.replace(shard_rows(run, 0), **change)  # type: ignore[arg-type] # table of fields
    with pytest.raises(StoreError, match=message):
        run.write_shard("base", 0, rows, SITES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_good_row_must_be_finite(tmp_path: Path, value: float) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    rows = shard_rows(run, 0)
    rows.states["mean"][1, 2, 3] = value
    with pytest.raises(StoreError, match="the mean state of 'sample 1' is not finite"):
        run.write_shard("base", 0, rows, SITES)


def test_a_shard_before_its_checkpoint_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    with pytest.raises(StoreError, match="holds no checkpoint 'base'"):
        run.write_shard("base", 0, shard_rows(run, 0), SITES)


@pytest.mark.parametrize("name", ["", "..", "a/b", "CON", "nul.txt", "x.", "media", "a" * 65, "é"])
def test_names_that_cannot_be_folders_are_refused(tmp_path: Path, name: str) -> None:
    run = create_run(tmp_path / "run", plan())
    with pytest.raises(StoreError, match="checkpoint name"):
        run.write_checkpoint(record(name))


def test_names_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record("lco"))
    with pytest.raises(StoreError, match="one name where letter case"):
        run.write_checkpoint(record("LCO"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ((0, 2, 4),)}, "every row exactly once"),
        ({"batches": ((0, 1), (2, 4), (3, 5))}, "hold one modality"),
        ({"shard_batches": 0}, "at least one batch"),
        ({"poolings": ()}, "a pooling"),
    ],
)
def test_a_plan_must_make_sense(tmp_path: Path, change: dict[str, object], message: str) -> None:
    bad = dataclasses.replace(plan(samples=3), **change)  # type: ignore[arg-type] # table of fields
    with pytest.raises(StoreError, match=message):
        create_run(tmp_path / "run", bad)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "a\u202eb", "\x00", "x" * 257])
def test_ids_must_be_printable(tmp_path: Path, name: str) -> None:
    good = plan(samples=3)
    rows = (dataclasses.replace(good.rows[0], id=name), *good.rows[1:])
    with pytest.raises(StoreError, match="printable bytes"):
        create_run(tmp_path / "run", dataclasses.replace(good, rows=rows))


def test_ids_must_be_unique(tmp_path: Path) -> None:
    good = plan(samples=3)
    rows = (dataclasses.replace(good.rows[0], id="sample 1"), *good.rows[1:])
    with pytest.raises(StoreError, match="occurs twice"):
        create_run(tmp_path / "run", dataclasses.replace(good, rows=rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not the JSON"),
        ('{"a": 1, "a": 2}', "occurs twice"),
        ('{"a": NaN}', "not a number JSON knows"),
        ("[" * 100_000, "not the JSON"),
        ('{"schema": 3}', "is no Plan"),
        ("\xff", "is no Plan|not the JSON"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, text: str, message: str) -> None:
    run = create_run(tmp_path / "run", plan())
    (run.path / "plan.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=message):
        open_run(run.path)
    assert len(verify_run(run.path)) == 1


def test_an_edited_plan_no_longer_owns_the_shards(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    document = json.loads((run.path / "plan.json").read_text())
    document["prompts"]["image"] = "another question"
    (run.path / "plan.json").write_text(json.dumps(document))
    assert "belongs to another run" in verify_run(run.path)[0]


def test_two_writers_make_the_run_one_would(tmp_path: Path) -> None:
    alone = fill(create_run(tmp_path / "alone", plan(samples=12)))
    together = create_run(tmp_path / "together", plan(samples=12))
    failures: list[Exception] = []

    def write() -> None:
        try:
            fill(create_run(together.path, plan(samples=12)))
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tree(together.path) == tree(alone.path)


def test_a_lock_held_elsewhere_is_an_error_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path / "run", plan())
    monkeypatch.setattr(store_files, "LOCK_SECONDS", 0.05)
    with (
        store_files.write_lock(run.path),
        pytest.raises(StoreError, match="another process has been writing"),
    ):
        run.write_checkpoint(record())


def test_stale_leftovers_are_swept_and_ignored(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    leftover = run.path / "base" / ".shard-00001.h5.tmp"
    leftover.write_bytes(b"half a shard")
    assert verify_run(run.path) == ()
    create_run(run.path, plan())
    assert not leftover.exists()
