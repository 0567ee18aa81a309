from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import UsageError
from geomkit.geometry import Retrieval, retrieval, rows


@pytest.mark.parametrize("k", [1, 5, 20])
def test_recall_equals_top_k_accuracy(pair_s, k):
    x, y = pair_s
    want = top_k_accuracy_score(np.arange(len(x)), cosine_similarity(x, y), k=k)
    assert retrieval(x, y).recall(k) == pytest.approx(want, abs=1e-12)


def test_ranks_of_a_known_gallery():
    query = np.array([[1.0, 0], [0, 1]])
    gallery = np.array([[1.0, 0.5], [1, 0.1]])  # query 0 prefers item 1, query 1 prefers item 0
    found = retrieval(query, gallery)
    assert found.ranks.tolist() == [2, 2]
    assert (found.recall(1), found.recall(2), found.mrr()) == (0, 1, 0.5)


def test_a_tie_counts_against():
    query = np.eye(3)
    gallery = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])  # items 0 and 1 are the same
    assert retrieval(query, gallery).ranks.tolist() == [2, 3, 1]


def test_groups_give_several_right_answers():
    query = np.array([[1.0, 0], [0, 1]])
    gallery = np.array([[1.0, 0.9], [1, 0.1], [0.2, 1]])
    found = retrieval(query, gallery, ["a", "b"], ["a", "a", "b"])
    assert found.ranks.tolist() == [1, 1]
    assert found.right.tolist() == [2, 1]


def test_a_tie_between_right_answers_is_no_tie():
    gallery = np.array([[1.0, 0], [1, 0], [0, 1]])
    assert retrieval(gallery, gallery, list("aab"), list("aab")).recall(1) == 1


def test_chance_against_every_order_of_the_gallery():
    right = [np.array([1, 1, 0, 0, 0]), np.array([1, 0, 0, 0, 0])]
    ranks = [[1 + list(p).index(1) for p in itertools.permutations(r)] for r in right]
    found = Retrieval(np.array([1, 1]), np.array([2, 1]), 5)
    for k in (1, 2, 4, 5):
        want = np.mean([np.mean(np.array(r) <= k) for r in ranks])
        assert found.chance_recall(k) == pytest.approx(want, abs=1e-12)
    want = np.mean([np.mean(1 / np.array(r)) for r in ranks])
    assert found.chance_mrr() == pytest.approx(want, abs=1e-12)
    assert found.chance_recall(1) == pytest.approx(np.mean([2 / 5, 1 / 5]))


def test_random_spaces_are_at_chance():
    x, y = np.random.default_rng(0).standard_normal((2, 400, 8))
    found = retrieval(x, y)
    assert found.recall(20) == pytest.approx(found.chance_recall(20), abs=0.03)


def test_retrieval_in_blocks_and_in_torch(pair_q, monkeypatch):
    ranks = retrieval(*pair_q).ranks.tolist()
    assert retrieval(*map(torch.tensor, pair_q)).ranks.tolist() == ranks
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert retrieval(*pair_q).ranks.tolist() == ranks


def test_a_query_without_an_answer():
    with pytest.raises(UsageError, match="1 queries whose group is not in the gallery"):
        retrieval(np.eye(2), np.eye(2), ["a", "b"], ["a", "c"])


def test_groups_come_for_both_sides():
    with pytest.raises(UsageError, match="groups for both"):
        retrieval(np.eye(2), np.eye(2), ["a", "b"])
    with pytest.raises(UsageError, match="one group a row"):
        retrieval(np.eye(2), np.eye(2), ["a"], ["a", "b"])
    with pytest.raises(UsageError, match="paired rows"):
        retrieval(np.eye(2), np.eye(3)[:, :2][[0, 1, 0]])
