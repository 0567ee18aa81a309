"""What is odd about a recipe or its pairs is said, or refused where nothing could come of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geomkit.errors import TrainingError, UsageError
from geomkit.training.columns import dataset, media_datasets
from geomkit.training.config import TrainConfig
from geomkit.training.doubts import doubts
from geomkit.training.loss import false_negatives
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.live import seen
from tests.training.loaded import load


def kinds(base: Path, config: TrainConfig, pairs: Any, *, steps: int = 3) -> list[str]:
    return [n.kind for n in doubts(config, pairs, load(base).processor, (), steps)]


def test_an_honest_training_has_none(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig
) -> None:
    assert kinds(base, quick, pairs) == []


def test_what_may_have_been_meant_otherwise_is_told(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig
) -> None:
    own = [replace(p, positive=p.anchor) if k < 3 else p for k, p in enumerate(pairs)]
    assert kinds(base, quick, own) == ["pairs"]  # 3 of 60 are 5 per cent
    unknown = [TextPair(f"xi{k}", f"zhe{k}") for k in range(20)]
    assert kinds(base, quick, unknown) == ["tokens"]
    assert kinds(base, replace(quick, max_tokens=2), pairs) == ["tokens"]
    assert kinds(base, replace(quick, warmup_steps=3), pairs) == ["warmup"]
    assert kinds(base, replace(quick, warmup_steps=3), pairs, steps=4) == []


def test_it_stands_in_the_record(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    record = train(replace(quick, warmup_steps=9), base, pairs, tmp_path / "a")
    (notice,) = record.notices
    assert notice.message.startswith("the warm-up of 9 steps was not over after 3")


def test_texts_that_are_cut_to_the_same_are_no_negatives_of_each_other(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """What is cut off makes no difference to the model, so telling them apart cannot be learned."""
    long = [replace(p, anchor=f"a red circle on the left {p.anchor}", group="") for p in pairs]
    found = {}
    for limit in (6, 100):
        with seen() as live:
            train(replace(quick, max_tokens=limit, steps=1), base, long, tmp_path / str(limit))
        labels = live.inputs[0]["label"]
        found[limit] = len(set(labels[:, 1].tolist()))
        whole = false_negatives(labels, torch.arange(8))
        assert bool(whole.any()) is (limit == 6)
    assert found == {6: 1, 100: 8}


def test_codes_are_of_what_is_read_and_of_whole_names_of_media(
    held_out: tuple[Sample, ...],
) -> None:
    rows = [TextPair("ab", "c"), TextPair("ax", "d")]
    codes = dataset(rows, mask_equal=True, read=lambda text: text[:1])["label"]
    assert codes[0][1] == codes[1][1]
    whole = dataset(rows, mask_equal=True)["label"]
    assert whole[0][1] != whole[1][1]
    shown = media_datasets(held_out, mask_equal=True, read=lambda text: text[:1])["image"]["label"]
    assert len({row[1] for row in shown}) == 3


def test_pairs_of_one_group_are_refused(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    one = [replace(pair, group="x", negative=None) for pair in pairs]
    with pytest.raises(TrainingError, match="all are of the group 'x'"):
        train(quick, base, one, tmp_path / "a")
    assert train(replace(quick, mask_equal=False, steps=1), base, one, tmp_path / "b").steps


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 2.5), ("steps", "3"), ("qlora", 1), ("learning_rate", "1e-3"), ("batch", True)],
)
def test_a_value_of_another_kind_is_refused(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"Expected {field} of type"):
        TrainConfig.of("sandbox", **{field: value})


def test_a_whole_number_will_do_for_another() -> None:
    assert TrainConfig.of("sandbox", alpha=32, epochs=1).alpha == 32
