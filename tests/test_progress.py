"""Progress: bars on a terminal, quiet elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from geomkit import progress as module
from geomkit.progress import progress


def told(*, terminal: bool, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    clock = iter(n * seconds for n in range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    shown = io.StringIO()
    with progress(Console(file=shown, force_terminal=terminal, width=100)) as report:
        for done in range(21):
            report("capture lco", done, 20)
    return shown.getvalue()


def test_a_script_hears_nothing_of_a_short_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(terminal=False, seconds=0.1, monkeypatch=monkeypatch) == ""


def test_a_log_hears_of_a_long_stage_a_line_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(terminal=False, seconds=20.0, monkeypatch=monkeypatch).splitlines()
    assert 8 <= len(lines) <= 10
    assert lines[-1].startswith("capture lco: 20/20, ")
    assert "\x1b" not in "".join(lines)
