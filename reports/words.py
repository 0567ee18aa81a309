"""Names, sentences and number formats: how the page says what the records hold.

Numbers have three significant digits and a real minus sign. A value and its interval share one
number of decimals, set by the largest of the three, so that they can be compared by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from geomkit.claims import DISTANCES
from geomkit.types import MODALITIES, Better, Interval, Status
from reports.metrics import DRIFT, METRICS, known_as

MINUS = "\u2212"
ARROW = "\u2192"
DIGITS = 3
MOST_PLACES = 5
"""Decimals above which a number is written with a power of ten."""
CLIP = 200


STATUS_SYMBOLS: dict[Status, str] = {
    "PASS": "\u2713",
    "FAIL": "\u2715",
    "WARN": "!",
    "NOT RUN": "\u2013",
    "info": "i",
}
STATUS_ORDER: tuple[Status, ...] = ("PASS", "FAIL", "WARN", "NOT RUN", "info")


def metric_title(metric: str) -> str:
    """A metric's name for people; an unknown one keeps its own name."""
    if metric.startswith("probe:"):
        return f"Probe: {clip(metric.removeprefix('probe:'), 60)}"
    metric = metric.removeprefix(DRIFT)
    if metric in METRICS:
        return METRICS[metric].title
    if metric.startswith("mdl:"):
        return f"Compression: {clip(metric.removeprefix('mdl:'), 60)}"
    plain = clip(metric.replace("_", " ").replace("@", " at "), 60)
    return plain[:1].upper() + plain[1:]


def metric_meaning(metric: str) -> str:
    """One sentence about what a metric measures; empty for an unknown one."""
    known = known_as(metric)
    return known.meaning if known else ""


def site_title(site: str) -> str:
    """`block_03` -> `block 3`; other sites lose their underscores."""
    head, _, number = site.partition("_")
    if head == "block" and number.isdigit():
        return f"block {int(number)}"
    return clip(site.replace("_", " "), 60)


def modality_title(modality: str) -> str:
    """`image->text` -> `image -> text` with a real arrow, `image-text` -> with an en dash."""
    if "->" in modality:
        return clip(modality.replace("->", f" {ARROW} "), 60)
    if modality.count("-") == 1 and all(part in MODALITIES for part in modality.split("-")):
        return modality.replace("-", "\u2013")
    return clip(modality, 60)


def family(modality: str) -> str:
    """The modality whose colour and shape a name wears: the first that is not text."""
    parts = modality.replace("->", "-").split("-")
    known = [m for m in MODALITIES if m in parts]
    return next((m for m in known if m != "text"), known[0] if known else "text")


def direction_title(better: Better) -> str:
    """Which way is better, in words."""
    return {"lower": "lower is better", "higher": "higher is better"}.get(better, "no better way")


def way(metric: str, better: Better) -> str:
    """Which way is better, and what a distance between modalities is read with."""
    told = direction_title(better)
    return f"{told}, read with uniformity" if metric in DISTANCES else told


def clip(text: str, limit: int = CLIP) -> str:
    """Text cut to `limit` characters, with an ellipsis when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def decimals(values: Iterable[float]) -> int:
    """Decimals that give the largest of the values three significant digits."""
    largest = max((abs(v) for v in values), default=0.0)
    if largest == 0:
        return 0
    # Round first: 9.996 is 10.0, not 10.00.
    rounded = float(f"{largest:.{DIGITS - 1}e}")
    return max(0, DIGITS - 1 - math.floor(math.log10(rounded)))


def number(value: float | None, places: int | None = None) -> str:
    """Three significant digits with a real minus; powers of ten when very small or large."""
    if value is None:
        return "\u2013"
    if isinstance(value, int) and places is None:
        return f"{value:,}".replace("-", MINUS)
    places = decimals([value]) if places is None else places
    if places > MOST_PLACES or abs(value) >= 1e6:
        return scientific(value)
    text = f"{value:,.{places}f}"
    negative_zero = text.startswith("-") and float(text.replace(",", "")) == 0
    return text[1:] if negative_zero else text.replace("-", MINUS)


def scientific(value: float) -> str:
    """`1.23 x 10^-8` with superscript digits."""
    mantissa, _, exponent = f"{value:.{DIGITS - 1}e}".partition("e")
    superscript = str.maketrans(
        "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
    )
    return f"{mantissa}\u00d710{str(int(exponent)).translate(superscript)}".replace("-", MINUS)


def shared_decimals(value: float | None, interval: Interval | None) -> int:
    """Decimals that a value and its interval are both written with."""
    ends = (interval.low, interval.high) if interval else ()
    return decimals([v for v in (value, *ends) if v is not None])


def with_interval(value: float | None, interval: Interval | None, places: int | None = None) -> str:
    """`-0.312 [-0.330, -0.294]`; the value alone when there is no interval."""
    places = shared_decimals(value, interval) if places is None else places
    if value is None or interval is None:
        return number(value, places if value is not None else None)
    low, high = number(interval.low, places), number(interval.high, places)
    return f"{number(value, places)} [{low}, {high}]"


def arrows(text: str) -> str:
    """Typed arrows as real ones, which no line break can split."""
    return text.replace("->", ARROW)
