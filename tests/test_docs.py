"""The Python of the manual runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomkit.estimates import METRICS
from geomkit.store import create_run
from geomkit.store.pack import pack_run
from tests import small_run
from tests.synthetic_run import NARROW, WIDE, write_run

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="needs the checkout, not the wheel")


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def ran(block: str) -> dict[str, Any]:
    """The names of a block that was run alone."""
    names: dict[str, Any] = {"__name__": "manual"}
    exec(compile(block, "manual", "exec"), names)
    return names


def test_the_snippets_of_the_formats_read_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(tmp_path / "run", small_run.plan(shard_batches=2))
    run.write_checkpoint(small_run.record("base"))
    for number in range(run.shard_count()):
        rows = small_run.shard_rows(run, number)
        run.write_shard("base", number, rows, small_run.SITES, tokens=small_run.token_rows(rows))
    pack_run(run, tmp_path / "run.h5")
    monkeypatch.chdir(tmp_path)

    shard, whole, tokens, packed = map(ran, blocks("formats.md"))
    stored, ok = run.states("base", "final_norm")
    np.testing.assert_array_equal(shard["states"], stored[list(run.shard_rows(0))])
    assert shard["good"].all()
    np.testing.assert_array_equal(whole["states"], stored)
    assert [row.modality for row in whole["images"].rows] == ["image"] * 6
    np.testing.assert_array_equal(tokens["states"], tokens["same"])
    assert tokens["same"].shape == (5, small_run.DIM)
    np.testing.assert_array_equal(packed["states"], stored)
    assert packed["good"].tolist() == ok.tolist()
    assert packed["plan"]["dataset"] == "toy"


def test_an_analysis_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "geomkit-run", {"base": NARROW, "lco": WIDE}, scenes=20)
    monkeypatch.chdir(tmp_path)
    of_a_run, of_arrays = blocks("analyze.md")
    assert ran(of_a_run)["cone"].value > 0.5
    assert ran(of_arrays)["change"].value < -0.3
    assert "Interval(" in capsys.readouterr().out


def test_every_metric_is_in_the_manual() -> None:
    """The page that says what is measured, and by which name."""
    page = (DOCS / "analyze.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {metric.family} |"))
        assert f"`{name}`" in row


def test_a_capture_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("capture.md")
    names = ran(block)
    assert names["run"].plan.dataset == "sandbox:test"
    assert names["ok"].all()
    assert len(names["states"]) == 32  # sixteen samples, each as text and as what it shows
    assert {row.modality for row in names["run"].plan.rows} == {"text", "image", "audio"}
    assert capsys.readouterr().out.startswith("(9, ")


def test_every_link_leads_to_a_page_and_a_heading() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path, _, heading = target.partition("#")
            other = (page.parent / path) if path else page
            assert other.exists(), f"{page.name}: {target}"
            assert not heading or heading in headings(other), f"{page.name}: {target}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}
