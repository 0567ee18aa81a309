"""The same code on every architecture of the table: scope, training, loading and merging."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from geomkit.architectures import decoder
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.training.adapter import adapt
from geomkit.training.config import TrainConfig
from geomkit.training.generation import Captions
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.scope import assert_scope, region_hashes, target_pattern
from geomkit.training.soup import soup
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.families import table
from tests.tiny_models import LAYERS, adapter, qwen2_5_vl, saved
from tests.training.loaded import load

TABLE = table()
MEDIA = tuple(name for name, family in TABLE.items() if len(family.modalities) > 1)
SHOWN = (
    "qwen2_5_vl",
    "qwen2_5_omni",
    "llava_next",
    "qwen3_vl",
    "gemma3n",
    "qwen2_audio",
    "qwen3_omni",
)

pytestmark = pytest.mark.filterwarnings("ignore:.*timm.*:UserWarning")


def fingerprints_of(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every tensor in the files."""
    return {
        name: tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for shard in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(shard).items()
    }


def told_to(family: str, samples: tuple[Sample, ...]) -> Captions:
    """Captions of the media that a family reads."""
    known = TABLE[family].modalities
    shown = [s for s in samples if any(m in known for m in s.modalities() if m != "text")]
    bare = [replace(s, **{m: None for m in s.modalities() if m not in known}) for s in shown]
    return Captions(bare)


def outside(model: nn.Module) -> list[str]:
    """Linear layers beside the decoder and the head: of towers and projectors."""
    path = decoder(model)[0]
    head = model.get_output_embeddings()  # type: ignore[operator]  # a PreTrainedModel
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(f"{path}.") and module is not head
    ]


@pytest.mark.parametrize("family", TABLE)
def test_lora_is_in_the_decoders_blocks_only_and_float32_on_a_bfloat16_base(
    family: str, quick: TrainConfig
) -> None:
    model = load(saved(family)).model.to(torch.bfloat16)
    path = decoder(model)[0]
    wanted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(f"{path}.layers.")
        and name.rsplit(".", 1)[-1] in quick.targets
    ]
    adapted = adapt(model, quick)
    scope = assert_scope(adapted)
    assert (scope.modules, scope.trainable_outside) == (len(wanted), 0)
    assert len(wanted) >= 4 * LAYERS - 2  # Gemma3n's last blocks share keys and values
    # independently of the code under test
    for name, parameter in adapted.named_parameters():
        trains = "lora_" in name
        assert parameter.requires_grad is trains
        assert parameter.dtype == (torch.float32 if trains else torch.bfloat16)
        assert not trains or f"{path}.layers." in name


@pytest.mark.parametrize("family", MEDIA)
def test_lora_in_a_tower_is_caught(family: str) -> None:
    model = load(saved(family)).model
    tower = outside(model)[0]
    assert "layers" not in tower or decoder(model)[0] not in tower
    inside = next(n for n, _ in model.named_modules() if n.endswith("layers.0.self_attn.q_proj"))
    leaky = get_peft_model(model, LoraConfig(r=2, target_modules=[inside, tower]))
    with pytest.raises(TrainingError, match=re.escape(tower)):
        assert_scope(leaky)


@pytest.mark.filterwarnings("ignore:.*did not match any targeted module:RuntimeWarning")
def test_a_mixture_of_experts_gets_what_was_asked_and_no_tower(quick: TrainConfig) -> None:
    # PEFT alone rewrites the pattern here: into bare names, which the audio tower has too
    model = load(saved("qwen3_omni")).model
    pattern = target_pattern(model, quick.targets)
    naive = get_peft_model(model, LoraConfig(r=2, target_modules=pattern))
    with pytest.raises(TrainingError, match="audio_tower"):
        assert_scope(naive)


