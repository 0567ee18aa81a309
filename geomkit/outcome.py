"""Did it transfer? What a family of transfer verdicts says together, and in words.

A modality is reached when some headline metric clearly carried over to it and in none the opposite
happened. Metrics that cannot be told or compared speak neither for nor against; those outside the
headline are listed, as the more there are the likelier one of them improves by luck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from geomkit.carried import CARRIED, NONE, NOTHING, OPEN, OPPOSITE, UNMEASURED
from geomkit.compare import HEADLINE, WORDS
from geomkit.types import Transfer
from geomkit.words import counted, listed

Outcome = Literal["reached", "mixed", "opposite", "not reached", "nothing", "untold"]

_SAID: Mapping[Outcome, str] = {
    "reached": "it transferred to {}",
    "mixed": "the metrics disagree on {}",
    "opposite": "the opposite happened in {}",
    "not reached": "there is no clear transfer to {}",
    "untold": "whether it transferred to {} cannot be told",
    "nothing": "there was nothing to transfer to {}, as {} did not clearly improve",
}


def reached(transfers: Sequence[Transfer]) -> bool:
    """Was every untrained modality reached, and is there one?"""
    return set(outcomes(transfers).values()) == {"reached"}


def outcomes(transfers: Sequence[Transfer]) -> dict[str, Outcome]:
    """What happened in each untrained modality, over headline metrics; over all without any."""
    own = [t for t in transfers if t.trained]
    own = [t for t in own if t.metric in HEADLINE] or own
    return {
        modality: _outcome({t.verdict for t in own if t.untrained == modality})
        for modality in dict.fromkeys(t.untrained for t in own)
    }


def _outcome(found: set[str]) -> Outcome:
    if found & set(CARRIED):
        return "mixed" if OPPOSITE in found else "reached"
    if OPPOSITE in found:
        return "opposite"
    if found <= {NOTHING, UNMEASURED} and NOTHING in found:
        return "nothing"
    return "not reached" if NONE in found else "untold"


def sentences(transfers: Sequence[Transfer]) -> Iterator[str]:
    """The outcome in one sentence, then one for each untrained modality: what became of it where.

    Headline metrics are named with how much of it; the others are counted.
    """
    found = outcomes(transfers)
    if not found:
        yield "Transfer: no metric here has both a trained and an untrained modality."
        return
    taught = listed(list(dict.fromkeys(t.trained for t in transfers if t.trained)))
    clauses = [
        said.format(
            listed(
                [
                    m + _amounts(transfers, m) * (outcome == "reached")
                    for m in found
                    if found[m] == outcome
                ]
            ),
            taught,
        )
        for outcome, said in _SAID.items()
        if outcome in found.values()
    ]
    yield f"Trained on {taught}: {'; '.join(clauses)}."
    for modality in found:
        told = [t for t in transfers if t.trained and t.untrained == modality]
        yield f"{modality}: {'; '.join(_grouped(told))}."


def _amounts(transfers: Sequence[Transfer], modality: str) -> str:
    """` (0.05 to 0.97 of the way)`: over the headline metrics that carried over; empty if none."""
    own = [t for t in transfers if t.untrained == modality and t.verdict in CARRIED]
    gone = [t.closed_ratio for t in own if t.metric in HEADLINE and t.closed_ratio is not None]
    if not gone:
        return ""
    least, most = (_two(ratio) for ratio in (min(gone), max(gone)))
    return f" ({least if least == most else f'{least} to {most}'} of the way of what was trained)"


def _grouped(transfers: Sequence[Transfer]) -> Iterator[str]:
    """`transferred in part: mean cosine (0.95 of the way of text); of 2 others: 2 not compared`."""
    first = [t for t in transfers if t.metric in HEADLINE] or transfers
    for verdict in dict.fromkeys(t.verdict for t in first):
        yield f"{verdict}: {listed([_named(t) for t in first if t.verdict == verdict])}"
    rest = Counter(t.verdict for t in transfers if t not in first)
    if rest:
        counts = listed([f"{count} {verdict}" for verdict, count in rest.most_common()])
        yield f"of {counted(rest.total(), 'other metric')}: {counts}"


def _named(transfer: Transfer) -> str:
    """The metric, with how much of it where that was measured and says something."""
    name = WORDS.get(transfer.metric, transfer.metric.replace("_", " "))
    amount = share(transfer)
    return f"{name} ({amount})" if amount and transfer.verdict in (*CARRIED, NONE, OPEN) else name


def share(transfer: Transfer) -> str:
    """`0.95 of the way of text, 0.947 to 0.962`; empty where there is no ratio."""
    t = transfer
    if t.closed_ratio is not None and t.closed_interval is not None:
        span, of = t.closed_interval, f"{_two(t.closed_ratio)} of the way of {t.trained}"
    elif t.ratio is not None and t.interval is not None:
        span, of = t.interval, f"{_two(t.ratio)} of the change of {t.trained}"
    else:
        return ""
    return f"{of}, {_two(span.low)} to {_two(span.high)}"


def _two(value: float) -> str:
    """Two decimals; zero has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"
