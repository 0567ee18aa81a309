"""The benchmarks run and say what they should; what they measure is no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import models
from benchmarks.clock import Spent, interleaved, ratio
from benchmarks.lines import Line, Setup, markdown

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "capture.py"
LINES = {"a": 4, "b": 3, "c": 4, "d": 5, "e": 1}


def test_a_ratio_is_made_of_times_of_one_round() -> None:
    ours, theirs = ([Spent(t, 2 * t) for t in times] for times in ((2, 30, 4), (4, 10, 1)))
    found = ratio(ours, theirs, "wall")
    assert (found.low, found.median, found.high, found.least) == (1.75, 3.0, 3.5, 2.0)
    assert ratio(ours, theirs, "cpu") == found


def test_a_ratio_of_one_round_has_no_spread() -> None:
    found = ratio([Spent(3, 1)], [Spent(2, 1)], "wall")
    assert (found.low, found.median, found.high) == (1.5, 1.5, 1.5)


def test_ways_take_turns_and_the_first_round_is_not_counted() -> None:
    called: list[tuple[str, int]] = []
    ways = {name: lambda number, name=name: called.append((name, number)) for name in "ab"}
    times = interleaved(ways, 2)
    assert [name for name, _ in called] == list("baabba")
    assert [number for _, number in called] == [0, 0, 0, 0, 1, 1]
    assert {name: len(found) for name, found in times.items()} == {"a": 2, "b": 2}


def test_a_table_says_where_it_was_made(tmp_path: Path) -> None:
    setup = Setup(True, 1, "cpu", "float32", "tiny", tmp_path)
    found = ratio([Spent(3, 1)], [Spent(2, 1)], "wall")
    table = markdown([Line("a", "this / that", wall=found, target=1.1)], setup)
    assert "| a | this / that | 1.500 (1.500 to 1.500; least 1.500) |" in table
    assert "| at most 1.1 |" in table
    assert "torch" in table
    assert "1 threads" in table


@pytest.mark.parametrize(
    ("size", "billions"), [("360m", 0.359), ("3b", 3.755), ("7b", 8.292), ("omni7b", 8.932)]
)
def test_sizes_are_those_of_the_real_models(size: str, billions: float) -> None:
    model = models.build(models.SIZES[size], dtype="bfloat16", device="meta")
    parameters = sum(one.numel() for one in model.parameters())
    assert parameters == pytest.approx(billions * 1e9, abs=1e6)


@pytest.mark.slow
def test_every_section_runs_at_a_tiny_size() -> None:
    lines = run()
    assert Counter(line["section"] for line in lines) == LINES
    for line in lines:
        told = [line[clock] for clock in ("wall", "cpu") if line[clock]]
        assert told or line["figure"]
        for found in told:
            assert all(math.isfinite(found[name]) for name in ("median", "low", "high", "least"))


@pytest.mark.slow
def test_a_model_with_media_runs_in_bfloat16() -> None:
    lines = run("--only", "a", "--size", "tiny-omni", "--dtype", "bfloat16")
    told = " ".join(line["what"] for line in lines)
    assert all(f"tiny-omni, {modality}:" in told for modality in ("text", "image", "audio"))


def run(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", "--threads", "1", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found
