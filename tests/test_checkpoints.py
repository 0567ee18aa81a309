from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMultimodalLM,
    Blip2Config,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from geomkit import sandbox
from geomkit.architectures import body, decoder
from geomkit.checkpoints import (
    Checkpoint,
    CheckpointSpec,
    load_checkpoint,
    load_checkpoints,
)
from geomkit.errors import CheckpointError, MissingExtra, UsageError
from geomkit.fingerprints import adapter_sha
from geomkit.places import locate
from tests.tiny_models import FAMILIES, adapter, saved

INSIDE = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|v_proj|up_proj)"
EVERYWHERE = ["q_proj", "k_proj"]
CPU = {"dtype": "float32", "attn": "sdpa", "device": "cpu"}


def last_state(checkpoint: Checkpoint) -> torch.Tensor:
    ids = torch.arange(12, 30)[None]
    with torch.inference_mode(), checkpoint.active() as model:
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return out.last_hidden_state[0, -1].clone()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = saved("qwen2_5_omni")
    found = {}
    for name, targets in (("inside", INSIDE), ("everywhere", EVERYWHERE)):
        model = AutoModelForMultimodalLM.from_pretrained(base)
        folder = tmp_path_factory.mktemp("adapters") / name
        found[name] = adapter(folder, model, str(base), targets=targets)
    return found


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("base", "base", "base"),
        ("mine=./runs/lco", "mine", "./runs/lco"),
        ("./runs/lco/", "lco", "./runs/lco/"),
        ("org/Model-3B@main", "Model-3B", "org/Model-3B@main"),
        ("sandbox:base", "base", "sandbox:base"),
    ],
)
def test_a_name_and_a_source_are_read_from_one_word(text: str, name: str, source: str) -> None:
    assert CheckpointSpec.parse(text) == CheckpointSpec(name, source)


@pytest.mark.parametrize("text", ["", "=base", "a b=base", "../x=base", "media=base", "a="])
def test_a_name_that_cannot_be_a_folder_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=SOURCE"):
        CheckpointSpec.parse(text)


def test_a_folder_here_wins_over_the_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("base").described == "sandbox:base (built in)"
    assert Path(locate("base").where) == sandbox.checkpoint_path("base")
    (tmp_path / "base").mkdir()  # a folder of another kind does not
    assert locate("base").described == "sandbox:base (built in)"
    shutil.copytree(saved("qwen2_vl"), tmp_path / "base", dirs_exist_ok=True)
    assert locate("base").described == "./base (folder)"
    assert locate("sandbox:base").described == "sandbox:base (built in)"


def test_an_unknown_name_lists_near_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved("qwen2_vl"), tmp_path / "trained")
    with pytest.raises(CheckpointError, match="near names: base"):
        locate("bsae")
    with pytest.raises(CheckpointError, match="near names: trained"):
        locate("traned")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="this folder is no checkpoint"):
        locate("./empty")
    with pytest.raises(CheckpointError, match=r"built-in checkpoint, got '\./absent'"):
        locate("./absent")


