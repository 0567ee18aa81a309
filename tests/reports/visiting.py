"""The page in a real browser, offline: what opens it, and what it should not have done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

needs_browser = [
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
HARMLESS = "GPU stall due to ReadPixels"  # a software WebGL's own remark


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
        script = "[...document.querySelectorAll('[data-figure], [data-curve]')].map(e => e.id)"
        for name in self.page.evaluate(script):
            self.page.evaluate(
                f"document.getElementById('{name}').scrollIntoView({{behavior: 'instant'}})"
            )
            self.page.wait_for_selector(f"#{name}.drawn")


def complaint(message: Any) -> bool:
    """Whether the console says that something is wrong."""
    return message.type in ("error", "warning") and HARMLESS not in message.text


@contextmanager
def launched() -> Iterator[Any]:
    """The browser of a session; more of its kind come from `another`."""
    with playwright.sync_playwright() as driver:
        own = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield own
        own.close()


@contextmanager
def another(browser: Any, *flags: str) -> Iterator[Any]:
    """A second browser, started with other flags."""
    own = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    yield own
    own.close()


@contextmanager
def visiting(browser: Any, default: Path) -> Iterator[Any]:
    """A function that opens a page with some context options; in the end nothing went wrong."""
    contexts, visits = [], []

    def start(path: Path = default, **options: Any) -> Visit:
        context = browser.new_context(
            offline=True, **({"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = context.new_page()
        own = Visit(page)
        page.add_init_script(LISTEN)
        page.on("console", lambda m: own.trouble.append(m.text) if complaint(m) else None)
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
