"""The linear read-outs, and how strongly each is held back: chosen on training groups alone.

    multinomial   logistic regression over all classes; it has probabilities, so a code length
    ridge         squared error to +1/-1 a class; closed form, and its penalty exactly so

A penalty that is not given is cross-validated over whole groups of the training rows, by accuracy:
that is what is reported. (By log loss it is the calibration that is chosen: where few rows tell
little, the winner is then a probe that always answers the commonest class.)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from geomkit.errors import DegenerateInput
from geomkit.statistics import folds_of
from probes.affine import decompose, left_out
from probes.config import Readout
from probes.tasks import Labels

Rows = NDArray[np.float64]
Classifier: TypeAlias = "LogisticRegression | RidgeClassifier"

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
    if len(np.unique(labels)) < 2:
        raise DegenerateInput(
            "Expected two classes in the training rows, got one; give more samples."
        )
    if readout == "ridge":
        return RidgeClassifier(alpha=penalty).fit(inputs, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return LogisticRegression(C=1 / penalty, max_iter=1000).fit(inputs, labels)
        except ConvergenceWarning as error:
            raise DegenerateInput("The probe did not converge in 1000 steps.") from error


def span_of(inputs: Rows) -> Rows:
    """Orthonormal axes `(dim, r)` of centred training rows that are fewer than their columns.

    A read-out with an L2 penalty lies in the span of its training rows, so nothing is lost there,
    and a fit in 150 columns is cheap where one in 3584 is not. With enough rows: the columns.
    """
    wide = inputs.shape[0] < inputs.shape[1]
    return decompose(inputs, float(np.sum(inputs**2)))[2] if wide else np.eye(inputs.shape[1])


def penalty_of(
    inputs: Rows, labels: Labels, clusters: NDArray[np.int64], readout: Readout = "multinomial"
) -> float:
    """The penalty of `PENALTIES` that is right most often on groups left out; a tie: the strongest.

    Raises:
        DegenerateInput: the training labels have one class.
    """
    if len(np.unique(labels)) < 2:
        raise DegenerateInput(
            "Expected two classes in the training rows, got one; give more samples."
        )
    folds = folds_of(clusters, FOLDS[readout])
    hits = _ridge_hits if readout == "ridge" else _multinomial_hits
    return PENALTIES[readout][int(np.argmax(hits(inputs, labels, folds)))]


def probability(
    classifier: LogisticRegression, inputs: Rows, labels: Labels, rows: int, classes: int
) -> Rows:
    """Probability of each true label, never 0: `classes` rows' worth of the uniform is mixed in.

    So a class that training never saw costs bits and not infinity. `rows` is what the classifier
    was trained on.
    """
    column = {name: i for i, name in enumerate(classifier.classes_)}
    found = classifier.predict_proba(inputs)
    own = [p[column[y]] if y in column else 0.0 for p, y in zip(found, labels, strict=True)]
    return np.asarray((rows * np.asarray(own) + 1.0) / (rows + classes))


def _multinomial_hits(inputs: Rows, labels: Labels, folds: NDArray[np.int64]) -> list[int]:
    """Right answers for rows left out, by penalty; -1 where a fit is not possible."""
    hits = []
    for penalty in PENALTIES["multinomial"]:
        try:
            hits.append(sum(_hits(inputs, labels, folds == f, penalty) for f in set(folds)))
        except DegenerateInput:
            hits.append(-1)
    return hits


def _hits(inputs: Rows, labels: Labels, out: NDArray[np.bool_], penalty: float) -> int:
    classifier = fit(inputs[~out], labels[~out], penalty)
    return int((classifier.predict(inputs[out]) == labels[out]).sum())


def _ridge_hits(inputs: Rows, labels: Labels, folds: NDArray[np.int64]) -> list[int]:
    """Right answers for rows left out, by penalty: exactly, from one decomposition."""
    left, s, _ = decompose(inputs - inputs.mean(axis=0), float(np.sum(inputs**2)))
    classes, answers = np.unique(labels, return_inverse=True)
    target = 2.0 * np.eye(len(classes))[answers] - 1
    centred = target - target.mean(axis=0)
    tried = left_out(left, s, centred, PENALTIES["ridge"], folds)
    return [int(((target - rest).argmax(axis=1) == answers).sum()) for rest in tried]
