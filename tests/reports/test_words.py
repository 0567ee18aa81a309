"""Number formats and names."""

from __future__ import annotations

import pytest

from geomkit.types import Interval
from reports import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.87312, "0.873"),
        (-0.0412, "\u22120.0412"),
        (12.345, "12.3"),
        (9.996, "10.0"),
        (0.9996, "1.00"),
        (128.0, "128"),
        (1234.5, "1,234"),
        (0.0, "0"),
        (-0.0, "0"),
        (240, "240"),
        (11520, "11,520"),
        (3.1e-7, "3.10\u00d710\u207b\u2077"),
        (-2.5e9, "\u22122.50\u00d710\u2079"),
        (None, "\u2013"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_value_and_interval_share_decimals() -> None:
    assert (
        words.with_interval(-0.312, Interval(-0.33, -0.294))
        == "\u22120.312 [\u22120.330, \u22120.294]"
    )
    assert (
        words.with_interval(-0.00412, Interval(-0.0203, 0.0121))
        == "\u22120.0041 [\u22120.0203, 0.0121]"
    )
    assert words.with_interval(18.9, Interval(9.71, 20.04)) == "18.9 [9.7, 20.0]"


def test_rounding_to_zero_has_no_sign() -> None:
    assert words.number(-0.0001, 2) == "0.00"


@pytest.mark.parametrize(
    ("modality", "family"),
    [
        ("text", "text"),
        ("image-text", "image"),
        ("text->audio", "audio"),
        ("audio-image", "image"),
        ("?", "text"),
    ],
)
def test_family_is_the_first_that_is_not_text(modality: str, family: str) -> None:
    assert words.family(modality) == family


def test_names() -> None:
    assert words.site_title("block_07") == "block 7"
    assert words.site_title("final_norm") == "final norm"
    assert words.metric_title("probe:tilt") == "Probe: tilt"
    assert words.metric_title("new_metric") == "New metric"
    assert words.modality_title("image->text") == "image \u2192 text"
    assert words.modality_title("image-text") == "image\u2013text"
    assert words.modality_title("my-model") == "my-model"
