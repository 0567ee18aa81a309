"""Spent time and what it is compared with: ways interleaved round by round, ratios within a round.

A machine that others use drifts, so no way is measured in one go: each round runs every way once,
in turning order, and a ratio is made of two times of the same round. The median of those ratios
and its quartiles are what is reported, with the ratio of the two least times beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

Way = Callable[[int], Any]
"""Does the work of one round; it is given the round's number."""

Clock = Literal["wall", "cpu", "device"]


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one round; `device` is a GPU's own time, 0 without one."""

    wall: float
    cpu: float
    device: float = 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median and quartiles of the rounds' ratios, and least time over least time."""

    median: float
    low: float
    high: float
    least: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}; least {self.least:.3f})"


def spent(work: Callable[[], Any], device: str = "cpu") -> Spent:
    """Time of one call, what it left on the device included."""
    if not device.startswith("cuda"):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return Spent(time.perf_counter() - wall, time.process_time() - cpu)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    whole = Spent(time.perf_counter() - wall, time.process_time() - cpu)
    return Spent(whole.wall, whole.cpu, start.elapsed_time(end) / 1000)


def interleaved(
    ways: Mapping[str, Way], rounds: int, device: str = "cpu", *, warm: int = 1
) -> dict[str, list[Spent]]:
    """Way -> its time in every round; who goes first turns, and `warm` rounds are not counted."""
    names = list(ways)
    times: dict[str, list[Spent]] = {name: [] for name in names}
    for number in range(-warm, rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            one = spent(lambda way=ways[name]: way(max(number, 0)), device)  # noqa: B023 - called at once
            if number >= 0:
                times[name].append(one)
    return times


def ratio(ours: Sequence[Spent], theirs: Sequence[Spent], clock: Clock) -> Ratio:
    """What `ours` took of `theirs`, round by round."""
    above = [getattr(one, clock) for one in ours]
    below = [getattr(one, clock) for one in theirs]
    each = [a / b for a, b in zip(above, below, strict=True)]
    if len(each) == 1:
        each *= 2  # quartiles of one value are that value
    low, median, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(median, low, high, min(above) / min(below))


def least(times: Sequence[Spent], clock: Clock) -> float:
    """The shortest of the times: the one least disturbed."""
    return min(getattr(one, clock) for one in times)
