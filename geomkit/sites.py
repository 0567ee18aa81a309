"""Names of sites and patterns over them; the sites themselves are in `geomkit.hooks`.

    embed, block_04, final_norm     one site
    block_04..block_08              a range, in forward order, both ends included
    every:4                         each fourth block, counted from the last one back, and both ends

Nothing here needs torch: a wrong pattern is told before anything is loaded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from geomkit.errors import UsageError

NAME = re.compile(r"embed|block_[0-9]{1,6}|final_norm")
LONG = 12  # names of a list that is not cut


def select(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The sites that names, ranges (`block_04..block_08`) and `every:N` choose among `known`.

    `every:N` takes each N-th block, counted from the last one back, with `embed` and `final_norm`:
    the last blocks are where representations are read.

    Raises:
        UsageError: a pattern or a name that is no site; the message lists the nearest three.

    Example:
        >>> select(("embed", "block_00", "block_01", "block_02", "final_norm"), ["every:2"])
        ('embed', 'block_00', 'block_02', 'final_norm')
    """
    chosen = {site for pattern in wanted for site in _chosen(known, pattern)}
    return tuple(site for site in known if not wanted or site in chosen)


def check_pattern(pattern: str) -> None:
    """Refuse what is a pattern of no decoder. Raises UsageError."""
    if pattern.startswith("every:"):
        _step(pattern)
    else:
        _ends(pattern)


def described(sites: Sequence[str]) -> str:
    """The sites as one would say them: three and more blocks in a row by their ends.

    Example:
        >>> described(("embed", "block_00", "block_01", "block_02", "final_norm"))
        'embed, block_00 to block_02, final_norm'
    """
    parts = list(_parts(sites))
    if len(parts) > LONG:
        parts = [*parts[: LONG // 2], "...", *parts[-2:]]
    return ", ".join(parts)


def _chosen(known: Sequence[str], pattern: str) -> Sequence[str]:
    if pattern.startswith("every:"):
        blocks = [site for site in known if site.startswith("block_")]
        return [known[0], *blocks[:: -_step(pattern)], known[-1]]
    first, last = (_position(known, name) for name in _ends(pattern))
    return known[first : last + 1]


def _step(pattern: str) -> int:
    step = pattern.removeprefix("every:")
    if not re.fullmatch(r"[0-9]{1,6}", step) or int(step) < 1:
        raise UsageError(f"Expected every:N with N of at least 1, got '{pattern}'.")
    return int(step)


def _ends(pattern: str) -> tuple[str, str]:
    """First and last site of a range; a name is a range of one."""
    first, dots, last = pattern.partition("..")
    ends = (first, last if dots else first)
    if not all(NAME.fullmatch(name) for name in ends):
        raise UsageError(
            "Expected sites as embed, block_04, final_norm, a range (block_04..block_08) or"
            f" every:4, got '{pattern}'."
        )
    if _rank(ends[0]) > _rank(ends[1]):
        raise UsageError(
            f"Expected a range of sites in forward order, got '{pattern}': turn it over."
        )
    return ends


def _rank(name: str) -> int:
    """Where a site comes in a forward pass; blocks have six digits at most."""
    return {"embed": -1, "final_norm": 10**6}.get(name) or int(name.removeprefix("block_"))


def _position(known: Sequence[str], name: str) -> int:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise UsageError(
            f"Expected a site of this decoder, got '{name}'; near names: {', '.join(near)}."
        )
    return known.index(name)


def _parts(sites: Sequence[str]) -> Iterator[str]:
    """Names, and blocks in a row: what a block's number and its place differ by is the same."""
    numbered = enumerate(sites)
    rows = groupby(numbered, lambda e: _rank(e[1]) - e[0] if e[1].startswith("block_") else e[1])
    for _, row in rows:
        names = [name for _, name in row]
        yield from names if len(names) < 3 else (f"{names[0]} to {names[-1]}",)
