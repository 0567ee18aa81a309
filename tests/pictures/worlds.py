"""A made-up run, small enough to check by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.types import Row

SITES = ("embed", "block_00", "final_norm")


def plan(samples: int) -> tuple[Row, ...]:
    """Samples as text and image, every third also as audio."""
    rows: list[Row] = []
    for i in range(samples):
        for modality in ("text", "image", "audio")[: 3 if i % 3 == 0 else 2]:
            rows.append(Row(len(rows), f"s{i}", modality, "", f"g{i}", f"caption {i}"))  # type: ignore[arg-type]  # a Literal
    return tuple(rows)


@dataclass
class FakeRun:
    """The part of a run that pictures are made from."""

    rows: tuple[Row, ...]
    values: dict[tuple[str, str], NDArray[np.float32]]
    folder: Path = field(default_factory=Path)
    sites: tuple[str, ...] = SITES

    @property
    def plan(self) -> Any:
        return SimpleNamespace(rows=self.rows)

    def captured(self) -> Any:
        names = dict.fromkeys(name for name, _ in self.values)
        return tuple(SimpleNamespace(name=name, sites=self.sites) for name in names)

    def states(self, checkpoint: str, site: str, pooling: str = "last") -> Any:
        assert pooling == "last"
        return self.values[checkpoint, site], np.ones(len(self.rows), bool)

    def beside(self, name: str) -> Path:
        return self.folder / name


def world(samples: int = 30, folder: Path | None = None, seed: int = 0) -> FakeRun:
    """Two checkpoints; in the second a sample's views stand close together."""
    rng = np.random.default_rng(seed)
    rows = plan(samples)
    meaning = {row.id: rng.standard_normal(12) for row in rows}
    values = {}
    for name, share in (("base", 0.1), ("lco", 3.0)):
        values[name, "embed"] = np.ones((len(rows), 12), np.float32)
        for site in SITES[1:]:
            shared = np.array([meaning[row.id] for row in rows])
            values[name, site] = (share * shared + rng.standard_normal((len(rows), 12))).astype(
                np.float32
            )
    return FakeRun(rows, values, folder or Path())
