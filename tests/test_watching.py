"""A run that grows is rendered again, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from geomkit.errors import StoreError
from geomkit.watching import state, watch


def looked(
    run: Path, changes: dict[int, Callable[[], object]], render: Callable[[], str], rounds: int
) -> list[str]:
    """What is told over some looks, with something happening before some of them."""
    told: list[str] = []
    at = iter(range(1, rounds + 2))

    def wait(_seconds: float) -> None:
        changes.get(next(at), lambda: None)()

    watch(run, render, told.append, every=1, wait=wait, rounds=rounds)
    return told


def test_it_renders_now_and_after_each_change(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "base").mkdir()
    count = iter(range(100))
    changes = {
        2: lambda: (tmp_path / "base" / "shard-00000.json").write_text("{}"),
        4: lambda: (tmp_path / "report.json").write_text("made by the report itself"),
    }
    told = looked(tmp_path, changes, lambda: f"page {next(count)}", rounds=7)
    assert told == ["page 0", "page 1"]


def test_it_waits_for_a_run_and_says_so_once(tmp_path: Path) -> None:
    run = tmp_path / "later"

    def begin() -> None:
        run.mkdir()
        (run / "plan.json").write_text("{}")

    told = looked(run, {3: begin}, lambda: "there", rounds=6)
    assert told == [f"waiting for a run at {run}", "there"]


def test_an_unfinished_run_is_told_once_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    tries = iter([StoreError("no checkpoint"), StoreError("no checkpoint"), None])

    def render() -> str:
        flaw = next(tries)
        if flaw:
            raise flaw
        return "done"

    def touch(text: str) -> Callable[[], object]:
        return lambda: (tmp_path / "plan.json").write_text(text)

    told = looked(tmp_path, {1: touch("{ }"), 2: touch("{  }")}, render, rounds=5)
    assert told == ["not yet: no checkpoint", "done"]


def test_what_is_made_from_a_run_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    before = state(tmp_path)
    (tmp_path / ".estimates").mkdir()
    (tmp_path / ".estimates" / "a.json").write_text("{}")
    (tmp_path / "analysis.json").write_text("{}")
    assert state(tmp_path) == before
    assert state(tmp_path / "none") == ()
