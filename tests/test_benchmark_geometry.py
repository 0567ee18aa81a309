"""Contests are between ways to one value; what they take is no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import geometry, own, plain
from benchmarks.alone import Limits, Outcome, start
from benchmarks.contests import CONTESTS, Contest, Rival
from benchmarks.standings import Floor, Standing

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "geometry.py"
PYTHON = Path(sys.executable)
RIVAL = Rival("peer", "plain.mean_cosine", 2, target=15, lean=0.25)
OURS = Outcome("done", cpu=2.0, memory=10, value=0.5)
PLAIN = [
    (contest, way)
    for contest in CONTESTS
    for rival in contest.rivals
    for way in {rival.way, rival.instead}
    if way.startswith("plain.")
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return geometry.made(tmp_path_factory.mktemp("sets"), 3000, 32)


@pytest.mark.parametrize(("contest", "way"), PLAIN, ids=[way for _, way in PLAIN])
def test_a_transcription_has_the_value_of_the_metric(
    sets: list[Path], contest: Contest, way: str
) -> None:
    given = [np.load(path)[:300] for path in sets[: contest.sets]]
    ours = getattr(own, contest.metric)(*given)
    theirs = getattr(plain, way.partition(".")[2])(*given)
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_the_data_are_as_said_and_fewer_rows_are_the_first_of_more(
    sets: list[Path], tmp_path: Path
) -> None:
    few = [np.load(path) for path in geometry.made(tmp_path, 2000, 32)]
    x, y = (np.load(path) for path in sets)
    assert all(np.array_equal(part, whole[:2000]) for part, whole in zip(few, (x, y), strict=True))
    assert x.mean() == pytest.approx(0.5, abs=0.02)
    assert x.std(axis=0)[[0, -1]] == pytest.approx([2, 0.1], rel=0.05)
    assert plain.linear_cka(x[:300], y[:300]) > 0.5


@pytest.mark.parametrize(
    ("theirs", "before", "ratio", "verdict"),
    [
        (Outcome("done", 40, memory=50, value=0.5), None, ("", 20), "holds; memory holds"),
        (Outcome("done", 20, memory=30, value=0.5), None, ("", 10), "MISS; memory MISS"),
        (Outcome("done", 40, memory=50, value=0.6), None, ("", 20),
         "holds; memory holds; VALUES DIFFER"),
        (Outcome("time", 30, memory=20), None, (">=", 15), "holds; memory not shown"),
        (Outcome("time", 20, memory=50), None, (">=", 10),
         "not shown: out of time; memory holds"),
        (Outcome("memory", 1, memory=50), None, None,
         "not shown: it runs out of memory; memory holds"),
        (Outcome("memory", 1, memory=50), Outcome("done", 10), ("~", 20),
         "holds, extrapolated; memory holds"),
        (Outcome("time", 5, memory=50), Outcome("done", 5), ("~", 10),
         "MISS, extrapolated; memory holds"),
        (Outcome("failed", said="it broke"), None, None, "not shown: it broke"),
    ],
)  # fmt: skip
def test_what_did_not_end_shows_no_more_than_it_can(
    theirs: Outcome, before: Outcome | None, ratio: tuple[str, float] | None, verdict: str
) -> None:
    earlier = (200, before) if before else None
    one = Standing(CONTESTS[0], RIVAL, 400, [OURS, OURS], theirs, RIVAL.way, earlier)
    assert one.ratio == ratio
    assert one.verdict == verdict


def test_the_floor_is_arithmetic_or_reading_whichever_takes_longer() -> None:
    rates = {"float32": 4e9, "float64": 2e9, "bytes": 1e9}
    read, product = (
        next(one for one in CONTESTS if one.metric == name) for name in ("mean_cosine", "iso_score")
    )
    assert Floor(read, 1000, 100, 1.0, rates).seconds("float64") == 4e5 / 1e9
    floor = Floor(product, 1000, 100, 1.0, rates)
    assert (floor.seconds("float64"), floor.seconds("float32")) == (1e7 / 2e9, 1e7 / 4e9)


@pytest.mark.slow
def test_a_way_out_of_memory_or_time_is_stopped_and_told(sets: list[Path]) -> None:
    large = start(PYTHON, "plain.mean_cosine", Limits(1, 60, 1), sets=sets[:1], rows=3000)
    assert large.status == "memory"
    slow = start(PYTHON, "machine.rates", Limits(1, 0.5, 4096), sets=[], rows=0)
    assert (slow.status, slow.cpu) == ("time", 0.5)
    absent = start(PYTHON, "missing.way", Limits(1, 60, 4096), sets=[], rows=0)
    assert absent.status == "absent"


@pytest.mark.slow
def test_a_contest_is_run_without_the_peers_package() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rows", "200,300", "--dim", "32", "--json",
         "--only", "mean_cosine"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [one["rows"] for one in found["standings"]] == [200, 300]
    for one in found["standings"]:
        assert one["ran"] == "plain.mean_cosine"
        assert abs(one["apart"]) < 1e-6
    assert all(math.isfinite(one["float64"]) for one in found["floors"])
