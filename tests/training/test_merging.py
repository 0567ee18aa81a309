"""A merge changes the adapted layers and nothing else, and is the model that was trained."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomkit import summary
from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.places import locate, training_of
from geomkit.training import merging, rewriting
from geomkit.training.adapter import adapt, load_adapter, save_adapter
from geomkit.training.config import TrainConfig
from geomkit.training.generation import Captions, generative_losses
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.scope import region_hashes
from geomkit.training.soup import soup
from geomkit.training.states import last_states, probes
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.loaded import load


def random_adapter(base: Path, out: Path, config: TrainConfig, std: float = 0.02) -> Path:
    """An adapter with branches that matter, without training."""
    torch.manual_seed(3)
    adapted = adapt(load(base).model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)
    save_adapter(adapted, out, base="tiny")
    return out


@pytest.fixture(scope="module")
def adapter(base: Path, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(base, tmp_path_factory.mktemp("random") / "adapter", quick)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        found |= load_file(shard)
    return found


def test_merge_changes_the_layers_and_nothing_else(
    adapter: Path, base: Path, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    record = merge(adapter, base, tmp_path / "m", samples=held_out, names=("lco", "base"))
    before, after = tensors(base), tensors(tmp_path / "m")
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert before.keys() == after.keys()
    assert len(changed) == record.merged == 14
    assert record.identical == record.tensors - 14 == len(before) - 14
    assert not any(part in n for n in changed for part in ("visual", "audio", "lm_head", "embed"))
    branch = tensors(adapter)
    for name in changed:
        place = name[name.rindex("layers.") :].removesuffix(".weight")
        down, up = (
            next(t for n, t in branch.items() if place in n and f"lora_{side}" in n).double()
            for side in "AB"
        )
        expected = before[name].double() + 32 / 4 * up @ down
        assert torch.allclose(after[name].double(), expected, atol=1e-6)


def test_merged_states_equal_base_plus_adapter(
    adapter: Path, base: Path, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    record = merge(adapter, base, tmp_path / "m", samples=held_out, names=("lco", "base"))
    assert [a.modality for a in record.agreement] == ["text", "image", "audio"]
    assert [a.n for a in record.agreement] == [6, 3, 3]
    assert all(a.relative < 1e-5 and a.cosine > 1 - 1e-6 for a in record.agreement)
    assert record.generated >= 1
    assert json.loads((tmp_path / "m" / "merge.json").read_text()) == json.loads(record.to_json())
    # independently of the code under test, and far from the base: the branch is not nothing
    plain = load(base)
    own = last_states(plain.model, plain.processor, held_out)
    tuned = load_adapter(plain.model, adapter)
    expected = last_states(tuned, plain.processor, held_out)
    merged = load(tmp_path / "m")
    got = last_states(merged.model, merged.processor, held_out)
    for modality in ("text", "image", "audio"):
        assert torch.allclose(got[modality], expected[modality], atol=1e-4)
        assert not torch.allclose(own[modality], expected[modality], atol=1e-2)


def test_tokenizer_processor_and_template_are_copied(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    record = merge(adapter, base, tmp_path / "m")
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / "m" / file.name).read_bytes() == file.read_bytes()
            assert file.name in record.copied


def test_speech_before_and_after_is_on_record(
    adapter: Path, base: Path, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    record = merge(adapter, base, tmp_path / "m", samples=held_out, captions=Captions(held_out))
    assert [(c.modality, c.n) for c in record.generation] == [
        ("text", 6),
        ("image", 3),
        ("audio", 3),
    ]
    plain = load(base)
    expected = generative_losses(plain.model, plain.processor, held_out)
    for change, losses in zip(record.generation, expected, strict=True):
        assert change.before == pytest.approx(float(losses.values.mean()))
        assert change.after != pytest.approx(change.before, abs=1e-4)
    assert [s.modality for s in record.spoken] == ["text", "image", "audio"]
    assert any(s.before != s.after for s in record.spoken)
    assert record.assembly == plain.processor.modalities
    kinds = json.loads((tmp_path / "m" / "modules.json").read_text())
    assert len(kinds) == 3
    assert locate(str(tmp_path / "m")).base is None


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_half_precision_bases_keep_their_type(
    dtype: torch.dtype, name: str, own_base: Path, quick: TrainConfig, tmp_path: Path
) -> None:
    file = own_base / "model.safetensors"
    save_file({n: t.to(dtype) for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    adapter = random_adapter(own_base, tmp_path / "adapter", quick)
    record = merge(adapter, own_base, tmp_path / "m")
    assert record.dtype == name
    assert {t.dtype for t in tensors(tmp_path / "m").values()} == {dtype}
    # rounded once: more than float32's noise, less than the tolerance of the type
    assert all(1e-6 < a.relative < a.tolerance for a in record.agreement)


def test_sharded_bases_stay_sharded(adapter: Path, base: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(base, sharded)
    (sharded / "model.safetensors").unlink()
    model = load(base).model
    model.save_pretrained(sharded, max_shard_size="100KB")
    record = merge(adapter, sharded, tmp_path / "m")
    names = sorted(f.name for f in sharded.glob("*.safetensors"))
    assert len(names) > 1
    assert sorted(f.name for f in (tmp_path / "m").glob("*.safetensors")) == names
    assert record.merged == 14


def test_weights_that_stand_there_a_second_time_are_left_behind(
    adapter: Path, own_base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """Some repositories hold the model in a second format, which would stay as it was."""
    content = load_file(own_base / "model.safetensors")
    again = {f"consolidated.{name}": tensor for name, tensor in content.items()}
    save_file(again, own_base / "consolidated.safetensors")
    assert merge(adapter, own_base, tmp_path / "m").merged == 14
    train(replace(quick, method="full"), own_base, pairs, tmp_path / "f")
    soup([own_base, tmp_path / "f"], tmp_path / "s")
    for made in ("m", "f", "s"):
        assert [f.name for f in (tmp_path / made).glob("*.safetensors")] == ["model.safetensors"]


def test_a_tensor_that_changed_too_is_caught(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = rewriting.rewrite

    def careless(base: Path, out: Path, layers: Any) -> Any:
        found = honest(base, out, layers)
        file = out / "model.safetensors"
        content = load_file(file)
        content["lm_head.weight"].view(-1)[0] += 1
        save_file(content, file)
        return found

    monkeypatch.setattr(merging, "rewrite", careless)
    with pytest.raises(TrainingError, match=r"only adapted layers to change.*lm_head"):
        merge(adapter, base, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def doubled(honest: Any) -> Any:
    """The targets of an adapter with twice the update: the scaling applied twice."""

    def found(adapted: Any) -> Any:
        return tuple(rewriting.Target(t.path, t.sha, 2 * t.update) for t in honest(adapted))

    return found


@pytest.mark.parametrize("weights", [True, False])
def test_a_merge_that_is_another_model_is_caught(
    weights: bool, adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is written, and independently by the states."""
    monkeypatch.setattr(merging, "targets", doubled(rewriting.targets))
    message = "what is apart is 1 of the update"
    if not weights:
        monkeypatch.setattr(merging, "weights_apart", lambda *_: 0.0)
        message = r"merged text states within 0\.0001"
    with pytest.raises(TrainingError, match=message):
        merge(adapter, base, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_merge_of_a_small_update_is_caught_in_half_precision_too(
    own_base: Path, quick: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves the states by less than what rounding may: only the weights can tell."""
    file = own_base / "model.safetensors"
    half = {n: t.to(torch.bfloat16) for n, t in load_file(file).items()}
    save_file(half, file, metadata={"format": "pt"})
    adapter = random_adapter(own_base, tmp_path / "adapter", quick, std=2e-4)
    record = merge(adapter, own_base, tmp_path / "m")
    assert record.weights_apart < 1e-3
    assert all(a.moved is not None and a.moved < a.tolerance / 2 for a in record.agreement)
    monkeypatch.setattr(merging, "targets", doubled(rewriting.targets))
    with pytest.raises(TrainingError, match="to be written as base plus update"):
        merge(adapter, own_base, tmp_path / "wrong")


def test_how_far_the_adapter_moves_the_base_is_on_record_and_what_rounding_took_is_told(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    record = merge(adapter, base, tmp_path / "m")
    loaded = load(base)
    samples = probes(loaded.processor)
    own = last_states(loaded.model, loaded.processor, samples)
    tuned = last_states(load_adapter(loaded.model, adapter), loaded.processor, samples)
    for agreement in record.agreement:
        before, after = (side[agreement.modality] for side in (own, tuned))  # type: ignore[index]
        expected = ((before - after).norm(dim=1) / after.norm(dim=1)).min()
        assert agreement.moved == pytest.approx(float(expected), rel=1e-4)
    assert not any("warning" in line for line in summary.merge_lines(record))
    lost = replace(record.agreement[0], relative=0.02, moved=0.03)
    told = "\n".join(summary.merge_lines(replace(record, agreement=(lost,))))
    assert "warning: text states are 3.0e-02 from those of the base" in told


def test_an_adapter_that_was_trained_on_rounded_weights_fits_its_base(
    base: Path,
    own_base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    """A GPU trains in bfloat16 what the files have in float32."""
    config = replace(quick, dtype="bfloat16")
    train(config, base, pairs, tmp_path / "a", source=str(base))
    assert merge(tmp_path / "a", base, tmp_path / "m").merged == 14
    file = own_base / "model.safetensors"
    content = load_file(file)
    content["lm_head.weight"].view(-1)[0] += 1
    save_file(content, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="but head differ"):
        merge(tmp_path / "a", own_base, tmp_path / "other")


def test_a_merged_checkpoint_still_says_what_its_training_saw(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    made = train(quick, base, pairs, tmp_path / "a", source=str(base))
    merge(tmp_path / "a", base, tmp_path / "m")
    told = load_checkpoint("m", str(tmp_path / "m")).record("", {})
    assert told.merged
    assert told.training["trained"] == ["text"]
    # what is trained on it begins anew: that record is not copied on
    train(replace(quick, method="full"), tmp_path / "m", pairs, tmp_path / "f")
    assert not (tmp_path / "f" / "merge.json").exists()
    again = training_of(tmp_path / "f")
    assert again["base_regions"] != made.base_regions


def test_what_a_killed_merge_left_is_removed_by_the_next(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from geomkit.training import merging\n"
        "merging.rewrite = lambda base, out, layers: os.kill(os.getpid(), 9)\n"
        "merging.merge(*map(Path, sys.argv[1:]))"
    )
    asked = [sys.executable, "-c", code, str(adapter), str(base), str(tmp_path / "m")]
    done = subprocess.run(asked, check=False, capture_output=True)
    assert done.returncode == -9
    assert not (tmp_path / "m").exists()
    assert len(list(tmp_path.iterdir())) == 1  # hidden, and of this one OUT
    assert merge(adapter, base, tmp_path / "m").merged == 14
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rewriting.shutil, "copyfile", full)
    with pytest.raises(TrainingError, match="No space left"):
        merge(adapter, base, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_another_base_is_refused(
    adapter: Path, base: Path, own_base: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(adapter, tmp_path / "a"))
    model = load(base).model
    hashes = region_hashes(model)
    (own / "training.json").write_text(json.dumps({"frozen_before": hashes}))
    assert merge(own, base, tmp_path / "fits").merged == 14
    file = own_base / "model.safetensors"
    content = load_file(file)
    content["lm_head.weight"].view(-1)[0] += 1
    save_file(content, file, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="base that a was trained on, but head differ"):
        merge(own, own_base, tmp_path / "m")


def test_an_incomplete_adapter_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(adapter, tmp_path / "a"))
    file = own / "adapter_model.safetensors"
    content = load_file(file)
    content.pop(min(content))
    save_file(content, file)
    with pytest.raises(TrainingError, match="is incomplete"):
        merge(own, base, tmp_path / "m")


@pytest.mark.filterwarnings("ignore:.*PEFT:RuntimeWarning", "ignore:.*missing adapter keys")
def test_an_adapter_tensor_of_an_unknown_layer_is_refused(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(adapter, tmp_path / "a"))
    file = own / "adapter_model.safetensors"
    content = {
        n.replace("layers.1.mlp.up", "layers.7.mlp.up"): t for n, t in load_file(file).items()
    }
    save_file(content, file)
    with pytest.raises(TrainingError, match=r"2 did not \(first: .*layers\.7\.mlp\.up_proj"):
        merge(own, base, tmp_path / "m")


def test_dora_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    model = load(base).model
    adapted: Any = load_adapter(model, adapter)
    adapted.peft_config["default"].use_dora = True
    with pytest.raises(TrainingError, match="plain LoRA"):
        rewriting.targets(adapted)


def test_a_base_without_safetensors_is_refused(
    adapter: Path, own_base: Path, tmp_path: Path
) -> None:
    (own_base / "model.safetensors").rename(own_base / "model.bin")
    with pytest.raises(TrainingError, match=r"Expected \*\.safetensors"):
        rewriting.rewrite(own_base, tmp_path, ())


def test_layers_that_are_not_in_the_files_are_named(base: Path, tmp_path: Path) -> None:
    layer = rewriting.Target("model.language_model.layers.0.mlp.up_proj", "0" * 64, torch.zeros(1))
    with pytest.raises(TrainingError, match=r"missing: .*layers\.0\.mlp\.up_proj"):
        rewriting.rewrite(base, tmp_path, (layer,))


def test_an_output_in_use_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(TrainingError, match="new or empty"):
        merge(adapter, base, tmp_path)


def test_probes_cover_what_the_processor_reads(base: Path) -> None:
    processor = load(base).processor
    assert probes(processor)[0].modalities() == ("text", "image", "audio")