def test_an_adapter_names_its_base(tmp_path: Path, adapters: dict[str, Path]) -> None:
    assert locate(str(adapters["inside"])).model.where == str(saved("qwen2_5_omni"))
    copy = shutil.copytree(adapters["inside"], tmp_path / "copy")
    config = json.loads((copy / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "sandbox:base"
    (copy / "adapter_config.json").write_text(json.dumps(config))
    assert Path(locate(str(copy)).model.where) == sandbox.checkpoint_path("base")
    config["base_model_name_or_path"] = str(adapters["everywhere"])
    (copy / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="full model as the base"):
        locate(str(copy))
    config["base_model_name_or_path"] = None
    (copy / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="base_model_name_or_path"):
        locate(str(copy))


@pytest.mark.parametrize("family", [*FAMILIES, "text_only"])
def test_the_decoder_is_found_and_the_head_is_left_out(family: str) -> None:
    one = load_checkpoint(family, str(saved(family)))
    assert one.sites == ("embed", "block_00", "block_01", "block_02", "final_norm")
    assert one.model.get_submodule(one.decoder_path) is one.decoder
    assert one.body is one.model.model
    assert not any(m is one.model.lm_head for m in one.body.modules())
    assert one.dim == 32


def test_a_model_with_more_than_a_head_beside_its_decoder_is_run_whole() -> None:
    one = load_checkpoint("vl", str(saved("qwen2_5_vl")))
    one.model.add_module("projector", torch.nn.Linear(2, 2))
    assert body(one.model, one.decoder_path) is one.model


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(CheckpointError, match="decoder with a list of blocks"):
        decoder(torch.nn.Linear(2, 2))


def test_fingerprints_tell_decoder_tower_and_head_apart(tmp_path: Path) -> None:
    source = saved("qwen2_5_omni")
    plain = load_checkpoint("a", str(source)).fingerprint
    assert load_checkpoint("a", str(source)).fingerprint == plain

    def changed(key: str) -> list[bool]:
        folder = shutil.copytree(source, tmp_path / key)
        state = load_file(folder / "model.safetensors")
        name = next(n for n in state if key in n)
        state[name] = state[name] + 1
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        own = load_checkpoint("b", str(folder)).fingerprint
        return [
            own.weights != plain.weights,
            own.decoder != plain.decoder,
            own.towers != plain.towers,
        ]

    assert changed("layers.1.mlp.up_proj") == [True, True, False]
    assert changed("visual.blocks.0.attn") == [True, False, True]
    assert changed("audio_tower.conv1") == [True, False, True]
    assert changed("lm_head") == [True, False, False]


def test_a_missing_weight_is_not_made_up(tmp_path: Path) -> None:
    folder = shutil.copytree(saved("qwen2_vl"), tmp_path / "cut")
    state = load_file(folder / "model.safetensors")
    del state[next(n for n in state if "layers.1.mlp.up_proj" in n)]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 are missing.*layers\.1\.mlp\.up_proj"):
        load_checkpoint("cut", str(folder))


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    folder = shutil.copytree(saved("qwen2_vl"), tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"got pytorch_model\.bin: only safetensors"):
        load_checkpoint("pickled", str(folder))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UsageError, match="float32, bfloat16, float16"):
        load_checkpoint("a", str(saved("qwen2_vl")), dtype="float8")


def test_two_checkpoints_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="one checkpoint a name"):
        load_checkpoints([CheckpointSpec("a", "base"), CheckpointSpec("a", "lco")], **CPU)


def test_adapters_share_the_base_s_memory_and_equal_separate_loads(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    copied = shutil.copytree(saved("qwen2_5_omni"), tmp_path / "same-bytes")
    together = load_checkpoints(
        [
            CheckpointSpec("first", str(adapters["inside"])),
            CheckpointSpec("base", str(copied)),
            CheckpointSpec("second", str(adapters["everywhere"])),
        ],
        **CPU,
    )
    assert len({id(c.model) for c in together}) == 1
    states = [last_state(c) for c in together]
    sources = (adapters["inside"], saved("qwen2_5_omni"), adapters["everywhere"])
    for state, source, one in zip(states, sources, together, strict=True):
        apart = load_checkpoint("alone", str(source))
        assert torch.equal(state, last_state(apart))
        assert apart.fingerprint == one.fingerprint
    assert not torch.allclose(states[0], states[1], atol=1e-2)
    assert not torch.allclose(states[2], states[1], atol=1e-2)
    # Any order, any number of times: switching leaves nothing behind.
    assert all(torch.equal(last_state(together[i]), states[i]) for i in (2, 0, 1, 0))


def test_an_adapter_changes_the_fingerprints_of_what_it_touches(
    adapters: dict[str, Path],
) -> None:
    base, inside, everywhere = load_checkpoints(
        [
            CheckpointSpec("base", str(saved("qwen2_5_omni"))),
            CheckpointSpec("inside", str(adapters["inside"])),
            CheckpointSpec("everywhere", str(adapters["everywhere"])),
        ],
        **CPU,
    )
    assert inside.fingerprint.towers == base.fingerprint.towers
    assert everywhere.fingerprint.towers != base.fingerprint.towers
    assert len({c.fingerprint.decoder for c in (base, inside, everywhere)}) == 3
    assert base.fingerprint.adapter == ""
    record = inside.record("t", {})
    assert (record.adapter_sha, record.merged) == (inside.fingerprint.adapter, False)
    assert record.architecture == "Qwen2_5OmniThinkerForConditionalGeneration"


def test_training_and_merge_records_travel_along(tmp_path: Path, adapters: dict[str, Path]) -> None:
    folder = shutil.copytree(adapters["inside"], tmp_path / "trained")
    (folder / "training.json").write_text('{"modalities": ["text"]}')
    record = load_checkpoint("lco", str(folder)).record("t", {})
    assert record.training == {"modalities": ["text"]}
    merged = shutil.copytree(saved("qwen2_5_omni"), tmp_path / "merged")
    (merged / "merge.json").write_text('{"max_difference": 0.0}')
    assert load_checkpoint("merged", str(merged)).record("t", {}).merged is True
    (folder / "training.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        load_checkpoint("lco", str(folder)).record("t", {})


def test_an_adapter_whose_tensors_find_no_place_is_refused(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    folder = shutil.copytree(adapters["inside"], tmp_path / "renamed")
    path = folder / "adapter_model.safetensors"
    state = {k.replace("layers.1.", "layers.7."): v for k, v in load_file(path).items()}
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"Expected all 18 tensors .* found 12"):
        load_checkpoint("renamed", str(folder))
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="Expected safetensors"):
        load_checkpoint("broken", str(folder))
    path.unlink()
    with pytest.raises(CheckpointError, match="only safetensors are read"):
        load_checkpoint("gone", str(folder))


def with_settings(source: Path, folder: Path, **changed: Any) -> Path:
    """A copy of an adapter whose tensors are the same and whose settings are not."""
    copy = Path(shutil.copytree(source, folder))
    settings = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(settings | changed))
    return copy


