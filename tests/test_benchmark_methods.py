from __future__ import annotations

import pytest

from benchmarks import methods
from geomkit import stages
from geomkit.progress import silent
from geomkit.training.generation import GenerationChange
from geomkit.types import Interval
from tests.synthetic_run import NARROW, WIDE, write_run

MODALITIES = ("text", "image", "audio")
ARMS = ("full", "lora")


def change(modality, after):
    paired = Interval(after - 1.1, after - 0.9)
    return GenerationChange(modality, 9, 1.0, after, after - 1.0, paired, "describe")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods") / "run"
    moved = {"full-0": NARROW, "lora-0": WIDE, "lora-1": WIDE, "soup": WIDE}
    run = write_run(path, {"base": NARROW} | moved, scenes=40)
    analysis = stages.analyze(run, silent, sites=(methods.SITE,), probes=(), workers=1)
    spoken = {
        name: {m: change(m, 1.0 + (name != "base")) for m in MODALITIES} for name in run_names(run)
    }
    return list(methods.tables(analysis, spoken, ARMS)), analysis


def run_names(run):
    return [record.name for record in run.checkpoints()]


def of(lines, title, name):
    """The cells of one checkpoint in one table."""
    at = lines.index(title)
    row = next(line for line in lines[at:] if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_a_cell_is_the_measured_value_with_its_interval(lines):
    told, analysis = lines
    for cell, modality in zip(of(told, "mean cosine", "lora-0"), MODALITIES, strict=True):
        found = analysis.find("mean_cosine", methods.SITE, modality, "lora-0")
        ends = found.interval
        assert cell == f"{found.value:.3g} [{ends.low:.3g}, {ends.high:.3g}]"


def test_what_did_not_clearly_move_is_marked_and_only_that(lines):
    told, _ = lines
    assert all(cell.endswith("~") for cell in of(told, "mean cosine", "full-0"))
    assert not any(cell.endswith("~") for cell in of(told, "mean cosine", "soup"))
    assert not any(cell.endswith("~") for cell in of(told, "mean cosine", "base"))


def test_a_loss_says_what_it_rose_by(lines):
    told, _ = lines
    assert of(told, "generative loss", "soup")[0] == "2.000 (+1.000 [+0.900, +1.100])"
    assert of(told, "generative loss", "base")[0] == "1.000"


def test_only_what_was_trained_several_times_has_a_range(lines):
    told, _ = lines
    after = told[told.index("over the seeds: mean (least to most)") :]
    assert [line.split("|")[1].strip() for line in after if line.startswith("| ")][2:] == ["lora"]
