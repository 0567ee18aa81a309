"""Where everything came from -> the tables of the last section.

Provenance is open-ended: what is known by name gets its own table, the rest is shown as a tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TABLED = frozenset({"checkpoints", "prompts", "commands", "command", "incomplete"})
APART = frozenset({"gate", "training", "versions", "name"})
"""Fields of a checkpoint record that are not a row of the checkpoint table."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One field over all checkpoints; `differs` when they do not agree."""

    name: str
    values: tuple[Any, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """One check of the gate on one checkpoint."""

    checkpoint: str
    check: str
    passed: bool | None
    rest: Mapping[str, Any]


def records(provenance: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The checkpoint records, whether filed as a list or by name."""
    found = provenance.get("checkpoints", ())
    if isinstance(found, Mapping):
        return tuple(
            {"name": name, **record}
            for name, record in found.items()
            if isinstance(record, Mapping)
        )
    return tuple(r for r in found if isinstance(r, Mapping)) if is_list(found) else ()


def is_list(value: Any) -> bool:
    """A sequence that is no text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def facts(provenance: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Fields of the checkpoint records, side by side."""
    own = records(provenance)
    names = dict.fromkeys(name for record in own for name in record if name not in APART)
    return tuple(
        Fact(name, tuple(values), any(value != values[0] for value in values))
        for name in names
        if any(values := [record.get(name, "") for record in own])
    )


def gates(provenance: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Every check that ran before the first shard."""
    found = []
    for record in records(provenance):
        checks = record.get("gate")
        for check, result in (checks if isinstance(checks, Mapping) else {}).items():
            rest = dict(result) if isinstance(result, Mapping) else {"result": result}
            passed = rest.pop("passed", None)
            found.append(Gate(str(record.get("name", "")), str(check), passed, rest))
    return tuple(found)


def prompts(provenance: Mapping[str, Any]) -> Mapping[str, str]:
    """The instruction that follows each modality's content."""
    found = provenance.get("prompts", {})
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def commands(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The command lines that made the run, in order."""
    found = provenance.get("commands", provenance.get("command", ()))
    return tuple(str(c) for c in found) if is_list(found) else (str(found),)


def the_rest(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What has no table of its own, and the versions and training of each checkpoint."""
    rest: dict[str, Any] = {k: v for k, v in provenance.items() if k not in TABLED}
    for record in records(provenance):
        for part in ("versions", "training"):
            own = record.get(part)
            if own:
                short = (
                    {k: v for k, v in own.items() if k not in ("steps", "geometry")}
                    if isinstance(own, Mapping)
                    else own
                )
                rest[f"{part} of {record.get('name', '')}"] = short
    return rest