@pytest.mark.parametrize(
    "changed",
    [
        {"lora_alpha": 32},
        {"use_rslora": True},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 32}},
    ],
)
def test_equal_tensors_with_another_scale_are_another_adapter(
    changed: dict[str, Any], tmp_path: Path, adapters: dict[str, Path]
) -> None:
    other = with_settings(adapters["everywhere"], tmp_path / "other", **changed)
    one, two = load_checkpoints(
        [CheckpointSpec("one", str(adapters["everywhere"])), CheckpointSpec("two", str(other))],
        **CPU,
    )
    assert one.model is two.model
    assert not torch.allclose(last_state(one), last_state(two), atol=1e-3)
    for part in ("weights", "decoder", "towers", "adapter"):
        assert getattr(one.fingerprint, part) != getattr(two.fingerprint, part)


def test_how_an_adapter_was_trained_and_written_is_not_its_fingerprint(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    said = {
        "lora_dropout": 0.5,
        "peft_version": "0.1",
        "inference_mode": False,
        "task_type": "CAUSAL_LM",
    }
    reversed_ = with_settings(
        adapters["everywhere"], tmp_path / "other", target_modules=EVERYWHERE[::-1], **said
    )
    shas = {
        load_checkpoint("one", str(folder)).fingerprint
        for folder in (adapters["everywhere"], reversed_)
    }
    assert len(shas) == 1


def test_the_order_of_an_adapter_s_rows_and_patterns_counts() -> None:
    def sha(**settings: Any) -> str:
        return adapter_sha({}, settings)

    assert sha(modules_to_save=["a", "b"]) == sha(modules_to_save=["b", "a"])
    assert sha(r=4, lora_alpha=8) == sha(lora_alpha=8, r=4)
    # Row i of the tensor is the i-th token; the first pattern that matches gives the scale.
    assert sha(trainable_token_indices=[1, 2]) != sha(trainable_token_indices=[2, 1])
    assert sha(alpha_pattern={".*a": 1, "a": 2}) != sha(alpha_pattern={"a": 2, ".*a": 1})


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["v_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["gate_proj"]},
    "norm": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "tokens": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"embed_tokens": [12, 29, 15]},
    },
    "pissa": {"target_modules": ["q_proj"], "init_lora_weights": "pissa"},
    "dora": {"target_modules": ["q_proj"], "use_dora": True},
    "bias": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


def of_kind(kind: str, folder: Path) -> Path:
    """An adapter of that kind whose every tensor is away from where it starts."""
    base = saved("qwen2_5_vl")
    config = LoraConfig(r=4, lora_alpha=8, **KINDS[kind])
    model = inject_adapter_in_model(config, AutoModelForMultimodalLM.from_pretrained(base))
    state = get_peft_model_state_dict(model, save_embedding_layers=kind == "embedding")
    noise = torch.Generator().manual_seed(len(kind))
    moved = {
        f"base_model.model.{name}": (t + 0.1 * torch.randn(t.shape, generator=noise)).contiguous()
        for name, t in sorted(state.items())
    }
    folder.mkdir()
    save_file(moved, folder / "adapter_model.safetensors")
    config.base_model_name_or_path = str(base)
    config.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("kind", ["saved", "norm", "tokens", "pissa"])
