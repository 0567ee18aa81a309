"""Records as columns and back: nothing is lost, and nothing is told twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from reports import payload
from reports.columns import column, packed_columns, unpacked_columns
from reports.page import ANALYSIS
from tests.reports import fixture

WHOLE = ANALYSIS.dump_python(fixture.complete(), mode="json")
TABLES = [name for name, value in WHOLE.items() if value and isinstance(value, list | tuple)
          and isinstance(value[0], dict)]  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_records_come_back(name: str) -> None:
    records = json.loads(json.dumps(WHOLE[name]))
    assert unpacked_columns(json.loads(json.dumps(packed_columns(records)))) == records


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"a": None}],
        [{"a": {"b": 1.5}}, {"a": None}],
        [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}],
        [{"a": [1, 2]}, {"a": [1, 2]}, {"a": [1, 2]}],
    ],
    ids=["none", "empty", "inside", "alike", "lists"],
)
def test_odd_records_come_back(records: list[dict[str, Any]]) -> None:
    again = unpacked_columns(json.loads(json.dumps(packed_columns(records))))
    assert json.dumps(again) == json.dumps(records)


def test_columns_are_short() -> None:
    assert column(["a"] * 9) == {"is": "a"}
    assert column(["a"] * 4 + ["b"] * 5) == {"words": ["a", "b"], "runs": [0, 4, 1, 5]}
    assert column([0.1, 0.2, 0.3]) == [0.1, 0.2, 0.3]
    told = payload.told(WHOLE["measurements"])
    assert len(payload.packed(payload.strict_json(packed_columns(told)).encode())) < 0.8 * len(
        payload.packed(payload.strict_json(told).encode())
    )


def test_intervals_are_told_by_their_lower_end() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400) * 10.0 ** rng.integers(-4, 5, 400)
    halves = np.abs(values) * rng.random(400)
    records = payload.told(
        [
            {"value": v, "interval": {"low": v - h, "high": v + h * (1 if i % 5 else 1.5)}}
            for i, (v, h) in enumerate(zip(values.tolist(), halves.tolist(), strict=True))
        ]
        + [{"value": None, "interval": None}, {"value": 100.25, "interval": TIE}]
    )
    packed = json.loads(json.dumps(packed_columns(records)))
    told = packed["columns"]["interval.high"]
    assert set(told["steps"]) == set("=+-x.")
    assert 80 <= len(told["rest"]) < 200  # every fifth, the tie, and what two roundings moved
    assert unpacked_columns(packed) == records


TIE = {"low": 99.9375, "high": 100.562}
