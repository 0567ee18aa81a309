"""The binding test in words: does a map fitted on text rows foretell what other rows underwent?

The rule was fixed before any result was looked at; `judged` states it. A word without its numbers
is no finding, so every sentence has the R2 of the map, of its ceiling and of a mere shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from geomkit.types import Binding, Modality

SITE = "final_norm"
HALF = 0.5
"""Least share of the ceiling that counts as bound."""

Word = Literal["holds", "holds in part", "does not hold", "cannot be told"]

Cells = Mapping[tuple[str, str], Binding]
"""Records of one modality at one site, by quantity and predictor."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the test says of one modality at one site."""

    before: str
    after: str
    site: str
    modality: Modality
    word: Word
    sentence: str


def judged(bindings: Iterable[Binding], site: str = SITE) -> Iterator[Judged]:
    """The verdict of every modality but text, in the order of the records.

    cannot be told  R2 on held-out text rows, or that of the modality's own map, is not clearly
                    above zero: there is no affine change to be foretold
    holds           the map of text is clearly better than text's mean change alone, and its R2 is
                    at least half of that of the modality's own map
    holds in part   not that, but the map is clearly better than both mean changes, text's and the
                    modality's own; or, once the modality's means are given, its R2 is clearly above
                    zero and at least half of that of the own map (one linear law, another shift)
    does not hold   none of these

    "Clearly" is a 95 % interval that excludes zero.
    """
    found: dict[tuple[str, str, Modality], dict[tuple[str, str], Binding]] = {}
    for b in bindings:
        if b.site == site:
            found.setdefault((b.before, b.after, b.modality), {})[b.quantity, b.predictor] = b
    for (before, after, modality), cells in found.items():
        if modality != "text":
            word, why = _word(found.get((before, after, "text"), {}), cells)
            sentence = f"Binding of {modality} to text {word} at {site}: {why}."
            yield Judged(before, after, site, modality, word, sentence)


def _word(text: Cells, media: Cells) -> tuple[Word, str]:
    own_text, own = text.get(("r2", "text")), media.get(("r2", "own"))
    mapped = media.get(("r2", "text"))
    for record, what in (
        (own_text, "the map does not foretell held-out text itself"),
        (own, f"no affine map foretells {own.modality if own else 'it'}, not even its own"),
        (mapped, "the map of text has no R2"),
    ):
        if record is None or record.value is None:
            if own_text is None:
                return "cannot be told", "not measured (no text rows)"
            where = " in text rows" * (record is own_text)
            return "cannot be told", f"not measured{where} ({_reason(record)})"
        if record is not mapped and not _above(record):
            return "cannot be told", f"{what} (R2 {_number(record)})"
    return _compared(media), _numbers(media)


def _compared(media: Cells) -> Word:
    mapped, own = media.get(("r2", "text")), media.get(("r2", "own"))
    beats_shift = _above(media.get(("r2", "text-shift")))
    if beats_shift and _near(mapped, own):
        return "holds"
    centred = media.get(("r2_centred", "text"))
    linear = _above(centred) and _near(centred, media.get(("r2_centred", "own")))
    return "holds in part" if (beats_shift and _above(mapped)) or linear else "does not hold"


def _numbers(media: Cells) -> str:
    """`R2 of the change 0.97 [0.95, 0.98] by the map of text, 0.98 by its own, ...`."""
    told = [
        f"{_number(media['r2', 'text'])} by the map fitted on text",
        f"{_number(media['r2', 'own'])} by one of its own",
    ]
    shift, given = media.get(("r2", "shift")), media.get(("r2_centred", "text"))
    if shift is not None:
        told.append(f"{_number(shift)} by text's mean change alone")
    if given is not None and given.value is not None:
        told.append(f"{_number(given)} by the map once the means are given")
    reach = media.get(("reach", "text"))
    if reach is not None and reach.value is not None:
        told.append(f"text's leading axes hold {reach.value:.0%} of its variance before")
    return f"R2 of its change is {'; '.join(told)}; n {media['r2', 'text'].n}"


def _reason(record: Binding | None) -> str:
    """Why there is no number, as it stands in brackets."""
    return record.note.rstrip(". ") if record else "there is no record of it"


def _above(record: Binding | None) -> bool:
    return record is not None and record.interval is not None and record.interval.low > 0


def _near(record: Binding | None, ceiling: Binding | None) -> bool:
    """Is the value at least half of the ceiling?"""
    if record is None or ceiling is None or record.value is None or ceiling.value is None:
        return False
    return record.value >= HALF * ceiling.value


def _number(record: Binding) -> str:
    if record.value is None:
        return "-"
    span = record.interval
    return _two(record.value) + (f" [{_two(span.low)}, {_two(span.high)}]" if span else "")


def _two(value: float) -> str:
    """Two decimals; zero has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"
