"""Samples to train on: what is counted, what is refused, and that nothing asked for is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geomkit import stages, summary
from geomkit.errors import TrainingError, UsageError
from geomkit.progress import silent
from geomkit.training.config import TrainConfig
from geomkit.training.media import MediaSet, load_media, visible
from geomkit.training.pairs import PairSet, TextPair
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.tiny_models import saved
from tests.training.loaded import load

QUICK: dict[str, Any] = {
    "preset": "sandbox",
    "rank": 2,
    "steps": 1,
    "batch": 4,
    "mini_batch": 4,
    "warmup_steps": 0,
    "geometry_every": 0,
}


@pytest.fixture
def manifest(held_out: tuple[Sample, ...], tmp_path: Path) -> Callable[[str, int], str]:
    """A manifest of so many pictures, and rows that cannot be trained on."""

    def write(name: str, count: int) -> str:
        rows: list[dict[str, str]] = []
        for k in range(count):
            held_out[k % 3].image.save(tmp_path / f"{name}-{k}.png")
            rows.append({"id": f"{k}", "image": f"{name}-{k}.png", "text": f"{name} {k}"})
        whole = (tmp_path / f"{name}-0.png").read_bytes()
        (tmp_path / "broken.png").write_bytes(whole[: len(whole) // 2])
        rows += [
            {"id": "mute", "image": f"{name}-0.png"},
            {"id": "bare", "text": "a text alone"},
            {"id": "cut", "image": "broken.png", "text": "half a picture"},
            {"id": "gone", "image": "nowhere.png", "text": "no picture"},
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_clip_counts_what_it_leaves_out_and_takes_what_is_mixed_in(
    base: Path, manifest: Callable[[str, int], str], tmp_path: Path
) -> None:
    first, second = manifest("first", 5), manifest("second", 6)
    given = {**QUICK, "mix": second, "method": "clip", "geometry_every": 1}
    record = stages.train(str(base), first, tmp_path / "a", silent, **given)
    assert (record.pairs, record.media["image"]) == (11, 11)
    assert record.source == f"{first} + {second}"
    assert {k.partition(" (")[0]: n for k, n in record.dropped.items()} == {
        "without a text": 2,
        "without a medium": 2,
        "whose medium cannot be decoded": 4,
    }
    told = "\n".join(summary.training_lines(record))
    assert "left out: 4 whose medium cannot be decoded (the first is cut: image cannot be" in told


def test_what_is_mixed_beside_texts_is_counted_too(
    base: Path, pairs: tuple[TextPair, ...], manifest: Callable[[str, int], str], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    rows = [{"anchor": p.anchor, "positive": p.positive} for p in pairs]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixture = manifest("first", 5)
    record = stages.train(str(base), str(texts), tmp_path / "a", silent, mix=mixture, **QUICK)
    assert record.media["image"] == 5
    assert record.dropped[f"without a text in {mixture}"] == 1
    assert record.dropped[f"without a medium in {mixture}"] == 1
    assert sum(n for reason, n in record.dropped.items() if "decoded" in reason) == 2


def test_a_count_of_scenes_is_what_comes() -> None:
    found = load_media("sandbox:7")
    assert [s.id[:5] for s in found] == ["image"] * 3 + ["audio"] * 4
    assert len(load_media("sandbox")) == 560
    for odd in ("sandbox:1", "sandbox:many", "sandbox:test", "sandbox:900000"):
        with pytest.raises(UsageError, match="sandbox:<count>"):
            load_media(odd)


def test_scenes_of_a_count_are_trained_on(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    record = stages.train(str(base), "sandbox:9", out, silent, method="clip", **QUICK)
    assert record.pairs == 9


def test_a_medium_that_fills_no_batch_is_refused(
    base: Path, pairs: tuple[TextPair, ...], held_out: tuple[Sample, ...], quick: TrainConfig,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The library would leave it out without a word, and the record would say it was trained on."""
    rows = PairSet("rows", pairs, media=held_out)
    with pytest.raises(TrainingError, match="8 samples of a medium to fill one batch, got 3 of"):
        train(quick, base, rows, tmp_path / "a")


def test_a_medium_that_the_model_does_not_read_is_counted(held_out: tuple[Sample, ...]) -> None:
    processor = load(saved("qwen2_5_vl")).processor
    both = replace(held_out[0], id="both", audio=held_out[3].audio)
    found = visible(MediaSet("", (*held_out, both), {"without a text": 1}), processor)
    assert [s.id for s in found] == ["image-0", "image-1", "image-2", "both"]
    assert found[3].audio is None
    assert found.dropped == {
        "without a text": 1,
        "with audio alone, which the model does not read": 3,
    }


def test_a_sound_too_short_for_a_token_is_left_out(held_out: tuple[Sample, ...]) -> None:
    processor = load(saved("qwen2_audio")).processor
    sound = held_out[3].audio
    blip = replace(held_out[3], id="blip", audio=replace(sound, samples=sound.samples[:40]))
    found = visible(MediaSet("", (held_out[3], blip)), processor)
    assert [s.id for s in found] == ["audio-0"]
    assert [k[:50] for k in found.dropped] == ["whose medium cannot be decoded (the first is blip:"]


def test_no_usable_sample_is_refused_with_the_reasons(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"id": "0", "image": "a.png"}, {"id": "1", "text": "a"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TrainingError, match=r"found none \(1 without a medium, 1 without a text\)"):
        load_media(str(tmp_path / "m.jsonl"))
