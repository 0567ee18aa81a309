"""The linear read-outs, and how strongly each is held back: chosen on training groups alone.

    multinomial   logistic regression over all classes; it has probabilities, so a code length
    ridge         squared error to +1/-1 a class; closed form, and its penalty exactly so

A penalty that is not given is cross-validated over whole groups of the training rows, by accuracy:
that is what is reported. (By log loss it is the calibration that is chosen: where few rows tell
little, the winner is then a probe that always answers the commonest class.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier

from geomkit.enquiry import Readout
from geomkit.errors import DegenerateInput
from geomkit.statistics import folds_of
from probes.affine import decompose, left_out
from probes.logistic import Softmax, fit_softmax, hits_by_penalty
from probes.tasks import Labels

Rows = NDArray[np.float64]
Classifier: TypeAlias = "Softmax | RidgeClassifier"

PENALTIES: Mapping[Readout, tuple[float, ...]] = {
    "multinomial": (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01),
    "ridge": tuple(10.0**k for k in range(6, -3, -1)),
}
"""Tried when none is given, strongest first: of |w|^2, against the summed loss of all rows."""

FOLDS: Mapping[Readout, int] = {"multinomial": 3, "ridge": 5}


def fit(
    inputs: Rows, labels: Labels, penalty: float, readout: Readout = "multinomial"
) -> Classifier:
    """A linear read-out with an L2 penalty, from a zero start or in closed form: no seed.

    Raises:
        DegenerateInput: when the training labels have one class, or the fit does not converge.
    """
    return fit_each(inputs, [labels], penalty, readout)[0]


def fit_each(
    inputs: Rows, labels: Sequence[Labels], penalty: float, readout: Readout = "multinomial"
) -> tuple[Classifier, ...]:
    """One read-out for each set of labels, all of the same classes; raises like `fit`."""
    _require_classes(labels[0])
    if readout == "ridge":
        return tuple(RidgeClassifier(alpha=penalty).fit(inputs, given) for given in labels)
    return fit_softmax(inputs, labels, penalty)


def span_of(inputs: Rows) -> Rows:
    """The principal axes `(dim, r)` of centred training rows that have any spread.

    A read-out with an L2 penalty lies in the span of its training rows, and no turn of the axes
    changes it, so nothing is lost: a fit in 150 columns is cheap where one in 3584 is not, and one
    along principal axes takes the fewest steps.
    """
    return decompose(inputs, float(np.sum(inputs**2)))[2]


def penalty_of(
    inputs: Rows, labels: Labels, clusters: NDArray[np.int64], readout: Readout = "multinomial"
) -> float:
    """The penalty of `PENALTIES` that is right most often on groups left out; a tie: the strongest.

    Raises:
        DegenerateInput: the training labels have one class.
    """
    _require_classes(labels)
    folds = folds_of(clusters, FOLDS[readout])
    hits = _ridge_hits if readout == "ridge" else hits_by_penalty
    tried = PENALTIES[readout]
    return tried[int(np.argmax(hits(inputs, labels, folds, tried)))]


def probability(classifier: Softmax, inputs: Rows, labels: Labels, rows: int, classes: int) -> Rows:
    """Probability of each true label, never 0: `classes` rows' worth of the uniform is mixed in.

    So a class that training never saw costs bits and not infinity. `rows` is what the classifier
    was trained on.
    """
    place = np.minimum(np.searchsorted(classifier.classes, labels), len(classifier.classes) - 1)
    found = classifier.predict_proba(inputs)[np.arange(len(labels)), place]
    own = np.where(classifier.classes[place] == labels, found, 0.0)
    return np.asarray((rows * own + 1.0) / (rows + classes))


def _ridge_hits(
    inputs: Rows, labels: Labels, folds: NDArray[np.int64], penalties: Sequence[float]
) -> list[int]:
    """Right answers for rows left out, by penalty: exactly, from one decomposition."""
    left, s, _ = decompose(inputs - inputs.mean(axis=0), float(np.sum(inputs**2)))
    classes, answers = np.unique(labels, return_inverse=True)
    target = 2.0 * np.eye(len(classes))[answers] - 1
    centred = target - target.mean(axis=0)
    tried = left_out(left, s, centred, penalties, folds)
    return [int(((target - rest).argmax(axis=1) == answers).sum()) for rest in tried]


def _require_classes(labels: Labels) -> None:
    if len(np.unique(labels)) < 2:
        raise DegenerateInput(
            "Expected two classes in the training rows, got one; give more samples."
        )
