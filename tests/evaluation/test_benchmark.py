"""mteb over local tasks, offline: separate results, right numbers, and nothing done in silence."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

pytest.importorskip("mteb", reason="needs the eval extra")

import mteb
from datasets import Dataset

from geomkit import cli, sandbox
from geomkit.capture import capture_run
from geomkit.checkpoints import load_checkpoint
from geomkit.data.samples import load_samples
from geomkit.errors import MissingExtra, SampleError, StoreError, UsageError
from geomkit.evaluation import benchmark as benchmarks
from geomkit.evaluation import measure
from geomkit.evaluation.benchmark import AS_PAPER, TaskScore, benchmark, tasks_of
from geomkit.evaluation.encoder import Encoder, meta
from geomkit.evaluation.tables import benchmark_table
from geomkit.places import CheckpointSpec
from geomkit.plans import CaptureConfig
from geomkit.processing import load_processor
from tests import tiny_models

CONFIG = CaptureConfig(sites=("final_norm",), poolings=("last",), batch_size=8)
TWO = (CheckpointSpec("base", "base"), CheckpointSpec("lco", "lco"))
PAIRS = [("a red circle", "one red disc"), ("a blue star", "one blue star"), ("a bell", "a tone")]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of eight pictures and eight sounds on disk, and a table of text pairs."""
    folder = tmp_path_factory.mktemp("suite")
    rows = []
    for sample in sandbox.samples("validation", images=8, sounds=8):
        row: dict[str, Any] = {"id": sample.id, "text": sample.text}
        if sample.image is not None:
            sample.image.save(folder / f"{len(rows)}.png")
            row["image"] = f"{len(rows)}.png"
        if sample.audio is not None:
            sound = sample.audio
            soundfile.write(folder / f"{len(rows)}.wav", sound.samples, sound.rate, "FLOAT")
            row["audio"] = f"{len(rows)}.wav"
        rows.append(row)
    (folder / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"anchor": one, "positive": other} for one, other in PAIRS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder


def names(suite: Path) -> list[str]:
    return [f"local:{suite}/scenes.jsonl", f"local:{suite}/pairs.jsonl"]


