from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from geomkit.errors import DegenerateInput
from probes import logistic
from probes.logistic import COARSE, FINE, Problems, fit_softmax, hits_by_penalty

PENALTIES = (1000.0, 10.0, 1.0, 0.1, 0.01)


def scenes(classes=4, rows=90, dim=12, seed=0):
    """Rows on their principal axes, of very unequal spread, and labels that depend on some."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim)) * np.geomspace(8, 0.1, dim)
    x -= x.mean(axis=0)
    left, s, _ = np.linalg.svd(x, full_matrices=False)
    answers = (
        x @ rng.standard_normal((dim, classes)) + rng.standard_normal((rows, classes))
    ).argmax(1)
    return left * s, np.array(list("abcdef"))[answers]


def exact(x, y, penalty):
    return LogisticRegression(C=1 / penalty, tol=1e-7, max_iter=100_000).fit(x, y)


def problems(x, y, seen):
    names, answers = np.unique(y, return_inverse=True)
    return Problems(x, np.tile(answers[:, None], seen.shape[1]), seen, len(names))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_it_is_scikit_learns_read_out(classes, penalty):
    x, y = scenes(classes)
    asked = scenes(classes, seed=1)[0]
    ours, theirs = fit_softmax(x, [y], penalty)[0], exact(x, y, penalty)
    np.testing.assert_array_equal(ours.classes, theirs.classes_)
    np.testing.assert_allclose(ours.predict_proba(asked), theirs.predict_proba(asked), atol=1e-2)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_the_loss_is_no_higher_than_that_of_a_solver_in_other_coordinates():
    """The optimum is one: weights agree where the penalty makes them unique."""
    x, y = scenes()
    ours, theirs = fit_softmax(x, [y], 1.0)[0], exact(x, y, 1.0)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-2)
    np.testing.assert_allclose(ours.weights.sum(axis=1), 0, atol=1e-6)


def test_a_path_ends_where_a_cold_start_does():
    x, y = scenes()
    everything = np.ones((len(y), 1), dtype=bool)
    *_, warm = problems(x, y, everything).path(PENALTIES, FINE)
    cold = next(problems(x, y, everything).path(PENALTIES[-1:], FINE))
    scores = [x @ w[:-1, 0] + w[-1, 0] for w in (warm, cold)]
    np.testing.assert_allclose(*(logistic._softmax(s)[0] for s in scores), atol=1e-2)


def test_problems_do_not_know_of_each_other():
    x, y = scenes()
    seen = np.arange(90)[:, None] % 3 != np.arange(3)
    together = next(problems(x, y, seen).path([1.0], FINE))
    for fold in range(3):
        alone = next(problems(x, y, seen[:, [fold]]).path([1.0], FINE))
        np.testing.assert_allclose(together[:, fold], alone[:, 0], atol=1e-2)


def test_rows_that_are_not_seen_say_nothing():
    x, y = scenes()
    seen = (np.arange(90) % 3 != 0)[:, None]
    refit = exact(x[seen[:, 0]], y[seen[:, 0]], 1.0)
    lies = np.where(seen[:, 0], y, np.random.default_rng(0).permutation(y))
    for labels in (y, lies):
        weights = next(problems(x, labels, seen).path([1.0], FINE))
        np.testing.assert_allclose(weights[:-1, 0], refit.coef_.T, atol=1e-2)


def test_labels_of_the_same_classes_are_fitted_in_one_go():
    x, y = scenes()
    lies = np.random.default_rng(0).permutation(y)
    both = fit_softmax(x, [y, lies], 1.0)
    for found, labels in zip(both, (y, lies), strict=True):
        alone = fit_softmax(x, [labels], 1.0)[0]
        np.testing.assert_allclose(found.weights, alone.weights, atol=1e-2)


def test_answers_for_rows_left_out_are_those_of_refits():
    x, y = scenes()
    folds = np.arange(90) % 3
    for penalty, hits in zip(PENALTIES, hits_by_penalty(x, y, folds, PENALTIES), strict=True):
        expected = 0
        for f in range(3):
            refit = exact(x[folds != f], y[folds != f], penalty)
            expected += int((refit.predict(x[folds == f]) == y[folds == f]).sum())
        assert abs(hits - expected) <= 1  # a row on the border, at the coarse tolerance


def test_a_class_that_a_fold_lacks_is_never_its_answer():
    x, y = scenes()
    folds = (y == "a").astype(np.int64)  # all of "a" in one fold
    assert "a" in y
    hits = hits_by_penalty(x, y, folds, [1.0])
    rest = y != "a"
    known = exact(x[rest], y[rest], 1.0)
    assert known.score(x[rest], y[rest]) > 0.5
    assert hits == [0]  # fold 1 holds nothing but "a"; fold 0 is told by a read-out of one class


def test_what_does_not_converge_is_said_and_never_chosen(monkeypatch):
    x, y = scenes()
    monkeypatch.setattr(logistic, "STEPS", 2)
    with pytest.raises(DegenerateInput, match="did not converge in 2 steps"):
        fit_softmax(x, [y], 0.01)
    assert hits_by_penalty(x, y, np.arange(90) % 3, PENALTIES)[-1] == -1


def test_the_same_rows_give_the_same_bits():
    x, y = scenes()
    one, two = (fit_softmax(x.copy(), [y], 0.1)[0] for _ in range(2))
    np.testing.assert_array_equal(one.weights, two.weights)


def test_a_coarse_answer_is_nearly_always_the_exact_one():
    x, y = scenes(rows=300)
    asked = scenes(rows=300, seed=2)[0]
    everything = np.ones((300, 1), dtype=bool)
    coarse = problems(x, y, everything).path(PENALTIES, COARSE)
    for penalty, weights in zip(PENALTIES, coarse, strict=True):
        answers = np.unique(y)[(asked @ weights[:-1, 0] + weights[-1, 0]).argmax(axis=1)]
        assert (answers == exact(x, y, penalty).predict(asked)).mean() > 0.98
