from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from geomkit.errors import DegenerateInput
from geomkit.statistics import folds_of
from probes.config import ProbeConfig
from probes.linear import mark, probe
from probes.readouts import FOLDS, PENALTIES, fit, penalty_of, probability, span_of
from probes.tasks import Task
from probes.transfer import lens


def scenes(rows=120, dim=12, weight=1.5, seed=0):
    """Three classes, each along an axis of its own."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 3, rows)
    states = weight * np.eye(dim)[answers] + rng.standard_normal((rows, dim))
    return states - states.mean(axis=0), np.array(["a", "b", "c"])[answers]


def task(states, labels, groups=None):
    names = tuple(groups or map(str, range(len(labels))))
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    held_out = np.array([order[name] % 2 == 0 for name in names])
    return Task("text", states.astype(np.float32), labels, names, held_out)


@pytest.mark.parametrize("readout", ["multinomial", "ridge"])
@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_the_penalty_is_the_one_that_refits_would_choose(readout, weight):
    x, y = scenes(weight=weight)
    clusters = np.arange(120) // 2
    folds = folds_of(clusters, FOLDS[readout])
    right = []
    for penalty in PENALTIES[readout]:
        hits = 0
        for f in range(FOLDS[readout]):
            made = (
                RidgeClassifier(alpha=penalty)
                if readout == "ridge"
                else LogisticRegression(C=1 / penalty, max_iter=1000)
            )
            hits += (
                made.fit(x[folds != f], y[folds != f]).predict(x[folds == f]) == y[folds == f]
            ).sum()
        right.append(hits)
    assert penalty_of(x, y, clusters, readout) == PENALTIES[readout][int(np.argmax(right))]


@pytest.mark.parametrize("readout", ["multinomial", "ridge"])
def test_held_out_rows_do_not_choose_the_penalty(readout):
    x, y = scenes()
    given = task(x, y)
    junk = given.states.copy()
    junk[given.held_out] = np.random.default_rng(1).standard_normal(junk[given.held_out].shape)
    config = ProbeConfig(readout=readout)
    penalties = [
        mark(t, {"text": t}, lens(t, {"text": t}), [0], config)["text"].penalty
        for t in (given, dataclasses.replace(given, states=junk))
    ]
    assert penalties[0] == penalties[1]


@pytest.mark.parametrize("readout", ["multinomial", "ridge"])
def test_a_task_is_read_with_either_read_out(readout):
    x, y = scenes(weight=5.0)
    given = {"text": task(x, y)}
    marks = probe(given, "shape", ProbeConfig(readout=readout))["text", "text"]
    assert marks.correct.mean() > 0.9
    assert marks.control.mean() < 0.6
    assert marks.penalty in PENALTIES[readout]


@pytest.mark.parametrize("readout", ["multinomial", "ridge"])
def test_nothing_is_lost_in_the_span_of_the_training_rows(readout):
    """More columns than rows: the same answers as in all columns."""
    x, y = scenes(rows=60, dim=200, weight=4.0)
    asked = scenes(rows=80, dim=200, weight=4.0, seed=1)[0]
    axes = span_of(x)
    assert axes.shape == (200, 59)
    inside = fit(x @ axes, y, 10.0, readout)
    outside = (
        RidgeClassifier(alpha=10.0)
        if readout == "ridge"
        else LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000)
    ).fit(x, y)
    np.testing.assert_allclose(
        inside.decision_function(asked @ axes), outside.decision_function(asked), atol=2e-3
    )
    np.testing.assert_array_equal(inside.predict(asked @ axes), outside.predict(asked))


def test_one_class_has_no_penalty():
    x, _ = scenes()
    with pytest.raises(DegenerateInput, match="two classes in the training rows, got one"):
        penalty_of(x, np.full(120, "a"), np.arange(120))


def test_an_unseen_class_costs_bits_and_not_infinity():
    x, y = scenes()
    seen = y != "c"
    classifier = fit(x[seen], y[seen], 1.0)
    own = probability(classifier, x, y, int(seen.sum()), 3)
    np.testing.assert_allclose(own[y == "c"], 1 / (seen.sum() + 3))
    assert (own < 1).all()
    # A code: over all classes the probabilities sum to one.
    sums = sum(probability(classifier, x, np.full(120, c), int(seen.sum()), 3) for c in "abc")
    np.testing.assert_allclose(sums, 1)
