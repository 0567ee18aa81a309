"""Token states and events: what a shard may have beside its states."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, TokenRows, create_run, open_run, verify_run
from geomkit.store.receipts import Attached, Receipt
from geomkit.store.records import from_json, to_json
from geomkit.store.shard import content_sha
from tests.small_run import SITES, fill, plan, record, shard_rows, token_rows


def filled(folder: Path, bad: tuple[int, ...] = (), **given: str) -> Run:
    run = create_run(folder, plan(**given))
    run.write_checkpoint(record())
    for number in range(run.shard_count()):
        rows = shard_rows(run, number, bad=bad)
        run.write_shard("base", number, rows, SITES, tokens=token_rows(rows))
    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("[!.]*")) if p.is_file()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_token_comes_back(tmp_path: Path, dtype: str) -> None:
    run = open_run(filled(tmp_path / "run", bad=(3,), store_dtype=dtype).path)
    for number in range(run.shard_count()):
        rows = shard_rows(run, number, bad=(3,))
        given = token_rows(rows)
        for position, index in enumerate(rows.index.tolist()):
            span = slice(*given.offsets[position : position + 2])
            for place, site in enumerate(SITES):
                found = run.tokens("base", site, index)
                assert found.dtype == np.float32
                close = np.abs(found - given.states[span, place])
                assert found.shape == close.shape
                assert np.all(close <= 2**-8 * np.abs(found) * (dtype == "bfloat16"))
    assert run.tokens("base", "embed", 3).shape == (0, 8)
    assert verify_run(run.path) == ()


def test_tokens_read_with_plain_h5py(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    with h5py.File(run.path / "base" / "tokens-00000.h5") as file:
        first, last = file["offsets"][1:3]
        states = file["states"][first:last, 2]
        index = int(file["index"][1])
    assert np.array_equal(states, run.tokens("base", "final_norm", index))


def test_a_shard_all_of_whose_rows_are_bad_has_no_tokens(tmp_path: Path) -> None:
    run = filled(tmp_path / "run", bad=(0, 2, 4))
    assert run.tokens("base", "embed", 2).shape == (0, 8)
    assert verify_run(run.path) == ()


def test_tokens_of_a_bad_row_become_nan(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    rows = shard_rows(run, 0)
    given = token_rows(rows)
    rows = dataclasses.replace(rows, ok=np.array([True, False, True]), notes=["", "torn", ""])
    for number in range(1, run.shard_count()):
        run.write_shard("base", number, shard_rows(run, number), SITES)
    run.write_shard("base", 0, rows, SITES, tokens=given)
    assert np.isnan(run.tokens("base", "embed", 2)).all()
    assert verify_run(run.path) == ()


def test_states_and_receipts_do_not_change_without_tokens_and_events(tmp_path: Path) -> None:
    bare = fill(create_run(tmp_path / "bare", plan()))
    rich = filled(tmp_path / "rich")
    for number in range(bare.shard_count()):
        name = f"base/shard-{number:05d}"
        assert (bare.path / f"{name}.h5").read_bytes() == (rich.path / f"{name}.h5").read_bytes()
        receipt = json.loads((bare.path / f"{name}.json").read_text())
        assert set(receipt) == {
            "schema", "file", "bytes", "sha256", "rows", "plan_hash", "checkpoint_hash",
        }  # fmt: skip
    with pytest.raises(StoreError, match="has no token states; capture with --tokens"):
        bare.tokens("base", "embed", 0)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [Path.unlink, damage])
def test_a_shard_whose_tokens_are_gone_is_redone(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    run = filled(tmp_path / "run")
    whole = tree(run.path)
    spoil(run.path / "base" / "tokens-00001.h5")
    assert not run.has_shard("base", 1)
    assert len(verify_run(run.path)) == 1
    again = filled(tmp_path / "run")
    assert tree(again.path) == whole
    assert verify_run(run.path) == ()


def test_tokens_can_be_asked_for_later(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    assert run.has_shard("base", 0)
    assert not run.has_shard("base", 0, tokens=True)
    filled(run.path)
    assert run.has_shard("base", 0, tokens=True)
    fill(run)  # without tokens: what is there is kept
    assert run.has_shard("base", 0, tokens=True)
    assert {p.relative_to(run.path): p.read_bytes() for p in run.path.rglob("*.h5")} == {
        p.relative_to(tmp_path / "fresh"): p.read_bytes()
        for p in filled(tmp_path / "fresh").path.rglob("*.h5")
    }


def test_force_removes_tokens_too(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    create_run(run.path, plan(samples=3), force=True)
    assert not list(run.path.glob("*/*"))


def spoiled(given: TokenRows, what: str) -> TokenRows:
    states, offsets = given.states.copy(), given.offsets.copy()
    if what == "NaN":
        states[offsets[1], 1, 3] = np.nan
    elif what == "lengths":
        offsets[1] += 1
    elif what == "offsets":
        offsets[1] = offsets[-1] + 1
    elif what == "sites":
        states = states[:, :-1]
    elif what == "dim":
        states = states[..., :-1]
    return TokenRows(states, offsets[:-1] if what == "rows" else offsets)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("NaN", "a token state of 'sample 1' is not finite"),
        ("lengths", "'sample 0' has 5 tokens that are not padding, and states of 6"),
        ("offsets", "offsets of tokens that rise from 0 to 15"),
        ("rows", "expected 4 offsets of tokens, got 3"),
        ("sites", r"expected tokens of shape \(tokens, 3, dim\)"),
        ("dim", "expected tokens of dim 8, got 7"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tmp_path: Path, what: str, message: str) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    rows = shard_rows(run, 0)
    with pytest.raises(StoreError, match=message):
        run.write_shard("base", 0, rows, SITES, tokens=spoiled(token_rows(rows), what))
    assert not run.has_shard("base", 0)


def attach(run: Run, name: str, data: bytes) -> None:
    """Give the first shard other tokens, and a receipt that matches them."""
    (run.path / "base" / name).write_bytes(data)
    path = run.path / "base" / "shard-00000.json"
    other = Attached(name, len(data), content_sha(data))
    path.write_bytes(to_json(dataclasses.replace(from_json(Receipt, path), tokens=other)))


def test_tokens_of_another_shard_are_refused(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    attach(run, "tokens-00000.h5", (run.path / "base" / "tokens-00001.h5").read_bytes())
    with pytest.raises(StoreError, match="tokens of other rows than its shard"):
        run.tokens("base", "embed", 0)
    assert not run.has_shard("base", 0)
    assert len(verify_run(run.path)) == 1


@pytest.mark.parametrize("name", ["../../secret.h5", "shard-00000.h5", "tokens-00001.h5"])
def test_a_receipt_cannot_name_other_files(tmp_path: Path, name: str) -> None:
    run = filled(tmp_path / "run")
    attach(run, name, (run.path / "base" / "tokens-00000.h5").read_bytes())
    with pytest.raises(StoreError, match=r"names other tokens|not what its receipt says"):
        run.tokens("base", "embed", 0)


def test_hostile_tokens_are_refused(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    path = run.path / "base" / "tokens-00000.h5"
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    with h5py.File(path, "r+", libver=("v114", "v114")) as file:
        shape = file["states"].shape
        del file["states"]
        outside = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("states", shape, "<f4", external=outside)
    attach(run, path.name, path.read_bytes())
    with pytest.raises(StoreError, match="chunked storage inside the file"):
        run.tokens("base", "embed", 0)


def test_events_are_kept_in_order(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    run.write_shard("base", 2, shard_rows(run, 2), SITES, events=("memory ran out: 8 -> 4",))
    run.write_shard("base", 0, shard_rows(run, 0), SITES, events=["a", "b"])
    assert open_run(run.path).events("base") == ("a", "b", "memory ran out: 8 -> 4")
    assert open_run(run.path).has_shard("base", 2)
