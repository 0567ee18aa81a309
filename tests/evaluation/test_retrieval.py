"""R@k and MRR both ways against a second computation, and what makes a suite odd is said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from geomkit import cli
from geomkit.errors import DegenerateInput, SampleError
from geomkit.evaluation import measure
from geomkit.evaluation.retrieval import things
from geomkit.evaluation.tables import retrieval_table
from geomkit.store import Run, create_run
from geomkit.types import Modality, Plan, Row
from tests import small_run

Rows = Sequence[tuple[str, Modality, str, str]]
"""Id, modality, content and group of each row."""
PAIRED: Rows = [
    (f"s{i}", modality, f"{modality} {i}", f"s{i}")
    for modality in ("text", "image")
    for i in range(12)
]  # type: ignore[misc]  # the literals are modalities


def captured(
    tmp_path: Path,
    rows: Rows,
    states: Mapping[str, NDArray[np.float32]],
    bad: tuple[int, ...] = (),
) -> Run:
    """A run of these rows; checkpoint -> states `(rows, dim)` at every site."""
    planned = tuple(Row(i, id_, m, c, g) for i, (id_, m, c, g) in enumerate(rows))
    batches = tuple((i,) for i in range(len(planned)))
    plan = Plan(
        "geomkit-plan/1", "toy", planned, {"text": "t", "image": "i"}, ("last",), (), batches,
        len(batches), "float32",
    )  # fmt: skip
    run = create_run(tmp_path / "run", plan)
    for name, own in states.items():
        run.write_checkpoint(small_run.record(name, dim=own.shape[1]))
        made = small_run.shard_rows(run, 0, bad=bad)
        good = np.where(made.ok[:, None], own, np.nan)
        sites = len(small_run.SITES)
        there = {"last": np.repeat(good[:, None], sites, axis=1).astype(np.float32)}
        run.write_shard(name, 0, replace(made, states=there), small_run.SITES)
    return run


def by_hand(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
    """Query i belongs to item i: sort the cosines and look."""
    ranks = []
    for i, q in enumerate(queries):
        cosines = [float(q @ g / np.linalg.norm(q) / np.linalg.norm(g)) for g in gallery]
        ranks.append(sorted(range(len(cosines)), key=lambda j: -cosines[j]).index(i) + 1)
    found = {f"R@{k}": float(np.mean([rank <= k for rank in ranks])) for k in (1, 5, 10)}
    return {**found, "MRR": float(np.mean([1 / rank for rank in ranks]))}


def some_states(seed: int, noise: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((12, 6))
    return np.concatenate([text, text + noise * rng.standard_normal((12, 6))]).astype(np.float32)


def test_scores_and_changes_are_those_of_a_second_computation(tmp_path: Path) -> None:
    states = {"before": some_states(0, 3.0), "after": some_states(1, 0.5)}
    found = measure(captured(tmp_path, PAIRED, states), ["before", "after"])
    scores = {(s.checkpoint, s.direction, s.metric): s for s in found.scores}
    changes = {(c.direction, c.metric): c for c in found.changes}
    for name, own in states.items():
        for way, pair in (
            ("text->image", (own[:12], own[12:])),
            ("image->text", (own[12:], own[:12])),
        ):
            for metric, value in by_hand(*pair).items():
                score = scores[name, way, metric]
                assert score.value == pytest.approx(value, abs=1e-12)
                assert score.interval.low <= value <= score.interval.high
                assert (score.queries, score.gallery) == (12, 12)
    for (way, metric), change in changes.items():
        two = scores["after", way, metric].value - scores["before", way, metric].value
        assert change.value == pytest.approx(two)
        assert change.interval.low <= two <= change.interval.high
        assert 0 <= change.p <= 1
    assert scores["before", "text->image", "R@1"].chance == pytest.approx(1 / 12)
    assert len(json.loads(found.to_json())["scores"]) == 16
    assert retrieval_table(found).row_count == 16


def test_one_medium_with_several_texts_is_one_item_and_any_text_is_right(tmp_path: Path) -> None:
    """Five rows that show one picture: copies of it are no wrong answers, nor ties."""
    rows: Rows = [
        (f"s{i}", m, f"picture {i // 2}" if m == "image" else f"text {i}", f"s{i}")
        for m in ("text", "image")
        for i in range(6)
    ]  # type: ignore[misc]
    eye = np.eye(3, dtype=np.float32)
    text = np.repeat(eye, 2, axis=0) + np.tile([[0.0], [0.1]], (3, 1)).astype(np.float32)
    states = np.concatenate([text, np.repeat(eye, 2, axis=0)])
    found = measure(captured(tmp_path, rows, {"one": states}), ["one"])
    first = {s.direction: s for s in found.scores if s.metric == "R@1"}
    assert (first["text->image"].value, first["image->text"].value) == (1.0, 1.0)
    assert (first["text->image"].gallery, first["image->text"].gallery) == (3, 6)
    assert any("6 image rows show 3 different things" in note for note in found.notes)


def test_a_text_of_two_pictures_ties_and_is_told(tmp_path: Path) -> None:
    rows: Rows = [
        (f"s{i}", m, "a dog" if m == "text" and i < 2 else f"{m} {i}", f"s{i}")
        for m in ("text", "image")
        for i in range(4)
    ]  # type: ignore[misc]
    eye = np.eye(4, dtype=np.float32)
    said = eye.copy()
    said[1] = said[0] = eye[0] + eye[1]
    found = measure(captured(tmp_path, rows, {"one": np.concatenate([said, eye])}), ["one"])
    first = {s.direction: s.value for s in found.scores if s.metric == "R@1"}
    assert first == {"image->text": 0.5, "text->image": 0.5}
    assert any("1 texts are said of several image things" in note for note in found.notes)


def test_things_are_joined_by_group_and_by_content() -> None:
    rows = [
        Row(i, f"s{i}", "image", sha, group)
        for i, (sha, group) in enumerate(
            [("a", "g"), ("b", "g"), ("b", "h"), ("c", "i"), ("", "j")]
        )
    ]
    assert things(rows) == {"s0": "s0", "s1": "s0", "s2": "s0", "s3": "s3", "s4": "s4"}


def test_rows_that_could_not_be_shown_are_left_out_of_both_sides(tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    found = measure(captured(tmp_path, PAIRED, {"base": states}, bad=(13,)), ["base"])
    assert {(s.queries, s.gallery) for s in found.scores} == {(11, 11)}
    assert "1 rows could not be shown and are left out" in found.notes[0]


def test_text_alone_is_no_suite(tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    run = captured(tmp_path, PAIRED[:12], {"base": states})
    with pytest.raises(SampleError, match="two different samples with a text and an image"):
        measure(run, ["base"])


def test_states_that_all_point_one_way_find_nothing_and_say_whose(tmp_path: Path) -> None:
    run = captured(tmp_path, PAIRED, {"flat": np.ones((24, 6), np.float32)})
    with pytest.raises(DegenerateInput, match="with the states of 'flat'"):
        measure(run, ["flat"])


@pytest.mark.parametrize("given", [[], ["--data", "sandbox", "--benchmark", "MAEB"]])
def test_the_command_wants_one_of_two(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["geomkit", "evaluate", "--ckpt", "base", *given])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "either --data or --benchmark" in " ".join(capsys.readouterr().err.split())


def test_the_command_captures_measures_and_finds_its_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a project keeps of its own captures, retrieval keeps what it needs."""
    (tmp_path / "geomkit.toml").write_text('[capture]\nsites = ["embed"]\npoolings = ["mean"]\n')
    asked = ["evaluate", "--ckpt", "base", "--data", "sandbox:validation", "--limit", "16"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["geomkit", *asked, "--json"])
    told = []
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    found = json.loads(told[0])
    ways = {score["direction"] for score in found["scores"]}
    assert ways == {"image->text", "text->image", "audio->text", "text->audio"}
    (run,) = (tmp_path / "geomkit-evaluation").iterdir()
    assert run.name == "retrieval-sandbox-validation"
