"""What happens to a state on its way: does its path bend, and what would it say now?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import (
    BLOCK_ENTRIES,
    RESOLUTION,
    Array,
    as_rows,
    matched,
    on_host,
    scaled,
)


def curvature(path: Array) -> float:
    """Mean angle between successive steps of a path, in radians, [0, pi]; 0 is a straight line.

    `path` is `(places, dim)`: the states of one text token by token, or of one token layer by
    layer. A step is the DIFFERENCE of successive places; the angle between the places themselves
    is another quantity. Steps in random directions of a wide space give pi/2; independent places
    give about 2 pi/3.

    Raises:
        DegenerateInput: fewer than three places, or a step of no length to float32 resolution.

    Reference:
        Hosseini and Fedorenko 2023, arXiv:2311.04930; Skean et al. 2025, arXiv:2502.02013.
    """
    path = scaled(path, 3)
    xp = array_namespace(path)
    steps = path[1:, :] - path[:-1, :]
    length = xp.sum(steps * steps, axis=1)
    still = length <= RESOLUTION * xp.sum(path * path, axis=1)[1:]
    if xp.any(still):
        raise DegenerateInput(
            f"Expected steps of some length, got {int(xp.sum(xp.astype(still, xp.int64)))} of "
            f"{still.shape[0]} that stay where they are to float32 resolution; "
            "leave repeated places out."
        )
    v = steps / xp.sqrt(length)[:, None]
    u, v = v[:-1, :], v[1:, :]
    # Exact near 0 and pi, where arccos of a rounded cosine is not.
    return float(xp.mean(2 * xp.atan2(_norm(u - v), _norm(u + v))))


@dataclass(frozen=True, slots=True, eq=False)
class LogitLens:
    """Per sample, in nats: `divergence` KL(final || here), `entropy` here, and whether both agree.

    `agrees` is true where the likeliest token is the same here as in the end.
    """

    divergence: NDArray[np.float64]
    entropy: NDArray[np.float64]
    agrees: NDArray[np.bool_]

    def mean_divergence(self) -> float:
        """Mean KL, at least 0; lower is closer to the final answer, which itself has 0."""
        return float(self.divergence.mean())

    def mean_entropy(self) -> float:
        """Mean entropy, in [0, log vocabulary]; lower is more certain."""
        return float(self.entropy.mean())

    def agreement(self) -> float:
        """Share of samples whose likeliest token is the final one, in [0, 1]; higher is closer."""
        return float(self.agrees.mean())


def logit_lens(
    states: Array,
    final: Array,
    unembedding: Array,
    *,
    normed: bool,
    norm: Callable[[Array], Array] | None = None,
) -> LogitLens:
    """What the states of a site would say if the head read them now, against what the model says.

    `states` and `final` are `(samples, dim)` of one site and of the site after the final norm,
    `unembedding` is the head's weight `(vocabulary, dim)`. Say with `normed` whether `states` have
    passed the final norm already; if not, `norm` applies it here, once, to rows in float64.
    `final` always has.
    Vocabulary goes by in blocks, so no `(samples, vocabulary)` array is made.

    Raises:
        UsageError: the rows do not match, or the norm is missing or would be applied twice.
        DegenerateInput: a value is not finite.

    Reference:
        nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    if normed == (norm is not None):
        raise UsageError(
            "Expected a norm for states that have not passed the final norm, and none for states "
            f"that have, got normed={normed} {'with' if norm else 'without'} a norm."
        )
    here = as_rows(states, 1) if norm is None else as_rows(norm(as_rows(states, 1)), 1)
    end = as_rows(final, 1)
    matched(here, end)
    if not here.shape[1] == end.shape[1] == unembedding.shape[1]:
        raise UsageError(
            f"Expected states and head of one width, got {here.shape[1]}, {end.shape[1]} and "
            f"{unembedding.shape[1]}; give the head as (vocabulary, dim)."
        )
    now, then = _Running(), _Running()
    step = max(1, BLOCK_ENTRIES // here.shape[0])
    for start in range(0, unembedding.shape[0], step):
        tokens = as_rows(unembedding[start : start + step, :], 1).T
        say, said = here @ tokens, end @ tokens
        now.add(say, say)
        then.add(said, said - say)
    divergence = then.mean() - then.log_mass() + now.log_mass()
    agrees = on_host(now.best == then.best)
    entropy = on_host(now.log_mass() - now.mean())
    # Neither can be negative; what is below 0 is rounding.
    return LogitLens(np.maximum(on_host(divergence), 0.0), np.maximum(entropy, 0.0), agrees)


def rms_norm(x: Array, weight: Array, eps: float = 1e-6) -> Array:
    """RMSNorm as the Llama and Qwen families have it: `weight * x / sqrt(mean x^2 + eps)`."""
    xp = array_namespace(x)
    return weight * x / xp.sqrt(xp.mean(x * x, axis=1, keepdims=True) + eps)


class _Running:
    """A softmax over logits that arrive in blocks, and the mean of values under it; rows apart."""

    def __init__(self) -> None:
        self.seen = 0

    def add(self, logits: Array, values: Array) -> None:
        xp = array_namespace(logits)
        top, at = xp.max(logits, axis=1), self.seen + xp.argmax(logits, axis=1)
        if not self.seen:
            self.peak, self.best = top, at
            self.mass = self.weighted = xp.zeros_like(top)
        self.best = xp.where(top > self.peak, at, self.best)
        peak = xp.maximum(self.peak, top)
        fade, weight = xp.exp(self.peak - peak), xp.exp(logits - peak[:, None])
        self.mass = self.mass * fade + xp.sum(weight, axis=1)
        self.weighted = self.weighted * fade + xp.sum(weight * values, axis=1)
        self.peak, self.seen = peak, self.seen + int(logits.shape[1])

    def log_mass(self) -> Array:
        return self.peak + array_namespace(self.mass).log(self.mass)

    def mean(self) -> Array:
        return self.weighted / self.mass


def _norm(x: Array) -> Array:
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x * x, axis=1))
