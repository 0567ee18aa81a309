"""Several runs of one plan as one analysis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomkit import stages
from geomkit.analyze import analyze_run
from geomkit.errors import UsageError
from geomkit.merged import merged
from geomkit.progress import silent
from geomkit.types import Analysis
from tests.reports import fixture
from tests.synthetic_run import NARROW, WIDE, write_run


def weighted(analysis: Analysis, **weights: str) -> Analysis:
    """The analysis with its checkpoints' weights set."""
    records: list[dict[str, Any]] = [
        {**r, "weights_sha": weights.get(r["name"], r["weights_sha"])}
        for r in analysis.provenance["checkpoints"]
    ]
    return replace(analysis, provenance={**analysis.provenance, "checkpoints": records})


def test_a_shared_reference_is_one_checkpoint_and_every_change_is_from_it() -> None:
    base = fixture.complete()
    both = merged({"a": weighted(base, lco="one"), "b": weighted(base, lco="two")})
    assert both.checkpoints == ("a/base", "a/lco", "b/lco")
    assert {d.before for d in both.differences} == {"a/base"}
    assert {d.after for d in both.differences} == {"a/lco", "b/lco"}
    assert len(both.measurements) == 3 * len(base.measurements) // 2  # the reference only once
    assert [r["name"] for r in both.provenance["checkpoints"]] == list(both.checkpoints)


def test_other_references_stay_apart() -> None:
    base = fixture.complete()
    both = merged({"a": weighted(base, base="one"), "b": weighted(base, base="two")})
    assert both.checkpoints == ("a/base", "a/lco", "b/base", "b/lco")
    assert {(d.before, d.after) for d in both.differences} == {
        ("a/base", "a/lco"),
        ("b/base", "b/lco"),
    }
    assert "b/lco against b/base" in both.headline


def test_the_verdicts_are_those_of_the_last_run() -> None:
    base = fixture.complete()
    worse = tuple(replace(d, value=None, interval=None) for d in base.differences)
    both = merged({"a": base, "b": replace(base, differences=worse)})
    told = {v.status for v in both.verdicts if v.metric == "mean_cosine"}
    assert told == {"NOT RUN"}


def test_another_plan_is_refused_in_one_sentence() -> None:
    base = fixture.complete()
    with pytest.raises(UsageError, match=r"runs of one plan, got a \(4be1c07f\) and b \(0000"):
        merged({"a": base, "b": replace(base, plan_hash="0" * 64)})


def test_a_run_named_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"base": NARROW}, scenes=4)
    with pytest.raises(UsageError, match=r"Expected different runs to compare, got .*a twice"):
        stages.joint_analysis([run, run], silent)


def test_several_runs_have_a_page_of_their_own(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / n, {"base": NARROW}, scenes=4) for n in "ab")
    assert stages.report_path([first]) == tmp_path / "a" / "report.html"
    assert stages.report_path([first, second]) == Path("report-a-b.html")


def test_nothing_to_export_to_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"base": NARROW}, scenes=4)
    with pytest.raises(UsageError, match=r"\(--csv, --tensorboard, --embedding-atlas\)"):
        stages.export(run, tmp_path, (), "final_norm")


def test_the_plan_is_part_of_the_provenance(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"base": NARROW, "lco": WIDE}, scenes=12)
    page = stages.report(run, analyze_run(run), tmp_path / "report.html")
    told = json.loads(page.with_suffix(".json").read_text())["analysis"]["provenance"]["plan"]
    assert told["rows"] == len(run.plan.rows)
    assert told["stored as"] == "float32"


def test_sites_are_those_that_all_runs_have() -> None:
    base = fixture.complete()
    both = merged({"a": base, "b": replace(base, sites=base.sites[2:])})
    assert both.sites == base.sites[2:]
