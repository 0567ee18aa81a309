"""A soup does the mean of what its parts do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomkit.analyze import trained_on
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import CheckpointError, TrainingError
from geomkit.places import locate
from geomkit.training.adapter import adapt, load_adapter, save_adapter
from geomkit.training.config import TrainConfig
from geomkit.training.generation import Captions, generative_losses
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.rewriting import targets
from geomkit.training.scope import region_hashes
from geomkit.training.soup import soup
from geomkit.training.trainer import train
from geomkit.types import Sample
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
        ({"fan_in_fan_out": True}, "fan_in_fan_out differ"),
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
    (own[1] / "training.json").write_text(json.dumps({"frozen_before": {"head": "0"}}))
    with pytest.raises(TrainingError, match="base that b was trained on, but head differ"):
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


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def with_infinity(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in state if "lora_B" in name)
    return {**state, name: torch.full_like(state[name], float("inf"))}


@pytest.mark.parametrize(
    ("settings", "tensors", "message"),
    [
        ({}, with_infinity, "Expected numbers in the adapter .*lora_B.* a value that is no number"),
        ({}, lambda s: {n: t.int() for n, t in s.items()}, "holds torch.int32"),
        ({}, lambda s: dict(list(s.items())[1:]), "of rank 4 and nothing else.*is incomplete"),
        ({}, lambda s: {**s, "bias": torch.ones(1)}, "of rank 4 and nothing else .* bias is none"),
        ({"r": 5}, dict, "branches of rank 5"),
        ({"r": 0}, dict, "a rank r and a lora_alpha .* got 0 and"),
        ({"lora_alpha": None}, dict, "a rank r and a lora_alpha .* and None"),
        ({"lora_alpha": float("nan")}, dict, "a rank r and a lora_alpha .* and nan"),
        (
            {},
            lambda s: {n: t[:, :5].contiguous() if "_A" in n else t for n, t in s.items()},
            "has 2 sizes in them",
        ),
    ],
)
def test_an_adapter_that_is_none_is_a_sentence_in_soup_and_merge(
    settings: dict[str, Any],
    tensors: Change,
    message: str,
    parts: tuple[Path, ...],
    base: Path,
    tmp_path: Path,
) -> None:
    own = Path(shutil.copytree(parts[0], tmp_path / "a"))
    config = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    file = own / "adapter_model.safetensors"
    save_file(tensors(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=message):
        soup([own, parts[1]], tmp_path / "soup")
    with pytest.raises(TrainingError):
        merge(own, base, tmp_path / "merged")


@pytest.mark.parametrize(
    "told",
    [{"media": [1], "trained": 3}, {"media": {"image": "many"}}, {"config": "x", "trained": "ab"}],
)
def test_a_record_of_other_types_says_nothing(
    told: dict[str, Any], parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(parts[0], tmp_path / "a"))
    (own / "training.json").write_text(json.dumps({**told, "frozen_before": "x"}))
    other = Path(shutil.copytree(parts[1], tmp_path / "b"))
    (other / "training.json").write_text(json.dumps({"trained": ["text"]}))
    soup([own, other], tmp_path / "soup")
    assert record_of(tmp_path / "soup")["trained"] == []
    merge(own, base, tmp_path / "merged")


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


@pytest.fixture(scope="module")
def other_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same shape whose weights are all others."""
    folder = Path(shutil.copytree(base, tmp_path_factory.mktemp("other") / "base"))
    torch.manual_seed(9)
    file = folder / "model.safetensors"
    content = {n: torch.randn_like(t) * 0.1 for n, t in load_file(file).items()}
    save_file(content, file, metadata={"format": "pt"})
    return folder


