"""Outcomes side by side: ratios, what was asked of them, and the distance to the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from benchmarks.alone import Outcome
from benchmarks.contests import Contest, Rival

CLOSE = 1e-3
"""Values that differ by more than this share are not the same metric."""
TICK = 0.01
"""CPU seconds that some systems count in."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One rival at one number of rows. `ours` are the runs before and after those of the rivals.

    `ran` is what took its place where its package is missing. `before` is the same rival on fewer
    rows in the same run, where it could be run on these.
    """

    contest: Contest
    rival: Rival
    rows: int
    ours: Sequence[Outcome]
    theirs: Outcome
    ran: str
    before: tuple[int, Outcome] | None = None

    @property
    def cpu(self) -> float:
        """Our CPU seconds; less than the clock tells apart is what it does."""
        return max(mean(one.cpu for one in self.ours), TICK)

    @property
    def ratio(self) -> tuple[str, float] | None:
        """Their CPU time over ours: "" measured, ">=" at least, "~" extrapolated."""
        if self.theirs.status == "done":
            return "", self.theirs.cpu / self.cpu
        if self.before and self.rival.power:
            rows, then = self.before
            return "~", then.cpu * (self.rows / rows) ** self.rival.power / self.cpu
        return (">=", self.theirs.cpu / self.cpu) if self.theirs.status == "time" else None

    @property
    def memory(self) -> tuple[str, float] | None:
        """Our memory over theirs; at most this where theirs ran out."""
        if self.theirs.status not in ("done", "time", "memory"):
            return None
        sign = "" if self.theirs.status == "done" else "<"
        return sign, max(one.memory for one in self.ours) / max(self.theirs.memory, 1)

    @property
    def apart(self) -> float | None:
        """Their value less ours; None where one has no value."""
        if self.theirs.value is None:
            return None
        return float(self.theirs.value - self.ours[0].value)

    @property
    def verdict(self) -> str:
        """Does what was asked hold? A lower bound below the target shows nothing."""
        said = [self._time(), self._memory(), self._value()]
        return "; ".join(one for one in said if one)

    def _time(self) -> str:
        target = self.rival.target
        if target is None:
            return ""
        if self.ratio is None:
            return "not shown: " + {"memory": "it runs out of memory"}.get(
                self.theirs.status, self.theirs.said
            )
        sign, value = self.ratio
        if value >= target:
            return "holds" + (", extrapolated" if sign == "~" else "")
        return {"": "MISS", "~": "MISS, extrapolated", ">=": "not shown: out of time"}[sign]

    def _memory(self) -> str:
        if self.rival.lean is None or self.memory is None:
            return ""
        sign, share = self.memory
        if share <= self.rival.lean:
            return "memory holds"
        return "memory MISS" if not sign else "memory not shown"

    def _value(self) -> str:
        if self.apart is None or self.rival.other:
            return self.rival.other and f"another quantity: {self.rival.other}"
        close = abs(self.apart) <= CLOSE * abs(self.ours[0].value)
        return "" if close else "VALUES DIFFER"

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        name = f"{self.rival.name} {self.theirs.version}".strip()
        if self.ran != self.rival.way:
            name += " (not importable: the formula in plain torch)"
        target = "" if self.rival.target is None else f"{self.rival.target:g}"
        ours = " and ".join(f"{one.cpu:.2f} ({one.wall:.2f})" for one in self.ours)
        return (
            self.contest.metric, str(self.rows), name, _seconds(self.theirs), ours,
            _signed(self.ratio, "{:.1f}"), target, _memory(self.theirs, self.ours),
            _signed(self.memory, "{:.2f}"), "" if self.apart is None else f"{self.apart:+.1e}",
            self.verdict,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "metric": self.contest.metric, "rival": self.rival.name, "ran": self.ran,
            "rows": self.rows, "ours": [asdict(one) for one in self.ours],
            "theirs": asdict(self.theirs), "ratio": self.ratio, "target": self.rival.target,
            "memory": self.memory, "apart": self.apart, "verdict": self.verdict,
        }  # fmt: skip


HEAD = ("metric", "N", "peer", "peer: CPU s (wall)", "ours: CPU s (wall)", "ratio", "asked",
        "MiB: peer, ours", "memory share", "value: peer - ours", "verdict")  # fmt: skip


def _seconds(one: Outcome) -> str:
    if one.status == "done":
        return f"{one.cpu:.2f} ({one.wall:.2f})"
    if one.status == "memory":
        return "out of memory"
    return f">= {one.cpu:.0f}, stopped" if one.status == "time" else f"{one.status}: {one.said}"


def _memory(theirs: Outcome, ours: Sequence[Outcome]) -> str:
    sign = "" if theirs.status == "done" else "> "
    return f"{sign}{theirs.memory:.0f}, {max(one.memory for one in ours):.0f}"


def _signed(value: tuple[str, float] | None, form: str) -> str:
    return f"{value[0]} {form.format(value[1])}".strip() if value else ""


@dataclass(frozen=True, slots=True)
class Floor:
    """Ours at one number of rows beside what the machine could do: the arithmetic at the rate of a
    large product or one reading of the data, whichever takes longer."""

    contest: Contest
    rows: int
    dim: int
    cpu: float
    rates: dict[str, float]

    def seconds(self, precision: str) -> float:
        """CPU seconds that cannot be undercut in this precision."""
        products = self.contest.flops(self.rows, self.dim) / self.rates[precision]
        return max(products, self.read / self.rates["bytes"])

    @property
    def read(self) -> float:
        """Bytes of the sets in float32."""
        return 4.0 * self.contest.sets * self.rows * self.dim

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        both = [self.seconds(p) for p in ("float64", "float32")]
        gflop = self.contest.flops(self.rows, self.dim) / 1e9
        return (
            self.contest.metric, str(self.rows), self.contest.needs, f"{gflop:.3g}",
            f"{self.read / 1e6:.0f}", f"{self.cpu:.2f}", *(f"{floor:.3g}" for floor in both),
            *(f"{self.cpu / floor:.1f}" for floor in both),
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        floors = {p: self.seconds(p) for p in ("float64", "float32")}
        return {"metric": self.contest.metric, "rows": self.rows, "cpu": self.cpu, **floors}


FLOORS = ("metric", "N", "operations at least", "GFLOP", "MB read", "ours: CPU s", "floor float64",
          "floor float32", "ours / float64", "ours / float32")  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return lines([head, ["---"] * len(head), *rows])


def lines(rows: Sequence[Sequence[str]]) -> str:
    """Lines of such a table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
