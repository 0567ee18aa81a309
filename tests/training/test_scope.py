"""The scope of training: the decoder's blocks and nothing else, and leaks are caught."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from geomkit.errors import TrainingError
from geomkit.training.adapter import adapt
from geomkit.training.config import TrainConfig
from geomkit.training.scope import (
    absent_targets,
    assert_scope,
    region_hashes,
    target_names,
    target_pattern,
)
from tests.tiny_models import saved
from tests.training.loaded import load

NAMES = TrainConfig().targets


@pytest.fixture
def model(base: Path) -> nn.Module:
    found = load(base).model
    assert isinstance(found, nn.Module)
    return found


def lora(model: nn.Module, pattern: str | list[str]) -> nn.Module:
    found = get_peft_model(model, LoraConfig(r=2, target_modules=pattern))
    assert isinstance(found, nn.Module)
    return found


def test_pattern_selects_the_seven_layers_of_every_block(model: nn.Module) -> None:
    pattern = target_pattern(model, NAMES)
    hits = [n for n, m in model.named_modules() if re.fullmatch(pattern, n)]
    assert len(hits) == 7 * 2
    assert all(".layers." in n and "tower" not in n and "visual" not in n for n in hits)
    # the names alone would have hit the towers too: this is why a pattern is needed
    named = [n for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in NAMES]
    assert len(named) > len(hits)


@pytest.mark.parametrize("names", [("q_proj", "query_proj"), ("qkv",), ("q_proj", "")])
def test_a_layer_that_is_not_there_is_named_with_those_that_are(
    names: tuple[str, ...], model: nn.Module
) -> None:
    """`qkv` is in the vision tower alone."""
    with pytest.raises(TrainingError, match=rf"named {names[-1]} in the blocks of .*found down_pr"):
        target_pattern(model, names)


def test_of_the_usual_layers_those_are_taken_that_are_there() -> None:
    """In a mixture of experts the experts are no linear layers."""
    model = load(saved("qwen3_omni")).model
    assert target_names(model, target_pattern(model, NAMES))
    assert absent_targets(model, NAMES) == ("gate_proj", "up_proj", "down_proj")
    with pytest.raises(TrainingError, match="named gate_proj in"):
        target_pattern(model, ("q_proj", "gate_proj"))


def test_adapter_trains_inside_only_and_in_float32(model: nn.Module, quick: TrainConfig) -> None:
    adapted = adapt(model.half(), quick)
    scope = assert_scope(adapted)
    assert scope.trainable_outside == 0
    assert scope.modules == 14
    assert scope.trainable_inside == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


def test_the_naive_list_of_names_is_caught(model: nn.Module) -> None:
    with pytest.raises(TrainingError, match=r"nothing else to train.*(visual|audio_tower)"):
        assert_scope(lora(model, list(NAMES)))


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        (r".*audio_tower.*q_proj", "audio_tower"),
        (r".*visual.*(up_proj|qkv|fc1)", "visual"),
        (r"lm_head", "lm_head"),
        (r".*embed_tokens", "embed_tokens"),
    ],
)
def test_lora_elsewhere_is_named(model: nn.Module, pattern: str, where: str) -> None:
    both = f"(?:{target_pattern(model, NAMES)})|(?:{pattern})"
    with pytest.raises(TrainingError, match=where):
        assert_scope(lora(model, both))


def test_frozen_lora_elsewhere_is_still_a_stray(model: nn.Module) -> None:
    adapted = lora(model, f"(?:{target_pattern(model, NAMES)})|lm_head")
    for name, parameter in adapted.named_parameters():
        if "lm_head" in name:
            parameter.requires_grad_(False)
    with pytest.raises(TrainingError, match="lm_head"):
        assert_scope(adapted)


def test_a_thawed_projector_weight_is_named(model: nn.Module, quick: TrainConfig) -> None:
    adapted = adapt(model, quick)
    leak = next(n for n, _ in adapted.named_parameters() if "merger" in n)
    adapted.get_parameter(leak).requires_grad_(True)
    with pytest.raises(TrainingError, match="merger"):
        assert_scope(adapted)


def test_a_thawed_decoder_weight_is_named(model: nn.Module, quick: TrainConfig) -> None:
    adapted = adapt(model, quick)
    leak = next(n for n, _ in adapted.named_parameters() if n.endswith("q_proj.base_layer.weight"))
    adapted.get_parameter(leak).requires_grad_(True)
    with pytest.raises(TrainingError, match="base_layer"):
        assert_scope(adapted)


def test_nothing_to_train_is_an_error(model: nn.Module) -> None:
    with pytest.raises(TrainingError, match="nothing trains"):
        assert_scope(model.requires_grad_(False))


def test_unknown_layer_names_list_what_there_is(model: nn.Module) -> None:
    with pytest.raises(TrainingError, match=r"found down_proj, gate_proj.*set targets"):
        target_pattern(model, ["query", "key"])


def test_region_hashes_see_one_bit_and_no_wrapping(model: nn.Module, quick: TrainConfig) -> None:
    before = region_hashes(model)
    assert {"decoder", "embeddings", "head"} < set(before)
    assert any("visual" in region for region in before)
    assert any("audio" in region for region in before)
    adapted = adapt(model, quick)
    assert region_hashes(adapted) == before
    tower = next(n for n, _ in adapted.named_parameters() if "visual" in n)
    with torch.no_grad():
        weight = adapted.get_parameter(tower)
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(torch.inf))
    after = region_hashes(adapted)
    assert [r for r in before if before[r] != after[r]] == [r for r in before if "visual" in r]
