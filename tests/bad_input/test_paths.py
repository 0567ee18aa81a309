"""Group F, names and records: JSON of a run that points elsewhere, repeats itself or is none.

87 ../../x               NAMES, RECEIPTS        93 hash mismatch        RECEIPTS
88 absolute path         NAMES, RECEIPTS        94 shard missing        test_a_missing_...
89 NUL                   NAMES                  95 shard listed twice   test_a_receipt_for_...
90 device name, dot      NAMES                  96 overlapping rows     test_a_shard_that_...
91 case-fold collision   tests/store/test_run.py  97 truncated JSON     TEXTS (manifests: there)
92 composed, decomposed  test_two_spellings...  98 keys twice, NaN ...  TEXTS; no YAML is read
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, open_run, verify_run
from geomkit.store.records import from_json, to_json
from geomkit.store.run import Entry
from tests.bad_input.runs import refused, shard_path, sign
from tests.small_run import fill, plan, record

NAMES = (
    "../../x", "..", ".", "", "/etc", "a/b", "a\\b", "a\0b", "CON", "con.txt", "lpt1", "x.", " x",
    "media", "MEDIA", "-rf", ".hidden", "a\nb", "\x1b[2J", "é", "x" * 65, "~",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_by_that_name_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="checkpoint name"):
        run.write_checkpoint(record(name))
    with pytest.raises(StoreError, match=r"holds no checkpoint|expected letters"):
        run.states(name, "embed")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../base", "/etc", "lco", "base\0", "BASE"])
def test_a_record_by_another_name_than_its_folder_is_refused(run: Run, name: str) -> None:
    path = run.path / "base" / "checkpoint.json"
    entry = from_json(Entry, path)
    changed = dataclasses.replace(entry, record=dataclasses.replace(entry.record, name=name))
    path.write_bytes(to_json(changed))
    assert "belongs to another run or name" in verify_run(run.path)[0]


def test_a_word_that_changes_in_a_record_is_found(run: Run) -> None:
    """The gate and the training decide no hash of a shard, and are believed all the same."""
    path = run.path / "base" / "checkpoint.json"
    good = path.read_text()
    for old, new in (('"value": 1.0', '"value": 0.0'), ('"source": "toy"', '"source": "boy"')):
        assert old in good
        path.write_text(good.replace(old, new))
        assert "is not what its sha256 says" in verify_run(run.path)[0]


@pytest.mark.parametrize(
    ("name", "kind"), [("plan.json", "plan"), ("base/checkpoint.json", "record")]
)
def test_another_format_is_refused_in_words(run: Run, name: str, kind: str) -> None:
    path = run.path / name
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"schema": "geomkit-other/999"}))
    assert f"expected a {kind} by" in verify_run(run.path)[0]
    assert "geomkit-other/999" in verify_run(run.path)[0]


@pytest.mark.parametrize("folder", ["x y", "é", "con", "x."])
def test_a_folder_that_is_no_name_is_refused(run: Run, folder: str) -> None:
    shutil.copytree(run.path / "base", run.path / folder)
    assert "expected letters" in verify_run(run.path)[0]


RECEIPTS: dict[str, tuple[dict[str, Any], str]] = {
    "file above": ({"file": "../../secret.bin"}, "receipt is for another file"),
    "file elsewhere": ({"file": "/etc/passwd"}, "receipt is for another file"),
    "file with NUL": ({"file": "shard-00000.h5\0"}, "receipt is for another file"),
    "other hash": ({"sha256": "0" * 64}, "not what its receipt says"),
    "hash in capitals": ({"sha256": "A" * 64}, "not what its receipt says"),
    "other size": ({"bytes": 7}, "not what its receipt says"),
    "size below zero": ({"bytes": -1}, "not what its receipt says"),
    "other plan": ({"plan_hash": "0" * 64}, "receipt is for another file, plan"),
    "other checkpoint": ({"checkpoint_hash": "0" * 64}, "receipt is for another file, plan"),
    "other rows": ({"rows": 2}, "receipt is for another file"),
    "other format": ({"schema": "geomkit-receipt/2"}, "expected a receipt by 'geomkit-receipt/1'"),
    "size as text": ({"bytes": "12"}, "is no Receipt"),
    "size as float": ({"bytes": 12.5}, "is no Receipt"),
    "size beyond every number": ({"bytes": 10**400}, "is no Receipt|not what its receipt says"),
    "file as a list": ({"file": ["shard-00000.h5"]}, "is no Receipt"),
    "hash as null": ({"sha256": None}, "is no Receipt"),
}


@pytest.mark.parametrize("case", RECEIPTS)
def test_a_receipt_that_says_something_else_is_refused(run: Run, case: str) -> None:
    changes, message = RECEIPTS[case]
    path = shard_path(run).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(run, message)


def test_a_receipt_for_another_file_is_refused(run: Run) -> None:
    good = shard_path(run).with_suffix(".json")
    shutil.copy(good.with_name("shard-00001.json"), good)
    refused(run, "receipt is for another file")


def test_a_shard_that_stands_in_for_another_is_refused(run: Run) -> None:
    shutil.copy(shard_path(run).with_name("shard-00001.h5"), shard_path(run))
    sign(run)
    refused(run, "holds other rows, sites or hashes than the plan")


def test_a_missing_shard_is_named(run: Run) -> None:
    shard_path(run).with_suffix(".json").unlink()
    with pytest.raises(StoreError, match="shard 0 of 2 has no receipt; run the same capture again"):
        open_run(run.path).states("base", "embed")


def test_two_spellings_of_one_word_are_two_samples(tmp_path: Path) -> None:
    """Composed and decomposed: on a disk that folds them, their previews must not meet."""
    one, two = "caf\u00e9", "cafe\u0301"
    first = plan(samples=2)
    rows = tuple(
        dataclasses.replace(row, id=one if row.id == "sample 0" else two) for row in first.rows
    )
    run = fill(create_run(tmp_path / "run", dataclasses.replace(first, rows=rows)))
    run.save_media(one, "image", b"1")
    run.save_media(two, "image", b"2")
    assert run.media(one, "image") != run.media(two, "image")
    assert verify_run(run.path) == ()


@pytest.mark.parametrize("name", ["../../../x", "/etc/passwd", "a\0b"])
def test_a_preview_stays_in_its_folder_whatever_its_sample_is_called(run: Run, name: str) -> None:
    run.save_media(name, "image", b"1")
    path = run.media(name, "image")
    assert path is not None
    assert path.parent == run.path / "media"


def test_a_preview_that_is_a_link_is_not_shown(run: Run, tmp_path: Path) -> None:
    run.save_media("sample 0", "image", b"1")
    path = run.media("sample 0", "image")
    assert path is not None
    path.unlink()
    path.symlink_to(tmp_path / "secret.bin")
    assert run.media("sample 0", "image") is None


FILES = ("plan.json", "base/checkpoint.json", "base/shard-00000.json", "analysis.json")
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"7",
    "object": b"{}",
    "NaN": b'{"bytes": NaN}',
    "infinity": b'{"bytes": 1e999}',
    "keys twice": b'{"schema": "a", "schema": "b"}',
    "open": b"{",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "long number": b'{"bytes": ' + b"9" * 100_000 + b"}",
    "half a character": b'{"schema": "\\ud800"}',
    "no UTF-8": b'{"schema": "\xff\xfe"}',
    "UTF-16": '{"schema": "a"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"schema": "a"}',
    "comment": b'{} // {"schema": "a"}',
    "two": b"{}{}",
    "web page": b"<!DOCTYPE html>",
    "YAML": b"!!python/object/apply:os.system ['touch pwned']",
    "NUL": bytes(1000),
}


def read(path: Path, name: str) -> None:
    run = open_run(path)
    if name == "analysis.json":
        run.read_analysis()
    run.states("base", "embed")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("case", TEXTS)
def test_a_record_that_is_none_is_refused(run: Run, name: str, case: str) -> None:
    (run.path / name).write_bytes(TEXTS[case])
    problems = verify_run(run.path)
    assert len(problems) == 1
    assert name in problems[0]
    expected = r"is no \w+: at |is not the JSON it should be|expected at most 65536 bytes"
    with pytest.raises(StoreError, match=expected):
        read(run.path, name)


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_record_is_refused(run: Run, name: str, keep: float) -> None:
    data = (run.path / name).read_bytes()
    (run.path / name).write_bytes(data[: int((len(data) - 2) * keep)])
    assert name in verify_run(run.path)[0]
