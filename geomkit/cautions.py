"""What a reader must know before any verdict: what was left out, how few samples, equal weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from geomkit.claims import FEW, FINAL
from geomkit.enquiry import PROBES
from geomkit.sites import described
from geomkit.types import MODALITIES, Analysis
from geomkit.words import counted, listed


def cautions(analysis: Analysis, planned: Mapping[str, int]) -> Iterator[str]:
    """Sentences for the top of a page and for a terminal; none for a whole, well-filled analysis.

    Args:
        analysis: what was made; `provenance["incomplete"]` names checkpoints whose capture is not
            complete, by what they lack.
        planned: rows that the plan has, by modality.
    """
    missing = list(left_out(analysis, planned))
    if missing:
        asked = [*_sites(analysis), *_metrics(analysis), *_probes(analysis)]
        again = bool(asked) and any(len(words) > 2 for words in _commands(analysis))
        whole = " `geomkit analyze` without options makes the whole, from what is kept." * again
        yield f"Not in this analysis: {'; '.join(missing)}.{whole}"
    yield from _few(analysis)
    yield from _same_weights(analysis)


def left_out(analysis: Analysis, planned: Mapping[str, int]) -> Iterator[str]:
    """What an analysis did not look at, a clause each."""
    for name, lack in analysis.provenance.get("incomplete", {}).items():
        yield f"checkpoint {name}, whose capture is not complete ({lack})"
    yield from _sites(analysis)
    yield from _metrics(analysis)
    yield from _probes(analysis)
    yield from _rows(analysis, planned)
    failed = Counter(str(row.get("modality", "")) for row in analysis.skipped)
    if failed:
        parts = listed([f"{count} {modality}" for modality, count in failed.items()])
        yield f"{counted(failed.total(), 'row')} that could not be read ({parts})"


def _sites(analysis: Analysis) -> Iterator[str]:
    known = dict.fromkeys(s for record in _records(analysis) for s in record.get("sites", ()))
    missing = [site for site in known if site not in analysis.sites]
    if missing:
        verdicts = "" if FINAL in analysis.sites else f"; verdicts are made at {FINAL}, so none is"
        yield f"{len(missing)} of {counted(len(known), 'site')} ({described(missing)}){verdicts}"


def _metrics(analysis: Analysis) -> Iterator[str]:
    """Metrics that no command asked for; without `--metrics` there are none but the costly ones."""
    given = _values(analysis, "--metrics")
    if given and "all" not in given:
        yield f"every metric that `--metrics {','.join(given)}` does not name"


def _probes(analysis: Analysis) -> Iterator[str]:
    """Kinds of probes that no command asked for."""
    given = _values(analysis, "--probes")
    missing = [kind for kind in PROBES if given and kind not in given]
    if missing:
        kinds = counted(len(PROBES), "kind")
        yield f"{len(missing)} of {kinds} of probes ({listed(missing)})"


def _values(analysis: Analysis, option: str) -> list[str]:
    """What the commands say after an option; empty where one of them leaves it out."""
    found: list[str] = []
    for words in _commands(analysis):
        if option not in words[:-1]:
            return []
        found += words[words.index(option) + 1].split(",")
    return list(dict.fromkeys(found))


def _rows(analysis: Analysis, planned: Mapping[str, int]) -> Iterator[str]:
    failed = Counter(str(row.get("modality", "")) for row in analysis.skipped)
    rows: Mapping[str, int] = analysis.provenance.get("rows", {})
    short = [
        f"{most - n} of {most} {m}"
        for m, n in rows.items()
        if n < (most := planned.get(m, 0) - failed[m])
    ]
    if short:
        yield f"rows that did not fit into --memory ({listed(short)})"


def _records(analysis: Analysis) -> list[Mapping[str, Any]]:
    return [r for r in analysis.provenance.get("checkpoints", ()) if isinstance(r, Mapping)]


def _commands(analysis: Analysis) -> list[list[str]]:
    """The words of every `geomkit analyze` behind an analysis: several where runs were merged."""
    commands = [str(command).split() for command in analysis.provenance.get("commands", ())]
    return [words for words in commands if words[:2] == ["geomkit", "analyze"]]


def _few(analysis: Analysis) -> Iterator[str]:
    """Modalities with so few groups of samples that one of them can decide a verdict."""
    rows: Mapping[str, int] = analysis.provenance.get("rows", {})
    groups: dict[str, int] = {}
    for m in analysis.measurements:
        if m.modality in rows and m.interval is not None and m.interval.groups:
            groups[m.modality] = max(groups.get(m.modality, 0), m.interval.groups)
    short = [
        f"{count} of {m}"
        for m in MODALITIES
        if m in rows and (count := min(rows[m], groups.get(m, rows[m]))) < FEW
    ]
    if short:
        yield (
            f"Few samples: {listed(short)}, where copies and views of one thing count once. One of "
            f"them can decide a verdict, PASS as well as FAIL; take {FEW} or more, better hundreds."
        )


def _same_weights(analysis: Analysis) -> Iterator[str]:
    """Checkpoints that are one and the same, by the hash of their weights."""
    records = {str(r.get("name")): r for r in _records(analysis)}
    first, last = analysis.checkpoints[:1], analysis.checkpoints[1:][-1:]
    ends = [records.get(name, {}) for name in (*first, *last)]
    hashes = [str(record.get("weights_sha", "")) for record in ends]
    if len(ends) == 2 and hashes[0] and hashes[0] == hashes[1]:
        names = listed([*first, *last])
        yield f"{names} have the same weights: they are one checkpoint, and nothing can differ."
