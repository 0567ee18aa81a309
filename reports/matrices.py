"""Probe accuracies as matrices, train on x test on, one an attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from geomkit.types import MODALITIES, Difference, Modality, ProbeResult
from reports.book import FINAL, Book


@dataclass(frozen=True, slots=True)
class ProbeMatrix:
    """One attribute: train-on x test-on, before and after, at one site."""

    attribute: str
    spoken: bool
    site: str
    train_on: tuple[Modality, ...]
    test_on: tuple[Modality, ...]
    before: Mapping[tuple[str, str], ProbeResult]
    after: Mapping[tuple[str, str], ProbeResult]
    differences: Mapping[tuple[str, str], Difference]
    chance: float
    majority: float

    @property
    def notes(self) -> tuple[str, ...]:
        """Why cells are empty, each reason once."""
        cells = (*self.before.values(), *self.after.values())
        return tuple(dict.fromkeys(c.note for c in cells if c.accuracy is None and c.note))


def probe_matrices(book: Book) -> tuple[ProbeMatrix, ...]:
    """One matrix an attribute at the site that speaks for it; spoken attributes first."""
    attributes = dict.fromkeys((p.attribute, p.spoken) for p in book.analysis.probes)
    ordered = sorted(attributes, key=lambda pair: not pair[1])
    return tuple(probe_matrix(book, name, spoken) for name, spoken in ordered)


def probe_matrix(book: Book, attribute: str, spoken: bool) -> ProbeMatrix:
    """The probes on one attribute, at the final norm or else the deepest site that has them."""
    own = [p for p in book.analysis.probes if (p.attribute, p.spoken) == (attribute, spoken)]
    ranked = (FINAL, *reversed(book.analysis.sites))
    site = next((s for s in ranked if any(p.site == s for p in own)), own[0].site)
    here = [p for p in own if p.site == site]

    def of(checkpoint: str) -> dict[tuple[str, str], ProbeResult]:
        return {(p.train_on, p.test_on): p for p in here if p.checkpoint == checkpoint}

    cells = dict.fromkeys((p.train_on, p.test_on) for p in here)
    changes: dict[tuple[str, str], Difference] = {
        cell: book.differences[key]
        for cell in cells
        if (key := (f"probe:{attribute}", site, f"{cell[0]}->{cell[1]}")) in book.differences
    }
    return ProbeMatrix(
        attribute, spoken, site,
        tuple(m for m in MODALITIES if any(p.train_on == m for p in here)),
        tuple(m for m in MODALITIES if any(p.test_on == m for p in here)),
        of(book.before), of(book.after), changes, here[0].chance, here[0].majority,
    )  # fmt: skip
