"""Named sets of pairs, from small local files; what is left out is counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomkit.errors import TrainingError, UsageError
from geomkit.training import recipes
from geomkit.training.config import TrainConfig
from geomkit.training.media import load_media
from geomkit.training.pairs import PairSet, TextPair, load_pairs
from geomkit.training.recipes import RECIPES
from geomkit.training.trainer import train
from geomkit.types import Sample


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


NLI = [
    {"sent0": "a man", "sent1": "a person", "hard_neg": "a dog"},
    {"sent0": "a man", "sent1": "a person", "hard_neg": "a dog"},  # twice
    {"sent0": "", "sent1": "a person", "hard_neg": "a dog"},
    {"sent0": "a cat", "sent1": "an animal"},
    {"sent0": "a cat", "sent1": 3, "hard_neg": "b"},
    {"sent0": "two men", "sent1": "two people", "hard_neg": "two people"},
    {"premise": "a", "hypothesis": "b"},
    {"sent0": "a bus", "sent1": "a vehicle", "hard_neg": "a tree"},
]


def test_all_nli_reads_the_columns_of_its_authors_and_counts_the_rest(tmp_path: Path) -> None:
    file = lines(tmp_path / "nli.jsonl", NLI)
    found = load_pairs(f"all-nli:{file}")
    assert [p.anchor for p in found] == ["a man", "a bus"]
    assert found.dropped == {
        "duplicate": 1,
        "empty": 1,
        "missing column": 1,
        "negative equal to its pair": 1,
        "not text": 1,
        "without a negative": 1,
    }
    assert found.source == f"all-nli:{file}"


def test_all_nli_is_the_set_of_simcse_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(*given: str, **more: str) -> list[dict[str, Any]]:
        asked.append((*given, more["split"]))
        return [{"anchor": "a", "positive": "b", "negative": "c"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(load_pairs("all-nli")) == [TextPair("a", "b", "c")]
    assert asked == [("sentence-transformers/nli-for-simcse", "triplet", "train")]
    assert RECIPES["all-nli"].rows == 274_951

    def offline(*_: str, **__: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(TrainingError, match=r"no network.*all-nli:PATH"):
        load_pairs("all-nli")


def test_scale_draws_from_all_languages_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language, name in (("de", "non_english"), ("fr", "target")):
        first = "english" if name == "non_english" else "source"
        rows = [{first: f"{language} {k}", name: f"{language}' {k}"} for k in range(300)]
        lines(tmp_path / f"{language}.jsonl", rows)
    monkeypatch.setitem(recipes.RECIPES, "scale-1m", replace(RECIPES["scale-1m"], rows=200))
    found = load_pairs(f"scale-1m:{tmp_path}", seed=1)
    assert len(found) == len(set(found)) == 200
    assert found.dropped == {"not drawn": 400}
    assert all(count > 70 for count in Counter(p.anchor[:2] for p in found).values())
    assert list(load_pairs(f"scale-1m:{tmp_path}", seed=1)) == list(found)
    assert list(load_pairs(f"scale-1m:{tmp_path}", seed=2)) != list(found)
    assert all(p.positive == p.anchor[:2] + "'" + p.anchor[2:] for p in found)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scale-1m", r"scale-1m:PATH"),
        ("multimodal-94k:x", "mix it in with --mix"),
        ("all-nli:nowhere", "found none"),
    ],
)
def test_what_a_recipe_needs_is_said(spec: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_pairs(spec)


def test_media_are_read_from_every_manifest_of_a_folder(
    tmp_path: Path, held_out: tuple[Sample, ...]
) -> None:
    for k, sample in enumerate(held_out[:3]):
        sample.image.save(tmp_path / f"{k}.png")
    shown = [{"id": str(k), "image": f"{k}.png", "text": f"page {k}"} for k in range(2)]
    lines(tmp_path / "documents.jsonl", shown)
    lines(tmp_path / "coco.jsonl", [{"id": "0", "image": "2.png"}, {"id": "1", "text": "alone"}])
    found = load_media(f"multimodal-94k:{tmp_path}")
    assert [s.id for s in found] == ["documents/0", "documents/1"]
    assert found.dropped == {"without a medium": 1, "without a text": 1}
    with pytest.raises(TrainingError, match="multimodal-94k:PATH"):
        load_media("multimodal-94k")


def test_samples_are_mixed_in_and_on_record(
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    many = tuple(
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {k}", group="")
        for k in range(8)
        for s in held_out
    )
    rows = PairSet("rows", pairs, media=many)
    config = replace(quick, steps=12, batch=6, mini_batch=3)
    record = train(config, base, rows, tmp_path / "a")
    assert record.trained == ("text", "image", "audio")
    assert record.media == {"image": 24, "audio": 24, "video": 0}
    assert (record.pairs, record.frozen_before) == (60 + 48, record.frozen_after)
    plain = train(config, base, pairs, tmp_path / "b")
    assert plain.adapter_sha != record.adapter_sha
    with pytest.raises(UsageError, match="got lora and shuffled pairs"):
        train(replace(config, shuffle_pairs=True), base, rows, tmp_path / "c")
    mute = PairSet("rows", pairs, media=(Sample("s", text="alone"),))
    with pytest.raises(TrainingError, match="mixed in, s lacks one"):
        train(config, base, mute, tmp_path / "c")


def test_texts_that_are_cut_are_counted(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    rows = (*pairs, TextPair("a red circle " * 50, "a blue one " * 50, "no", ""))
    assert train(quick, base, rows, tmp_path / "a").cut == 2
