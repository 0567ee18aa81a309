"""What two plans differ in, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from geomkit.plans import CaptureConfig, build_plan
from geomkit.store.unlike import unlike
from geomkit.types import Plan, Sample

SAMPLES = [Sample(id=str(i), text=f"text {i}", labels={"n": str(i)}) for i in range(6)]


def plan(samples: Any = SAMPLES, dataset: str = "mine", **given: Any) -> Plan:
    return build_plan(dataset, samples, CaptureConfig(**given))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (plan(dataset="yours"), "data yours instead of mine"),
        (plan(SAMPLES[:5]), "1 row is missing (the text of '5')"),
        (plan([*SAMPLES, Sample(id="x", text="y")]), "1 row is new (the text of 'x')"),
        (
            plan([replace(s, text=s.text + "!") for s in SAMPLES]),
            "6 rows are of other content (the text of '0', the text of '1', the text of '2', ...)",
        ),
        (plan([replace(s, labels={}) for s in SAMPLES]), "other labels, captions or groups"),
        (plan(poolings=("mean",)), "poolings mean instead of last, mean"),
        (plan(sites=("block_01",)), "sites block_01 instead of all"),
        (plan(store_dtype="bfloat16"), "store_dtype bfloat16 instead of float32"),
        (plan(text_tokens=9), "options --text-tokens 9 instead of by default"),
        (plan(tokens=True), "options --tokens instead of by default"),
        (plan(prompt="e5v"), "the prompt of text is"),
        (replace(plan(), batches=((0, 1, 2, 3, 4), (5,))), "other batches of the same rows"),
        (replace(plan(), schema="geomkit-plan/0"), "another version of the plan's format"),
    ],
)
def test_a_difference_is_named(asked: Plan, said: str) -> None:
    assert said in unlike(plan(), asked)


def test_every_field_of_a_plan_has_its_words() -> None:
    """A field that is added to the plan must not fall through to the last resort."""
    changed: dict[str, Any] = {
        "dataset": "d",
        "rows": (),
        "prompts": {"text": "p"},
        "poolings": ("mean",),
        "sites": ("embed",),
        "batches": (),
        "shard_batches": 99,
        "store_dtype": "bfloat16",
        "options": (("--x", "y"),),
    }
    for name in plan().__slots__:
        if name != "schema":
            other = replace(plan(), **{name: changed[name]})
            assert "format" not in unlike(plan(), other), name
