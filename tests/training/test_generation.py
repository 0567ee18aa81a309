"""Loss of captions: only the caption counts, each sample on its own, paired before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from geomkit.errors import TrainingError
from geomkit.training.generation import (
    DESCRIBE,
    generative_change,
    generative_losses,
    target_losses,
)
from geomkit.types import Sample
from tests.training.loaded import Loaded, load


@pytest.fixture(scope="module")
def loaded(base: Path) -> Loaded:
    return load(base)


def test_target_losses_are_the_mean_over_the_target_on_either_padding_side() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(1, 6, 5), torch.randint(0, 5, (1, 6))
    expected = float(functional.cross_entropy(logits[0, 2:4], ids[0, 3:5]))
    right = target_losses(logits, ids, torch.tensor([[1, 1, 1, 1, 1, 0]]), [2])
    assert right == pytest.approx([expected])
    shifted = target_losses(
        logits.roll(1, 1), ids.roll(1, 1), torch.tensor([[0, 1, 1, 1, 1, 1]]), [2]
    )
    assert shifted == pytest.approx([expected])


def test_equals_the_loss_written_out(loaded: Loaded, held_out: tuple[Sample, ...]) -> None:
    sample = held_out[0]
    found = generative_losses(loaded.model, loaded.processor, [replace(sample, image=None)])
    tokenizer = loaded.processor.tokenizer
    turn = f"<|im_start|>user\n{sample.text}\nDescribe the above text:<|im_end|>\n"
    asked = tokenizer(f"{turn}<|im_start|>assistant\n")["input_ids"]
    answer = tokenizer(f"{sample.text}<|im_end|>")["input_ids"]
    logits = loaded.model(input_ids=torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1]
    expected = float(functional.cross_entropy(logits, torch.tensor(answer)).detach())
    assert float(found[0].values[0]) == pytest.approx(expected, abs=1e-5)


def test_a_sample_does_not_depend_on_its_batch(
    loaded: Loaded, held_out: tuple[Sample, ...]
) -> None:
    together = generative_losses(loaded.model, loaded.processor, held_out, batch=16)
    alone = generative_losses(loaded.model, loaded.processor, held_out, batch=1)
    assert [x.modality for x in together] == ["text", "image", "audio"]
    for one, other in zip(together, alone, strict=True):
        assert one.ids == other.ids
        assert np.allclose(one.values, other.values, atol=1e-5)


def test_the_media_matter(loaded: Loaded, held_out: tuple[Sample, ...]) -> None:
    images = [s for s in held_out if s.image is not None]
    swapped = [replace(s, image=images[k - 1].image) for k, s in enumerate(images)]
    own, other = (
        next(
            x
            for x in generative_losses(loaded.model, loaded.processor, rows)
            if x.modality == "image"
        )
        for rows in (images, swapped)
    )
    assert not np.allclose(own.values, other.values, atol=1e-6)


def test_answers_and_instructions_can_be_given(
    loaded: Loaded, held_out: tuple[Sample, ...]
) -> None:
    plain = generative_losses(loaded.model, loaded.processor, held_out[:1])
    answered = generative_losses(
        loaded.model, loaded.processor, held_out[:1], answers={held_out[0].id: "a red circle"}
    )
    asked = generative_losses(
        loaded.model,
        loaded.processor,
        held_out[:1],
        instructions={**DESCRIBE, "image": "\nWhat is it?"},
    )
    assert plain[1].values != pytest.approx(answered[1].values)
    assert plain[1].values != pytest.approx(asked[1].values)
    assert asked[1].instruction == "\nWhat is it?"


def test_samples_without_a_caption_are_left_out(
    loaded: Loaded, held_out: tuple[Sample, ...]
) -> None:
    assert (
        generative_losses(loaded.model, loaded.processor, [replace(held_out[0], text=None)]) == ()
    )


def test_change_is_paired_by_sample(loaded: Loaded, held_out: tuple[Sample, ...]) -> None:
    before = generative_losses(loaded.model, loaded.processor, held_out)
    # every sample moves by the same amount: the spread between samples is no uncertainty
    after = tuple(replace(x, values=x.values + 0.25) for x in before)
    for change in generative_change(before, after):
        assert change.difference == pytest.approx(0.25)
        if change.modality == "text":  # the others are three each: too few for an interval
            assert change.interval is not None
            assert change.interval.high - change.interval.low < 1e-9
        assert change.n == {"text": 6, "image": 3, "audio": 3}[change.modality]


def test_one_group_has_no_interval(loaded: Loaded, held_out: tuple[Sample, ...]) -> None:
    before = generative_losses(loaded.model, loaded.processor, held_out[:1])
    change = generative_change(before, before)[0]
    assert (change.difference, change.interval, change.note) == (
        0.0,
        None,
        "too few groups for an interval",
    )


def test_losses_of_other_samples_are_not_compared(
    loaded: Loaded, held_out: tuple[Sample, ...]
) -> None:
    one, other = (
        generative_losses(loaded.model, loaded.processor, held_out[k : k + 1]) for k in (0, 1)
    )
    with pytest.raises(TrainingError, match="same samples before and after"):
        generative_change(one, other)


def test_every_mean_has_its_own_interval(loaded: Loaded, held_out: tuple[Sample, ...]) -> None:
    """Student's t over groups, written out: n >= 5 groups of one sample each."""
    (losses,) = generative_losses(
        loaded.model, loaded.processor, [replace(s, image=None, audio=None) for s in held_out]
    )
    change = generative_change([losses], [losses])[0]
    n = len(losses.values)
    half = stats.t.ppf(0.975, n - 1) * losses.values.std(ddof=1) / n**0.5
    for interval in (change.before_interval, change.after_interval):
        assert interval is not None
        assert (interval.low + interval.high) / 2 == pytest.approx(change.before)
        assert (interval.high - interval.low) / 2 == pytest.approx(half)
