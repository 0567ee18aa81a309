"""One built report for the tests that only read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import html5lib
import pytest
from lxml.etree import _Element

from geomkit.types import Analysis
from reports import write_report
from tests.reports import fixture, pictures


@dataclass(frozen=True)
class Built:
    """A report on disk and what was read back from it."""

    path: Path
    text: str
    tree: _Element
    numbers: dict[str, Any]

    def words(self, tag: str = "body") -> str:
        """The text a reader sees inside a tag."""
        inside = f".//{tag}//text()[not(ancestor::script or ancestor::style)]"
        return " ".join("".join(self.tree.xpath(inside)).split())


def read(path: Path) -> Built:
    """Parse a report as a browser would."""
    text = path.read_text(encoding="utf-8")
    tree = html5lib.parse(text, treebuilder="lxml", namespaceHTMLElements=False).getroot()
    return Built(path, text, tree, json.loads(path.with_suffix(".json").read_text()))


def build(folder: Path, analysis: Analysis | None = None, **changes: Any) -> Built:
    """Write and read the made-up report, or one of another analysis."""
    rows = changes.pop("rows", fixture.rows())
    if "projection" not in changes:
        album = changes.get("album")
        changes["projection"] = album.projection if album else fixture.projection(rows)
    projection = changes.pop("projection")
    media = changes.pop("media", {})
    out = folder / "report.html"
    return read(
        write_report(analysis or fixture.complete(), projection, rows, media, out, **changes)
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all pages."""
    from tests.reports.visiting import launched

    with launched() as own:
        yield own


@pytest.fixture
def visit(browser: Any, built: Built) -> Iterator[Any]:
    """Open the report with some context options; at the end nothing must have gone wrong."""
    from tests.reports.visiting import visiting

    with visiting(browser, built.path) as start:
        yield start


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The default report, with media."""
    folder = tmp_path_factory.mktemp("report")
    rows = fixture.rows()
    media = fixture.previews(folder, rows)
    return build(folder, rows=rows, media=media, embed_media=True, album=pictures.album(rows))
