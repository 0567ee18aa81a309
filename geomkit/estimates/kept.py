"""Estimates on disk: what was measured once is not measured again.

    RUN/.estimates/<checkpoint>/<site>.<unit>

A unit is what the rows are of: `image`, `image-text` or `image-to-text`. A file is the sha256 of
what follows it, a line of JSON, and the shares of its estimates as little-endian float64. It can be
deleted at any time: one that is missing, damaged, of other states or of other code is made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.errors import DegenerateInput, GeomkitError, StoreError
from geomkit.estimates.metric import Result
from geomkit.statistics import Estimate
from geomkit.store import files

SCHEMA = "geomkit-estimates/1"
MADE_BY = ("geomkit/estimates", "geomkit/geometry", "geomkit/statistics", "probes")
"""The packages whose code decides what is kept."""

LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the estimates of one checkpoint at one site and of one unit are, and of what."""

    path: Path
    key: str

    def read(self) -> dict[str, Result]:
        """The estimates by metric; none where there is no sound file of this key."""
        try:
            return dict(_parsed(files.read_regular(self.path, LIMIT), self.key))
        except (GeomkitError, ValueError, KeyError, TypeError, IndexError):
            return {}

    def write(self, results: Mapping[str, Result]) -> None:
        """Keep these estimates, in the place of those that are there."""
        keep(self.path, _bytes(results, self.key))


def keep(path: Path, data: bytes) -> None:
    """Write a file two levels below the folder of what is kept, also when others write there."""
    for folder in (path.parents[1], path.parent):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise StoreError(
                f"{folder} is no folder of its own, and nothing is written through it: remove it, "
                "it only holds what can be worked out again"
            )
    files.make_folder(path.parent)
    with files.write_lock(path.parents[1]):
        files.write_atomic(path, data)


def key_of(*parts: Any) -> str:
    """sha256 of everything that decides the estimates."""
    return hashlib.sha256(json.dumps([SCHEMA, *parts]).encode()).hexdigest()


@functools.cache
def code_sha() -> str:
    """sha256 of the sources: a release, or an edit, that changes a number changes the key."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in MADE_BY:
        for source in sorted((root / package).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _bytes(results: Mapping[str, Result], key: str) -> bytes:
    found = [e for e in results.values() if not isinstance(e, DegenerateInput)]
    names = max((e.names for e in found), key=len, default=())
    body = b"".join(e.shares.astype("<f8").tobytes() for e in found)
    header = {
        "key": key,
        "groups": list(names),
        "metrics": {name: _header(result) for name, result in results.items()},
    }
    rest = json.dumps(header).encode() + b"\n" + body
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _header(result: Result) -> dict[str, Any]:
    if isinstance(result, DegenerateInput):
        return {"flaw": str(result)}
    return {
        "value": result.value,
        "n": result.n,
        "method": result.method,
        "chance": result.chance,
        "chance_sd": result.chance_sd,
        "shares": len(result.shares),
        "named": bool(result.names),
    }


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no estimate")


def _parsed(data: bytes, key: str) -> Iterator[tuple[str, Result]]:
    sha, _, rest = data.partition(b"\n")
    if sha.decode() != hashlib.sha256(rest).hexdigest():
        raise ValueError("damaged")
    line, _, body = rest.partition(b"\n")
    header = json.loads(line, parse_constant=_no_number)
    if header["key"] != key:
        raise ValueError("of other states")
    names, start = tuple(header["groups"]), 0
    for name, told in header["metrics"].items():
        if "flaw" in told:
            yield name, DegenerateInput(told["flaw"])
            continue
        shares = np.frombuffer(body, "<f8", int(told["shares"]), 8 * start)
        start += len(shares)
        yield (
            name,
            Estimate(
                float(told["value"]),
                shares.astype(np.float64),
                int(told["n"]),
                told["method"],
                told["chance"],
                chance_sd=told["chance_sd"],
                names=names if told["named"] else (),
            ),
        )
