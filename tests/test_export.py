"""States for other tools: what is written reads back as what was stored."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from geomkit.errors import UsageError
from geomkit.export import (
    export_atlas,
    export_csv,
    export_tensorboard,
    neighbours,
    one_line,
    quoted,
    safe,
)
from geomkit.store import Run
from tests.synthetic_run import NARROW, WIDE, write_run

SITE = "final_norm"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("export") / "run"
    return write_run(folder, {"base": NARROW, "lco": WIDE}, scenes=12, bad=(3,))


def stored(run: Run, name: str) -> np.ndarray:
    states, ok = run.states(name, SITE, "last")
    return states[ok]


def test_csv_reads_back_as_the_states(run: Run, tmp_path: Path) -> None:
    samples, *files = export_csv(run, tmp_path, SITE)
    assert [f.name for f in files] == ["states-base.csv", "states-lco.csv"]
    with samples.open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [int(row["index"]) for row in told] == [
        row.index for row in run.plan.rows if row.index != 3
    ]
    with files[1].open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    back = np.array([[float(v) for k, v in line.items() if k[0] == "d"] for line in lines])
    np.testing.assert_allclose(back, stored(run, "lco"), rtol=1e-6)
    assert [line["id"] for line in lines] == [row.id for row in run.plan.rows if row.index != 3]


def test_the_projector_finds_a_tensor_and_a_line_a_row(run: Run, tmp_path: Path) -> None:
    metadata, *tensors, config = export_tensorboard(run, tmp_path, SITE)
    lines = metadata.read_text(encoding="utf-8").splitlines()
    head = lines[0].split("\t")
    assert head[:5] == ["index", "id", "modality", "group", "text"]
    assert {len(line.split("\t")) for line in lines} == {len(head)}
    back = np.loadtxt(tensors[0], delimiter="\t")
    assert len(back) == len(lines) - 1  # a head is told from the rows by one line more
    np.testing.assert_allclose(back, stored(run, "base"), rtol=1e-6)
    text = config.read_text(encoding="utf-8")
    assert text.count("embeddings {") == 2
    assert 'tensor_path: "base.tsv"' in text
    assert 'metadata_path: "samples.tsv"' in text


def test_the_config_is_what_tensorboard_parses(run: Run, tmp_path: Path) -> None:
    projector = pytest.importorskip(
        "tensorboard.plugins.projector.projector_config_pb2", reason="tensorboard is not installed"
    )
    from google.protobuf import text_format

    *_, config = export_tensorboard(run, tmp_path, SITE)
    parsed = text_format.Parse(config.read_text(encoding="utf-8"), projector.ProjectorConfig())
    assert [e.tensor_path for e in parsed.embeddings] == ["base.tsv", "lco.tsv"]


def test_the_atlas_has_coordinates_vectors_and_neighbours(run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    (path,) = export_atlas(run, tmp_path, SITE)
    columns = parquet.read_table(path).to_pydict()
    assert {"id", "text", "modality", "base_x", "base_y", "lco_x", "lco_y"} <= set(columns)
    np.testing.assert_allclose(np.array(columns["lco_state"]), stored(run, "lco"), rtol=1e-6)
    first = columns["neighbors"][0]
    assert len(first["ids"]) == len(first["distances"]) == 10
    assert first["distances"] == sorted(first["distances"])


def test_neighbours_are_the_nearest_others() -> None:
    states = np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
    found = neighbours(states)
    assert [f["ids"][0] for f in found] == [1, 0, 1]
    assert neighbours(states[:1]) == [{"ids": [], "distances": []}]


def test_an_unknown_site_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected a site of the run .*got 'block_99'"):
        export_csv(run, tmp_path, "block_99")
    assert not any(tmp_path.iterdir())


def test_text_cannot_break_a_format() -> None:
    assert safe("=1+1") == "'=1+1"
    assert one_line("a\tb\nc") == "a b c"
    assert quoted('a"b\\') == '"a\\"b\\\\"'
