"""Do the stated 95 % intervals cover in 95 % of draws? Of every metric there is.

A draw is two checkpoints that differ by nothing systematic: the same samples, and noise of the same
law. The interval of the difference must hold zero; that of a value must hold the population's where
that is known, and else the value expected at this N (the mean over all draws). The table is that of
`estimates`: a metric that is added there is tested here.

The region. What is claimed is coverage of 93 to 97 %. Draws are few, so a claim that holds can look
worse than it is: an interval of 93 % covers in at least 174 of 200 draws in 1999 of 2000 such
tables, and one of 97 % may cover in all 200. So fewer than 174 fail, and 200 draws cannot see
intervals that are too wide. That is told by the other measure, the mean standard error over the
spread of the values: 0.92 and 1.11 stand for 93 and 97 %, and 200 draws know it to 5 %. The slow
tests are the same with more draws and narrower regions. Seeds were fixed before the first run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from geomkit.errors import DegenerateInput
from geomkit.estimates import METRICS as REGISTRY
from geomkit.estimates import Outliers, between, retrieved, space, within
from geomkit.statistics import difference, interval

DIM = 12
AXES = np.linspace(2, 0.4, DIM)
NOISE = 0.9
SHIFTS = (0.8, 2.0)  # of the two towers
OUTLIERS = Outliers(cosine=(0, 5), variance=(0, 1))  # as if found in a reference checkpoint
DRAWS = {"quick": 200, "many": 500}


@dataclass(frozen=True)
class Setting:
    """How many samples, and which of them are the same thing."""

    name: str
    groups: tuple[str, ...]
    seed: int


SIZES = np.tile([1, 1, 2, 3, 4], 14)
SETTINGS = {
    s.name: s
    for s in (
        Setting("rows", tuple(f"{i:03d}" for i in range(100)), 20),
        Setting("groups", tuple(f"{g:03d}" for g in np.repeat(np.arange(70), SIZES)), 21),
    )
}


def towers(setting, rng):
    """Two checkpoints of two modalities; samples of one group are one thing seen again."""
    things, code = np.unique(setting.groups, return_inverse=True)
    thing = rng.standard_normal((len(things), DIM))[code] * AXES
    noise = rng.standard_normal((2, 2, len(code), DIM)) * NOISE
    return [[thing + shift + part for shift, part in zip(SHIFTS, n, strict=True)] for n in noise]


def measured(sides, groups):
    x, y = (space(side.astype(np.float32), groups, outliers=OUTLIERS) for side in sides)
    there, back = retrieved(x, y, REGISTRY)
    back = {f"{name} back": found for name, found in back.items()}
    return within(x, REGISTRY) | between(x, y, REGISTRY) | there | back


@functools.cache
def drawn(setting_name, size):
    """For each metric its (before, after) estimates over the draws."""
    setting = SETTINGS[setting_name]
    rng = np.random.default_rng(setting.seed)
    found = {}
    for _ in range(DRAWS[size]):
        before, after = (measured(sides, setting.groups) for sides in towers(setting, rng))
        for name in before:
            found.setdefault(name, []).append((before[name], after[name]))
    return found


def _metrics():
    setting = SETTINGS["rows"]
    first = towers(setting, np.random.default_rng(0))[0]
    return sorted(measured(first, setting.groups))


METRICS = _metrics()


def population():
    """What each estimate of a value tends to, where closed forms or 400 000 rows tell."""
    rng = np.random.default_rng(99)
    thing = rng.standard_normal((400_000, DIM)) * AXES
    rows = [thing + s + NOISE * rng.standard_normal(thing.shape) for s in SHIFTS]
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows)
    apart = ((u[::2] - u[1::2]) ** 2).sum(axis=1)
    variances = AXES**2 + NOISE**2
    return {
        "mean_cosine": float((u.mean(0) ** 2).sum()),
        "uniformity": float(np.log(np.exp(-2 * apart).mean())),
        "participation_ratio": float(variances.sum() ** 2 / (variances**2).sum()),
        "alignment": float(((u - v) ** 2).sum(axis=1).mean()),
        "modality_gap": float(((u.mean(0) - v.mean(0)) ** 2).sum()),
        "linear_cka": float((AXES**4).sum() / (variances**2).sum()),
    }


TRUE = population()

TOO_WIDE = {
    "cosine_contribution": (
        "stated 95 %, measured 99.9 % (standard error 1.7 to 2.0 times the spread): where all "
        "dimensions contribute alike, as here, which are the largest is itself chance, and the sum "
        "of the largest is steadier than its parts"
    ),
    "spectral_decay": (
        "stated 95 %, measured 99.4 % (1.3 to 1.6 times): sampled eigenvalues keep apart, which an "
        "influence that holds the axes still does not know"
    ),
    "robin_hood": (
        "stated 95 %, measured 98.4 % of changes (1.1 to 1.2 times): what two rows decide together "
        "is taken out of the error of each checkpoint, not out of that of the change"
    ),
    "cknna": (
        "stated 95 %, measured 97.0 and 97.6 % of changes (1.2 times): as robin_hood, and what "
        "pairs share is taken from its neighbours alone"
    ),
    "gallery_hubness back": (
        "stated 95 %, measured 98.2 % (1.1 to 1.3 times): a few items take nearly all places"
    ),
}
"""Intervals that do not hold what they say, and why. All err on the safe side."""


def estimates_of(metric, setting, size):
    pairs = drawn(setting, size)[metric]
    undefined = [e for pair in pairs for e in pair if isinstance(e, DegenerateInput)]
    assert not undefined, undefined[0]
    return pairs


def least(size):
    """Fewest of the draws that an interval of 93 % holds in, in 1999 of 2000 tables."""
    return stats.binom.ppf(0.0005, DRAWS[size], 0.93)


def most(size):
    """Most of the draws that an interval of 97 % holds in, in 1999 of 2000 tables."""
    return stats.binom.ppf(0.9995, DRAWS[size], 0.97)


def region(size):
    """Standard errors over the spread: what 93 and 97 % stand for, and the slack of a spread."""
    low, high = stats.norm.ppf([0.965, 0.985]) / stats.norm.ppf(0.975)
    slack = stats.norm.ppf(0.9995) / (2 * DRAWS[size]) ** 0.5
    return low * (1 - slack), high * (1 + slack)


sizes = pytest.mark.parametrize("size", ["quick", pytest.param("many", marks=pytest.mark.slow)])
settings = pytest.mark.parametrize("setting", SETTINGS)
metrics = pytest.mark.parametrize("metric", METRICS)


@sizes
@settings
@metrics
def test_intervals_of_a_change_hold_zero(metric, setting, size):
    changes = [interval(difference(*pair)) for pair in estimates_of(metric, setting, size)]
    held = sum(i.low <= 0 <= i.high for i in changes)
    assert least(size) <= held
    if metric in TOO_WIDE and held > most(size):
        pytest.xfail(TOO_WIDE[metric])
    assert held <= most(size)


@sizes
@settings
@metrics
def test_intervals_of_a_value_hold_what_is_expected(metric, setting, size):
    pairs = estimates_of(metric, setting, size)
    truth = TRUE.get(metric, np.mean([e.value for pair in pairs for e in pair]))
    held = sum(i.low <= truth <= i.high for i in (interval(before) for before, _ in pairs))
    assert least(size) <= held
    if metric in TOO_WIDE and held > most(size):
        pytest.xfail(TOO_WIDE[metric])
    assert held <= most(size)


@sizes
@settings
@metrics
@pytest.mark.parametrize("of", ["value", "change"])
def test_standard_errors_are_the_spread_over_draws(metric, setting, size, of):
    pairs = estimates_of(metric, setting, size)
    made = [before if of == "value" else difference(before, after) for before, after in pairs]
    ratio = np.mean([e.standard_error for e in made]) / np.std([e.value for e in made])
    low, high = region(size)
    assert low <= ratio
    if metric in TOO_WIDE and ratio > high:
        pytest.xfail(TOO_WIDE[metric])
    assert ratio <= high
