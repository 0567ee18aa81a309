"""The page in a real browser, offline: no errors, no requests, usable by mouse and keyboard.

State is read from the document, not from pixels.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reports.layers import SET_APART
from tests.reports import fixture
from tests.reports.conftest import Built, build
from tests.reports.test_page import HOSTILE, hostile_analysis

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: install it to test the page"),
]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LISTEN = (
    "addEventListener('securitypolicyviolation', e => console.error('csp', e.violatedDirective))"
)


@dataclass
class Visit:
    """An open page and everything it should not have done."""

    page: Any
    trouble: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """The text of one element."""
        return str(self.page.locator(selector).text_content())

    def ready(self) -> None:
        """Wait until the figures can be drawn."""
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait for a condition; playwright's own wait needs eval, which the policy forbids."""
        for _ in range(int(seconds * 20)):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {condition}")

    def walk(self) -> None:
        """Open what is folded and scroll through, so that every figure is drawn."""
        self.page.evaluate(
            "document.querySelectorAll('details.family').forEach(d => d.open = true)"
        )
        script = "[...document.querySelectorAll('[data-figure]')].map(e => e.id)"
        for name in self.page.evaluate(script):
            self.page.evaluate(
                f"document.getElementById('{name}').scrollIntoView({{behavior: 'instant'}})"
            )
            self.page.wait_for_selector(f"#{name}.drawn")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        own = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield own
        own.close()


@pytest.fixture
def visit(browser: Any, built: Built) -> Iterator[Any]:
    """Open the report with some context options; at the end nothing must have gone wrong."""
    contexts, visits = [], []

    def start(path: Path = built.path, **options: Any) -> Visit:
        context = browser.new_context(
            offline=True, **({"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = context.new_page()
        own = Visit(page)
        page.add_init_script(LISTEN)
        page.on(
            "console",
            lambda m: own.trouble.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda e: own.trouble.append(str(e)))
        address = path.as_uri()
        page.on(
            "request",
            lambda r: (
                None
                if r.url == address or r.url.startswith(("blob:", "data:"))
                else own.trouble.append(r.url)
            ),
        )
        page.goto(address)
        contexts.append(context)
        visits.append(own)
        return own

    yield start
    troubles = [own.trouble for own in visits]
    for context in contexts:
        context.close()
    assert troubles == [[] for _ in visits]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390), ("light", 3840)])
def test_every_figure_is_drawn_and_nothing_overflows(visit: Any, scheme: str, width: int) -> None:
    own = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    own.ready()
    own.walk()
    assert own.page.evaluate("document.documentElement.scrollWidth") == width
    assert own.text("#trouble") == ""


def test_no_button_offers_an_upload(visit: Any) -> None:
    own = visit()
    own.ready()
    own.walk()
    titles = own.page.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title ?? '')"
    )
    assert titles
    assert not [
        t for t in titles if "cloud" in t.lower() or "share" in t.lower() or "studio" in t.lower()
    ]


def test_it_reads_without_scripts(visit: Any) -> None:
    own = visit(java_script_enabled=False)
    assert own.page.locator(".verdicts .chip").count() == len(fixture.analysis().verdicts)
    assert own.page.locator(".static svg").first.is_visible()
    assert not own.page.locator("#theme").is_visible()
    assert not own.page.locator("#card").is_visible()
    own.page.locator("details.numbers summary").first.click()
    assert own.page.locator("details.numbers table").first.is_visible()