def first_right(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> float:
    """The share of queries whose own item has the largest cosine; `gallery` begins with those."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, gallery)]
    return float((np.argmax(unit[0] @ unit[1].T, axis=1) == np.arange(len(queries))).mean())


def test_two_checkpoints_have_results_of_their_own_with_the_numbers_of_a_capture(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = benchmark(TWO, names(suite), tmp_path / "out", CONFIG)
    assert found.failed == ()
    samples = load_samples(suite / "scenes.jsonl")[1]
    run = capture_run(TWO, samples, tmp_path / "run", CONFIG)
    got = {(s.checkpoint, s.task): s for s in found.scores}
    for name in ("base", "lco"):
        said = run.activations(name, "final_norm", "text")
        place = {row.id: i for i, row in enumerate(said.rows)}
        for medium in ("image", "audio"):
            shown = run.activations(name, "final_norm", medium)  # type: ignore[arg-type]
            own = [place[row.id] for row in shown.rows]
            rest = [i for i in range(len(said.rows)) if i not in own]
            there = first_right(shown.states, said.states[own + rest])
            back = first_right(said.states[own], shown.states)
            for way, value in ((f"{medium}-text", there), (f"text-{medium}", back)):
                score = got[name, f"local-scenes-{way}"]
                assert score.value == score.recall_1 == pytest.approx(value, abs=1e-5)
    assert {task for _, task in got} >= {"local-pairs-text-text"}
    assert {s.metric for s in found.scores} == {"hit_rate_at_1"}
    assert benchmark_table(found).row_count == 7
    kept = sorted(p.parent.parent.name for p in (tmp_path / "out").rglob("model_meta.json"))
    assert kept == ["geomkit__base", "geomkit__lco"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a kept result was made again")

    monkeypatch.setattr(Encoder, "encode", refuse)
    assert benchmark(TWO, names(suite), tmp_path / "out", CONFIG) == found
    other = CaptureConfig(prompt="e5v")
    missed = benchmark(TWO[:1], names(suite)[1:], tmp_path / "out", other)
    assert "made again" in missed.failed[0]  # another prompt is another result


def test_states_are_those_of_capture_and_revisions_are_of_weights_and_of_how_rows_are_shown() -> (
    None
):
    folder = tiny_models.saved("qwen2_5_vl")
    checkpoint = load_checkpoint("tiny", str(folder), device="cpu")
    processor = load_processor(folder)
    encoder = Encoder(checkpoint, processor, CONFIG)
    about = encoder.mteb_model_meta
    assert about.name == "geomkit/tiny"
    assert {"text", "image"} <= set(about.modalities)
    assert about.embed_dim == checkpoint.dim
    prompted = meta(checkpoint, processor, CaptureConfig(prompt="none"))
    assert prompted.revision != about.revision
    assert prompted.revision.partition("-")[0] == about.revision.partition("-")[0]
    table = Dataset.from_dict({"text": ["a dog", "two cats on a mat", ""]})
    states = shown(encoder, table)
    assert np.linalg.norm(states, axis=1) == pytest.approx(1)
    alone = shown(encoder, table.select([1]))
    np.testing.assert_allclose(alone[0], states[1], atol=1e-5)
    assert encoder.notes == {"texts were empty: the prompt alone is shown": 1}


def shown(encoder: Encoder, table: Any) -> NDArray[np.float32]:
    inputs = SimpleNamespace(dataset=table)
    return encoder.encode(inputs, task_metadata=None, hf_split="test", hf_subset="default")


@pytest.fixture(scope="module")
def base() -> Encoder:
    checkpoint = load_checkpoint("base", device="cpu")
    return Encoder(checkpoint, load_processor(checkpoint.place.where), CaptureConfig(text_tokens=3))


def test_a_picture_with_a_text_is_shown_with_both(base: Encoder) -> None:
    image = next(s.image for s in sandbox.samples("validation", images=1, sounds=0))
    rows = [{"image": image, "text": text} for text in ("a red one", "a blue one", None)]
    states = shown(base, _Rows(rows))
    assert len(np.unique(states.round(4), axis=0)) == 3


class _Rows(list[Any]):
    """Rows as a torch dataset has them: a length and items, no features."""


def test_cut_texts_and_control_tokens_are_counted(base: Encoder) -> None:
    base.notes.clear()
    token = base.processor.tokenizer.eos_token
    shown(base, Dataset.from_dict({"text": [f"a {token} b", "one two three four five six"]}))
    assert base.notes["texts held a control token, which is shown with a space in it"] == 1
    assert base.notes["texts were cut to 3 tokens"] >= 1
    base.notes.clear()


def test_a_row_of_two_media_is_refused(base: Encoder) -> None:
    with pytest.raises(SampleError, match=r"at most one medium a row, row 0 .* image and audio"):
        shown(base, _Rows([{"image": 1, "audio": 2}]))


def test_a_broken_picture_fails_its_tasks_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture " + name.encode())
    rows = [{"id": n, "text": f"text {n}", "image": f"{n}.png"} for n in ("a", "b")]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["geomkit", "evaluate", "--ckpt", "base", "--benchmark", f"local:{tmp_path}/bad.jsonl"]
    monkeypatch.setattr("sys.argv", [*asked, "--out", str(tmp_path / "out"), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["scores"] == []
    assert "failed: base, local-bad-image-text: Row 0 of the task cannot be shown" in told.err


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("AudioCapsA2TRetrieva", "near it are .*AudioCapsA2TRetrieval"),
        ("local:", "Expected local:DATA, got no data"),
        ("local:nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_names_of_nothing(name: str, match: str) -> None:
    with pytest.raises((UsageError, SampleError), match=match):
        tasks_of([name])


def test_a_task_twice_is_refused(suite: Path) -> None:
    with pytest.raises(UsageError, match="each task once, got local-pairs-text-text twice"):
        tasks_of(names(suite)[1:] * 2)


def test_benchmarks_of_the_paper_are_there_with_the_sizes_it_has() -> None:
    assert len(tasks_of(["MIEB(lite)"])) == 51
    assert len(tasks_of(["MAEB"])) == 30
    assert mteb.get_task("AudioCapsA2TRetrieval").metadata.name.startswith(AS_PAPER)


def test_seadoc_is_pages_found_by_questions_and_pages_without_one_stay(suite: Path) -> None:
    pages = suite / "pages.jsonl"
    rows = [{"id": str(i), "image": f"{i}.png"} for i in range(4)]
    for i in range(2):
        rows[i]["text"] = f"what is {i}?"
    pages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = tasks_of([f"seadoc:{pages}"])
    data = task.dataset["default"]["test"]
    assert (len(data["queries"]), len(data["corpus"])) == (2, 4)
    assert task.metadata.main_score == "ndcg_at_10"


def test_a_picture_with_two_captions_is_one_document_and_either_caption_is_right(
    suite: Path,
) -> None:
    rows = [{"id": f"{i}", "image": f"{i // 2}.png", "text": f"caption {i}"} for i in range(4)]
    (suite / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    there, back = tasks_of([f"local:{suite}/captions.jsonl"])
    data = there.dataset["default"]["test"]
    assert (len(data["queries"]), len(data["corpus"])) == (2, 4)
    assert data["relevant_docs"]["q-0"] == {"d-0": 1, "d-1": 1}
    data = back.dataset["default"]["test"]
    assert (len(data["queries"]), len(data["corpus"])) == (4, 2)
    assert data["relevant_docs"]["q-3"] == {"d-2": 1}


def test_first_answers_are_hits_where_there_are_several_right_ones() -> None:
    """mteb's recall_at_1 divides by the number of right answers, and so is 0.2 at best of five."""
    row = {"recall_at_1": 0.2, "hit_rate_at_1": 1.0}
    assert benchmarks._hits(SimpleNamespace(scores={"test": [row, {"hit_rate_at_1": 0.5}]})) == 0.75
    assert benchmarks._hits(SimpleNamespace(scores={"test": [{"accuracy": 1.0}]})) is None


def test_means_over_tasks_and_over_categories_take_what_all_have() -> None:
    def score(name: str, task: str, category: str, value: float) -> TaskScore:
        return TaskScore(name, task, category, "m", value, None, False, "r")

    scores = [
        score("a", "1", "x", 0.2), score("a", "2", "x", 0.4), score("a", "3", "y", 0.9),
        score("b", "1", "x", 0.0), score("b", "2", "x", 0.2), score("b", "3", "y", 0.1),
        score("b", "4", "z", 1.0),
    ]  # fmt: skip
    one, two = benchmarks._means(scores, ("a", "b"))
    assert (one.tasks, one.task_mean, one.category_mean) == (
        3,
        pytest.approx(0.5),
        pytest.approx(0.6),
    )
    assert (two.task_mean, two.category_mean) == (pytest.approx(0.1), pytest.approx(0.1))


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmark", "encoder", "local"):
        monkeypatch.delitem(sys.modules, f"geomkit.evaluation.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "mteb", None)
    from geomkit import stages

    with pytest.raises(MissingExtra, match=r"pip install 'geomkit\[eval\]'.*--data needs no"):
        stages.benchmark(["base"], ["MAEB"], Path("out"), lambda *_: None)


def test_ties_with_wrong_answers_are_misses_in_local_tasks(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that says one thing of everything finds nothing, whatever rows are called."""
    rng = np.random.default_rng(0)

    def alike(self: Encoder, inputs: Any, **_: Any) -> NDArray[np.float32]:
        """All rows one direction; noise below what float32 can tell."""
        rows = np.ones((len(inputs.dataset), self.checkpoint.dim)) / self.checkpoint.dim**0.5
        return np.asarray(rows + 1e-9 * rng.standard_normal(rows.shape), np.float32)

    monkeypatch.setattr(Encoder, "encode", alike)
    found = benchmark(TWO[:1], names(suite), tmp_path / "out", CONFIG)
    assert found.failed == ()
    assert {score.value for score in found.scores} == {0.0}
    assert {score.recall_1 for score in found.scores} == {0.0}


def test_a_picture_that_two_rows_tell_apart_by_nothing_is_scored_as_without_mteb(
    suite: Path, tmp_path: Path
) -> None:
    """Two pictures with one caption: a tie for that text, in the one suite as in the other."""
    told = (suite / "scenes.jsonl").read_text().splitlines()
    said = [json.loads(line)["text"] for line in told]
    rows = [{"id": f"{i}", "image": f"{i}.png", "text": said[i // 2]} for i in range(6)]
    data = suite / "told-twice.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = benchmark(TWO[:1], [f"local:{data}"], tmp_path / "out", CONFIG)
    run = capture_run(TWO[:1], load_samples(data)[1], tmp_path / "run", CONFIG)
    own = {s.direction: s.value for s in measure(run, ["base"]).scores if s.metric == "R@1"}
    assert {s.task.removeprefix("local-told-twice-").replace("-", "->"): s.value
            for s in found.scores} == pytest.approx(own)  # fmt: skip
    assert own["image->text"] == 0.0  # each caption stands there twice, once for another picture


@pytest.mark.parametrize("content", ['{"task_name": "loc', "{}", "\xff", None])
def test_a_kept_result_that_cannot_be_read_is_named_and_loses_no_other(
    content: str | None, suite: Path, tmp_path: Path
) -> None:
    asked = [*names(suite)[1:], f"local:{suite}/other.jsonl"]
    (suite / "other.jsonl").write_text((suite / "pairs.jsonl").read_text())
    benchmark(TWO[:1], asked, tmp_path, CONFIG)
    (kept,) = tmp_path.rglob("local-pairs-text-text.json")
    if content is None:
        told = json.loads(kept.read_text())
        told["scores"]["test"][0]["main_score"] = float("nan")
        content = json.dumps(told)
    kept.write_text(content, encoding="latin-1")
    found = benchmark(TWO[:1], asked, tmp_path, CONFIG)
    assert [score.task for score in found.scores] == ["local-other-text-text"]
    (why,) = found.failed
    assert "local-pairs-text-text: " in why
    assert ("is nan" in why) if "NaN" in content else (str(kept) in why and "remove it" in why)
    found.to_json()
    kept.unlink()
    assert benchmark(TWO[:1], asked, tmp_path, CONFIG).failed == ()


def states_of(name: str, rows: list[dict[str, Any]], suite: Path, out: Path) -> dict[Any, Any]:
    """(Id, modality) -> unit state of a capture of these rows."""
    data = suite / f"{out.name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = CheckpointSpec(name, name)
    run = capture_run([spec], load_samples(data)[1], out, CONFIG)
    found = {}
    for modality in {row.modality for row in run.plan.rows}:
        own = run.activations(name, "final_norm", modality)
        for row, state in zip(own.rows, own.states, strict=True):
            found[row.id, modality] = state / np.linalg.norm(state)
    return found


def ranks(queries: list[Any], gallery: list[Any]) -> list[int]:
    """Rank of item i among all for query i."""
    cosines = np.array(queries) @ np.array(gallery).T
    return [int((row >= row[i]).sum()) for i, row in enumerate(cosines)]


@pytest.mark.parametrize("name", ["base", "lco"])
def test_text_pairs_and_pages_have_the_numbers_of_a_computation_by_hand(
    name: str, suite: Path, tmp_path: Path
) -> None:
    said = [json.loads(line) for line in (suite / "scenes.jsonl").read_text().splitlines()]
    words = [row["text"] for row in said]
    pairs = suite / "by-hand.jsonl"
    told = [{"anchor": a, "positive": b} for a, b in pairwise(words[:9])]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in told))
    pages = suite / "pages-by-hand.jsonl"
    shown = [{"id": f"{i}", "image": f"{i}.png", "text": words[i]} for i in range(6)]
    del shown[4]["text"], shown[5]["text"]  # pages that nobody asks for
    pages.write_text("".join(json.dumps(row) + "\n" for row in shown))
    spec = (CheckpointSpec(name, name),)
    found = benchmark(spec, [f"local:{pairs}", f"seadoc:{pages}"], tmp_path / "out", CONFIG)
    got = {score.task: score for score in found.scores}

    texts = [{"id": f"t{i}", "text": text} for i, text in enumerate(words[:9])]
    text = states_of(name, texts, suite, tmp_path / "texts")
    own = [text[f"t{i}", "text"] for i in range(9)]
    first = np.mean([rank == 1 for rank in ranks(own[:8], own[1:])])
    assert got["local-by-hand-text-text"].value == pytest.approx(first)

    states = states_of(name, shown, suite, tmp_path / "pages")
    asked = [states[f"{i}", "text"] for i in range(4)]
    place = ranks(asked, [states[f"{i}", "image"] for i in range(6)])
    gain = np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in place])
    assert (got["SeaDoc"].metric, got["SeaDoc"].value) == (
        "ndcg_at_10",
        pytest.approx(gain, abs=1e-5),
    )
    assert got["SeaDoc"].recall_1 == pytest.approx(np.mean([rank == 1 for rank in place]))


def test_other_weights_under_one_name_are_other_results(suite: Path, tmp_path: Path) -> None:
    asked = names(suite)[1:]
    for source in ("base", "lco"):
        benchmark([CheckpointSpec("mine", source)], asked, tmp_path, CONFIG)
    kept = list(tmp_path.rglob("local-pairs-text-text.json"))
    assert len({path.parent.name.partition("-")[0] for path in kept}) == len(kept) == 2
    # and other data under one name are another result, of the same weights
    table = suite / "changes.jsonl"
    for text in ("one red disc", "no disc at all"):
        rows = [{"anchor": "a red circle", "positive": text}, {"anchor": "b", "positive": "c"}]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = benchmark(TWO[:1], [f"local:{table}"], tmp_path, CONFIG)
        (path,) = tmp_path.rglob("local-changes-text-text.json")
        assert json.loads(path.read_text())["dataset_revision"] == found.scores[0].revision
    assert found.failed == ()


def test_a_folder_that_cannot_be_one_is_a_sentence(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file could not be created"):
        benchmark(TWO[:1], names(suite)[1:], tmp_path / "file", CONFIG)


def test_a_gallery_of_one_is_refused(suite: Path) -> None:
    table = suite / "one.jsonl"
    table.write_text(json.dumps({"anchor": "a", "positive": "b"}) + "\n")
    with pytest.raises(SampleError, match=r"two or more different text items .* all is found"):
        tasks_of([f"local:{table}"])


def test_a_beginning_of_names_lists_them() -> None:
    with pytest.raises(UsageError, match=r"near it are .*MIEB\(lite\)"):
        tasks_of(["mieb"])


@pytest.mark.parametrize("option", [["--limit", "4"], ["--force"], ["--no-gate"]])
def test_options_that_do_nothing_for_benchmarks_are_refused(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["geomkit", "evaluate", "--ckpt", "base", "--benchmark", "MAEB", *option]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "with --benchmark it does nothing" in " ".join(capsys.readouterr().err.split())
