"""A soup does the mean of what its parts do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomkit.errors import CheckpointError, TrainingError
from geomkit.training.adapter import adapt, load_adapter, save_adapter
from geomkit.training.config import TrainConfig
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.rewriting import targets
from geomkit.training.soup import soup
from geomkit.training.trainer import train
from tests.training.loaded import load


def random_adapter(base: Path, out: Path, config: TrainConfig, seed: int) -> Path:
    """An adapter with branches that matter, without training."""
    torch.manual_seed(seed)
    adapted = adapt(load(base).model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    save_adapter(adapted, out, base=str(base))
    return out


def updates(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """Path of a layer -> what the adapter adds to it, as a merge has it."""
    return {t.path: t.update for t in targets(load_adapter(load(base).model, adapter))}


@pytest.fixture(scope="module")
def parts(
    base: Path, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """Three adapters of other ranks, scalings and targets."""
    folder = tmp_path_factory.mktemp("parts")
    return (
        random_adapter(base, folder / "a", quick, 1),
        random_adapter(base, folder / "b", replace(quick, rank=3, alpha=9.0), 2),
        random_adapter(base, folder / "c", replace(quick, targets=("q_proj", "o_proj")), 3),
    )


def test_the_update_is_the_mean_of_the_updates(
    parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    record = soup(parts, tmp_path / "soup")
    assert (record.kind, record.rank, record.parts) == ("adapters", 4 + 3 + 4, ("a", "b", "c"))
    each = [updates(base, part) for part in parts]
    found = updates(base, tmp_path / "soup")
    assert found.keys() == each[0].keys() != each[2].keys()
    for path, update in found.items():
        expected = sum(one.get(path, torch.zeros_like(update)) for one in each) / 3
        assert torch.allclose(update, expected, atol=1e-6)
        assert update.abs().max() > 1e-3


def test_the_mean_of_the_matrices_would_be_another_model(
    parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    """What this is not: mean(B) mean(A)."""
    soup([parts[0], parts[0]], tmp_path / "same")
    assert all(
        torch.allclose(update, updates(base, parts[0])[path], atol=1e-6)
        for path, update in updates(base, tmp_path / "same").items()
    )
    turned = Path(shutil.copytree(parts[0], tmp_path / "turned"))
    state = load_file(turned / "adapter_model.safetensors")
    save_file(  # (-B)(-A) = BA: the same adapter, and with the first the mean of the A is zero
        {name: -tensor for name, tensor in state.items()}, turned / "adapter_model.safetensors"
    )
    soup([parts[0], turned], tmp_path / "soup")
    for path, update in updates(base, tmp_path / "soup").items():
        assert torch.allclose(update, updates(base, parts[0])[path], atol=1e-6)


def test_a_soup_merges_like_any_adapter(
    parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    soup(parts, tmp_path / "soup")
    assert merge(tmp_path / "soup", base, tmp_path / "merged").merged == 14


def test_adapters_and_their_merged_checkpoints_give_one_soup(
    parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    soup(parts[:2], tmp_path / "soup")
    merge(tmp_path / "soup", base, tmp_path / "merged-soup")
    merged = [tmp_path / f"merged-{part.name}" for part in parts[:2]]
    for part, folder in zip(parts[:2], merged, strict=True):
        merge(part, base, folder)
    record = soup(merged, tmp_path / "soup-of-merged")
    one, other = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("merged-soup", "soup-of-merged")
    )
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[n], other[n], atol=1e-6) for n in one)
    assert (record.kind, record.averaged, record.tensors) == ("checkpoints", 14, len(one))
    frozen = load_file(base / "model.safetensors")
    assert sum(torch.equal(frozen[n], other[n]) for n in other) == len(other) - 14
    assert not (tmp_path / "soup-of-merged" / "merge.json").exists()  # it is about another model


def test_projections_are_averaged(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    made = []
    for seed in (1, 2):
        made.append(tmp_path / str(seed))
        config = replace(quick, method="linear", seed=seed)
        train(config, base, pairs, made[-1], source=str(base))
    assert soup(made, tmp_path / "soup").kind == "projections"
    one, two, mean = (
        load_file(folder / "adapter_model.safetensors")["projection.weight"]
        for folder in (*made, tmp_path / "soup")
    )
    assert torch.allclose(mean, (one + two) / 2)
    written = json.loads((tmp_path / "soup" / "training.json").read_text())
    assert written["trained"] == ["text"]
    assert written["media"] == {"audio": 0, "image": 0, "video": 0}
    assert set(written["frozen_before"]) >= {"decoder", "head"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": "other"}, "base_model_name_or_path differ"),
        ({"rank_pattern": {"q_proj": 2}}, "one rank for all layers of b"),
    ],
)
def test_parts_that_do_not_go_together(
    change: dict[str, Any], message: str, parts: tuple[Path, ...], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(parts[1], tmp_path / "b"))
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(TrainingError, match=message):
        soup([parts[0], own], tmp_path / "soup")


def test_adapters_that_say_they_have_other_bases(parts: tuple[Path, ...], tmp_path: Path) -> None:
    own = [Path(shutil.copytree(part, tmp_path / part.name)) for part in parts[:2]]
    for k, part in enumerate(own):
        (part / "training.json").write_text(json.dumps({"frozen_before": {"head": str(k)}}))
    with pytest.raises(TrainingError, match="one base, their head differ"):
        soup(own, tmp_path / "soup")


def test_what_cannot_be_a_soup(parts: tuple[Path, ...], base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="two or more"):
        soup(parts[:1], tmp_path / "soup")
    with pytest.raises(TrainingError, match="one kind, got adapters and checkpoints"):
        soup([parts[0], base], tmp_path / "soup")
    with pytest.raises(TrainingError, match="new or empty"):
        soup(parts, base)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(TrainingError, match="found no weights"):
        soup([parts[0], tmp_path / "nothing"], tmp_path / "soup")
    own = Path(shutil.copytree(parts[1], tmp_path / "dora"))
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(CheckpointError, match="DoRA"):
        soup([parts[0], own], tmp_path / "soup")


def test_checkpoints_of_other_shapes(base: Path, own_base: Path, tmp_path: Path) -> None:
    file = own_base / "model.safetensors"
    content = load_file(file)
    save_file({**content, "more": torch.ones(1)}, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"differ in 1 weights \(first: more\)"):
        soup([base, own_base], tmp_path / "soup")
    name = next(n for n in content if "up_proj" in n)
    content[name] = content[name].half()
    save_file(content, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"one float type.*float16"):
        soup([base, own_base], tmp_path / "soup2")
