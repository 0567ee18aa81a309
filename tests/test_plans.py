"""Plans: samples to rows and batches, and the options that a plan can tell of itself."""

from __future__ import annotations

from typing import Any

import pytest

from geomkit.plans import CaptureConfig, build_plan, plan_options
from geomkit.types import Sample

SAMPLES = [Sample(id=str(i), text=f"text {i}", image=f"{i}.png") for i in range(9)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": "e5v"},
        {"prompt": "none"},
        {"prompt": "Name the {modality}:\\nin a word"},
        {"prompt": "the same for all"},
        {"sites": ("block_02", "final_norm")},
        {"poolings": ("mean",)},
        {"batch_size": 4},
        {"batch_size": 100},
        {"shard_batches": 3},
    ],
)
def test_the_options_of_a_plan_make_it_again(given: dict[str, Any]) -> None:
    plan = build_plan("mine", SAMPLES, CaptureConfig(**given))
    found = list(plan_options(plan))
    assert {name for name, _ in found} == {f"--{name.replace('_', '-')}" for name in given}
    again: dict[str, Any] = {}
    for name, value in found:
        field = name.removeprefix("--").replace("-", "_")
        if field in {"sites", "poolings"}:
            again[field] = (*again.get(field, ()), value)
        else:
            again[field] = int(value) if value.isdigit() else value
    assert build_plan("mine", SAMPLES, CaptureConfig(**again)).hash == plan.hash
