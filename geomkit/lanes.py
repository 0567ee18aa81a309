"""What runs beside the forward passes: one thread reads ahead, one writes behind.

    read ahead -> forward passes (the caller's thread) -> write behind

Both are bounded, so a slow disk stops the reading instead of filling the memory, and the error of
either thread stops the caller at its next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

AHEAD = 2  # batches read before they are asked for
BEHIND = 2  # shards on their way to the disk

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """`read(item)` of every item in order, with the next ones being read meanwhile.

    One thread reads, because tokenizers must not be used by two at a time.
    """
    with ThreadPoolExecutor(1, "geomkit-reader") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when the caller stops asking
            for one in waiting:
                one.cancel()


class Writer:
    """Work on its way to the disk, in order; `check` raises what went wrong there."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Writes in the pool's one thread."""
        self._pool = pool
        self._waiting: deque[Future[Any]] = deque()

    def put(self, write: Callable[[], Any]) -> None:
        """Hand over one write; waits while there are too many."""
        self._waiting.append(self._pool.submit(write))
        while len(self._waiting) > BEHIND:
            self._waiting.popleft().result()
        self.check()

    def check(self) -> None:
        """Raise the error of a write that failed."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all writes; the first error is raised, later writes are dropped."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            for one in self._waiting:
                one.cancel()


@contextmanager
def writing() -> Iterator[Writer]:
    """A writer; what it was given is on the disk when the block is left, in whatever way."""
    with ThreadPoolExecutor(1, "geomkit-writer") as pool:
        writer = Writer(pool)
        try:
            yield writer
        finally:
            writer.finish()
