from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from geomkit.analyze import Probes, analyze_run
from geomkit.assertions import analysis_of, assert_improved, assert_isotropic, assert_transfers
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import CheckFailed, StoreError, UsageError
from geomkit.types import Interval
from probes.config import ProbeConfig
from probes.suite import probe_site
from tests.synthetic_run import COLLAPSED, NARROW, WIDE, write_run

TEXT_ONLY = {"media": {"text": 64}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assertions")
    made = {
        "good": {"base": NARROW, "lco": WIDE},
        "collapsed": {"base": NARROW, "lco": COLLAPSED},
        "same": {"base": NARROW, "lco": NARROW},
    }
    return {
        name: write_run(folder / name, two, scenes=60, training=TEXT_ONLY)
        for name, two in made.items()
    }


def failure(check, *args, **kwargs):
    with pytest.raises(CheckFailed) as caught:
        check(*args, **kwargs)
    return str(caught.value).splitlines()


def test_an_improvement_holds_for_a_path_a_run_and_an_analysis(runs):
    run = runs["good"]
    for source in (run, run.path, str(run.path), analyze_run(run)):
        assert assert_improved(source, "mean_cosine", "image") is None
        assert assert_transfers(source) is None


def test_a_worse_metric_fails_with_a_line_that_stands_alone(runs):
    run = runs["collapsed"]
    lines = failure(assert_improved, run, "mean_cosine", "image")
    assert lines[0].startswith("GEOM mean_cosine@final_norm image: worse by 0.")
    assert lines[0].endswith("expected better")
    assert lines[1].startswith("before 0.")
    assert "change +0." in lines[1]
    assert lines[1].endswith("n=60 paired")
    assert lines[2].startswith("base -> lco; lower is better; ")
    assert lines[-1] == f"look: geomkit report {run.path}"


def test_the_report_is_named_once_it_exists(runs, tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": COLLAPSED}, scenes=40)
    (run.path / "report.html").write_text("<html></html>")
    lines = failure(assert_improved, run, "mean_cosine", "image")
    assert lines[-2] == f"report: {run.path / 'report.html'}"


def test_what_the_data_cannot_tell_is_not_called_a_failure_to_improve(runs):
    lines = failure(assert_improved, runs["same"], "mean_cosine", "image")
    assert lines[0] == (
        "GEOM mean_cosine@final_norm image: inconclusive, change +0, expected better"
    )
    assert "more samples may tell" in lines[1]


def test_an_improvement_may_have_to_be_large(runs):
    run = runs["good"]
    d = analyze_run(run).change("mean_cosine", "final_norm", "image")
    gain = -d.value
    assert_improved(run, "mean_cosine", "image", by=gain / 2)
    lines = failure(assert_improved, run, "mean_cosine", "image", by=2 * gain)
    assert lines[0].endswith(f"better by {gain:.3g}, expected better by more than {2 * gain:.3g}")
    assert "inconclusive" in failure(assert_improved, run, "mean_cosine", "image", by=gain)[0]


def test_rounding_is_no_improvement(runs):
    analysis = analyze_run(runs["good"])
    d = analysis.change("mean_cosine", "final_norm", "image")
    tiny = dataclasses.replace(d, value=-4e-6, interval=Interval(-6e-6, -2e-6))
    merged = dataclasses.replace(analysis, differences=(tiny,))
    line = failure(assert_improved, merged, "mean_cosine", "image")[0]
    assert line.endswith("image: 4e-06 better, less than 0.001 can be rounding")


def test_higher_is_better_for_some(runs):
    analysis = analyze_run(runs["good"])
    up = dataclasses.replace(analysis.change("mean_cosine", "final_norm", "image"), better="higher")
    flipped = dataclasses.replace(analysis, differences=(up,))
    assert "worse by" in failure(assert_improved, flipped, "mean_cosine", "image")[0]
    neither = dataclasses.replace(
        analysis, differences=(dataclasses.replace(up, better="neither"),)
    )
    with pytest.raises(UsageError, match="better direction, got mean_cosine"):
        assert_improved(neither, "mean_cosine", "image")


def test_a_number_that_could_not_be_measured_fails_with_its_reason(runs):
    lines = failure(assert_improved, runs["good"], "mean_cosine", "image", site="embed")
    assert lines[0] == "GEOM mean_cosine@embed image: not measured"
    assert lines[1].startswith("reason: Expected rows that differ")


def test_a_name_that_does_not_exist_is_a_usage_error_that_lists_what_does(runs):
    with pytest.raises(UsageError, match=r"mean_cosin@final_norm image.*metrics: mean_cosine, "):
        assert_improved(runs["good"], "mean_cosin", "image")
    with pytest.raises(UsageError, match="modalities: text, image, audio"):
        assert_isotropic(runs["good"], max_mean_cosine=0.5, modality="smell")


def test_transfer_names_every_modality_it_did_not_reach(runs):
    lines = failure(assert_transfers, runs["collapsed"])
    assert lines[0] == "GEOM mean_cosine@final_norm: no transfer to image and audio"
    assert sum(line.startswith("GEOM mean_cosine@final_norm ") for line in lines) == 3  # text too


def test_a_gain_in_the_unseen_alone_is_no_transfer(runs):
    found = analysis_of(runs["good"])
    kept = tuple(
        dataclasses.replace(d, value=0.0, interval=Interval(-0.1, 0.1))
        if (d.metric, d.modality) == ("mean_cosine", "text")
        else d
        for d in found.differences
    )
    lines = failure(assert_transfers, dataclasses.replace(found, differences=kept))
    assert lines[0].endswith("nothing to transfer, no gain in what training saw")
    with pytest.raises(UsageError, match="record of what training saw, got none"):
        assert_transfers(dataclasses.replace(found, trained=()))


def test_transfer_to_what_was_trained_on_is_no_transfer(runs):
    with pytest.raises(UsageError, match="training did not see, got text"):
        assert_transfers(runs["good"], to=("text", "image"))


def test_probes_can_be_asserted_too(runs):
    run = runs["same"]
    probes = Probes(partial(probe_site, config=ProbeConfig()), ("final_norm",), "")
    analysis = analyze_run(run, AnalyzeConfig(workers=1), probes=probes)
    lines = failure(assert_improved, analysis, "probe:colour", "text->image")
    assert "inconclusive" in lines[0]
    assert "before 1 [" in lines[2]
    assert lines[-1] == "look: geomkit report RUN"


# ------------------------------------------------------------------------------------- isotropy --


@pytest.fixture
def spread():
    return np.random.default_rng(0).standard_normal((200, 64))


def test_spread_states_are_isotropic_in_numpy_and_torch(spread):
    assert_isotropic(spread, max_mean_cosine=0.05)
    assert_isotropic(torch.from_numpy(spread).to(torch.bfloat16), max_mean_cosine=0.05)


def test_a_cone_is_not(spread):
    lines = failure(assert_isotropic, spread + 10, max_mean_cosine=0.2)
    assert lines[0] == "GEOM mean_cosine: 0.99 > 0.2, states lie in a narrow cone"
    assert lines[1].startswith("states: 0.99 [0.9")


def test_equal_states_are_not_defined(spread):
    lines = failure(assert_isotropic, np.ones((50, 8)), max_mean_cosine=0.2)
    assert lines[0] == "GEOM mean_cosine: not defined, expected <= 0.2"
    assert "rows that differ" in lines[1]


def test_a_bound_inside_the_interval_is_inconclusive(spread):
    lines = failure(assert_isotropic, spread[:20] + 0.5, max_mean_cosine=0.2)
    assert lines[0] == "GEOM mean_cosine: inconclusive at 0.182, expected <= 0.2"
    assert lines[1] == "the interval holds 0.2: more samples may tell"


def test_states_must_be_rows(spread):
    with pytest.raises(UsageError, match=r"\(samples, dim\)"):
        assert_isotropic(spread[0], max_mean_cosine=0.2)


def test_isotropy_of_a_run_is_that_of_its_last_checkpoint(runs):
    run = runs["good"]
    assert_isotropic(run, max_mean_cosine=0.4)
    lines = failure(assert_isotropic, run, max_mean_cosine=0.4, checkpoint="base")
    assert lines[0].startswith("GEOM mean_cosine@final_norm text: 0.")
    failure(assert_isotropic, run, max_mean_cosine=0.01, modality="audio")


# ------------------------------------------------------------------------------- the analysis ----


def test_a_stored_analysis_is_read_and_a_stale_one_is_not(tmp_path):
    run = write_run(tmp_path / "run", {"base": NARROW, "lco": WIDE}, scenes=40)
    fresh = analysis_of(run)
    assert analysis_of(run) is fresh  # measured once
    run.write_analysis(dataclasses.replace(fresh, headline="from the file"))
    assert analysis_of(run).headline == "from the file"
    other = dataclasses.replace(fresh, headline="stale", provenance={"checkpoints": []})
    run.write_analysis(other)
    assert analysis_of(run).headline == fresh.headline


def test_no_run_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="is no run"):
        assert_improved(tmp_path, "mean_cosine", "image")


def test_check_failed_is_an_assertion_error_that_hides_its_own_frames(runs):
    with pytest.raises(AssertionError):
        assert_improved(runs["collapsed"], "mean_cosine", "image")
