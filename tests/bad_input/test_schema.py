"""Group D, the schema: good HDF5 that says something else than the plan, or contradicts itself.

55 a site less           SCHEMA           64 ids in another order  SCHEMA
56 a site more           SCHEMA           65 other ids             SCHEMA
57 wrong rank            SCHEMA           66 other tokens, hashes  test_tokens_..., test_hashes_...
58 no rows               SCHEMA           67 other pooling         SCHEMA
59 one row               is allowed       68 other layer count     test_checkpoints_of_other_...
60 transposed            SCHEMA           69 other version         SCHEMA
61 other number types    SCHEMA           70 text that is no UTF-8 SCHEMA
62 big-endian            SCHEMA           71 NUL in a string       SCHEMA
63 an id twice           SCHEMA           72 large attribute       SCHEMA
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.store import Run, create_run, open_run, verify_run
from geomkit.store.records import from_json, record_sha, to_json
from geomkit.store.run import Entry
from tests.bad_input.runs import Change, attribute, first, refused, replace, spoil
from tests.small_run import SITES, fill, plan, record, shard_rows, two_checkpoints


def half_as_bits(file: Any, _: Path) -> None:
    """bfloat16 kept as uint16."""
    shape = file["states/last"].shape
    del file["states/last"]
    data = np.zeros(shape, "<u2")
    file.create_dataset("states/last", data=data, chunks=shape, fletcher32=True)


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


def no_rows(file: Any, _: Path) -> None:
    for name in ("index", "id", "modality", "ok", "n_tokens", "token_sha", "note"):
        kind = file[f"samples/{name}"].dtype
        del file[f"samples/{name}"]
        file.create_dataset(
            f"samples/{name}", (0,), kind, chunks=(1,), maxshape=(None,), fletcher32=True
        )
    for name in ("last", "mean"):
        shape = (0, *file[f"states/{name}"].shape[1:])
        del file[f"states/{name}"]
        options = {"chunks": (1, *shape[1:]), "maxshape": (None, *shape[1:]), "fletcher32": True}
        file.create_dataset(f"states/{name}", shape, "<f4", **options)


def other_pooling(file: Any, _: Path) -> None:
    file.move("states/mean", "states/max")


def twice(names: Any) -> Any:
    return np.array([names[1], *names[1:]], dtype=names.dtype)


def one_site_more(file: Any, folder: Path) -> None:
    for name in ("states/last", "states/mean"):
        replace(name, lambda x: np.concatenate([x, x[:, :1]], axis=1))(file, folder)
    replace("sites", lambda x: np.array([*x, b"block_99"], dtype=h5py.string_dtype("utf-8", 10)))(
        file, folder
    )


def one_more(file: Any, _: Path) -> None:
    file.create_dataset("x", data=[1])


def one_less(file: Any, _: Path) -> None:
    del file["samples/note"]


SCHEMA: dict[str, tuple[Change, str]] = {
    "one more dataset": (one_more, "expected exactly"),
    "one less dataset": (one_less, "expected exactly"),
    "no states": (lambda f, _: f["states"].clear(), "1 to 16 poolings"),
    "one site more": (one_site_more, "other rows, sites or hashes"),
    "no rows": (no_rows, "without empty axes"),
    "other pooling": (other_pooling, "other rows, sites or hashes"),
    "bits of a half float": (half_as_bits, "expected float32"),
    "an id twice": (replace("samples/id", twice), "other rows, sites"),
    "ids in another order": (replace("samples/id", lambda x: x[::-1]), "other rows, sites"),
    "float64": (replace("states/last", lambda x: x.astype("<f8")), "expected float32"),
    "float16": (replace("states/last", lambda x: x.astype("<f2")), "expected float32"),
    "bfloat16 in one pooling": (bfloat, "one type of states in all poolings"),
    "big-endian": (replace("states/last", lambda x: x.astype(">f4")), "expected float32"),
    "integers": (replace("states/last", lambda x: x.astype("<i4")), "expected float32"),
    "transposed": (replace("states/last", lambda x: x.T), "sizes disagree"),
    "flat": (replace("states/last", lambda x: x.ravel()), "expected rank 3"),
    "one row less": (replace("states/last", lambda x: x[:-1]), "sizes disagree"),
    "other dim in one pooling": (replace("states/last", lambda x: x[..., :-1]), "sizes disagree"),
    "one site less": (replace("sites", lambda x: x[:-1]), "sizes disagree"),
    "other site": (replace("sites", first(b"block_07")), "other rows, sites or hashes"),
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
    "large attribute": (attribute("format", np.bytes_(b"x" * 60_000)), "one fixed string"),
}


@pytest.mark.parametrize("case", SCHEMA)
def test_other_schemas_are_refused(run: Run, case: str) -> None:
    change, message = SCHEMA[case]
    spoil(run, change)
    refused(run, message)


def nan_in_a_good_row(file: Any, _: Path) -> None:
    file["states/last"][0, 0, 0] = np.nan


def numbers_in_a_bad_row(file: Any, _: Path) -> None:
    file["samples/ok"][0] = 0


@pytest.mark.parametrize("change", [nan_in_a_good_row, numbers_in_a_bad_row])
def test_states_that_contradict_their_flag_are_refused(run: Run, change: Change) -> None:
    spoil(run, change)
    with pytest.raises(StoreError, match="the contrary"):
        open_run(run.path).states("base", "embed")
    assert "the contrary" in verify_run(run.path)[0]


def test_one_row_is_a_run(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=1)))
    assert verify_run(run.path) == ()
    assert open_run(run.path).states("base", "embed")[0].shape[0] == 2


def other_tokens(file: Any, _: Path) -> None:
    name = "samples/token_sha"
    replace(name, first(b"f" * 64))(file, Path())


def test_tokens_that_differ_refuse_to_be_compared(tmp_path: Path) -> None:
    run = two_checkpoints(tmp_path / "run")
    spoil(run, other_tokens)
    with pytest.raises(ProvenanceMismatch, match="token"):
        open_run(run.path).activations("base", "embed", "text")
    assert verify_run(run.path)


def rewritten(run: Run, **changes: Any) -> None:
    path = run.path / "base" / "checkpoint.json"
    entry = from_json(Entry, path)
    other = dataclasses.replace(entry.record, **changes)
    changed = dataclasses.replace(entry, record=other, sha256=record_sha(other))
    path.write_bytes(to_json(changed))


@pytest.mark.parametrize(
    "changes", [{"weights_sha": "other"}, {"dtype": "bfloat16"}, {"sites": SITES[:-1]}, {"dim": 7}]
)
def test_hashes_that_differ_from_the_record_are_refused(run: Run, changes: dict[str, Any]) -> None:
    rewritten(run, **changes)
    with pytest.raises(StoreError, match="receipt is for another file, plan or checkpoint"):
        open_run(run.path).states("base", "embed")
    assert len(verify_run(run.path)) == open_run(run.path).shard_count()


def test_checkpoints_of_other_numbers_of_layers_are_each_what_they_say(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan(samples=3)))
    run.write_checkpoint(record("deep", sites=(*SITES, "block_01")))
    for number in range(run.shard_count()):
        rows = shard_rows(run, number)
        wide = {p: np.concatenate([s, s[:, :1]], axis=1) for p, s in rows.states.items()}
        run.write_shard(
            "deep", number, dataclasses.replace(rows, states=wide), (*SITES, "block_01")
        )
    again = open_run(run.path)
    assert again.states("deep", "block_01")[0].shape == again.states("base", "embed")[0].shape
    with pytest.raises(StoreError, match="no 'last' states at 'block_01'"):
        again.states("base", "block_01")
