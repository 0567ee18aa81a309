"""How far states stray along each of their principal directions, largest first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import directions
from geomkit.geometry.spectrum import spectrum as squared_singular_values
from geomkit.pictures.records import Spectrum
from geomkit.types import MODALITIES, Row

MOST_ROWS = 512
"""Rows a modality that a spectrum is made from: its shape is there, its cost is not."""
POINTS = 32
"""Ranks that are drawn, evenly apart on a logarithmic axis."""


def spectra(
    site: str, spaces: Mapping[str, NDArray[np.float64]], rows: Sequence[Row]
) -> list[Spectrum]:
    """One spectrum a modality and checkpoint; `spaces` are unit rows by checkpoint."""
    found = []
    for modality in MODALITIES:
        places = [i for i, row in enumerate(rows) if row.modality == modality][:MOST_ROWS]
        for name, units in spaces.items() if places else ():
            found.append(spectrum(modality, site, name, units[places]))
    return found


def spectrum(modality: str, site: str, name: str, units: NDArray[np.float64]) -> Spectrum:
    """Standard deviations at some ranks; rows without spread give a note."""
    n = len(units)
    try:
        directions(units)  # says whether there is any spread above rounding
    except DegenerateInput:
        return Spectrum(modality, site, name, n, (), (), "the states do not differ")
    squares = squared_singular_values((units - units.mean(axis=0)) / math.sqrt(n - 1))[::-1]
    values = np.sqrt(squares[squares > 0])
    ranks = np.unique(np.geomspace(1, len(values), POINTS).round().astype(int))
    return Spectrum(
        modality, site, name, n, tuple(ranks.tolist()), tuple(values[ranks - 1].tolist())
    )
