"""Patterns over sites: what they choose, what is refused before any decoder is there, in words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from geomkit.errors import UsageError
from geomkit.sites import check_pattern, described, select

NAMES = ("embed", "block_00", "block_01", "block_02", "final_norm")


def blocks(*numbers: int) -> tuple[str, ...]:
    return tuple(f"block_{number:02d}" for number in numbers)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["block_00..block_01"], ("block_00", "block_01")),
        (["embed..block_00", "final_norm"], ("embed", "block_00", "final_norm")),
        (["embed..final_norm"], NAMES),
        (["final_norm", "embed"], ("embed", "final_norm")),
        (["every:2"], ("embed", "block_00", "block_02", "final_norm")),
        (["every:9"], ("embed", "block_02", "final_norm")),
        (["every:1"], NAMES),
        ([], NAMES),
    ],
)
def test_sites_are_chosen_by_name_range_and_step(wanted: list[str], expected: Any) -> None:
    assert select(NAMES, wanted) == expected
    for pattern in wanted:
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ("block_00..block_07", "'block_07'; near names: block_0[012], block_0[012], block_0[012]"),
        ("block_0", "'block_0'; near names: block_02, block_01, block_00."),
    ],
)
def test_a_site_of_another_decoder_is_refused_by_this_one(wanted: str, match: str) -> None:
    check_pattern(wanted)
    with pytest.raises(UsageError, match=match):
        select(NAMES, [wanted])


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ("every:0", "N of at least 1, got 'every:0'"),
        ("every:x", "every:N"),
        ("every:", "every:N"),
        ("every:\N{SUPERSCRIPT TWO}", "every:N"),
        ("block_02..block_00", "forward order"),
        ("final_norm..embed", "forward order"),
        ("block_00..embed", "forward order"),
        ("norm", "Expected sites as embed, .* got 'norm'"),
        ("block_01..", "Expected sites as"),
        ("block_01...block_02", "Expected sites as"),
        ("embed,final_norm", "Expected sites as"),
        ("", "Expected sites as"),
    ],
)
def test_a_pattern_of_no_decoder_is_refused_without_one(wanted: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        check_pattern(wanted)
    with pytest.raises(UsageError, match=match):
        select(NAMES, [wanted])


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (("final_norm",), "final_norm"),
        (("embed", *blocks(1, 3), "final_norm"), "embed, block_01, block_03, final_norm"),
        (("embed", *blocks(*range(28)), "final_norm"), "embed, block_00 to block_27, final_norm"),
        (blocks(4, 5), "block_04, block_05"),
        (blocks(1, 4, 5, 6, 9), "block_01, block_04 to block_06, block_09"),
        (blocks(98, 99, 100), "block_98 to block_100"),
        (
            ("embed", *blocks(*range(1, 80, 2)), "final_norm"),
            "embed, block_01, block_03, block_05, block_07, block_09, ..., block_79, final_norm",
        ),
        ((), ""),
    ],
)
def test_sites_in_words(sites: tuple[str, ...], words: str) -> None:
    assert described(sites) == words


def test_patterns_need_no_torch() -> None:
    code = "import sys, geomkit.sites; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