def test_an_adapter_that_changes_its_base_leaves_others_alone(kind: str, tmp_path: Path) -> None:
    sources = {
        "base": saved("qwen2_5_vl"),
        "plain": of_kind("plain", tmp_path / "plain"),
        kind: of_kind(kind, tmp_path / kind),
    }
    apart = {name: load_checkpoint(name, str(source)) for name, source in sources.items()}
    states = {name: last_state(one) for name, one in apart.items()}
    for order in (list(sources), list(sources)[::-1]):
        specs = [CheckpointSpec(name, str(sources[name])) for name in order]
        together = {one.name: one for one in load_checkpoints(specs, **CPU)}
        for name in (*order, *order):
            assert torch.equal(last_state(together[name]), states[name])
            assert together[name].fingerprint == apart[name].fingerprint
        assert together["base"].model is together["plain"].model
        assert together[kind].model is not together["base"].model
    assert not any(torch.equal(states[kind], states[name]) for name in ("base", "plain"))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("dora", r"DoRA \(use_dora\)"),
        ("bias", r"trained biases \(bias='lora_only'\)"),
        ("embedding", "LoRA on an embedding, saved with"),
    ],
)
def test_an_adapter_of_a_kind_that_cannot_be_put_on_says_to_merge_it(
    kind: str, named: str, tmp_path: Path
) -> None:
    folder = of_kind(kind, tmp_path / kind)
    with pytest.raises(CheckpointError, match=f"got {named}.* not supported: merge it first"):
        load_checkpoint("one", str(folder))


@pytest.mark.parametrize("key", ["layer_replication", "alora_invocation_tokens", "arrow_config"])
def test_an_adapter_that_needs_more_than_its_branches_is_refused(
    key: str, tmp_path: Path, adapters: dict[str, Path]
) -> None:
    folder = with_settings(adapters["inside"], tmp_path / "other", **{key: [[0, 1]]})
    with pytest.raises(CheckpointError, match=f"got {key}, which is not supported: merge"):
        load_checkpoint("one", str(folder))


def whisper(folder: Path) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    small = {"vocab_size": 64, "max_source_positions": 8, "max_target_positions": 8}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
    config = WhisperConfig(**sizes, **heads, **small, **ids, decoder_start_token_id=2)
    WhisperForConditionalGeneration(config).save_pretrained(folder)


def t5(folder: Path) -> None:
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def blip_with_t5(folder: Path) -> None:
    """The encoder-decoder stands inside a model that is none itself."""
    config = Blip2Config(text_config={"model_type": "t5", "is_encoder_decoder": True})
    config.architectures = ["Blip2ForConditionalGeneration"]
    config.save_pretrained(folder)
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")


@pytest.mark.parametrize("save", [whisper, t5, blip_with_t5])
def test_an_encoder_decoder_is_refused(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(CheckpointError, match=r"got \w+: an encoder-decoder.*decoder-only"):
        load_checkpoint("seq2seq", str(tmp_path), device="cpu")


@pytest.mark.parametrize("family", ["qwen2_5_omni_full", "qwen3_omni_full"])
def test_of_a_whole_omni_folder_only_the_thinker_is_loaded(family: str) -> None:
    folder = saved(family)
    one = load_checkpoint("one", str(folder), device="cpu")
    stored = load_file(folder / "model.safetensors")
    assert {name.partition(".")[0] for name in stored} > {"thinker", "talker"}
    part = [t for name, t in stored.items() if name.startswith("thinker.")]
    assert sum(p.numel() for p in one.model.parameters()) == sum(t.numel() for t in part)
    assert "Thinker" in type(one.model).__name__


def test_an_architecture_that_needs_another_package_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> None:
            raise ImportError("\nTower requires the timm library: `pip install timm`.\n")

    monkeypatch.setattr("geomkit.checkpoints.model_class", lambda _: Elsewhere)
    with pytest.raises(MissingExtra, match=r"'one' needs another package: Tower requires.*timm"):
        load_checkpoint("one", str(saved("gemma3n")), device="cpu")


def test_a_device_that_is_not_there_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match=r"device of this machine, got 'cuda:7'"):
        load_checkpoint("a", str(saved("text_only")), device="cuda:7")