@pytest.mark.parametrize("family", SHOWN)
def test_train_capture_and_merge(
    family: str,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    base, told = saved(family), told_to(family, held_out)
    config = replace(quick, steps=5)
    record = train(config, base, pairs, tmp_path / "lco", source=str(base), captions=told)
    assert len(record.steps) == 5
    assert record.frozen_before == record.frozen_after
    assert record.trainable_outside == 0
    assert [n.kind for n in record.notices] == ["targets"] * (family == "qwen3_omni")
    captured = load_checkpoint("lco", str(tmp_path / "lco"))  # checks every tensor
    assert captured.record("", {}).training["adapter_sha"] == record.adapter_sha
    merged = merge(tmp_path / "lco", base, tmp_path / "merged", captions=told)
    assert merged.merged == record.lora_modules
    # what it says before and after is what training measured on the same captions
    assert {c.modality for c in merged.generation} == set(TABLE[family].modalities)
    for ours, theirs in zip(merged.generation, record.generation, strict=True):
        assert (ours.modality, ours.n) == (theirs.modality, theirs.n)
        assert ours.before == pytest.approx(theirs.before, rel=1e-4)
        assert ours.after == pytest.approx(theirs.after, rel=1e-4)
        assert ours.after != ours.before
    assert {a.modality for a in merged.agreement} == set(TABLE[family].modalities)
    assert merged.generated >= 1
    after = region_hashes(load(tmp_path / "merged").model)
    changed = {region for region in after if after[region] != record.frozen_before[region]}
    assert changed == {"decoder"}


@pytest.mark.parametrize("family", [*SHOWN[:-1], "qwen2_5_omni_full"])
def test_full_training_is_written_as_a_checkpoint_and_averaged(
    family: str,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    # the full omni checkpoint has a talker too, whose norms are those of the thinker by value
    base, told = saved(family), told_to(family, held_out)
    config = replace(quick, method="full", steps=2)
    record = train(config, base, pairs, tmp_path / "full", captions=told)
    assert record.trainable_outside == 0
    assert {a.modality for a in record.agreement} == set(TABLE[family].modalities)
    after = region_hashes(load(tmp_path / "full").model)
    assert {r for r in after if after[r] != record.frozen_before.get(r)} == {"decoder"}
    before, now = (fingerprints_of(folder) for folder in (base, tmp_path / "full"))
    changed = {name for name in before if before[name] != now[name]}
    assert before.keys() == now.keys()
    assert not any("talker" in name for name in changed)
    assert any(name.endswith("norm.weight") and "layers" not in name for name in changed)
    made = soup([base, tmp_path / "full"], tmp_path / "soup", names=("base", "full"), captions=told)
    assert made.averaged == len(changed)
    assert made.generated >= 1
    losses = {(s.name, s.modality): s.loss for s in made.losses}
    for change in record.generation:
        assert losses["base", change.modality] == pytest.approx(change.before, rel=1e-4)
        assert losses["full", change.modality] == pytest.approx(change.after, rel=1e-4)
        assert losses["soup", change.modality] not in (change.before, change.after)


@pytest.mark.parametrize("family", ["llava_next", "qwen3_vl", "gemma3n", "qwen2_audio"])
def test_clip_on_media(
    family: str, held_out: tuple[Sample, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    known = [m for m in TABLE[family].modalities if m != "text"]
    rows = [
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {k}", group="")
        for k in range(4)
        for s in held_out
        if any(m in s.modalities() for m in known)
    ]
    config = replace(quick, method="clip", batch=4, mini_batch=2, steps=3)
    record = train(config, saved(family), rows, tmp_path / "clip")
    assert record.frozen_before == record.frozen_after
    assert record.trained == ("text", *known)
    assert (
        merge(tmp_path / "clip", saved(family), tmp_path / "merged").merged == record.lora_modules
    )


def test_an_adapter_relative_to_the_headless_model_merges_too(tmp_path: Path) -> None:
    base = qwen2_5_vl(tmp_path / "base")
    model = load(base).model
    tail = r".*language_model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj"
    folder = adapter(tmp_path / "lco", model, str(base), targets=tail)
    assert merge(folder, base, tmp_path / "merged").merged == 7 * LAYERS
