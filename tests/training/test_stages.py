"""Training, merging and averaging as the command line runs them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from geomkit import places, stages, summary
from geomkit.errors import TrainingError
from geomkit.progress import silent
from geomkit.training.pairs import TextPair
from geomkit.types import Sample

QUICK: dict[str, Any] = {
    "preset": "sandbox",
    "rank": 4,
    "steps": 2,
    "batch": 6,
    "mini_batch": 6,
    "warmup_steps": 0,
}


@pytest.fixture(scope="module")
def files(
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, str]:
    """A file of pairs, and a manifest of six pictures with texts."""
    folder = tmp_path_factory.mktemp("files")
    texts = folder / "pairs.jsonl"
    texts.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in pairs))
    rows = []
    for k in range(6):
        held_out[k % 3].image.save(folder / f"{k}.png")
        rows.append({"id": str(k), "image": f"{k}.png", "text": f"{held_out[k % 3].text} {k}"})
    shown = folder / "shown.jsonl"
    shown.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(texts), str(shown)


def test_train_merge_and_soup(base: Path, files: tuple[str, str], tmp_path: Path) -> None:
    texts, shown = files
    for name, more in (("a", {}), ("b", {"mix": shown, "seed": 1})):
        record = stages.train(
            str(base), texts, tmp_path / name, silent, probe_set=shown, **QUICK, **more
        )
        assert {g.modality for g in record.geometry} == {"text", "image", "text-image"}
        assert record.media["image"] == (6 if more else 0)
        lines = list(summary.training_lines(record))
        assert ("media-text" in lines[0]) is bool(more)
        assert summary.result_of(record) == "adapter"
    averaged = stages.soup([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "soup")
    assert (averaged.parts, averaged.rank) == (("a", "b"), 8)
    assert "rank 8, the sum of theirs" in next(iter(summary.soup_lines(averaged)))
    merged = stages.merge(tmp_path / "soup", str(base), tmp_path / "merged", shown)
    assert [(c.modality, c.n) for c in merged.generation] == [("text", 6), ("image", 6)]
    told = "\n".join(summary.merge_lines(merged))
    assert "generative loss, image" in told
    assert "said to text 0" in told


def test_clip_takes_samples_and_full_leaves_a_checkpoint(
    base: Path, files: tuple[str, str], tmp_path: Path
) -> None:
    texts, shown = files
    clip = stages.train(str(base), shown, tmp_path / "c", silent, method="clip", **QUICK)
    assert clip.trained == ("text", "image")
    full = stages.train(str(base), texts, tmp_path / "f", silent, method="full", **QUICK)
    assert summary.result_of(full) == "checkpoint"
    with pytest.raises(TrainingError, match="media column"):
        stages.train(str(base), shown, tmp_path / "x", silent, **QUICK)


def test_a_base_is_where_the_adapter_says_seen_from_its_folder(
    base: Path, files: tuple[str, str], tmp_path: Path
) -> None:
    stages.train(str(base), files[0], tmp_path / "a", silent, **QUICK)
    shutil.copytree(base, tmp_path / "model")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../model"
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    assert stages.merge(tmp_path / "a", "", tmp_path / "merged").base == "../model"
    stages.soup([str(tmp_path / "a")] * 2, tmp_path / "deep" / "soup")
    assert stages.merge(tmp_path / "deep" / "soup", "", tmp_path / "merged-soup").merged == 14
    with pytest.raises(TrainingError, match=r"full model as the base, .* is an adapter"):
        stages.merge(tmp_path / "a", str(tmp_path / "a"), tmp_path / "x")


def test_a_built_in_adapter_is_merged_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stages.merge(Path("lco"), "", tmp_path / "merged").adapter == "lco"


def test_a_model_of_the_hub_is_named_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else only the files that are read would be fetched, and the others not copied."""
    place = places.Place("/cache/model", "org/model (hub)", "abc", repo="org/model")
    adapter = places.Place("/here/lora", "lora (folder)", base=place)
    monkeypatch.setattr(places, "locate", {"org/model": place, "lora": adapter}.__getitem__)
    assert stages._path("org/model") == stages._path("lora", of_base=True) == "org/model@abc"
    assert stages._path("lora") == "/here/lora"
