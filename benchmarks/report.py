"""What a report costs: time to build, bytes, first paint, and a step of the layer slider.

build    all records and pictures of a made-up run: 29 sites of 2 checkpoints, 3 modalities, every
         metric, probe, label bit, transfer, binding, drift and log (`madeup.py`): time and bytes
open     the page in headless Chromium from a file: first paint, and when every control works
slider   one step of the layer slider until the next frame is on the screen
others   the smallest report of evidently and ydata-profiling on a table of as many rows: bytes

python benchmarks/report.py
python benchmarks/report.py --evidently ENV/bin/python --ydata OTHER/bin/python
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from benchmarks import madeup
from reports import write_report

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
SHOWN = 1000
STEPS = 10

STEP = """() => new Promise(done => {
    const slider = document.getElementById("layer");
    const start = performance.now();
    slider.value = slider.value - 1;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"

EVIDENTLY = """
import sys, numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataSummaryPreset
numbers = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 3))
table = pd.DataFrame(numbers, columns=list("abc"))
Report([DataSummaryPreset()]).run(table, None).save_html(sys.argv[2])
"""
YDATA = """
import sys, numpy as np, pandas as pd
from ydata_profiling import ProfileReport
numbers = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 3))
table = pd.DataFrame(numbers, columns=list("abc"))
ProfileReport(table, minimal=True, progress_bar=False).to_file(sys.argv[2])
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a browser says of a page, in milliseconds."""

    paint: float | None
    ready: float
    step: float
    slowest: float


def build(folder: Path, count: int, samples: int) -> tuple[Path, float]:
    """The page of so many sites and samples, and the seconds it took, its records not counted."""
    sites, plan = madeup.sites_of(count), madeup.rows(samples)
    records = madeup.records(sites, samples)
    album = madeup.album(sites, plan)
    start = time.perf_counter()
    page = write_report(
        records, album.projection, plan, {}, folder / f"report-{samples}.html", album=album
    )
    return page, time.perf_counter() - start


def opened(page: Path) -> Opened:
    """The page in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]", timeout=120_000)
        ready = 1000 * (time.perf_counter() - start)
        tab.locator("#map").scroll_into_view_if_needed()
        tab.wait_for_timeout(2000)
        steps: list[float] = [tab.evaluate(STEP) for _ in range(STEPS)]
        paint: Any = tab.evaluate(PAINT)
        browser.close()
    return Opened(paint, ready, statistics.median(steps), max(steps))


def other(python: str, script: str, folder: Path, samples: int) -> int:
    """Bytes of another tool's report, made in an environment of its own."""
    page = folder / "other.html"
    subprocess.run(
        [python, "-c", script, str(samples), str(page)], check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return page.stat().st_size


def lines(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, str]]:
    """What was measured, as cells of a table."""
    for samples in arguments.samples:
        page, seconds = build(folder, arguments.sites, samples)
        what = f"{arguments.sites} sites x 2 x 3 x {samples} samples ({min(SHOWN, samples)} shown)"
        size = page.stat().st_size
        yield what, "build", f"{seconds:.1f} s, {size / 1e6:.2f} MB"
        if not arguments.closed:
            seen = opened(page)
            paint = "not told" if seen.paint is None else f"{seen.paint:.0f} ms"
            yield what, "first paint; ready", f"{paint}; {seen.ready:.0f} ms"
            yield what, "slider step", f"{seen.step:.0f} ms (slowest {seen.slowest:.0f} ms)"
    for name, python, script in (
        ("evidently, DataSummaryPreset", arguments.evidently, EVIDENTLY),
        ("ydata-profiling, minimal", arguments.ydata, YDATA),
    ):
        if python:
            size = other(python, script, folder, arguments.samples[0])
            yield f"{name}: 3 columns x {arguments.samples[0]} rows", "size", f"{size / 1e6:.2f} MB"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--sites", type=int, default=29)
    asked.add_argument("--samples", type=int, nargs="+", default=[1000, 10_000])
    asked.add_argument("--closed", action="store_true", help="open no browser")
    asked.add_argument("--evidently", default="", help="a Python that has evidently")
    asked.add_argument("--ydata", default="", help="a Python that has ydata-profiling")
    arguments = asked.parse_args()
    print("| page | what | measured |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for cells in lines(arguments, Path(folder)):
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{platform.processor() or platform.machine()}; Python {platform.python_version()}")


if __name__ == "__main__":
    main()
