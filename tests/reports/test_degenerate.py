"""Reports of thin and broken runs, measured for real: plain words and never a NaN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geomkit.analyze import analyze_run
from geomkit.projection import project
from reports import write_report
from tests.reports.conftest import Built, read
from tests.synthetic_run import NARROW, WIDE, Geometry, write_run


def reported(folder: Path, geometries: Mapping[str, Geometry], **given: Any) -> Built:
    """The report of a synthetic run, analysed as `geomkit analyze` does, without probes."""
    run = write_run(folder / "run", geometries, **given)
    page = folder / "report.html"
    return read(write_report(analyze_run(run), project(run), run.plan.rows, {}, page))


def statuses(built: Built) -> set[str]:
    return {v["status"] for v in built.numbers["analysis"]["verdicts"]}


def test_equal_checkpoints_changed_nothing(tmp_path: Path) -> None:
    built = reported(tmp_path, {"base": WIDE, "lco": WIDE}, scenes=40)
    assert not statuses(built) & {"PASS", "FAIL"}
    assert "no clear change" in built.words()


def test_three_samples_are_told_to_be_too_few(tmp_path: Path) -> None:
    built = reported(tmp_path, {"base": NARROW, "lco": WIDE}, scenes=3)
    words = built.words()
    assert "base" in words
    assert not re.search(r"\b(nan|NaN|inf)\b|None(?!: every)", words)


def test_rows_that_were_not_read_are_listed_and_left_out(tmp_path: Path) -> None:
    bad = (0, 5, 9)
    built = reported(tmp_path, {"base": NARROW, "lco": WIDE}, scenes=40, bad=bad)
    words = built.words()
    assert f"{len(bad)} rows could not be read" in words
    assert "unreadable" in words
    assert not re.search(r"\b(nan|NaN)\b", words)


def test_one_checkpoint_has_levels_and_no_differences(tmp_path: Path) -> None:
    words = reported(tmp_path, {"base": NARROW}, scenes=40).words()
    assert "Nothing can be compared: the run holds one checkpoint." in words
    assert "Anisotropy" in words


@pytest.mark.parametrize("medium", ["image", "audio"])
def test_one_medium_alone(tmp_path: Path, medium: str) -> None:
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=30)
    rows = {row.index for row in run.plan.rows if row.modality == medium}
    other = {row.modality for row in run.plan.rows} - {medium, "text"}
    dropped = [row.index for row in run.plan.rows if row.modality in other]
    built = reported(
        tmp_path / "alone", {"base": NARROW, "lco": WIDE}, scenes=30, bad=tuple(dropped)
    )
    assert rows
    assert f"{len(dropped)} rows could not be read" in built.words()
