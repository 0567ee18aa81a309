"""Plans: samples to rows and batches, and the options that a plan can tell of itself."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geomkit.buckets import extent, grouped, within
from geomkit.errors import SampleError
from geomkit.plans import CaptureConfig, build_plan, content_sha, spread
from geomkit.types import Modality, Sample, Waveform

SAMPLES = [Sample(id=str(i), text=f"text {i}", image=f"{i}.png") for i in range(9)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": "e5v"},
        {"prompt": "Name the {modality}:\\nin a word"},
        {"sites": ("block_02", "final_norm")},
        {"poolings": ("mean",)},
        {"modalities": ["text"], "sites": ["block_02", "final_norm"]},  # as the command line has it
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


# ------------------------------------------------------------------------------------- limit

SILENCE = Waveform(np.zeros(10, np.float32), 8_000)
PICTURES = [Sample(id=f"i{n}", text="seen", image=f"{n}.png") for n in range(30)]
SOUNDS = [Sample(id=f"a{n}", text="heard", audio=SILENCE) for n in range(20)]


def shown(samples: list[Sample], **given: Any) -> list[tuple[str, str]]:
    plan = build_plan("mine", samples, CaptureConfig(**given))
    return [(row.id, row.modality) for row in plan.rows]


def test_a_limit_is_an_even_part_in_order() -> None:
    ids = [str(i * 9 // 4) for i in range(4)]
    assert shown(SAMPLES, limit=4, modalities=("text",)) == [(i, "text") for i in ids]
    assert len(shown(SAMPLES, limit=9)) == len(shown(SAMPLES, limit=99)) == len(shown(SAMPLES))


def test_a_limit_has_every_kind_in_proportion() -> None:
    rows = shown([*PICTURES, *SOUNDS], limit=10)
    assert [m for _, m in rows] == ["text"] * 10 + ["image"] * 6 + ["audio"] * 4
    assert [i for i, m in rows if m == "image"] == ["i0", "i5", "i10", "i15", "i20", "i25"]
    assert [i for i, m in rows if m == "audio"] == ["a0", "a5", "a10", "a15"]
    turns = [one for pair in zip(PICTURES, SOUNDS, strict=False) for one in pair]
    medium = [m for _, m in shown(turns, limit=10) if m != "text"]
    assert medium == ["image"] * 5 + ["audio"] * 5  # every fourth of all is an image
    assert shown([*PICTURES, *SOUNDS[:1]], limit=2) == [
        ("i0", "text"), ("a0", "text"), ("i0", "image"), ("a0", "audio"),
    ]  # fmt: skip
    assert shown([*SOUNDS[:1], *PICTURES], limit=1)[1:] == [("i0", "image")]  # the commonest


def test_a_limit_counts_what_was_asked_for() -> None:
    rows = shown([*PICTURES, *SOUNDS], limit=5, modalities=("audio",))
    assert rows == [(f"a{i * 4}", "audio") for i in range(5)]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 49, 50, 51])
def test_a_limit_is_kept_whatever_the_kinds(limit: int) -> None:
    draw = np.random.default_rng(limit)
    some: list[tuple[Modality, ...]] = [(), ("text",), ("text", "image"), ("audio",)]
    kinds = [some[i] for i in draw.choice(4, 60, p=[0.2, 0.6, 0.18, 0.02])]
    able = [i for i, kind in enumerate(kinds) if kind]
    found = spread(kinds, limit)
    assert found == sorted(set(found))
    assert set(found) <= set(able)
    assert len(found) == min(limit, len(able))
    there = {kinds[i] for i in able}
    assert len({kinds[i] for i in found}) == min(limit, len(there))


def test_what_the_data_has_is_said_when_nothing_matches() -> None:
    had = "samples with audio, got 9 with text, 9 with image"
    with pytest.raises(SampleError, match=had):
        build_plan("mine", SAMPLES, CaptureConfig(modalities=("audio",)))
    with pytest.raises(SampleError, match="got none"):
        build_plan("mine", [], CaptureConfig())


# ------------------------------------------------------------------------------------- hashes


def painted(*colour: int, **more: Any) -> Image.Image:
    image = Image.new("P", (56, 28), **more)
    image.putpalette(bytes(colour) * 256)
    return image


def test_images_in_memory_that_are_seen_alike_or_not_hash_so() -> None:
    red, blue = painted(255, 0, 0), painted(0, 0, 255)
    assert content_sha(red) == content_sha(painted(255, 0, 0))
    assert content_sha(red) != content_sha(blue)
    clear = red.copy()
    clear.info["transparency"] = 0
    assert content_sha(clear) != content_sha(red)
    noise = np.random.default_rng(0).integers(0, 256, (28, 56, 3), dtype=np.uint8)
    flat = Image.fromarray(noise)
    turned = flat.copy()
    turned.getexif()[0x112] = 6
    assert content_sha(turned) != content_sha(flat)
    square = Image.new("L", (9, 9), 7)
    assert content_sha(square) != content_sha(square.convert("RGB"))
    damaged = Image.new("L", (9, 9))
    damaged.info["exif"] = b"garbage"
    assert content_sha(damaged) == ""  # nor can it be shown
    plain = hashlib.sha256(b"RGB (56, 28) " + noise.tobytes()).hexdigest()
    assert content_sha(flat) == plain  # as plans have it that were written before


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


def test_a_row_that_cannot_be_shown_does_not_lift_the_budget() -> None:
    lengths = {0: 0, 1: 0, 2: 50, 3: 40, 4: 30}
    assert within(((0, 1, 2, 3, 4),), 100, lengths.__getitem__) == ((0, 1), (2, 3), (4,))


def test_lengths_are_read_from_headers(tmp_path: Any) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    assert extent(tmp_path / "a.png", "image") == extent(Image.new("L", (20, 30)), "image") == 600
    assert extent(Waveform(np.zeros(8_000, np.float32), 16_000), "audio") == 500
    assert extent("four", "text") == 4
    assert extent("\N{PILE OF POO}" * 3, "text") > extent("plain text", "text")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])  # the header is enough
    assert extent(tmp_path / "cut.png", "image") == 600
    assert extent(tmp_path / "absent.png", "image") == extent(tmp_path / "a.png", "audio") == 0
