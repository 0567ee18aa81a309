"""Estimates kept beside a run: made once, made again when they must be, whatever interrupts."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from geomkit import crew, estimates
from geomkit.analyze import analyze_run, survey_of
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import DegenerateInput, StoreError, UsageError
from geomkit.estimates import memory
from geomkit.geometry import mean_cosine
from geomkit.progress import silent
from geomkit.store import create_run, open_run, pack_run
from tests.synthetic_run import (
    NARROW,
    SITES,
    WIDE,
    synthetic_plan,
    synthetic_record,
    write_run,
    write_states,
)

ONE = AnalyzeConfig(workers=1)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=30)


@pytest.fixture
def counted(monkeypatch):
    """Every space that is made, as (rows, dim)."""
    made = []
    space = estimates.space

    def count(states, *args, **kwargs):
        made.append(states.shape)
        return space(states, *args, **kwargs)

    monkeypatch.setattr(estimates, "space", count)
    return made


def test_nothing_is_measured_twice(run, counted):
    first = analyze_run(run, ONE)
    made = len(counted)
    assert made == len(SITES) * 2 * 3  # sites, checkpoints, modalities
    assert analyze_run(run, ONE) == first
    assert len(counted) == made
    assert analyze_run(run, dataclasses.replace(ONE, again=True)) == first
    assert len(counted) == 2 * made


def test_more_metrics_and_more_checkpoints_make_only_what_is_new(run, counted):
    few = analyze_run(run, dataclasses.replace(ONE, metrics=("spectrum",)))
    counted.clear()
    whole = analyze_run(run, ONE)
    fresh = write_run(run.path.with_name("fresh"), {"base": NARROW, "lco": WIDE}, scenes=30)
    assert whole == analyze_run(fresh, ONE)
    for m in few.measurements:
        assert whole.find(m.metric, m.site, m.modality, m.checkpoint) == m
    counted.clear()
    _written(run, "more", np.random.default_rng(5).standard_normal((120, 32)).astype(np.float32))
    analyze_run(run, ONE)
    assert len(counted) == len(SITES) * 3


def test_what_is_kept_changes_no_byte(run, tmp_path):
    fresh = write_run(tmp_path / "fresh", {"base": NARROW, "lco": WIDE}, scenes=30)
    analyze_run(run, dataclasses.replace(ONE, metrics=tuple(estimates.WITHIN)))  # text is kept
    assert analyze_run(run, ONE) == analyze_run(fresh, ONE)


def test_nothing_is_written_through_a_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.kept().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="no folder of its own"):
        analyze_run(run, ONE)
    assert not list((tmp_path / "elsewhere").iterdir())
    run.kept().unlink()
    run.kept().write_text("a file")
    with pytest.raises(StoreError, match="no folder of its own"):
        analyze_run(run, ONE)


def test_all_samples_of_one_group_have_values_and_no_interval(tmp_path):
    plan = synthetic_plan(30)
    plan = dataclasses.replace(
        plan, rows=tuple(dataclasses.replace(row, group="one") for row in plan.rows)
    )
    run = create_run(tmp_path / "run", plan)
    states = np.random.default_rng(0).standard_normal((len(plan.rows), 32)).astype(np.float32)
    for name in ("base", "lco"):
        _written(run, name, states)
    found = analyze_run(run, ONE)
    rank = found.find("effective_rank", "final_norm", "image", "lco")
    assert rank.value is not None
    assert rank.interval is None
    assert "5 groups" in rank.note


def test_checkpoints_of_different_width_are_measured_and_have_no_dimension_in_common(tmp_path):
    plan = synthetic_plan(30)
    run = create_run(tmp_path / "run", plan)
    rng = np.random.default_rng(0)
    for name, dim in (("base", 24), ("lco", 40)):
        _written(run, name, rng.standard_normal((len(plan.rows), dim)).astype(np.float32))
    found = analyze_run(run, ONE)
    assert found.change("mean_cosine", "final_norm", "image").value is not None
    ablated = found.find("mean_cosine_ablated", "final_norm", "image", "lco")
    assert "the first checkpoint has none here" in ablated.note


def test_two_may_keep_at_once(tmp_path):
    """The temporary name is one; the lock makes writers take turns."""
    path = tmp_path / "kept" / "base" / "site.image"
    code = (
        "import sys\nfrom pathlib import Path\nfrom geomkit.estimates.kept import keep\n"
        "for i in range(60):\n    keep(Path(sys.argv[1]), sys.argv[2].encode() * 20_000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), c]) for c in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert set(path.read_bytes()) in ({ord("a")}, {ord("b")})


def test_one_unit_that_is_lost_is_made_again_alone(run, counted):
    first = analyze_run(run, ONE)
    counted.clear()
    (run.kept() / "lco" / "block_00.image").unlink()
    assert analyze_run(run, ONE) == first
    assert len(counted) <= 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-8] + bytes(8),
        lambda data: b"{}\n" + data,
        lambda _: b"[]\n",
        lambda _: b"\xff\xfe",
        lambda data: data.replace(b'"shares": 30', b'"shares": -3'),
        lambda data: data.replace(b'"method": "row means"', b'"method": 7'),
    ],
)
def test_a_damaged_file_is_made_again(run, damage):
    first = analyze_run(run, ONE)
    path = run.kept() / "lco" / "final_norm.image"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert analyze_run(run, ONE) == first
    assert path.read_bytes() == sound


def test_other_states_are_other_estimates(tmp_path):
    """The same names, the same plan, other weights: nothing kept may be believed."""
    one = write_run(tmp_path / "one", {"base": NARROW, "lco": NARROW}, scenes=30)
    two = write_run(tmp_path / "two", {"base": NARROW, "lco": WIDE}, scenes=30)
    analyze_run(one, ONE)
    one.kept().rename(two.kept())
    fresh = write_run(tmp_path / "three", {"base": NARROW, "lco": WIDE}, scenes=30)
    assert analyze_run(two, ONE).differences == analyze_run(fresh, ONE).differences


def test_a_packed_run_keeps_its_estimates_beside_it(run):
    packed = open_run(pack_run(run, run.path.with_name("run.h5")))
    assert analyze_run(packed, ONE).differences == analyze_run(run, ONE).differences
    assert packed.kept().is_dir()
    assert packed.kept() != run.kept()


def test_a_new_run_in_the_folder_of_an_old_one_keeps_nothing_of_it(run):
    analyze_run(run, ONE)
    create_run(run.path, synthetic_plan(20), force=True)
    assert not run.kept().exists()


def test_pairs_are_matched_by_id_whatever_the_order_of_the_plan(tmp_path):
    """Texts stand in another order than their images, and carry the same states."""
    plan = synthetic_plan(30)
    places = [r.index for r in plan.rows if r.modality == "text"]
    texts = [plan.rows[i] for i in places]
    rows = list(plan.rows)
    for place, text in zip(places, texts[::-1], strict=True):
        rows[place] = dataclasses.replace(text, index=place)
    run = create_run(tmp_path / "run", dataclasses.replace(plan, rows=tuple(rows)))
    rng = np.random.default_rng(0)
    own = {row.id: rng.standard_normal(32) for row in rows}
    _written(run, "base", np.stack([own[row.id] for row in rows]).astype(np.float32))
    found = analyze_run(run, ONE)
    assert found.find("alignment", "final_norm", "image-text", "base").value < 1e-9
    assert found.find("retrieval_r1", "final_norm", "image->text", "base").value == 1


def test_outliers_are_those_of_the_reference_each_of_its_kind(tmp_path):
    """Dimension 0 is far from zero, dimension 1 swings about it; in the second, 2 and 3 do."""
    run = create_run(tmp_path / "run", synthetic_plan(40))
    rng = np.random.default_rng(0)
    states = rng.standard_normal((2, len(run.plan.rows), 12)).astype(np.float32)
    states[0, :, 0] += 50
    states[0, :, 1] *= 60
    states[1, :, 2] += 50
    states[1, :, 3] *= 60
    for name, own in zip(("base", "lco"), states, strict=True):
        _written(run, name, own)
    survey = survey_of(run, ONE)
    outliers = survey._outliers("final_norm")["image"]
    assert 0 in outliers.cosine
    assert 1 in outliers.variance
    assert not {2, 3} & {*outliers.cosine[:1], *outliers.variance[:2]}
    index = survey.indexes["image"]
    kept = np.setdiff1d(np.arange(12), outliers.cosine)
    survey.site("final_norm")
    found = survey.found("lco", "final_norm", "image")["mean_cosine_ablated"]
    assert found.value == pytest.approx(mean_cosine(states[1][index][:, kept]))


def test_another_reference_is_another_key(run):
    """What the ablated metrics leave out hangs on the first checkpoint, so the key does."""
    survey = survey_of(run, ONE)
    turned = dataclasses.replace(survey, checkpoints=survey.checkpoints[::-1])
    assert survey._key("lco", "image") != turned._key("lco", "image")
    assert survey._key("base", "image") != survey._key("lco", "image")


def test_text_of_the_same_samples_is_a_unit_of_its_own(run):
    survey = survey_of(run, ONE)
    survey.site("final_norm", matched=True)
    all_text, same = (
        survey.found("lco", "final_norm", u)["mean_cosine"] for u in ("text", "text@image")
    )
    assert (all_text.n, same.n) == (60, 30)
    assert survey.found("lco", "final_norm", "text@audio")["mean_cosine"].n == 30


def test_rows_beyond_the_memory_stay_out_by_groups_and_alike_everywhere(run, monkeypatch):
    survey = survey_of(run, ONE)
    short = dataclasses.replace(survey, most=40)
    rows = run.plan.rows
    assert {m: len(i) for m, i in survey.indexes.items()} == {"text": 60, "image": 30, "audio": 30}
    kept = {m: {rows[i].group for i in index} for m, index in short.indexes.items()}
    assert len(kept["text"]) == 40
    assert kept["image"] | kept["audio"] == kept["text"]
    monkeypatch.setattr("geomkit.analyze.rows_that_fit", lambda *_: 40)
    found = analyze_run(run, ONE)
    assert found.find("mean_cosine", "final_norm", "text", "lco").n == 40
    assert found.provenance["rows"]["text"] == 40


@pytest.mark.parametrize("dim", [64, 2048, 8192])
@pytest.mark.parametrize("there", [2**29, 2**31, 2**35])
@pytest.mark.parametrize("probed", [0.0, 2.0])
def test_what_fits_needs_no_more_than_there_is(dim, there, probed):
    fits = memory.rows_that_fit(there, dim, probed)
    assert memory.need(fits, dim, probed) <= there
    assert memory.need(int(fits * 1.2), dim, probed) > there


def test_too_little_memory_is_said():
    with pytest.raises(
        UsageError, match=r"for 100 rows of 2048 columns, got 1 MiB; raise --memory"
    ):
        memory.rows_that_fit(2**20, 2048)
    with pytest.raises(UsageError, match="memory above 0 GiB"):
        AnalyzeConfig(memory=0)
    with pytest.raises(UsageError, match="finite, got inf"):
        AnalyzeConfig(memory=float("inf"))
    memory.rows_that_fit(1e300, 2048)


def test_a_device_that_is_not_here_is_said(run):
    with pytest.raises(UsageError, match=r"got 'nowhere' \(.*use --device cpu"):
        analyze_run(run, AnalyzeConfig(device="nowhere"))


@pytest.mark.parametrize(
    "device",
    [
        "meta-cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
        ),
    ],
)
def test_products_from_another_device_are_the_same(device, monkeypatch):
    """Without a GPU the way through torch is taken on the CPU."""
    if device == "meta-cpu":
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, _: tensor)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 20)).astype(np.float32)
    there = estimates.Device(device)
    for own, other in zip(
        (estimates.within(estimates.space(x)), *estimates.retrieved(*map(estimates.space, (x, y)))),
        (
            estimates.within(estimates.space(x, device=there)),
            *estimates.retrieved(*(estimates.space(s, device=there) for s in (x, y))),
        ),
        strict=True,
    ):
        for name, result in own.items():
            if isinstance(result, DegenerateInput):
                continue
            assert other[name].value == pytest.approx(result.value, rel=1e-9)
            assert other[name].shares == pytest.approx(result.shares, rel=1e-6, abs=1e-12)


def test_lists_are_repeated_options_or_commas():
    config = AnalyzeConfig(metrics=("cone, rank_me", "gap"), probes=("linear,drift",))
    assert config.metrics == ("cone", "rank_me", "gap")
    assert config.probes == ("linear", "drift")
    assert AnalyzeConfig(probes=("none",)).probes == ()
    with pytest.raises(UsageError, match=r"Expected probes of linear.*got 'lienar'"):
        AnalyzeConfig(probes=("lienar",))


def test_processes_are_as_many_as_fit():
    assert crew.hands(4, 2**31, 2**20) == 4
    assert crew.hands(2, 2 * 2**30, 585 * 2**20) == 2
    assert crew.hands(4, 2**31, 2**30) == 1
    assert crew.hands(1, 2**40, 2**20) == 1
    assert crew.hands(8, 2**20, 2**30) == 1


def test_what_a_piece_raises_ends_the_crew():
    def broken():
        raise UsageError("no such thing")

    for workers in (1, 2):
        with pytest.raises(UsageError, match="no such thing"):
            crew.work([broken, broken], workers, "test", silent)


@pytest.mark.slow
def test_a_run_of_four_times_the_memory_is_analyzed_within_it(tmp_path):
    """In a process of its own: its peak, less what the interpreter has before it reads a state."""
    plan = synthetic_plan(256)
    run = create_run(tmp_path / "run", plan)
    rng = np.random.default_rng(0)
    states = rng.standard_normal((len(plan.rows), 2048), dtype=np.float32)
    for number in range(11):
        _written(run, f"step-{number}", states + number)
    cap = run.bytes_on_disk() / 4
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import numpy, scipy.linalg, pydantic\n"
        "from geomkit import crew\n"
        "from geomkit.analyze import analyze_run\n"
        "from geomkit.enquiry import AnalyzeConfig\n"
        "from geomkit.store import open_run\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "memory = (crew.BASE + float(sys.argv[2])) / 2**30\n"
        "config = AnalyzeConfig(workers=1, memory=memory, probes=())  # none are trained here\n"
        "found = analyze_run(open_run(Path(sys.argv[1])), config)\n"
        "print(peak() - before, found.provenance['rows']['text'])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(run.path), str(cap)],
        capture_output=True,
        text=True,
        check=True,
    )
    took, rows = map(int, ran.stdout.split())
    assert rows == 512  # none was left out
    assert took < cap


def test_a_kill_loses_at_most_the_unit_in_the_works(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=200)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from geomkit.analyze import analyze_run\nfrom geomkit.enquiry import AnalyzeConfig\n"
        "from geomkit.store import open_run\n"
        "analyze_run(open_run(Path(sys.argv[1])), AnalyzeConfig(workers=1))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(run.path)])
    deadline = time.monotonic() + 60
    while len(list(run.kept().glob("*/block_00.*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in run.kept().glob("*/*.image")}
    assert kept
    found = analyze_run(run, ONE)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    fresh = write_run(tmp_path / "fresh", {"base": NARROW, "lco": WIDE}, scenes=200)
    with threadpool_limits(1):
        assert found.differences == analyze_run(fresh, ONE).differences


def _written(run, name, states):
    run.write_checkpoint(synthetic_record(name, states.shape[1], {}))
    write_states(run, name, dict.fromkeys(SITES, states))
