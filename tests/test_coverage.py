"""Do the stated 95 % intervals cover in 95 % of draws? Of every metric there is.

A draw is two checkpoints that differ by nothing systematic: the same samples, and noise of the same
law. The interval of the difference must hold zero; that of a value must hold the population's where
that is known, and else the value expected at this N (the mean over all draws). The table is that of
`estimates`: a metric that is added there is tested here.

The region. Coverage of 93 to 97 % is what is claimed. Over 200 draws an interval of 93 % covers in
at least 174 of them in 1999 of 2000 such tables, and one of 97 % in at most 200, so below 174 is a
failure, and above nothing can be: that intervals are not too wide is told by the other measure, the
mean standard error over the spread of the values, which 200 draws know to 5 %. Seeds were fixed
before the first run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from geomkit.errors import DegenerateInput
from geomkit.estimates import between, retrieved, space, within
from geomkit.statistics import difference, interval

DIM = 12
AXES = np.linspace(2, 0.4, DIM)
NOISE = 0.9
SHIFTS = (0.8, 2.0)  # of the two towers
DRAWS = {"quick": 200, "many": 1000}


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
    x, y = (space(side.astype(np.float32), groups) for side in sides)
    there, back = retrieved(x, y)
    return within(x) | between(x, y) | there | {f"{name} back": e for name, e in back.items()}


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
        "modality_gap_unbiased": float(((u.mean(0) - v.mean(0)) ** 2).sum()),
        "linear_cka": float((AXES**4).sum() / (variances**2).sum()),
    }


TRUE = population()

TOO_WIDE = {
    "mutual_knn": "the jackknife counts what c rows decide together c times (Efron and Stein 1981)",
}
"""Intervals that cover in more draws than they say, and why; they err on the safe side."""


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
    assert held <= most(size) or metric in TOO_WIDE


@sizes
@settings
@metrics
def test_intervals_of_a_value_hold_what_is_expected(metric, setting, size):
    pairs = estimates_of(metric, setting, size)
    truth = TRUE.get(metric, np.mean([e.value for pair in pairs for e in pair]))
    held = sum(i.low <= truth <= i.high for i in (interval(before) for before, _ in pairs))
    assert least(size) <= held
    assert held <= most(size) or metric in TOO_WIDE


@sizes
@settings
@metrics
@pytest.mark.parametrize("of", ["value", "change"])
def test_standard_errors_are_the_spread_over_draws(metric, setting, size, of, request):
    pairs = estimates_of(metric, setting, size)
    made = [before if of == "value" else difference(before, after) for before, after in pairs]
    errors, spread = [e.standard_error for e in made], np.std([e.value for e in made])
    low, high = region(size)
    if metric in TOO_WIDE:
        request.applymarker(pytest.mark.xfail(reason=TOO_WIDE[metric], strict=True))
    assert low <= np.mean(errors) / spread <= high
