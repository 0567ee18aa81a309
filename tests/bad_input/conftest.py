"""A run to spoil, and an end to whatever hangs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from geomkit.store import Run, create_run
from tests.bad_input.runs import SECRET
from tests.small_run import fill, plan

SECONDS = 120  # milliseconds on an idle machine; enough for one that is not


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """An endless read becomes a failure."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def expired(number: int, frame: object) -> None:
        raise TimeoutError(f"still reading after {SECONDS} s")

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    return fill(create_run(tmp_path / "run", plan(samples=3)))
