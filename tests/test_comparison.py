"""Two checkpoints of a run through the real command: planted worlds, mistakes, any order."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from geomkit import cli
from geomkit.analyze import analyze_run
from geomkit.carried import CARRIED, FULL, NONE, NOTHING, OPPOSITE, PART, UNMEASURED
from geomkit.compare import HEADLINE
from geomkit.comparison import compare_checkpoints, families, measured, units
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import StoreError, UsageError
from geomkit.estimates import BETWEEN, DEFAULT, RETRIEVED, WITHIN
from geomkit.estimates.kept import Shelf
from geomkit.store import create_run, open_run, pack_run
from geomkit.summary import verdict_table
from tests import small_run
from tests.synthetic_run import (
    NARROW,
    SITES,
    WIDE,
    Geometry,
    synthetic_plan,
    synthetic_record,
    synthetic_states,
    write_run,
    write_states,
)

TEXT_ONLY = {"media": {"text": 64, "image": 0, "audio": 0}}
HALF = Geometry(cone=4.5, gap=1.0)
WORSE = Geometry(cone=20.0, gap=1.0)


@pytest.fixture
def geomkit(monkeypatch, capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["geomkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


def bare(said):
    """What is said without how much of the way it was."""
    return re.sub(r" \([\d.]+( to [\d.]+)? of the way of what was trained\)", "", said)


def planted(path, *, scenes=60, training=TEXT_ONLY, text=WIDE, **media):
    """Base in a narrow cone; then each modality with a geometry of its own, or constant at None."""
    plan = synthetic_plan(scenes)
    run = create_run(path, plan)
    before = synthetic_states(plan, NARROW)
    after = np.empty_like(before)
    for modality, geometry in ({"text": text} | media).items():
        rows = [r.index for r in plan.rows if r.modality == modality]
        after[rows] = 1.0 if geometry is None else synthetic_states(plan, geometry)[rows]
    for name, states in (("base", before), ("lco", after)):
        run.write_checkpoint(
            synthetic_record(name, before.shape[1], training if name == "lco" else {})
        )
        write_states(run, name, dict.fromkeys(SITES, states))
    return run


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A trajectory: the cone goes in two steps."""
    path = tmp_path_factory.mktemp("compare") / "run"
    worlds = {"base": NARROW, "mid": HALF, "lco": WIDE}
    return write_run(path, worlds, scenes=60, training=TEXT_ONLY)


