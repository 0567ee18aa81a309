"""The same code on other architectures: scope, training, loading at capture and merging."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geomkit.checkpoints import load_checkpoint
from geomkit.training.config import TrainConfig
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.scope import assert_scope, region_hashes, target_pattern
from geomkit.training.trainer import train
from tests.tiny_models import FAMILIES, LAYERS, adapter, qwen2_5_vl
from tests.training.loaded import load


@pytest.mark.parametrize("family", FAMILIES)
def test_scope_is_the_decoders_blocks(family: str, tmp_path: Path) -> None:
    model = load(FAMILIES[family](tmp_path / "base")).model
    pattern = target_pattern(model, TrainConfig().targets)
    hits = [n for n, _ in model.named_modules() if re.fullmatch(pattern, n)]
    assert len(hits) == 7 * LAYERS
    assert all("language_model.layers." in name for name in hits)
    assert {"decoder", "embeddings"} < set(region_hashes(model))


def test_train_capture_and_merge_qwen2_5_vl(
    pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    base = qwen2_5_vl(tmp_path / "base")
    record = train(quick, base, pairs, tmp_path / "lco")
    assert record.frozen_before == record.frozen_after
    assert record.lora_modules == 7 * LAYERS
    captured = load_checkpoint("lco", str(tmp_path / "lco"))  # checks every tensor
    assert captured.record("", {}).training["adapter_sha"] == record.adapter_sha
    merged = merge(tmp_path / "lco", base, tmp_path / "merged")
    assert merged.merged == 7 * LAYERS
    assert [a.modality for a in merged.agreement] == ["text", "image"]
    after = region_hashes(load(tmp_path / "merged").model)
    changed = {region for region in after if after[region] != record.frozen_before[region]}
    assert changed == {"decoder"}


def test_an_adapter_relative_to_the_headless_model_merges_too(tmp_path: Path) -> None:
    base = qwen2_5_vl(tmp_path / "base")
    model = load(base).model
    tail = r".*language_model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj"
    folder = adapter(tmp_path / "lco", model, str(base), targets=tail)
    assert merge(folder, base, tmp_path / "merged").merged == 7 * LAYERS


def test_assert_scope_passes_on_each_family(quick: TrainConfig, tmp_path: Path) -> None:
    from geomkit.training.adapter import adapt

    for family, make in FAMILIES.items():
        scope = assert_scope(adapt(load(make(tmp_path / family)).model, quick))
        assert (scope.modules, scope.trainable_outside) == (7 * LAYERS, 0)
