from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomkit import cli
from geomkit.cautions import cautions, left_out
from geomkit.types import Analysis, Interval, Measurement
from tests.synthetic_run import NARROW, WIDE, write_run

ROWS = {"text": 80, "image": 40}
SITES = ("embed", "block_00", "block_01", "block_02", "final_norm")


def whole(**given: Any) -> Analysis:
    """An analysis that left nothing out, and whose samples are many."""
    provenance = {
        "rows": dict(ROWS),
        "commands": ["geomkit capture --data x", "geomkit analyze", "geomkit report"],
        "checkpoints": [
            {"name": name, "sites": list(SITES), "weights_sha": name * 8}
            for name in ("base", "lco")
        ],
    } | given.pop("provenance", {})
    groups = {modality: given.pop(f"{modality}_groups", 40) for modality in ROWS}
    measurements = tuple(
        Measurement(
            "mean_cosine", name, "final_norm", modality, 0.5,
            Interval(0.4, 0.6, groups=groups[modality]), 0.0, "lower", n,
        )
        for name in ("base", "lco")
        for modality, n in ROWS.items()
    )  # fmt: skip
    own = Analysis(
        "s", "h", "x", ("base", "lco"), SITES, ("text", "image"), ("image-text",), ("text",), "",
        (), measurements, (), (), (), (), provenance,
    )  # fmt: skip
    return replace(own, **given)


def command(words: str) -> dict[str, Any]:
    return {"commands": ["geomkit capture --data x", f"geomkit analyze {words}".rstrip()]}


def test_a_whole_analysis_has_no_cautions() -> None:
    assert list(cautions(whole(), ROWS)) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--metrics cone,rank_me", ["every metric that `--metrics cone,rank_me` does not name"]),
        ("--metrics all", []),
        (
            "--probes none",
            ["5 of 5 kinds of probes (linear, mdl, separability, binding and drift)"],
        ),
        ("--probes linear,mdl,binding", ["2 of 5 kinds of probes (separability and drift)"]),
        ("--workers 2", []),
    ],
)
def test_what_a_command_did_not_ask_for_is_named(words: str, told: list[str]) -> None:
    assert list(left_out(whole(provenance=command(words)), ROWS)) == told


def test_sites_are_named_and_without_the_final_norm_there_are_no_verdicts() -> None:
    (told,) = left_out(whole(sites=("embed", "final_norm")), ROWS)
    assert told == "3 of 5 sites (block_00 to block_02)"
    (told,) = left_out(whole(sites=SITES[:-1]), ROWS)
    assert told == "1 of 5 sites (final_norm); verdicts are made at final_norm, so none is"


def test_rows_that_did_not_fit_are_told_from_rows_that_were_not_read() -> None:
    skipped = tuple({"id": str(i), "modality": "image", "reason": "gone"} for i in range(3))
    unread = whole(skipped=skipped, provenance={"rows": {"text": 80, "image": 37}})
    assert list(left_out(unread, ROWS)) == ["3 rows that could not be read (3 image)"]
    short = whole(skipped=skipped, provenance={"rows": {"text": 64, "image": 37}})
    assert next(left_out(short, ROWS)) == "rows that did not fit into --memory (16 of 80 text)"


def test_a_capture_that_was_interrupted_is_named() -> None:
    lack = {"incomplete": {"soup": "lacks 2 of 3 shards: 1, 2"}}
    (told,) = cautions(whole(provenance=lack), ROWS)
    assert told == (
        "Not in this analysis: checkpoint soup, whose capture is not complete (lacks 2 of 3 "
        "shards: 1, 2)."
    )


def test_how_to_have_the_whole_is_said_where_a_command_left_something_out() -> None:
    (told,) = cautions(whole(provenance=command("--probes none")), ROWS)
    assert told.endswith("). `geomkit analyze` without options makes the whole, from what is kept.")


def test_rows_that_were_not_read_come_back_with_no_command() -> None:
    skipped = ({"id": "1", "modality": "image", "reason": "gone"},)
    own = whole(skipped=skipped, provenance=command("--readout ridge"))
    assert list(cautions(own, ROWS)) == [
        "Not in this analysis: 1 row that could not be read (1 image)."
    ]


def test_several_runs_have_what_any_of_their_commands_asked_for() -> None:
    both = {"commands": ["geomkit analyze --probes linear", "geomkit analyze --probes mdl"]}
    (told,) = left_out(whole(provenance=both), ROWS)
    assert told == "3 of 5 kinds of probes (separability, binding and drift)"
    one = {"commands": ["geomkit analyze --probes linear", "geomkit analyze"]}
    assert list(left_out(whole(provenance=one), ROWS)) == []


@pytest.mark.parametrize("groups", [3, 19])
def test_few_samples_are_warned_of_by_groups(groups: int) -> None:
    (told,) = cautions(whole(image_groups=groups), ROWS)
    assert told.startswith(f"Few samples: {groups} of image, where copies")
    assert "PASS as well as FAIL" in told


def test_three_rows_are_few_where_no_interval_counts_them() -> None:
    rows = {"text": 3, "image": 3}
    alone = whole(measurements=(), provenance={"rows": rows})
    (told,) = cautions(alone, rows)
    assert told.startswith("Few samples: 3 of text and 3 of image")


def test_one_checkpoint_under_two_names_is_told() -> None:
    records = [{"name": n, "sites": list(SITES), "weights_sha": "ab"} for n in ("base", "lco")]
    (told,) = cautions(whole(provenance={"checkpoints": records}), ROWS)
    assert told == (
        "base and lco have the same weights: they are one checkpoint, and nothing can differ."
    )


def test_provenance_of_a_stranger_is_no_mistake() -> None:
    odd = {"checkpoints": {"a": 1}, "commands": "geomkit analyze --probes none"}
    assert list(cautions(whole(provenance=odd), ROWS)) == []


def test_analyze_and_report_print_the_cautions_beside_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=12)

    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["geomkit", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        told = capsys.readouterr()
        assert "Not in this analysis" not in told.out
        return " ".join(told.err.split())

    asked = ("--metrics", "cone", "--probes", "none", "--workers", "1")
    for command in (("analyze", str(run.path), *asked), ("report", str(run.path))):
        err = said(*command)
        assert "Not in this analysis: every metric that `--metrics cone` does not name" in err
        assert "Few samples: 12 of image and 12 of audio" in err
