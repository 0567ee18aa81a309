"""Linear probes: what a hyperplane can read from the states, within and across modalities.

For each attribute, site and checkpoint a read-out is trained on one modality and tested on each
modality that has the attribute; a text row has the labels of its sample. So the matrix train-on x
test-on holds zero-shot transfer (trained on text, tested on images or sounds), and on its diagonal
the ceiling of each column. Half of the groups are held out, the same ones everywhere; the penalty
is chosen on the others. Attributes that no caption names (`spoken=False`) are the negative control;
labels shuffled before training are the control task.

Reference: Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016;
Hewitt and Liang, Designing and Interpreting Probes with Control Tasks, 2019.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import codes
from geomkit.statistics import Estimate, difference, from_scores, interval
from geomkit.store import Run
from geomkit.types import Activations, Difference, Modality, ProbeResult
from probes.config import ProbeConfig
from probes.control import shuffled
from probes.readouts import fit_each, penalty_of
from probes.tasks import Attribute, Task, bunches, tasks_of
from probes.transfer import Lens, lens

Direction = tuple[Modality, Modality]
"""Trained on, tested on."""


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Right or wrong for each held-out row, `(held-out rows,)`: the probe and two comparisons."""

    correct: NDArray[np.bool_]
    uncentred: NDArray[np.bool_]  # the tested modality keeps its own mean
    control: NDArray[np.bool_]  # trained on shuffled labels, at the same penalty
    penalty: float


CONTROL = "negative control: no caption names it"
"""Beside every number of an attribute that the media have and no caption says."""

Lenses = dict[tuple[Modality, ...], Lens]
"""Of one training modality, by the modalities that are tested."""

Outcome = Marks | str
"""Marks, or the reason why there are none."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one probe read, and its accuracy with the share of every group, to be compared."""

    result: ProbeResult
    accuracy: Estimate | None


