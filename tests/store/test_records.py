from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import create_run
from geomkit.store.records import checkpoint_hash, from_json, lines, to_csv, to_json
from geomkit.types import (
    Analysis,
    Binding,
    CheckpointRecord,
    Difference,
    Drift,
    Interval,
    Measurement,
    ProbeResult,
    Verdict,
)
from tests.small_run import plan, record


def analysis(plan_hash: str = "p", note: str = "") -> Analysis:
    interval = Interval(-0.5, 1.0, 0.95, "closed form")
    return Analysis(
        schema="geomkit-analysis/1", plan_hash=plan_hash, dataset="toy",
        checkpoints=("base", "lco"), sites=("final_norm",), modalities=("image", "text"),
        pairs=("image-text",), trained=("text",), headline="h",
        verdicts=(Verdict("mean_cosine", "image", "untrained", "PASS", "s"),),
        measurements=(
            Measurement("mean_cosine", "base", "final_norm", "image", -0.25, interval, 0.0,
                        "lower", 9, "ref", note),
            Measurement("alignment", "base", "embed", "image", None, None, None, "lower", 9,
                        note="degenerate"),
        ),
        differences=(
            Difference("mean_cosine", "base", "lco", "final_norm", "image", -0.1, interval,
                       "lower", 9),
        ),
        probes=(
            ProbeResult("colour", True, "text", "image", "lco", "final_norm", 0.5, interval, 0.3,
                        0.25, 0.26, 0.24, 90, 30),
        ),
        probe_differences=(),
        skipped=({"id": "a", "modality": "image", "reason": "torn"},),
        provenance={"seed": 0, "prompts": {"text": "t"}},
    )  # fmt: skip


def test_an_analysis_round_trips_and_is_byte_reproducible(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    given = analysis(run.plan_hash)
    run.write_analysis(given)
    first = (run.path / "analysis.json").read_bytes(), (run.path / "analysis.csv").read_bytes()
    assert run.read_analysis() == given
    run.write_analysis(run.read_analysis())
    second = (run.path / "analysis.json").read_bytes(), (run.path / "analysis.csv").read_bytes()
    assert first == second


def test_an_analysis_of_another_plan_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", plan())
    with pytest.raises(StoreError, match="not analyzed yet"):
        run.read_analysis()
    run.write_analysis(analysis("another plan"))
    with pytest.raises(StoreError, match="is of plan another plan"):
        run.read_analysis()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_a_record_with_nan_is_refused(value: float) -> None:
    bad = Measurement("m", "base", "s", "image", value, None, None, "lower", 3)
    with pytest.raises(StoreError, match="Measurement cannot be written as JSON"):
        to_json(bad)


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    gate = {"parity": {"passed": np.bool_(True), "value": np.float32(0.5)}}
    (tmp_path / "r.json").write_bytes(to_json(record(gate=gate)))
    read = from_json(CheckpointRecord, tmp_path / "r.json")
    assert read.gate == {"parity": {"passed": True, "value": 0.5}}


def test_the_table_has_one_line_a_number() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(analysis()).decode())))
    kinds = [line["kind"] for line in lines]
    assert kinds == ["measurement"] * 2 + ["difference", "probe"] + ["probe"] * 2
    assert lines[0]["value"] == "-0.25"  # a negative number is no formula
    assert lines[1]["value"] == ""
    assert lines[3]["modality"] == "text->image"


def test_beside_a_probe_stand_its_control_its_ceiling_and_its_selectivity() -> None:
    span = Interval(0.1, 0.3, 0.95, "m")
    given = analysis()
    probe = dataclasses.replace(
        given.probes[0], ceiling=0.9, uncentred=0.4, selectivity_interval=span
    )
    rows = list(lines(dataclasses.replace(given, probes=(probe,))))[3:]
    assert {row["metric"]: row["value"] for row in rows} == {
        "probe:colour": 0.5,
        "control:colour": 0.26,
        "ceiling:colour": 0.9,
        "uncentred:colour": 0.4,
        "selectivity:colour": 0.24,
    }
    assert (rows[4]["low"], rows[4]["high"]) == (0.1, 0.3)
    assert "low" not in rows[1]


def test_bindings_and_drifts_are_lines_of_the_table() -> None:
    span = Interval(0.1, 0.3, 0.95, "m")
    ends = ("base", "lco", "final_norm", "image")
    bindings = (
        Binding(*ends, "r2", "text", 0.2, span, 40, 41),
        Binding(*ends, "r2", "text-own", -0.6, span, 40, 41),
        Binding(*ends, "recall@1", "text", None, None, 40, 41, "no clear change"),
    )
    drifts = (Drift("drift_cka", *ends, 0.9, span, 0.0, 41),)
    given = dataclasses.replace(analysis(), bindings=bindings, drifts=drifts)
    rows = list(csv.DictReader(io.StringIO(to_csv(given).decode())))[-4:]
    assert [row["kind"] for row in rows] == ["binding"] * 3 + ["drift"]
    assert [row["metric"] for row in rows] == [
        "binding:r2", "binding:r2", "binding:recall@1", "drift_cka",
    ]  # fmt: skip
    assert [row["predictor"] for row in rows] == ["text", "text-own", "text", ""]
    assert [row["value"] for row in rows] == ["0.2", "-0.6", "", "0.9"]
    assert (rows[2]["note"], rows[3]["chance"]) == ("no clear change", "0.0")
    assert all((row["before"], row["after"]) == ("base", "lco") for row in rows)


@pytest.mark.parametrize("note", ["=cmd|x", "+1", "-1+2", "@SUM(A1)", "\t=1", "  =1", "\r=1"])
def test_text_never_becomes_a_formula(note: str) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(analysis(note=note)).decode(), newline="")))
    assert lines[0]["note"] == f"'{note}"


@pytest.mark.parametrize(
    "field",
    ["weights_sha", "decoder_sha", "towers_sha", "adapter_sha", "template_sha", "dtype", "dim"],
)
def test_what_decides_the_numbers_is_in_the_hash(field: str) -> None:
    other = dataclasses.replace(record(), **{field: 99 if field == "dim" else "other"})
    assert checkpoint_hash(other) != checkpoint_hash(record())


def test_what_does_not_decide_the_numbers_is_not() -> None:
    other = dataclasses.replace(record(), name="n", source="s", gate={}, merged=True)
    assert checkpoint_hash(other) == checkpoint_hash(record())
