"""Counts and lists as one would say them."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 8  # numbers that are listed before "..."


def counted(count: int, noun: str, nouns: str = "") -> str:
    """`1 shard`, `2 shards`, `2 batches` where the plural is given."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def lacking(name: str, numbers: Sequence[int], shards: int) -> str:
    """Which shards a checkpoint lacks: how many, and the first of them."""
    some = ", ".join(map(str, numbers[:FEW])) + ", ..." * (len(numbers) > FEW)
    return f"{name} lacks {len(numbers)} of {counted(shards, 'shard')}: {some}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`; `none` when empty."""
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def because(note: str) -> str:
    """A reason as it stands in brackets: without a full stop of its own."""
    return note.rstrip(". ") or "no reason given"
