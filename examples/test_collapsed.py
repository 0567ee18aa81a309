"""What a failure looks like: a model whose states have collapsed into a narrow cone.

    pytest examples/test_collapsed.py

It is meant to fail, on made-up states, so it is kept out of the project's own test collection.
"""

import numpy as np

from geomkit.assertions import assert_isotropic


def collapsed_states(samples=200, dim=64):
    """Every state is one common direction with a little of its own."""
    rng = np.random.default_rng(0)
    return 10 * np.ones(dim) + rng.standard_normal((samples, dim))


def test_states_are_isotropic():
    assert_isotropic(collapsed_states(), max_mean_cosine=0.2)
