"""The card in a browser: a sample that is neither seen nor heard in the file says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reports import fixture
from tests.reports.conftest import Built, build
from tests.reports.visiting import needs_browser, visiting

pytestmark = needs_browser


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A report as it is made by default: without media."""
    rows = fixture.rows(12)
    return build(tmp_path_factory.mktemp("bare"), rows=rows, projection=fixture.projection(rows))


def told(browser: Any, page: Path, modality: str, number: int) -> list[str]:
    """What the card says in soft ink of a kept sample of a modality."""
    with visiting(browser, page) as visit:
        own = visit()
        own.ready()
        own.page.locator("#points summary").click()
        rows = own.page.locator("#point-rows tr").filter(has_text=modality)
        rows.nth(number).locator("th button").first.click()
        own.until("!document.getElementById('card-body').hidden")
        return list(own.page.locator("#card-body p.soft").all_text_contents())


@pytest.mark.parametrize(("modality", "what"), [("audio", "sound"), ("image", "picture")])
def test_a_sample_without_its_media_says_so_and_why(
    browser: Any, bare: Built, modality: str, what: str
) -> None:
    reason = f"The {what} is not in this file: media are embedded only with --embed-media."
    assert told(browser, bare.path, modality, 0) == [reason]


def test_a_sample_with_its_media_says_nothing(browser: Any, built: Built) -> None:
    assert told(browser, built.path, "image", 0) == []
