"""What `geomkit info` says of a run: every row accounted for, damage and gaps named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geomkit import glance
from geomkit.store import create_run, open_run, overview, pack_run
from geomkit.store.overview import Rows
from tests.small_run import SITES, fill, plan, record, shard_rows


def said(path: Path) -> str:
    return "\n".join(glance.run_lines(overview(open_run(path))))


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()), bad=(1, 3, 4))
    run.write_checkpoint(record("lco"))
    run.write_shard("lco", 2, shard_rows(run, 2), SITES, events=("memory ran out: 8 -> 4",))
    seen = overview(open_run(run.path))
    base, lco = seen.checkpoints
    assert seen.rows == {"text": 6, "image": 6}
    assert base.rows == {"text": Rows(5, 1, 0), "image": Rows(4, 2, 0)}
    assert lco.rows == {"text": Rows(0, 0, 6), "image": Rows(3, 0, 3)}
    assert base.reasons == {"image is truncated": 3}
    assert (base.shards_done, lco.shards_done, lco.shards) == (4, 1, 4)
    assert lco.events == ("memory ran out: 8 -> 4",)
    assert seen.bytes == sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())
    text = said(run.path)
    assert "text: 5 ok, 1 not ok" in text
    assert "3 x image is truncated" in text
    assert "image: 3 ok, 3 not captured yet" in text
    assert "incomplete: 1 of 4 shards; run the same `geomkit capture` again" in text
    assert "event: memory ran out: 8 -> 4" in text
    assert "analyzed: not yet" in text


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({}, "not run"),
        ({"a": True, "b": True}, "2 of 2 checks passed"),
        ({"a": True, "b": False}, "1 of 2 checks passed; failed: b"),
    ],
)
@pytest.mark.parametrize("enforced", [None, 1.0, 0.0])
def test_the_gate_in_words(gate: dict[str, bool], words: str, enforced: float | None) -> None:
    checks: dict[str, object] = {
        name: {"passed": passed, "value": None, "tolerance": None} for name, passed in gate.items()
    }
    if enforced is not None:
        checks["enforced"] = {"passed": True, "value": enforced, "tolerance": None}
    off = "; not enforced (--no-gate)" if enforced == 0 and gate else ""
    assert glance.gate_words(record(gate=checks)) == words + off


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", ["short", "changed", "gone", "receipt"])
def test_damage_is_named_and_does_not_hide_the_rest(tmp_path: Path, number: int, kind: str) -> None:
    run = fill(create_run(tmp_path / "run", plan()))
    path = run.path / "base" / f"shard-{number:05d}.h5"
    data = path.read_bytes()
    if kind == "gone":
        path.unlink()
    elif kind == "receipt":
        path.with_suffix(".json").write_text("{}")
    else:
        path.write_bytes(data[:-1] if kind == "short" else data[:-1] + bytes([data[-1] ^ 1]))
    (held,) = overview(open_run(run.path)).checkpoints
    hurt, whole = ("text", "image") if number < 2 else ("image", "text")
    assert held.rows == {hurt: Rows(3, 0, 0, 3), whole: Rows(6, 0, 0)}
    assert len(held.problems) == 1
    text = said(run.path)
    assert text.count("damaged: ") == 1
    assert path.stem in text
    assert f"{hurt}: 3 ok, 3 in damaged files" in text
    assert f"{whole}: 6 ok" in text
    assert "not captured yet" not in text


def test_every_damaged_file_is_named_beside_what_is_missing(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    run.write_checkpoint(record())
    for number in (0, 2, 3):
        run.write_shard("base", number, shard_rows(run, number), SITES)
    for number in (0, 3):
        path = run.path / "base" / f"shard-{number:05d}.h5"
        path.write_bytes(path.read_bytes()[:-1])
    text = said(run.path)
    assert [f"shard-{number:05d}.h5" in text for number in range(4)] == [True, False, False, True]
    assert text.count("damaged: ") == 2
    assert "text: 0 ok, 3 in damaged files, 3 not captured yet" in text
    assert "image: 3 ok, 3 in damaged files" in text


def test_one_is_no_plural(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan(samples=1))
    run.write_checkpoint(record(sites=("final_norm",)))
    assert "1 site (final_norm) x" in said(run.path)
    assert "1 sites" not in said(run.path)


def test_a_packed_run_says_what_its_folder_says(tmp_path: Path) -> None:
    run = fill(create_run(tmp_path / "run", plan()), bad=(3,))
    packed = pack_run(run, tmp_path / "run.h5")
    one, two = (glance.run_facts(overview(open_run(p))) for p in (run.path, packed))
    for facts, form in ((one, "folder"), (two, "packed")):
        assert facts.pop("form") == form
        assert facts.pop("bytes") > 0
        facts.pop("path")
    assert json.loads(json.dumps(one)) == json.loads(json.dumps(two))
    assert "in a packed file" in said(packed)


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert "no checkpoint yet" in said(create_run(tmp_path / "run", plan()).path)