def test_hover_names_the_site_under_the_pointer(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#layers-0-0").scroll_into_view_if_needed()
    own.page.wait_for_selector("#layers-0-0.drawn")
    panel = own.page.locator("#layers-0-0 .nsewdrag").bounding_box()

    def hover(place: float) -> str:
        span = len(fixture.SITES) - 2 + SET_APART + 1
        own.page.mouse.move(panel["x"] + panel["width"] * (place + 0.5) / span, panel["y"] + 40)
        own.page.wait_for_timeout(300)
        return own.text("#layers-0-0 .hoverlayer")

    third, first = hover(4.0), hover(0.0)
    assert "block 3" in third
    assert "lco : 0.679 [0.635, 0.723]" in third
    assert "embed: all last-token states are equal" in first


def points(own: Visit, panel: int = 0) -> Any:
    """x of every point of the first trace of a panel."""
    return own.page.evaluate(f"[...document.querySelector('#map-{panel} .draw').data[0].x]")


def test_arrow_keys_change_the_layer(visit: Any) -> None:
    own = visit()
    own.ready()
    before = points(own)
    assert own.text("#layer-name") == "final norm"
    own.page.locator("#layer").focus()
    own.page.keyboard.press("ArrowLeft")
    own.until("document.querySelector('#layer-name').textContent === 'block 5'")
    own.until(f"document.querySelector('#map-0 .draw').data[0].x[0] !== {before[0]}")
    assert "block 5, axes carry" in own.page.locator("#layer").get_attribute("aria-valuetext")
    own.page.keyboard.press("Home")
    own.until("document.querySelector('#map-0 .draw').data.length === 0")
    assert "all states are equal" in own.text("#layer-note")


def middle(own: Visit, panel: int, trace: int, point: int) -> tuple[float, float]:
    """Where a point is on the screen."""
    own.page.evaluate(
        "document.getElementById('map-1').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    x, y = own.page.evaluate(
        """([panel, trace, point]) => {
            const own = document.querySelectorAll(`#map-${panel} .trace.scatter`)[trace];
            const marks = own.querySelectorAll('path.point');
            const box = marks[point].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }""",
        [panel, trace, point],
    )
    return x, y


def test_clicking_a_point_fills_the_card(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.mouse.click(*middle(own, 1, 1, 3))
    own.page.wait_for_selector("#card-body:not([hidden]) canvas")
    assert "on a plain ground" in own.text("#card-body .caption")
    assert own.text("#said").startswith("image sample:")
    own.page.mouse.move(5, 5)
    assert own.page.locator("#card-body canvas").is_visible()
    assert (
        own.page.evaluate("document.querySelector('#map-0 .draw').data.length") == 4
    )  # and the rings


def test_the_table_reaches_a_sound_by_keyboard(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#points summary").focus()
    own.page.keyboard.press("Enter")
    own.page.locator("#find").fill("scene-0001")
    own.page.locator("#point-rows button").nth(1).focus()
    own.page.keyboard.press("Enter")
    own.page.wait_for_selector("#card-body audio")
    own.until("document.querySelector('#card-body audio').readyState > 0")
    assert own.page.evaluate(
        "document.querySelector('#card-body audio').duration"
    ) == pytest.approx(1.28, abs=0.01)


def test_lasso_selects_the_same_samples_in_both_panels(visit: Any) -> None:
    own = visit()
    own.ready()
    x, y = middle(own, 0, 0, 0)
    own.page.mouse.move(x - 60, y - 60)
    own.page.mouse.down()
    for dx, dy in ((60, -60), (60, 60), (-60, 60), (-60, -60)):
        own.page.mouse.move(x + dx, y + dy, steps=4)
    own.page.mouse.up()
    own.until("document.getElementById('said').textContent.includes('samples selected')")
    first, second = (
        own.page.evaluate(
            "panel => document.querySelector(`#map-${panel} .draw`).data.slice(0, 3)"
            ".map(t => [...t.selectedpoints])",
            panel,
        )
        for panel in (0, 1)
    )
    assert first == second
    count = sum(map(len, first))
    assert 0 < count < len(fixture.rows())
    assert own.text("#found").startswith(f"{count} samples")
    own.page.locator("#clear").click()
    own.until("document.getElementById('said').textContent === 'Selection cleared.'")


def test_toggles_and_colours(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#kinds input[value='text']").uncheck()
    own.until("document.querySelector('#map-1 .draw').data[0].visible === false")
    own.page.locator("#colour").select_option("labels:colour")
    own.until("Array.isArray(document.querySelector('#map-1 .draw').data[1].marker.color)")
    assert own.page.locator("#map-legend li").all_text_contents()[:4] == [
        "blue",
        "green",
        "red",
        "yellow",
    ]


def test_theme_toggle_recolours_the_figures(visit: Any) -> None:
    own = visit(color_scheme="light")
    own.ready()
    own.walk()
    ink = "document.querySelector('#transfer-0 .draw').data[0].marker.color"
    ground = "getComputedStyle(document.body).backgroundColor"
    light = own.page.evaluate(f"[{ink}, {ground}]")
    own.page.locator("#theme").click()
    own.until(f"{ink} !== '{light[0]}'")
    dark = own.page.evaluate(f"[{ink}, {ground}]")
    assert light[0] == "rgb(0, 114, 178)"
    assert dark[1] != light[1]
    assert own.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_print_shows_the_still_drawings(visit: Any) -> None:
    own = visit(color_scheme="dark")
    own.ready()
    own.page.emulate_media(media="print")
    assert not own.page.locator(".bar").is_visible()
    assert own.page.locator("#map-0 .static svg").is_visible()
    assert not own.page.locator("#map-0 .draw").is_visible()


def test_downloads(visit: Any, built: Built) -> None:
    own = visit(accept_downloads=True)
    own.ready()

    def saved(name: str) -> str:
        with own.page.expect_download() as download:
            own.page.get_by_role("button", name=f"Save {name}", exact=True).click()
        return Path(download.value.path()).read_text(encoding="utf-8")

    assert saved("report.json") == built.path.with_suffix(".json").read_text(encoding="utf-8")
    assert "metric" in saved("measurements.csv").splitlines()[0]
    own.page.locator("#points summary").click()
    assert (
        saved("these as CSV").splitlines()[0]
        == "id,modality,caption,site,before_x,before_y,after_x,after_y"
    )


@pytest.mark.parametrize(
    "text", ["".join(t for t in HOSTILE if len(t) < 100), "x" * 10_000], ids=["code", "long"]
)
def test_hostile_text_runs_nothing(visit: Any, tmp_path: Path, text: str) -> None:
    rows = tuple(
        replace(r, text=text, id=text + r.id, labels={text: text}) for r in fixture.rows(12)
    )
    hostile = build(
        tmp_path, hostile_analysis(text), rows=rows, projection=fixture.projection(rows)
    )
    own = visit(hostile.path)
    own.ready()
    own.walk()
    own.page.mouse.click(*middle(own, 1, 0, 1))
    own.page.wait_for_selector("#card-body:not([hidden])")
    own.page.locator("#colour").select_option(index=1)
    own.page.locator("#points summary").click()
    assert own.page.evaluate("window.hacked") is None
    assert own.page.locator("img").count() == 0
    assert own.text("#card-body .caption").startswith(text[:100])
    assert own.page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing_serious(visit: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    # The policy forbids foreign scripts, so axe alone gets a page without one.
    own = visit(color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 900})
    own.ready()
    own.walk()
    own.page.locator("#points summary").click()
    own.page.locator("#point-rows button").first.click()
    for fold in own.page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    found = axe.Axe().run(own.page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found] == []
