"""Reports of thin and broken runs, measured for real: plain words and never a NaN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geomkit import stages
from geomkit.analyze import analyze_run
from geomkit.progress import silent
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
    assert "lco against base: nothing changed." in built.words("main")


def test_three_samples_are_told_to_be_too_few(tmp_path: Path) -> None:
    built = reported(tmp_path, {"base": NARROW, "lco": WIDE}, scenes=3)
    words = built.words()
    assert "Few samples: 6 of text, 3 of image and 3 of audio" in words
    assert "One of them can decide a verdict, PASS as well as FAIL" in words
    assert not re.search(r"\b(nan|NaN|inf)\b|None(?!: every)", words)


def test_rows_that_were_not_read_are_listed_and_left_out(tmp_path: Path) -> None:
    bad = (0, 5, 9)
    built = reported(tmp_path, {"base": NARROW, "lco": WIDE}, scenes=40, bad=bad)
    words = built.words()
    assert f"{len(bad)} rows could not be read" in words
    assert "Not in this analysis: 3 rows that could not be read (1 text and 2 image)." in words
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


def test_a_part_of_an_analysis_says_at_the_top_what_it_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    silently = {"probes": ("none",), "metrics": ("cone",), "sites": ("block_01", "final_norm")}
    analysis = stages.analyze(run, silent, **silently)
    page = stages.report(run, analysis, tmp_path / "report.html")
    built = read(page)
    (box,) = built.tree.xpath(".//*[@id='verdict']//*[@class='cautions']")
    told = " ".join("".join(box.itertext()).split())
    assert told.startswith(
        "Not in this analysis: 2 of 4 sites (embed, block_00); every metric that"
    )
    assert "5 of 5 kinds of probes" in told
    assert [one.replace("`", "") for one in built.numbers["cautions"]] == [told]
    codes = ["".join(code.itertext()) for code in box.iter("code")]
    assert codes == ["--metrics cone", "geomkit analyze"]
    provenance = " ".join("".join(built.tree.xpath(".//*[@id='provenance']//text()")).split())
    assert "Left out 2 of 4 sites (embed, block_00)" in provenance


def test_a_checkpoint_whose_capture_was_interrupted_is_missed_aloud(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    max((tmp_path / "run" / "lco").glob("shard-*.json")).unlink()
    analysis = stages.analyze(run, silent, probes=("none",))
    words = read(stages.report(run, analysis, tmp_path / "report.html")).words("main")
    assert "checkpoint lco, whose capture is not complete (lacks 1 of 2 shards: 1)" in words
