"""What an analysis is asked: of which numbers, at which sites, and with which means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from geomkit.errors import UsageError

PROBES = ("linear", "mdl", "separability", "binding", "drift")
"""Linear probes, label bits, modalities told apart, the binding test, how far states moved."""

Readout = Literal["multinomial", "ridge"]

ASKED, MEANS = "What is measured", "Means"


def _doc(panel: str, default: Any, text: str, **more: Any) -> Any:
    """A field whose one line of help travels with it, and where the help has it."""
    return field(default=default, metadata={"help": text, "panel": panel, **more})


@dataclass(frozen=True, slots=True)
class AnalyzeConfig:
    """How a run is analyzed."""

    metrics: tuple[str, ...] = _doc(
        ASKED,
        (),
        "Metrics or families (cone, spectrum, neighbours, dimension, gap, similarity, retrieval), "
        "or all, as in cone,rank_me.",
        empty="every metric that is not costly",
    )
    sites: tuple[str, ...] = _doc(
        ASKED, (), "Sites to measure, as in block_04,final_norm.", empty="all"
    )
    pooling: str = _doc(ASKED, "", "Pooling to measure.", empty="the first that was captured")
    probes: tuple[str, ...] = _doc(
        ASKED, PROBES, f"Probes to train ({', '.join(PROBES)}), or none."
    )
    readout: Readout = _doc(  # noqa: RUF009 a field, like the others; ruff knows plain types only
        ASKED,
        "multinomial",
        "How linear probes read a state: multinomial, or ridge, which is many times faster and "
        "sees less of what is lost.",
    )
    memory: float = _doc(
        MEANS, 2.0, "Most memory in GiB, of all processes together; rows that do not fit stay out."
    )
    workers: int = _doc(MEANS, 0, "Processes, each at a site of its own; 0 is one a core.")
    device: str = _doc(
        MEANS, "cpu", "Where products and decompositions are made: cpu, cuda, cuda:1."
    )
    again: bool = _doc(MEANS, False, "Measure again what was kept from before.")

    def __post_init__(self) -> None:
        """Refuse values that no analysis can have."""
        for name in ("metrics", "sites", "probes"):
            object.__setattr__(self, name, _listed(getattr(self, name)))
        if self.probes == ("none",):
            object.__setattr__(self, "probes", ())
        for part in self.probes:
            if part not in PROBES:
                raise UsageError(f"Expected probes of {', '.join(PROBES)} or none, got {part!r}.")
        if self.readout not in get_args(Readout):
            raise UsageError(
                f"Expected readout {' or '.join(get_args(Readout))}, got {self.readout!r}."
            )
        if not 0 < self.memory < math.inf:
            raise UsageError(f"Expected memory above 0 GiB and finite, got {self.memory}.")
        if self.workers < 0:
            raise UsageError(f"Expected workers of 0 or more, got {self.workers}.")

    def options(self) -> tuple[str, ...]:
        """What to type to ask for the same numbers; with which means is left out."""
        named = ("metrics", "sites", "pooling", "probes", "readout")
        asked = {name: getattr(self, name) for name in named}
        said = {
            name: value if isinstance(value, str) else ",".join(value) or "none"
            for name, value in asked.items()
            if value != _default(name)
        }
        if self.memory != _default("memory"):  # it decides how many rows there are
            said["memory"] = f"{self.memory:g}"
        return tuple(word for name, value in said.items() for word in (f"--{name}", value))


def _default(name: str) -> Any:
    return next(f.default for f in fields(AnalyzeConfig) if f.name == name)


def _listed(words: Sequence[str]) -> tuple[str, ...]:
    """Words as the command line gives them: repeated options, or commas within one."""
    return tuple(part.strip() for word in words for part in word.split(",") if part.strip())
