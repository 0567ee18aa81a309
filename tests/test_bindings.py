from __future__ import annotations

from types import SimpleNamespace

import pytest

from geomkit import summary
from geomkit.bindings import judged
from geomkit.types import Binding, Drift, Interval


def record(modality, quantity, predictor, value, half=0.05):
    span = None if value is None else Interval(value - half, value + half)
    note = "Expected more." if value is None else ""
    return Binding(
        "base", "lco", "final_norm", modality, quantity, predictor, value, span, 80, 80, note
    )


def word(*, mapped, own, better, centred=0.0, own_centred=0.8, text=0.5):
    """The word for images; `better` is text minus shift."""
    cells = [
        record("text", "r2", "text", text),
        record("image", "r2", "text", mapped),
        record("image", "r2", "own", own),
        record("image", "r2", "shift", None if mapped is None else mapped - better),
        record("image", "r2", "text-shift", better),
        record("image", "r2_centred", "text", centred),
        record("image", "r2_centred", "own", own_centred),
    ]
    [found] = judged(cells)
    assert found.word in found.sentence
    return found.word


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mapped": 0.6, "own": 0.8, "better": 0.3}, "holds"),
        ({"mapped": 0.4, "own": 0.8, "better": 0.3}, "holds"),  # half is enough
        ({"mapped": 0.39, "own": 0.8, "better": 0.3}, "holds in part"),
        ({"mapped": 0.6, "own": 0.8, "better": 0.04}, "does not hold"),  # a shift does as well
        ({"mapped": 0.04, "own": 0.8, "better": 0.3}, "does not hold"),  # not above its own mean
        ({"mapped": -2.0, "own": 0.8, "better": 0.3}, "does not hold"),
        ({"mapped": -2.0, "own": 0.8, "better": -0.3, "centred": 0.4}, "holds in part"),
        ({"mapped": -2.0, "own": 0.8, "better": -0.3, "centred": 0.39}, "does not hold"),
        ({"mapped": 0.6, "own": 0.04, "better": 0.3}, "cannot be told"),  # nothing to be bound
        ({"mapped": 0.6, "own": 0.8, "better": 0.3, "text": 0.04}, "cannot be told"),
        ({"mapped": None, "own": 0.8, "better": 0.3}, "cannot be told"),
        ({"mapped": 0.6, "own": None, "better": 0.3}, "cannot be told"),
    ],
)
def test_the_rule_is_what_it_says(given, expected):
    assert word(**given) == expected


def test_text_is_not_judged_and_every_later_checkpoint_is():
    one = [record("text", "r2", "text", 0.5), record("image", "r2", "own", None)]
    assert [b.modality for b in judged([*one, record("image", "r2", "text", 0.1)])] == ["image"]
    assert list(judged([])) == []


def test_a_terminal_gets_the_last_checkpoint_only():
    cells = [record("text", "r2", "text", 0.5), record("image", "r2", "own", None)]
    cells.append(record("image", "r2", "text", 0.1))
    drifts = [
        Drift(metric, "base", "lco", "final_norm", "image", 0.95, Interval(0.93, 0.97), 0.0, 80)
        for metric in ("drift_cka", "drift_overlap", "drift_angle")
    ]
    shown = SimpleNamespace(checkpoints=("base", "lco"), bindings=cells, drifts=drifts)
    bound, moved = summary.binding_lines(shown)
    assert bound.startswith("Binding of image to text cannot be told at final_norm")
    assert moved.startswith("Drift of image at final_norm, base to lco")
    shown.checkpoints = ("base", "lco", "later")
    assert list(summary.binding_lines(shown)) == []
