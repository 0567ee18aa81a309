"""Reading ahead and writing behind: in order, bounded, and no error is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from geomkit import lanes
from geomkit.lanes import AHEAD, BEHIND, ahead, writing


def test_items_are_read_in_order_by_one_thread_and_never_too_far_ahead() -> None:
    read: list[int] = []
    threads: set[str] = set()

    def one(item: int) -> int:
        threads.add(threading.current_thread().name)
        read.append(item)
        return item * item

    got = []
    with closing(ahead(one, range(9))) as squares:
        for square in squares:
            time.sleep(0.002)  # so that the reader could run away
            got.append(square)
            assert len(read) <= len(got) + AHEAD + 1
    assert got == [n * n for n in range(9)]
    assert read == list(range(9))
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


def test_what_goes_wrong_in_reading_is_raised_at_its_item() -> None:
    def one(item: int) -> int:
        if item == 2:
            raise OSError("no such file")
        return item

    items = ahead(one, range(9))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="no such file"):
        next(items)


def test_a_reader_that_nobody_asks_any_more_stops() -> None:
    read: list[int] = []
    with closing(ahead(read.append, range(100))) as items:  # type: ignore[func-returns-value]
        next(items)
    assert len(read) <= AHEAD + 2
    assert not any(t.name.startswith("geomkit-reader") for t in threading.enumerate())


def test_what_was_not_begun_is_not_read_once_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    closing_down = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args: Any, **more: Any) -> None:
            closing_down.set()
            super().shutdown(*args, **more)

    def one(item: int) -> int:
        read.append(item)
        if item == 1:
            closing_down.wait()
        return item

    monkeypatch.setattr(lanes, "ThreadPoolExecutor", Pool)
    with closing(ahead(one, range(9))) as items:
        assert next(items) == 0
    assert AHEAD == 2  # so that 2 was waiting behind 1
    assert 2 not in read


def test_writes_happen_in_order_and_are_done_when_the_block_is_left() -> None:
    written: list[int] = []

    def slow(n: int) -> None:
        time.sleep(0.002)
        written.append(n)

    with writing() as writer:
        for n in range(7):
            writer.put(lambda n=n: slow(n))
            assert len(written) >= n - BEHIND
    assert written == list(range(7))


def test_a_full_disk_stops_the_caller_at_its_next_step() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    done: list[int] = []

    def caller() -> None:
        with writing() as writer:
            writer.put(full)
            for n in range(100):
                time.sleep(0.001)
                writer.check()
                done.append(n)

    with pytest.raises(OSError, match="No space left"):
        caller()
    assert len(done) < 100


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_what_was_handed_over_is_written_when_the_caller_stops(stop: type[BaseException]) -> None:
    written: list[Any] = []

    def caller() -> None:
        with writing() as writer:
            writer.put(lambda: (time.sleep(0.01), written.append("shard")))
            raise stop

    with pytest.raises(stop):
        caller()
    assert written == ["shard"]