def probed_sites(run: Run, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The wanted sites, or by default every other block up to the last, and the final norm.

    Raises:
        UsageError: when a wanted site was not captured.
    """
    records = run.checkpoints()
    sites = records[0].sites if records else ()
    missing = [site for site in wanted if site not in sites]
    if missing:
        raise UsageError(
            f"Expected a site of the run, got {missing[0]!r}; it has {', '.join(sites)}."
        )
    blocks = [site for site in sites if site.startswith("block_")]
    chosen = wanted or (*blocks[::-2], "final_norm")
    return tuple(site for site in sites if site in chosen)


def readings(
    views: Mapping[Modality, Activations],
    attributes: Sequence[Attribute],
    held_out: Collection[str],
    config: ProbeConfig,
) -> tuple[Reading, ...]:
    """Every attribute of one checkpoint at one site, in every direction.

    A probe that cannot be trained is a result without a value.
    """
    found: dict[Attribute, tuple[Reading, ...]] = {}
    for bunch in bunches(views, attributes):
        tasks = tasks_of(views, bunch, held_out)
        outcomes: dict[Attribute, dict[Direction, Outcome]] = {a: {} for a in bunch}
        for source in tasks[bunch[0]]:
            lenses: Lenses = {}  # of one source at a time: they are as large as the states
            for a in bunch:
                outcomes[a] |= probe_from(source, tasks[a], a.name, config, lenses)
        for a in bunch:
            found[a] = tuple(_readings(tasks[a], outcomes[a], a, views))
    return tuple(reading for attribute in attributes for reading in found[attribute])


def changes(before: Sequence[Reading], after: Sequence[Reading]) -> Iterator[Difference]:
    """Accuracy of a later checkpoint minus that of the first, on the same held-out rows.

    Named `probe:<attribute>`, with a modality like `text->image`.
    """
    for old, new in zip(before, after, strict=True):
        was = old.result
        change = None
        note = "" if was.spoken else CONTROL
        if old.accuracy is not None and new.accuracy is not None:
            change = difference(old.accuracy, new.accuracy)
        else:
            note = was.note if old.accuracy is None else new.result.note
        yield Difference(
            metric=f"probe:{was.attribute}",
            before=was.checkpoint,
            after=new.result.checkpoint,
            site=was.site,
            modality=f"{was.train_on}->{was.test_on}",
            value=None if change is None else change.value,
            interval=None if change is None else interval(change),
            better="higher",
            n=was.n_test,
            note=note,
        )


def probe(
    tasks: Mapping[Modality, Task], name: str, config: ProbeConfig
) -> Mapping[Direction, Outcome]:
    """Train on each modality, test on each: marks, or a reason, by (trained on, tested on)."""
    found = [probe_from(source, tasks, name, config, {}) for source in tasks]
    return {direction: outcome for row in found for direction, outcome in row.items()}


def probe_from(
    source: Modality,
    tasks: Mapping[Modality, Task],
    name: str,
    config: ProbeConfig,
    lenses: Lenses,
) -> Mapping[Direction, Outcome]:
    """Train on one modality, test on each; lenses of the same rows are taken from `lenses`."""
    train, outcomes = tasks[source], dict[Direction, Outcome]()
    # One seed for each name: labels are shuffled alike in every checkpoint and site.
    seed = (config.seed, zlib.crc32(name.encode()))
    for target, test in tasks.items():
        try:
            train.require()
            test.require()
        except DegenerateInput as reason:
            outcomes[source, target] = str(reason)
    targets = {m: task for m, task in tasks.items() if (source, m) not in outcomes}
    try:
        if targets and tuple(targets) not in lenses:
            lenses[tuple(targets)] = lens(train, targets)
        marks = mark(train, targets, lenses[tuple(targets)], seed, config) if targets else {}
        outcomes |= {(source, target): m for target, m in marks.items()}
    except DegenerateInput as reason:
        outcomes |= {(source, target): str(reason) for target in targets}
    return {(source, target): outcomes[source, target] for target in tasks}


def mark(
    train: Task,
    tests: Mapping[Modality, Task],
    seen: Lens,
    seed: Sequence[int],
    config: ProbeConfig,
) -> Mapping[Modality, Marks]:
    """Train on the groups that are not held out, test on the rows that are, in every modality.

    A penalty that is not given is chosen on these training groups.

    Raises:
        DegenerateInput: when the training rows cannot be trained on.
    """
    labels = train.labels[~train.held_out]
    groups = [g for g, out in zip(train.groups, train.held_out, strict=True) if not out]
    lies = shuffled(labels, groups, np.random.default_rng(seed))
    readout, penalty = config.readout, config.penalty
    if penalty is None:
        penalty = penalty_of(seen.train, labels, codes(len(groups), groups), readout)
    truth, control = fit_each(seen.train, [labels, lies], penalty, readout)
    marks: dict[Modality, Marks] = {}
    for modality, test in tests.items():
        asked, answers = seen.asked[modality], test.labels[test.held_out]
        marks[modality] = Marks(
            correct=truth.predict(asked) == answers,
            uncentred=truth.predict(asked + seen.apart[modality]) == answers,
            control=control.predict(asked) == answers,
            penalty=penalty,
        )
    return marks


def _readings(
    tasks: Mapping[Modality, Task],
    outcomes: Mapping[Direction, Outcome],
    attribute: Attribute,
    views: Mapping[Modality, Activations],
) -> Iterator[Reading]:
    """One reading for each direction."""
    for (source, target), outcome in outcomes.items():
        train, test = tasks[source], tasks[target]
        bare = ProbeResult(
            attribute=attribute.name,
            spoken=attribute.spoken,
            train_on=source,
            test_on=target,
            checkpoint=views[source].checkpoint,
            site=views[source].site,
            accuracy=None,
            interval=None,
            majority=_majority(train, test),
            chance=1 / len(np.unique(train.labels)),
            control=None,
            selectivity=None,
            n_train=int((~train.held_out).sum()),
            n_test=int(test.held_out.sum()),
            note=_note(source, target, outcome),
        )
        if isinstance(outcome, str):
            yield Reading(bare, None)
        else:
            ceiling = outcomes[target, target]
            yield Reading(_scored(bare, outcome, ceiling, test), _accuracy(outcome.correct, test))


def _scored(bare: ProbeResult, marks: Marks, ceiling: Outcome, test: Task) -> ProbeResult:
    """The result with what was right, with the interval of each."""
    accuracy, control = _accuracy(marks.correct, test), _accuracy(marks.control, test)
    selectivity = difference(control, accuracy)
    return replace(
        bare,
        accuracy=accuracy.value,
        interval=interval(accuracy),
        control=control.value,
        selectivity=selectivity.value,
        selectivity_interval=interval(selectivity),
        ceiling=None if isinstance(ceiling, str) else float(ceiling.correct.mean()),
        penalty=marks.penalty,
        uncentred=float(marks.uncentred.mean()),
    )


def _accuracy(right: NDArray[np.bool_], test: Task) -> Estimate:
    """The share of held-out rows that a probe has right, clustered by group."""
    groups = [g for g, out in zip(test.groups, test.held_out, strict=True) if out]
    return from_scores(right, codes(len(groups), groups))


def _majority(train: Task, test: Task) -> float:
    """Accuracy of always answering the commonest training class; 0 when there are no rows."""
    names, counts = np.unique(train.labels[~train.held_out], return_counts=True)
    answers = test.labels[test.held_out]
    return float((answers == names[counts.argmax()]).mean()) if len(names) and len(answers) else 0.0


def _note(source: Modality, target: Modality, outcome: Outcome) -> str:
    """The reason of a missing value; else what the probe scores when the shift stays."""
    if isinstance(outcome, str):
        return outcome
    if source == target:
        return ""
    return f"{outcome.uncentred.mean():.3f} when the tested modality keeps its own mean"