Trained = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def trained(
    base: Path,
    other_base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Method and base ("base", "other", "base-1") -> the folder of a training, made once."""
    done: dict[tuple[str, str], Path] = {}

    def get(method: str, on: str) -> Path:
        if (method, on) not in done:
            name, _, seed = on.partition("-")
            out = tmp_path_factory.mktemp("trained") / f"{method}-{on}"
            below = {"base": base, "other": other_base}[name]
            config = replace(quick, method=method, seed=int(seed or 0), save_steps=2)
            train(config, below, pairs, out, source=str(below))
            done[method, on] = out
        return done[method, on]

    return get


@pytest.mark.parametrize("method", ["full", "lora"])
def test_trainings_of_unrelated_bases_are_refused(
    method: str, trained: Trained, tmp_path: Path
) -> None:
    parts = [trained(method, "base"), trained(method, "other")]
    with pytest.raises(TrainingError, match=r"of one base, (got|the embeddings of)"):
        soup(parts, tmp_path / "soup")
    assert list(tmp_path.iterdir()) == []


def test_steps_of_unrelated_trajectories_are_refused(trained: Trained, tmp_path: Path) -> None:
    steps = [trained("lora", on) / "checkpoints" / "checkpoint-2" for on in ("base", "other")]
    with pytest.raises(TrainingError, match="adapters of one base"):
        soup(steps, tmp_path / "soup")
    steps = [trained("full", on) / "checkpoints" / "checkpoint-2" for on in ("base", "other")]
    with pytest.raises(TrainingError, match="trained weights alone"):
        soup(steps, tmp_path / "soup")


def test_steps_of_one_trajectory_are_a_soup_with_its_prompt(
    base: Path, trained: Trained, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    out = trained("lora", "base")
    told = Captions(held_out)
    made = soup([out / "checkpoints" / "checkpoint-2", out], tmp_path / "soup", captions=told)
    assert (made.rank, made.notices) == (8, ())
    step = load_checkpoint("step", str(out / "checkpoints" / "checkpoint-2")).record("", {})
    assert trained_on([step, step]) == ("text",)
    kept = record_of(tmp_path / "soup")
    assert (kept["trained"], kept["config"]["prompt"]) == (["text"], "lco")
    merged = merge(tmp_path / "soup", base, tmp_path / "merged", captions=told)
    assert merged.merged == 14
    # base and soup speak as they do before and after the merge
    said = [change.before for change in merged.generation]
    said += [change.after for change in merged.generation]
    assert [s.name for s in made.losses] == ["base"] * 3 + ["soup"] * 3
    assert [s.loss for s in made.losses] == pytest.approx(said, rel=1e-4)


def test_full_checkpoints_of_one_base_are_a_soup_and_what_is_frozen_is_measured(
    base: Path, trained: Trained, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    parts = [trained("full", "base"), trained("full", "base-1"), base]
    made = soup(parts, tmp_path / "soup", captions=Captions(held_out))
    told = record_of(tmp_path / "soup")
    now = region_hashes(load(tmp_path / "soup").model)
    assert "decoder" not in told["frozen_before"]
    assert told["frozen_before"] == told["frozen_after"]
    assert {r: now[r] for r in told["frozen_before"]} == told["frozen_before"]
    assert set(now) - set(told["frozen_before"]) == {"decoder"}
    assert made.generated >= 1
    # the generative loss of each part and of the soup, against a measurement of its own
    assert [s.name for s in made.losses[::3]] == [*(p.name for p in parts), "soup"]
    loaded = load(tmp_path / "soup")
    expected = generative_losses(loaded.model, loaded.processor, held_out)
    assert [s.loss for s in made.losses[-3:]] == pytest.approx(
        [float(one.values.mean()) for one in expected]
    )
    assert (made.notices, told["trained"]) == ((), ["text"])  # the base itself saw nothing
    stranger = Path(shutil.copytree(parts[1], tmp_path / "stranger"))
    (stranger / "training.json").unlink()
    made = soup([parts[0], stranger], tmp_path / "soup-2")
    assert "no record says with which prompt stranger trained" in made.notices[0]
    assert "no record says what stranger was trained on" in made.notices[1]
    assert record_of(tmp_path / "soup-2")["trained"] == []


def test_a_record_that_does_not_fit_the_weights_is_refused(
    base: Path, trained: Trained, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(trained("full", "base-1"), tmp_path / "own"))
    file = own / "model.safetensors"
    content = load_file(file)
    name = next(n for n in content if "visual" in n and content[n].ndim > 1)
    content[name] = content[name] + 1
    save_file(content, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"the model\.visual of own as its record says"):
        soup([trained("full", "base"), own], tmp_path / "soup")
    (own / "training.json").write_text(json.dumps({"frozen_after": "x"}))  # that says nothing
    soup([trained("full", "base"), own], tmp_path / "soup")
    assert "model.visual" not in record_of(tmp_path / "soup")["frozen_before"]
    save_file({**content, name: content[name] * float("nan")}, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="Expected numbers in the mean of"):
        soup([trained("full", "base"), own], tmp_path / "soup-2")


def test_full_checkpoints_whose_bases_differ_in_what_trains_are_refused(
    base: Path, trained: Trained, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """One was trained further: its frozen parts are the same, where it began is not."""
    further = tmp_path / "further"
    below = trained("full", "base-1")
    train(replace(quick, method="full"), below, pairs, further, source=str(below))
    with pytest.raises(TrainingError, match="whose records name bases that differ in decoder"):
        soup([trained("full", "base"), further], tmp_path / "soup")


def test_adapters_whose_base_has_changed_since_are_refused(
    base: Path, trained: Trained, own_base: Path, tmp_path: Path
) -> None:
    """Both name one folder, and what lies there now is not what they were trained on."""
    file = own_base / "model.safetensors"
    content = load_file(file)
    content["lm_head.weight"].view(-1)[0] += 1
    save_file(content, file, metadata={"format": "pt"})
    parts = [trained("lora", "base"), trained("lora", "base-1")]
    moved = [Path(shutil.copytree(part, tmp_path / part.name)) for part in parts]
    for part in moved:
        config = json.loads((part / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(own_base)
        (part / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"base that lora-base was trained on, but head differ"):
        soup(moved, tmp_path / "soup")


def test_parts_of_two_prompts_are_refused_and_one_prompt_reaches_the_merge(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, trained: Trained, tmp_path: Path
) -> None:
    own = replace(quick, prompt="e5v", steps=2)
    made = [tmp_path / name for name in ("a", "b")]
    for seed, out in enumerate(made):
        train(replace(own, seed=seed), base, pairs, out, source=str(base))
    with pytest.raises(TrainingError, match=r"one prompt, got 'e5v' \(a\) and 'lco' \(lora-base\)"):
        soup([made[0], trained("lora", "base")], tmp_path / "soup")
    soup(made, tmp_path / "soup")
    told = record_of(tmp_path / "soup")
    assert told["config"]["prompt"] == "e5v"
    assert "seed" not in told["config"]
    record = merge(tmp_path / "soup", base, tmp_path / "merged")
    assert record.prompt == "e5v"
    asked = (tmp_path / "merged" / "sentence_bert_config.json").read_text()
    assert "Summary above sentence in one word" in asked
    # and on to a soup of merged checkpoints
    merge(made[0], base, tmp_path / "merged-a")
    soup([tmp_path / "merged", tmp_path / "merged-a"], tmp_path / "soup-of-merged")
    again = (tmp_path / "soup-of-merged" / "sentence_bert_config.json").read_text()
    assert "Summary above sentence in one word" in again
    assert record_of(tmp_path / "soup-of-merged")["trained"] == ["text"]


def test_a_base_named_from_the_adapters_folder_is_found_from_the_soup(
    parts: tuple[Path, ...], base: Path, tmp_path: Path
) -> None:
    near = tmp_path / "near"
    shutil.copytree(base, near / "model")
    for part in parts[:2]:
        own = Path(shutil.copytree(part, near / part.name))
        config = json.loads((own / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "model"
        (own / "adapter_config.json").write_text(json.dumps(config))
    soup([near / part.name for part in parts[:2]], tmp_path / "far" / "away" / "soup")
    place = locate(str(tmp_path / "far" / "away" / "soup"))
    assert place.base is not None
    assert Path(place.base.where).resolve() == (near / "model").resolve()
