"""The sentence or two on top of a report: said from the verdicts, and no stronger than they are.

Geometry and retrieval are told apart, because states can spread out without finding their captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geomkit.bindings import judged
from geomkit.carried import OPEN, PART
from geomkit.claims import LEAST, sides
from geomkit.compare import SITE, WORDS, WORSE, checkpoints, joint, number
from geomkit.transfer import NEAR
from geomkit.types import Binding, Measurement, Status, Transfer, Verdict
from geomkit.words import counted, listed

_SPREAD = ("mean_cosine", "uniformity")
"""Metrics that together say whether states spread out; the first is quoted where both agree."""

_CHANGED: Mapping[Status, str] = {
    "PASS": "more isotropic states in {}",
    "FAIL": "less isotropic states in {}",
    "WARN": "no clear change of isotropy in {}",
    "NOT RUN": "a change of isotropy cannot be judged in {}",
}
_TRANSFERRED: Mapping[Status, str] = {
    "PASS": "this transferred to {}",
    "FAIL": "the opposite happened in {}",
    "WARN": "no clear transfer to {}",
    "NOT RUN": "transfer to {} cannot be judged",
}
_RETRIEVAL: Mapping[Status, str] = {
    "PASS": "better for {}",
    "FAIL": "worse for {}",
    "WARN": "without a clear change for {}",
    "NOT RUN": "not measured for {}",
}


def headline(
    verdicts: Sequence[Verdict],
    measurements: Sequence[Measurement],
    transfers: Sequence[Transfer] = (),
    bindings: Sequence[Binding] = (),
) -> str:
    """What spread out, where that carried over, what retrieval says, which control moved.

    How much carried over is told of a modality that clearly fell behind, and of one that too few
    samples say nothing about; more numbers would only be in the way.
    """
    names = checkpoints(measurements)
    if len(names) < 2:
        return _alone(names, measurements)
    own = [v for v in verdicts if v.metric == "mean_cosine"]
    taught = [v.modality for v in own if v.role == "trained"]
    unseen = [v.modality for v in own if v.role == "untrained"]
    spread = {v.modality: _isotropy(verdicts, v.modality) for v in own}
    quoted = {m: _told_by(verdicts, m, status) for m, status in spread.items()}
    ends = {
        m: _bracketed(
            _ends(measurements, metric, m, (names[0], names[-1])),
            _amount(transfers, metric, m, names[-1]),
        )
        for m, metric in quoted.items()
    }
    subject = f"{names[-1]} against {names[0]}"
    if taught:
        subject += f", trained on {listed(taught)} only"
    if still := unmoved(measurements, (names[0], names[-1])):
        return f"{subject}: {still}"
    carried = taught and all(spread[m] == "PASS" for m in taught)
    clauses = _clauses(taught, spread, ends, _CHANGED)
    clauses += _clauses(unseen, spread, ends, _TRANSFERRED if carried else _CHANGED)
    unmade = "isotropy not measured" if verdicts else f"no verdict, as {SITE} was not measured"
    told = "; ".join(clauses) or unmade
    return " ".join(
        [
            f"{subject}: {told}.",
            *_retrieval(verdicts),
            *_bound([b for b in bindings if b.after == names[-1]]),
            *_worse(verdicts),
            *_probed(verdicts),
            *_price(verdicts),
            *_controls(verdicts),
        ]
    )


def _alone(names: Sequence[str], measurements: Sequence[Measurement]) -> str:
    """What is said where there is nothing to compare: where the states of the one stand."""
    if not names:
        return "Nothing was measured."
    told = [
        f"{number(m.value)} in {m.modality}"
        for m in measurements
        if (m.metric, m.site) == ("mean_cosine", SITE) and m.value is not None
    ]
    levels = f" Its mean cosine is {listed(told)}." if told else ""
    return f"One checkpoint ({names[0]}): there is nothing to compare it with.{levels}"


def unmoved(measurements: Sequence[Measurement], names: tuple[str, str]) -> str:
    """That two checkpoints do not differ, at no site and in no metric; empty where they do.

    Told of values, as states are not read here: all equal, or none further off than rounding.
    """
    ends: list[dict[tuple[str, str, str], float | None]] = [
        {(m.metric, m.site, m.modality): m.value for m in measurements if m.checkpoint == name}
        for name in names
    ]
    first, last = ends
    values = [key for key, value in first.items() if value is not None]
    if not any(metric in _SPREAD for metric, _, _ in values):
        return ""  # ranks can agree where states do not
    if first == last:
        return (
            f"nothing changed. {counted(len(values), 'value')} before and after, and all are equal:"
            " so are the states, as far as they can tell."
        )
    moved = {key: abs((last.get(key) or 0.0) - (first[key] or 0.0)) for key in values}
    if all(moved[key] < LEAST[key[0]] for key in values if key[0] in LEAST):
        return "nothing changed by more than rounding can do, at no site and in no measure."
    return ""


def _bound(bindings: Sequence[Binding]) -> list[str]:
    """Whether one affine law of text says what happened elsewhere, where the test could tell."""
    found = list(judged(bindings))
    clauses = {
        "holds": "foretells the change of {}",
        "holds in part": "foretells the change of {} in part",
        "does not hold": "does not foretell the change of {}",
    }
    told = [
        said.format(listed([j.modality for j in found if j.word == word]))
        for word, said in clauses.items()
        if any(j.word == word for j in found)
    ]
    return [f"A map fitted on text {' and '.join(told)}."] if told else []


def _isotropy(verdicts: Sequence[Verdict], modality: str) -> Status:
    """Mean cosine and uniformity together: one clear, and the other not against it."""
    return joint(v.status for v in verdicts if v.metric in _SPREAD and v.modality == modality)


def _told_by(verdicts: Sequence[Verdict], modality: str, status: Status) -> str:
    """The first metric that says what both say together: no number is quoted against its row."""
    same = {v.metric for v in verdicts if (v.modality, v.status) == (modality, status)}
    return next((metric for metric in _SPREAD if metric in same), _SPREAD[0])


def _ends(
    measurements: Sequence[Measurement], metric: str, modality: str, names: tuple[str, str]
) -> str:
    """`mean cosine 0.82 -> 0.17`; empty where there is no value."""
    found = {
        m.checkpoint: m.value
        for m in measurements
        if (m.metric, m.site, m.modality) == (metric, SITE, modality)
    }
    values = [found.get(name) for name in names]
    if None in values:
        return ""
    return f"{WORDS[metric]} {' -> '.join(map(number, values))}"


def _bracketed(ends: str, amount: str) -> str:
    return f" ({ends}{amount})" if ends else ""


def _amount(transfers: Sequence[Transfer], metric: str, modality: str, after: str) -> str:
    """`, 0.53 of the way text went`, where that is clearly less than nearly all of it."""
    named = (metric, modality, after)
    found = [t for t in transfers if t.trained and (t.metric, t.untrained, t.after) == named]
    if len(found) != 1:
        return ""  # nothing to set it against, or more than one
    (t,) = found
    if t.verdict == OPEN:
        return ", too few samples to tell"
    if t.verdict == PART and t.closed_ratio is not None and t.closed_ratio <= NEAR:
        return f", {t.closed_ratio:.2f} of the way {t.trained} went"
    return ""


def _clauses(
    modalities: Sequence[str],
    spread: Mapping[str, Status],
    ends: Mapping[str, str],
    words: Mapping[Status, str],
) -> list[str]:
    """One clause for each status, with the modalities it holds for."""
    return [
        phrase.format(listed([m + ends[m] for m in modalities if spread[m] == status]))
        for status, phrase in words.items()
        if any(spread[m] == status for m in modalities)
    ]


def _retrieval(verdicts: Sequence[Verdict]) -> list[str]:
    """Retrieval, both directions of a pair together."""
    found = [v for v in verdicts if v.metric == "retrieval_r1"]
    pairs = {frozenset(sides(v.modality)): "-".join(sides(v.modality)) for v in reversed(found)}
    status = {
        name: joint(v.status for v in found if frozenset(sides(v.modality)) == pair)
        for pair, name in reversed(pairs.items())
    }
    clauses = [
        phrase.format(listed([name for name in status if status[name] == wanted]))
        for wanted, phrase in _RETRIEVAL.items()
        if wanted in status.values()
    ]
    return [f"Retrieval is {'; '.join(clauses)}."] if clauses else []


def _worse(verdicts: Sequence[Verdict]) -> list[str]:
    """Headline metrics that clearly failed and that no other sentence speaks of."""
    told = (*_SPREAD, "retrieval_r1", "generative_loss")
    found = [v for v in verdicts if v.status == "FAIL" and v.metric in WORDS]
    names = {v.metric: 0 for v in found if v.metric not in told}
    where = {name: listed([v.modality for v in found if v.metric == name]) for name in names}
    clauses = "; ".join(f"{WORDS[name]} of {kinds}" for name, kinds in where.items())
    return [f"Clearly worse: {clauses}."] if clauses else []


def _probed(verdicts: Sequence[Verdict]) -> list[str]:
    """Directions in which spoken attributes became harder to read; the others are counted."""
    found = [v for v in verdicts if v.metric == "probe"]
    worse = [v.modality for v in found if v.status == "FAIL"]
    mixed = [v.modality for v in found if v.status == "WARN" and WORSE in v.sentence]
    told = [f"worse in {listed(worse)}"] if worse else []
    told += [f"better and worse, by attribute, in {listed(mixed)}"] if mixed else []
    if not told:
        return []
    better = sum(v.status == "PASS" for v in found)
    whole = f"better in {better or 'none'} of {counted(len(found), 'direction')}"
    if len(worse) == len(found):
        told, whole = [], f"worse in all of {counted(len(found), 'direction')}"
    return [f"Probes of spoken attributes: {'; '.join([*told, whole])}."]


def _price(verdicts: Sequence[Verdict]) -> list[str]:
    """What it cost: the modalities in which the model generates clearly worse."""
    worse = [v.modality for v in verdicts if (v.metric, v.status) == ("generative_loss", "FAIL")]
    return [f"Generation got worse in {listed(worse)}."] if worse else []


def _controls(verdicts: Sequence[Verdict]) -> list[str]:
    """The negative controls that did not stay where they were."""
    moved = sorted({v.metric for v in verdicts if v.role == "control" and v.status == "WARN"})
    if not moved:
        return []
    names = listed([metric.removeprefix("probe:") for metric in moved])
    return [f"Negative controls to look at: {names}."]
