"""Matched and random pairs, counted and compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geomkit.pictures.album import unit
from geomkit.pictures.pairs import BINS, STRANGERS, cosines, histogram, strangers, wins
from geomkit.pictures.partners import pairings
from tests.pictures.worlds import plan, world


def test_strangers_are_of_other_groups_and_as_many_a_sample() -> None:
    rows = plan(30)
    left, right = pairings(rows)["image-text"]
    first, second = strangers(rows, left, right)
    assert len(first) == 30 * STRANGERS
    assert all(rows[a].id != rows[b].id for a, b in zip(first, second, strict=True))
    assert np.unique(first, return_counts=True)[1].tolist() == [STRANGERS] * 30
    same = tuple(replace(row, group="one") for row in rows)
    assert not len(strangers(same, left, right)[0])


def test_counts_hold_every_pair() -> None:
    run = world(30)
    spaces = {name: unit(run.values[name, "final_norm"]) for name in ("base", "lco")}
    found = cosines("final_norm", spaces, run.rows, pairings(run.rows))
    assert [(c.pair, c.checkpoint) for c in found[:2]] == [
        ("image-text", "base"),
        ("image-text", "lco"),
    ]
    for c in found:
        samples = 30 if c.pair == "image-text" else 10
        assert len(c.matched) == len(c.random) == BINS
        assert sum(c.matched) == samples
        assert sum(c.random) == samples * min(STRANGERS, samples - 1)
        assert -1 <= c.low <= c.mean_random <= c.high <= 1
    before, after = found[:2]
    assert after.wins > 0.95 > before.wins


def test_means_are_of_the_cosines() -> None:
    run = world(10)
    units = unit(run.values["lco", "block_00"])
    left, right = pairings(run.rows)["image-text"]
    found = cosines("block_00", {"lco": units}, run.rows, {"image-text": (left, right)})[0]
    whole = units[left] @ units[right].T
    assert found.mean_matched == pytest.approx(np.diag(whole).mean())
    assert found.mean_random == pytest.approx(whole[~np.eye(10, dtype=bool)].mean())


def test_wins_is_the_share_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40) / 9, rng.integers(0, 9, 70) / 9
    expected = ((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean()
    assert wins(a, b) == pytest.approx(expected)


def test_equal_cosines_still_have_bins() -> None:
    one = np.full(5, 0.25)
    found = histogram("image-text", "s", "c", one, one)
    assert found.high > found.low
    assert sum(found.matched) == 5
    assert found.wins == 0.5
