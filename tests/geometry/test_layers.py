from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import curvature, layers, logit_lens, rms_norm

RNG = np.random.default_rng(8)


def test_a_straight_line_has_no_curvature():
    line = np.outer(np.array([0.0, 1, 2.5, 3, 7]), RNG.standard_normal(16)) + 3
    assert curvature(line) == pytest.approx(0, abs=1e-7)
    assert curvature(line[:, :1]) == 0  # exactly, where the steps are


def test_curvature_of_a_square_and_of_a_way_there_and_back():
    assert curvature(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])) == pytest.approx(math.pi / 2)
    assert curvature(np.array([[0.0, 0], [1, 1], [0, 0]])) == pytest.approx(math.pi)


def test_curvature_of_a_circle_is_the_angle_of_its_steps():
    turn = np.linspace(0, 2 * math.pi, 37)[:-1]
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1) + 50  # far from the origin
    assert curvature(circle) == pytest.approx(2 * math.pi / 36, rel=1e-9)


def test_curvature_of_random_steps_and_of_random_places():
    noise = RNG.standard_normal((400, 500))
    assert curvature(noise.cumsum(axis=0)) == pytest.approx(math.pi / 2, abs=0.01)
    assert curvature(noise) == pytest.approx(2 * math.pi / 3, abs=0.01)


def test_curvature_is_the_arccos_of_successive_differences():
    path = RNG.standard_normal((12, 6)).cumsum(axis=0)
    steps = np.diff(path, axis=0)
    unit = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    expected = np.arccos((unit[1:] * unit[:-1]).sum(1)).mean()
    assert curvature(path) == pytest.approx(expected, rel=1e-12)
    assert curvature(torch.tensor(path)) == pytest.approx(expected, rel=1e-12)
    assert curvature(path * 1e200) == pytest.approx(expected, rel=1e-12)


def test_a_path_that_stands_still_has_no_angle():
    path = RNG.standard_normal((6, 4))
    path[3] = path[2]
    with pytest.raises(DegenerateInput, match="got 1 of 5 that stay where they are"):
        curvature(path)
    with pytest.raises(DegenerateInput, match="at least 3 rows"):
        curvature(path[:2])
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        curvature(np.ones((6, 4), dtype=np.float32))


N, DIM, VOCABULARY = 7, 10, 53
HEAD = RNG.standard_normal((VOCABULARY, DIM)).astype(np.float32)
STATES = RNG.standard_normal((N, DIM)).astype(np.float32) * 3
FINAL = STATES + RNG.standard_normal((N, DIM)).astype(np.float32)
WEIGHT = RNG.uniform(0.5, 2, DIM)


def by_hand(states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The definitions over the whole vocabulary at once, from scipy."""
    here = log_softmax(states.astype(np.float64) @ HEAD.T.astype(np.float64), axis=1)
    end = log_softmax(FINAL.astype(np.float64) @ HEAD.T.astype(np.float64), axis=1)
    kl = entropy(np.exp(end), np.exp(here), axis=1)
    return kl, entropy(np.exp(here), axis=1), here.argmax(1) == end.argmax(1)


@pytest.mark.parametrize("entries", [2**22, 7, 35, 200])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_lens_equals_its_definition_in_blocks_of_any_size(entries, scale, monkeypatch):
    monkeypatch.setattr(layers, "BLOCK_ENTRIES", entries)
    found = logit_lens(STATES, FINAL, HEAD, normed=True)
    kl, uncertainty, same = by_hand(STATES)
    assert found.divergence == pytest.approx(kl, rel=1e-10)
    assert found.entropy == pytest.approx(uncertainty, rel=1e-10)
    assert found.agrees.tolist() == same.tolist()
    assert found.mean_divergence() == pytest.approx(kl.mean())
    assert found.mean_entropy() == pytest.approx(uncertainty.mean())
    assert found.agreement() == same.mean()
    loud = logit_lens(STATES * scale, FINAL * scale, HEAD, normed=True)  # logits of thousands
    assert np.isfinite(loud.divergence).all()
    assert loud.agrees.tolist() == same.tolist()


def test_the_lens_at_the_end_sees_the_end():
    found = logit_lens(FINAL, FINAL, HEAD, normed=True)
    assert found.divergence == pytest.approx(0, abs=1e-12)
    assert found.agreement() == 1


def test_states_that_all_logits_ignore_are_as_uncertain_as_can_be():
    found = logit_lens(np.zeros((N, DIM)), FINAL, HEAD, normed=True)
    assert found.entropy == pytest.approx(math.log(VOCABULARY))


def test_the_norm_is_applied_once():
    norm = torch.nn.RMSNorm(DIM, eps=1e-6, dtype=torch.float64)
    norm.weight.data = torch.tensor(WEIGHT)
    once = norm(torch.tensor(STATES).double()).detach().numpy()
    found = logit_lens(STATES, FINAL, HEAD, normed=False, norm=lambda x: rms_norm(x, WEIGHT))
    kl, uncertainty, _ = by_hand(once)
    assert found.divergence == pytest.approx(kl, rel=1e-9)
    assert found.entropy == pytest.approx(uncertainty, rel=1e-9)
    already = logit_lens(once, FINAL, HEAD, normed=True)
    assert already.divergence == pytest.approx(found.divergence, rel=1e-9)


@pytest.mark.parametrize(("normed", "norm"), [(True, lambda x: x), (False, None)])
def test_the_caller_says_whether_the_states_are_normed(normed, norm):
    with pytest.raises(UsageError, match=f"none for states that have, got normed={normed} with"):
        logit_lens(STATES, FINAL, HEAD, normed=normed, norm=norm)


def test_the_lens_on_torch():
    arrays = STATES, FINAL, HEAD
    ours = logit_lens(*arrays, normed=True)
    theirs = logit_lens(*map(torch.tensor, arrays), normed=True)
    assert theirs.divergence == pytest.approx(ours.divergence, rel=1e-10)
    assert theirs.entropy == pytest.approx(ours.entropy, rel=1e-10)
    assert theirs.agrees.tolist() == ours.agrees.tolist()
    half = torch.tensor(HEAD).bfloat16()
    assert np.isfinite(logit_lens(*map(torch.tensor, arrays[:2]), half, normed=True).entropy).all()


def test_what_the_lens_refuses():
    with pytest.raises(UsageError, match="paired rows, got 7 and 6"):
        logit_lens(STATES, FINAL[:6], HEAD, normed=True)
    with pytest.raises(UsageError, match="one width, got 10, 10 and 53"):
        logit_lens(STATES, FINAL, HEAD.T, normed=True)
    bad = STATES.copy()
    bad[2, 2] = np.nan
    with pytest.raises(DegenerateInput, match="got 1 of 7 with NaN"):
        logit_lens(bad, FINAL, HEAD, normed=True)