WORLDS = {
    "reached": ({"image": WIDE, "audio": WIDE}, 0, "it transferred to image and audio."),
    "half": ({"image": WIDE, "audio": HALF}, 0, "it transferred to image and audio."),
    "none": (
        {"image": WIDE, "audio": NARROW},
        1,
        "it transferred to image; there is no clear transfer to audio.",
    ),
    "opposite": (
        {"image": WORSE, "audio": WIDE},
        1,
        "it transferred to audio; the opposite happened in image.",
    ),
    "constant": (
        {"image": None, "audio": WIDE},
        1,
        "it transferred to audio; whether it transferred to image cannot be told.",
    ),
    "untaught": (
        {"text": NARROW, "image": WIDE, "audio": WIDE},
        1,
        "there was nothing to transfer to image and audio, as text did not clearly improve.",
    ),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_command_says_what_was_planted(tmp_path, geomkit, world):
    geometries, code, told = WORLDS[world]
    planted(tmp_path / "run", **geometries)
    asked = ("compare", tmp_path / "run", "base", "lco")
    found, out, _ = geomkit(*asked)
    assert found == 0
    assert f"Trained on text: {told}" in bare(out)
    assert geomkit(*asked, "--fail-unless-transfer")[0] == code


def test_the_command_measures_the_pooling_that_is_asked_for(tmp_path, geomkit):
    planted(tmp_path / "run", image=WIDE, audio=WIDE)
    asked = ("compare", tmp_path / "run", "base", "lco", "--pooling")
    assert geomkit(*asked, "last")[0] == 0
    code, _, err = geomkit(*asked, "mean")
    assert code == 2
    assert "Expected a pooling of the run (last), got 'mean'" in " ".join(bare(err).split())


def test_the_verdicts_of_the_planted_worlds(tmp_path):
    def of(name, **geometries):
        run = planted(tmp_path / name, **geometries)
        found = compare_checkpoints(run, measured(run), "base", "lco")
        wanted = ("mean_cosine", "uniformity")
        return {t.untrained: t.verdict for t in found.transfers if t.metric in wanted and t.trained}

    assert of("a", image=HALF, audio=NARROW) == {"image": PART, "audio": NONE}
    assert of("b", image=WORSE, audio=None) == {"image": OPPOSITE, "audio": UNMEASURED}
    assert of("c", text=NARROW, image=WIDE, audio=WIDE)["image"] == NOTHING
    full = of("d", text=HALF, image=HALF, audio=WIDE)
    assert full["image"] in (FULL, PART)
    assert full["audio"] in CARRIED


def test_the_document_holds_everything_and_is_one(three, geomkit):
    code, out, _ = geomkit("compare", three.path, "base", "lco", "--json")
    document = json.loads(out)
    assert code == 0
    assert {"before": "base", "after": "lco", "site": "final_norm"}.items() <= document.items()
    assert document["trained"] == ["text"]
    assert document["reached"] is True
    kinds = [len(DEFAULT & set(kind)) for kind in (WITHIN, BETWEEN, RETRIEVED)]
    assert len(document["contrasts"]) == 3 * kinds[0] + 2 * kinds[1] + 4 * kinds[2]
    assert {c["difference"]["metric"] for c in document["contrasts"]} >= set(HEADLINE)
    (t,) = (
        t
        for t in document["transfers"]
        if (t["metric"], t["untrained"]) == ("mean_cosine", "image")
    )
    assert t["ratio"] == pytest.approx(t["change_untrained"] / t["change_trained"])
    assert t["closed_ratio"] == pytest.approx(t["closed_untrained"] / t["closed_trained"])


def test_the_last_against_the_first_is_what_the_analysis_says(three):
    """The same family, so the same status for every headline metric."""
    analysis = analyze_run(three, AnalyzeConfig(sites=("final_norm",)))
    found = compare_checkpoints(three, measured(three), "base", "lco")
    told = {(c.difference.metric, c.difference.modality): c.status for c in found.contrasts}
    judged = {(v.metric, v.modality): v.status for v in analysis.verdicts}
    assert {k: told[k] for k in judged} == judged
    assert verdict_table(analysis).row_count == len(judged)


def test_the_headline_of_an_analysis_tells_who_fell_behind(tmp_path):
    run = planted(tmp_path / "run", image=HALF, audio=WIDE)
    analysis = analyze_run(run, AnalyzeConfig(sites=("final_norm",)))
    own = {(t.metric, t.untrained): t for t in analysis.transfers}
    told = own["mean_cosine", "image"].closed_ratio
    assert f", {told:.2f} of the way text went)" in analysis.headline
    found = compare_checkpoints(run, measured(run), "base", "lco")
    assert found.transfers == analysis.transfers


def test_any_two_and_in_either_order(three):
    of = measured(three)
    there, back, step = (
        compare_checkpoints(three, of, *names, trained=["text"])
        for names in (("base", "lco"), ("lco", "base"), ("mid", "lco"))
    )
    for one, other in zip(there.contrasts, back.contrasts, strict=True):
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert (one.before, one.after) == (other.after, other.before)
    assert there.reached
    assert not back.reached
    assert "nothing to transfer" in back.sentences[0]
    first, last = (
        next(c for c in found.contrasts if c.difference.metric == "mean_cosine")
        for found in (there, step)
    )
    assert first.before > last.before > first.after == last.after


def test_what_was_trained_is_read_from_either_record(three):
    of = measured(three)
    assert compare_checkpoints(three, of, "lco", "base").trained == ("text",)
    assert compare_checkpoints(three, of, "mid", "lco").trained == ("text",)
    unknown = compare_checkpoints(three, of, "base", "mid")
    assert (unknown.trained, unknown.transfers, unknown.reached) == ((), (), None)
    assert "--trained text" in unknown.sentences[0]


def test_what_was_trained_can_be_given(three, geomkit):
    asked = ("compare", three.path, "base", "mid")
    code, out, _ = geomkit(*asked)
    assert code == 0
    assert "no record says what training saw" in out
    code, _, err = geomkit(*asked, "--fail-unless-transfer")
    assert code == 2
    assert "Expected --trained" in err
    code, out, _ = geomkit(*asked, "--trained", "text", "--fail-unless-transfer")
    assert code == 0
    assert "Trained on text: it transferred to image and audio." in bare(out)
    _, out, _ = geomkit(*asked, "--trained", "text", "--trained", "image")
    assert "Trained on text and image: it transferred to audio." in bare(out)


def test_with_everything_trained_there_is_no_transfer_to_speak_of(three):
    found = compare_checkpoints(
        three, measured(three), "base", "lco", trained=["text", "image", "audio"]
    )
    assert (found.transfers, found.reached) == ((), False)
    assert found.sentences == (
        "Transfer: no metric here has both a trained and an untrained modality.",
    )


def test_another_site(three, geomkit):
    code, out, _ = geomkit("compare", three.path, "base", "lco", "--site", "block_00")
    assert code == 0
    assert out.startswith("lco against base at block_00\n")
    assert "nothing to transfer to image and audio" in out
    code, out, _ = geomkit("compare", three.path, "base", "lco", "--site", "embed")
    assert "NOT RUN" in out
    assert "cannot be told" in out


def test_a_packed_run_gives_the_same(three, tmp_path, geomkit):
    packed = pack_run(three, tmp_path / "run.h5")
    folder, file = (
        geomkit("compare", path, "base", "lco", "--json")[1] for path in (three.path, packed)
    )
    assert folder == file


def test_the_same_run_gives_the_same_bytes(three, geomkit):
    first, second = (geomkit("compare", three.path, "mid", "lco", "--json")[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("base", "lcO"), 2, "Expected a checkpoint of the run (base, mid, lco), got 'lcO'."),
        (("lco", "lco"), 2, "Expected two different checkpoints, got 'lco' twice."),
        (("base", "lco", "--site", "norm"), 2, "a site that both checkpoints have (embed, block_"),
        (("base", "lco", "--trained", "video"), 2, "modalities of the run (text, image, audio) as"),
        (("base",), 2, "Missing argument 'after'; see `geomkit compare --help`."),
    ],
)
def test_a_mistake_is_one_sentence(three, geomkit, arguments, code, sentence):
    found, out, err = geomkit("compare", three.path, *arguments)
    assert (found, out) == (code, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_no_run_and_a_run_that_is_not_complete(tmp_path, geomkit):
    code, _, err = geomkit("compare", tmp_path / "none", "base", "lco")
    assert code == 3
    assert "Traceback" not in err
    run = small_run.fill(create_run(tmp_path / "run", small_run.plan()), "base")
    run.write_checkpoint(small_run.record("lco"))
    code, _, err = geomkit("compare", tmp_path / "run", "base", "lco")
    assert code == 3
    assert "lco lacks 4 of 4 shards: 0, 1, 2, 3; finish the capture first." in " ".join(err.split())


def test_a_small_run_says_that_nothing_can_be_told(tmp_path, geomkit):
    """Six samples a modality, states by lot: differences there are, and no claim."""
    small_run.two_checkpoints(tmp_path / "run")
    code, out, _ = geomkit("compare", tmp_path / "run", "base", "lco", "--trained", "text")
    assert code == 0
    assert "PASS" not in out
    assert "it transferred" not in out


def test_images_are_set_against_their_own_captions(tmp_path):
    """Captions of sounds open to the full; those of images half as far, and so do the images."""
    plan = synthetic_plan(60)
    run = create_run(tmp_path / "run", plan)
    before, half, wide = (synthetic_states(plan, g) for g in (NARROW, HALF, WIDE))
    after = np.where(
        np.array([r.id.startswith("image") for r in plan.rows])[:, None], half, wide
    ).astype(np.float32)
    for name, states in (("base", before), ("lco", after)):
        run.write_checkpoint(synthetic_record(name, 32, TEXT_ONLY if name == "lco" else {}))
        write_states(run, name, dict.fromkeys(SITES, states))
    found = compare_checkpoints(run, measured(run), "base", "lco")
    own = {(t.metric, t.untrained): t for t in found.transfers if t.trained}
    texts = [r.index for r in plan.rows if r.modality == "text" and r.id.startswith("image")]
    moved = brute_mean_cosine(half[texts]) - brute_mean_cosine(before[texts])
    image = own["mean_cosine", "image"]
    assert image.change_trained == pytest.approx(moved)
    assert image.ratio == pytest.approx(image.change_untrained / moved)
    whole = next(c.difference for c in found.contrasts if c.difference.modality == "text")
    # Of all text, images would seem to fall behind.
    assert image.change_untrained / whole.value < 0.8 < image.interval.low
    assert own["effective_rank", "image"].note.startswith("in the same samples")
    assert all("@" not in c.difference.modality for c in found.contrasts)


def brute_mean_cosine(states):
    u = states.astype(np.float64)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    return (u @ u.T)[~np.eye(len(u), dtype=bool)].mean()


def test_units_are_modalities_pairs_and_both_directions():
    assert units(small_run.plan().rows) == (
        "text",
        "image",
        "image-text",
        "image->text",
        "text->image",
        "text@image",
    )


def test_a_refusal_before_anything_is_measured(three):
    def never(*asked):
        raise AssertionError(asked)

    with pytest.raises(UsageError, match="twice"):
        compare_checkpoints(three, never, "lco", "lco")
    with pytest.raises(UsageError, match="as trained, got 'smell'"):
        compare_checkpoints(three, never, "base", "lco", trained=["smell"])


def test_numbers_come_from_whoever_gives_them(three):
    """A stand-in for kept estimates: one metric in two modalities, and a reason in the third."""
    asked = []
    own = measured(three)

    def given(checkpoint, site, unit):
        asked.append((checkpoint, site, unit))
        return {k: v for k, v in own(checkpoint, site, unit).items() if k == "mean_cosine"}

    found = compare_checkpoints(three, given, "base", "lco", site="block_01")
    assert [c.difference.modality for c in found.contrasts] == ["text", "image", "audio"]
    assert {(c, s) for c, s, _ in asked} == {("base", "block_01"), ("lco", "block_01")}
    assert {u for _, _, u in asked} == set(units(three.plan.rows))
    assert families(found) == (
        "p: two-sided, Holm-adjusted among 3 headline tests; of transfer, among 2 headline tests "
        "of untrained modalities"
    )


def test_estimates_that_vanish_are_an_error_and_no_number(three, monkeypatch):
    """Somebody removes what was kept, or changes the code that decides what is of now."""
    monkeypatch.setattr(Shelf, "write", lambda *_: None)
    for kept in three.kept().rglob("*"):
        if kept.is_file():
            kept.unlink()
    with pytest.raises(StoreError, match=r"estimates of base at final_norm \(text\).*run the com"):
        compare_checkpoints(three, measured(three), "base", "lco")


def test_damage_is_an_error_and_no_number(tmp_path):
    run = planted(tmp_path / "run", image=WIDE, audio=WIDE)
    (shard,) = sorted((run.path / "lco").glob("shard-00000.h5"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StoreError):
        compare_checkpoints(open_run(run.path), measured(run), "base", "lco")
