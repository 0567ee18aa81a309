"""Plans: samples to rows and batches, and the options that a plan can tell of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from geomkit.buckets import extent, grouped, within
from geomkit.plans import CaptureConfig, build_plan
from geomkit.types import Sample, Waveform

SAMPLES = [Sample(id=str(i), text=f"text {i}", image=f"{i}.png") for i in range(9)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": "e5v"},
        {"prompt": "Name the {modality}:\\nin a word"},
        {"sites": ("block_02", "final_norm")},
        {"poolings": ("mean",)},
        {"batch_size": 4},
        {"batch_tokens": 100},
        {"shard_batches": 3},
        {"limit": 3},
        {"modalities": ("text",)},
        {"text_tokens": 20},
        {"max_pixels": 1000},
        {"store_dtype": "bfloat16"},
        {"tokens": True},
    ],
)
def test_the_options_of_a_plan_make_it_again(given: dict[str, Any]) -> None:
    plan = build_plan("mine", SAMPLES, CaptureConfig(**given))
    assert {name for name, _ in plan.options} == {f"--{name.replace('_', '-')}" for name in given}
    again: dict[str, Any] = {}
    for name, value in plan.options:
        field = name.removeprefix("--").replace("-", "_")
        if field in {"sites", "poolings", "modalities"}:
            again[field] = (*again.get(field, ()), value)
        elif field == "tokens":
            again[field] = True
        else:
            again[field] = int(value) if value.isdigit() else value
    assert build_plan("mine", SAMPLES, CaptureConfig(**again)).hash == plan.hash


def test_options_that_shape_nothing_leave_the_plan_alone() -> None:
    plain = build_plan("mine", SAMPLES, CaptureConfig())
    other = CaptureConfig(dtype="bfloat16", strict=True, one_by_one=True, gate=False, previews=True)
    assert build_plan("mine", SAMPLES, other).hash == plain.hash


# ----------------------------------------------------------------------------------- batches


def test_rows_of_like_length_share_a_batch_and_the_longest_go_first() -> None:
    texts = ["a" * n for n in (5, 90, 7, 80, 6, 95)]
    samples = [Sample(id=str(i), text=text) for i, text in enumerate(texts)]
    plan = build_plan("mine", samples, CaptureConfig(batch_size=3))
    assert plan.batches == ((5, 1, 3), (2, 4, 0))
    assert sorted(i for batch in plan.batches for i in batch) == list(range(6))


def test_a_batch_has_one_modality_and_equal_lengths_keep_their_order() -> None:
    plan = build_plan("mine", SAMPLES, CaptureConfig(batch_size=4))
    assert plan.batches == (
        (0, 1, 2, 3),
        (4, 5, 6, 7),
        (8,),
        (9, 10, 11, 12),
        (13, 14, 15, 16),
        (17,),
    )
    assert grouped((), (), 3) == ()


def test_a_budget_of_tokens_cuts_batches_of_long_rows_only() -> None:
    lengths = {0: 50, 1: 40, 2: 30, 3: 10, 4: 9}
    asked: list[int] = []

    def tokens(index: int) -> int:
        asked.append(index)
        return lengths[index]

    assert within(((0, 1, 2), (3, 4)), 100, tokens) == ((0, 1), (2,), (3, 4))
    assert asked == [0, 3]  # a batch's longest row alone is measured
    assert within(((0, 1),), 10, tokens) == ((0,), (1,))  # one row is the least there is
    assert within(((0, 1),), 10, lambda _: 0) == ((0, 1),)  # rows that cannot be shown


def test_lengths_are_read_from_headers(tmp_path: Any) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    assert extent(tmp_path / "a.png", "image") == extent(Image.new("L", (20, 30)), "image") == 600
    assert extent(Waveform(np.zeros(8_000, np.float32), 16_000), "audio") == 500
    assert extent("four", "text") == 4
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])  # the header is enough
    assert extent(tmp_path / "cut.png", "image") == 600
    assert extent(tmp_path / "absent.png", "image") == extent(tmp_path / "a.png", "audio") == 0
