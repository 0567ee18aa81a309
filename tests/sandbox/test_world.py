"""Splits are disjoint; captions name everything that is spoken and nothing else."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from geomkit import sandbox
from geomkit.errors import UsageError
from geomkit.sandbox import world
from geomkit.sandbox.world import SPOKEN, UNSPOKEN

KINDS = ("image", "audio")


def _some_scenes(kind: world.Kind, count: int = 60) -> list[world.Scene]:
    return list(sandbox.scenes("test", kind, count))


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_is_in_exactly_one_split(kind: world.Kind) -> None:
    total = int(np.prod([len(a.values) for a in SPOKEN[kind]]))
    groups = [tuple(c.values()) for s in world.SPLIT_SHARES for c in world.combinations(kind, s)]
    assert len(groups) == len(set(groups)) == total


@pytest.mark.parametrize("kind", KINDS)
def test_splits_hold_their_share(kind: world.Kind) -> None:
    sizes = {s: sum(1 for _ in world.combinations(kind, s)) for s in world.SPLIT_SHARES}
    for split, share in world.SPLIT_SHARES.items():
        assert sizes[split] / sum(sizes.values()) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_names_every_spoken_attribute(kind: world.Kind) -> None:
    rng = np.random.default_rng(0)
    for scene, template in itertools.product(_some_scenes(kind), range(6)):
        sentence = world.caption(scene, rng, template)
        for attribute in SPOKEN[kind]:
            words = attribute.words[scene.spoken[attribute.name]]
            assert any(re.search(rf"\b{w}\b", sentence) for w in words), (sentence, attribute.name)


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentence_ever_names_an_unspoken_attribute(kind: world.Kind) -> None:
    forbidden = {w for a in UNSPOKEN[kind] for w in (a.name, *a.values)}
    assert forbidden.isdisjoint(world.vocabulary())


def test_no_two_values_of_an_attribute_share_a_word() -> None:
    for attribute in itertools.chain(*SPOKEN.values()):
        words = list(itertools.chain(*attribute.words.values()))
        assert len(words) == len(set(words)), attribute.name


@pytest.mark.parametrize("kind", KINDS)
def test_the_hard_negative_differs_in_exactly_one_attribute(kind: world.Kind) -> None:
    rng = np.random.default_rng(1)
    for scene in _some_scenes(kind):
        other = world.neighbour(scene, rng)
        assert sum(scene.spoken[a] != other.spoken[a] for a in scene.spoken) == 1


def test_text_pairs_come_from_training_scenes_only() -> None:
    for _, _, _, group in sandbox.text_pairs(500, seed=3):
        assert world.split_of(group) == "train"


def test_text_pairs_are_text() -> None:
    for pair in sandbox.text_pairs(200):
        assert all(isinstance(part, str) and part for part in pair)
        assert pair[0] != pair[1]


def test_test_samples_have_distinct_held_out_combinations() -> None:
    found = sandbox.samples("test")
    assert len({s.group for s in found}) == len(found) == sum(sandbox.COUNTS.values())
    assert {world.split_of(s.group) for s in found} == {"test"}


def test_samples_are_the_same_every_time() -> None:
    first = sandbox.samples("validation", images=5, sounds=5)
    sandbox.samples.cache_clear()
    again = sandbox.samples("validation", images=5, sounds=5)
    for a, b in zip(first, again, strict=True):
        assert (a.id, a.text, a.labels, a.controls) == (b.id, b.text, b.labels, b.controls)
        if a.image is not None:
            assert a.image.tobytes() == b.image.tobytes()
        if a.audio is not None:
            np.testing.assert_array_equal(a.audio.samples, b.audio.samples)


def test_the_unspoken_attributes_are_independent_of_the_spoken() -> None:
    """Cramer's V near zero: a probe cannot read a control off a caption."""
    for kind in KINDS:
        found = [s for s in sandbox.samples("test") if s.id.startswith(kind)]
        for control, label in itertools.product(found[0].controls, found[0].labels):
            table: dict[tuple[str, str], int] = {}
            for s in found:
                key = (s.controls[control], s.labels[label])
                table[key] = table.get(key, 0) + 1
            rows, columns = ({k[i] for k in table} for i in (0, 1))
            counts = np.array(
                [[table.get((r, c), 0) for c in sorted(columns)] for r in sorted(rows)]
            )
            expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
            chi2 = ((counts - expected) ** 2 / expected).sum()
            degrees = (len(rows) - 1) * (len(columns) - 1)
            assert chi2 < degrees + 5 * np.sqrt(2 * degrees), (control, label)


def test_an_unknown_split_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="expected a sandbox split"):
        sandbox.samples("holdout")  # type: ignore[arg-type]


def test_an_unknown_checkpoint_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="expected a sandbox checkpoint"):
        sandbox.checkpoint_path("../base")
