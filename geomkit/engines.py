"""Who runs which shard.

A shard is the unit of work: any engine may run any of them, in any order, more than once, and the
run folder is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Engine = Callable[[Sequence[int], Callable[[int], None]], None]
"""Takes shard numbers and the function that captures one."""


def inline(numbers: Sequence[int], work: Callable[[int], None]) -> None:
    """One shard after the other, in this process."""
    for number in numbers:
        work(number)
