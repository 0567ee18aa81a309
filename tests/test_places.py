"""Where a checkpoint is, what it may say of itself, and that none of it runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM

from geomkit import cli, sandbox, vetting
from geomkit.checkpoints import load_checkpoint, load_checkpoints
from geomkit.errors import CheckpointError, UsageError
from geomkit.places import CheckpointSpec, check_distinct, check_source, locate
from geomkit.processing import load_processor
from geomkit.store import open_run
from tests.tiny_models import adapter, saved

INSIDE = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|up_proj)"
FIRST, SECOND = "1" * 40, "2" * 40
Cache = Callable[..., Path]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Put a folder into a hub cache as one commit of a repository; the hub is out of reach."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(repo: str, folder: Path, commit: str, *names: str) -> Path:
        own = home / f"models--{repo.replace('/', '--')}"
        blobs, snapshot = own / "blobs", own / "snapshots" / commit
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            blob = blobs / f"{commit[:4]}-{len(list(blobs.glob('*')))}"
            blobs.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blob)
            link = snapshot / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)  # as the hub's client lays it out
        for name in names:
            (own / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
            (own / "refs" / name).write_text(commit)
        return snapshot

    return add


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForMultimodalLM.from_pretrained(saved("qwen2_vl"))
    folder = tmp_path_factory.mktemp("trained") / "lora"
    return adapter(folder, model, "org/model", targets=INSIDE)


def copied(folder: Path, to: Path, **changed: Any) -> Path:
    """A copy of a checkpoint whose config (or adapter config) says something else."""
    shutil.copytree(folder, to)
    name = vetting.CONFIG if (to / vetting.CONFIG).is_file() else vetting.ADAPTER_CONFIG
    config = json.loads((to / name).read_text()) | changed
    (to / name).write_text(json.dumps(config))
    return to


def other_weights(folder: Path, to: Path) -> Path:
    copied(folder, to)
    model = AutoModelForMultimodalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(to)
    return to


# ------------------------------------------------------------------------------------- the hub --


def test_a_hub_id_is_one_commit_in_the_cache(cached: Cache, tmp_path: Path) -> None:
    first = cached("org/model", saved("qwen2_vl"), FIRST, "main")
    later = other_weights(saved("qwen2_vl"), tmp_path / "later")
    second = cached("org/model", later, SECOND, "tuned", "refs/pr/1")
    for source, folder in {
        "org/model": first,
        "org/model@main": first,
        f"org/model@{FIRST}": first,
        "org/model@tuned": second,
        "org/model@refs/pr/1": second,
    }.items():
        place = locate(source)
        assert Path(place.where) == folder
        assert place.revision == folder.name
        assert place.described == f"{source} (hub)"


def test_the_resolved_commit_is_recorded(cached: Cache, tmp_path: Path) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    cached("org/model", other_weights(saved("qwen2_vl"), tmp_path / "later"), SECOND, "tuned")
    before, after = load_checkpoints(
        [CheckpointSpec("before", "org/model"), CheckpointSpec("after", "org/model@tuned")],
        dtype="float32", attn="sdpa", device="cpu",
    )  # fmt: skip
    records = [one.record("t", {}) for one in (before, after)]
    assert [r.revision for r in records] == [FIRST, SECOND]
    assert records[0].weights_sha != records[1].weights_sha
    assert load_processor(before.place.where).modalities == ("text", "image")
    local = load_checkpoint("here", str(saved("qwen2_vl"))).record("t", {})
    assert local.revision == ""
    assert local.weights_sha == records[0].weights_sha


def test_an_adapter_repository_brings_its_base_at_its_revision(
    cached: Cache, tmp_path: Path, trained: Path
) -> None:
    cached("org/model", other_weights(saved("qwen2_vl"), tmp_path / "later"), SECOND, "main")
    base = cached("org/model", saved("qwen2_vl"), FIRST, "v1")
    folder = copied(trained, tmp_path / "lora", revision="v1")
    cached("me/lora", folder, "a" * 40, "main")
    place = locate("me/lora")
    assert (place.revision, place.model.revision) == ("a" * 40, FIRST)
    assert Path(place.model.where) == base
    assert place.described == f"me/lora (hub; an adapter on org/model@v1 at {FIRST[:12]})"
    both = load_checkpoints(
        [CheckpointSpec("base", "org/model@v1"), CheckpointSpec("lora", "me/lora")],
        dtype="float32", attn="sdpa", device="cpu",
    )  # fmt: skip
    assert both[0].model is both[1].model
    assert [c.record("t", {}).revision for c in both] == [FIRST, "a" * 40]
    # A folder with the same adapter says the same of its base, and has no revision of its own.
    assert locate(str(folder)).model.revision == FIRST
    assert locate(str(folder)).revision is None


def test_a_hub_adapter_goes_through_the_command_line(
    cached: Cache,
    tmp_path: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    cached("me/lora", trained, SECOND, "v2")
    rows = [json.dumps({"id": str(i), "text": f"thing number {i}"}) for i in range(4)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    (tmp_path / "geomkit.toml").write_text(
        "[checkpoints]\nmine = { source = 'me/lora', revision = 'v2' }\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("--ckpt", "before=org/model", "--ckpt", "mine", "--data", "in.jsonl", "--out", "run")
    monkeypatch.setattr(sys, "argv", ["geomkit", "capture", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code, capsys.readouterr().err
    records = open_run(tmp_path / "run").checkpoints()
    assert [r.revision for r in records] == [FIRST, SECOND]
    assert records[1].source == f"me/lora@v2 (hub; an adapter on org/model at {FIRST[:12]})"
    assert records[1].adapter_sha
    assert not records[0].adapter_sha


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("org/absent", r"'org/absent', found neither a folder of that name nor a cached copy, and"),
        ("org/model@v9", r"'org/model@v9', found neither .* HF_HUB_OFFLINE is set"),
        ("org/model@../../secret", "hub id"),
        ("org/..", "hub id"),
        ("org/-model", "org/-model"),
        ("org/" + "m" * 200, "hub"),
    ],
)
def test_what_the_hub_does_not_give_is_one_sentence(
    cached: Cache, source: str, sentence: str
) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    with pytest.raises(CheckpointError, match=sentence) as caught:
        locate(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (errors.GatedRepoError, r"'org/model@v1', got one that is gated: .* log in"),
        (errors.RepositoryNotFoundError, "found none, nor a folder here: check the spelling"),
        (errors.RevisionNotFoundError, "which has no revision 'v1'"),
        (errors.HfHubHTTPError, "the hub's client says: HfHubHTTPError: it rained"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, kind: Any, sentence: str
) -> None:
    def answer(*_: Any, **__: Any) -> str:
        long = "it rained\n" + "Cannot access gated repo for url https://hub.example/x.\n" * 40
        raise kind(long, response=mock.MagicMock(headers={}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        locate("org/model@v1")
    assert "\n" not in str(caught.value)
    assert "https" not in str(caught.value)


def test_a_partly_cached_repository_is_told_apart(cached: Cache, tmp_path: Path) -> None:
    partly = copied(saved("qwen2_vl"), tmp_path / "partly")
    (partly / "model.safetensors").unlink()
    cached("org/model", partly, FIRST, "main")
    with pytest.raises(CheckpointError, match=r"Expected model\.safetensors in org/model at 1111"):
        locate("org/model")
    assert locate("org/model", weights=False).revision == FIRST


def test_a_listing_that_promises_more_than_is_cached_is_no_hindrance(
    cached: Cache, tmp_path: Path
) -> None:
    """Offline, the hub's client refuses a commit that has a file which was never fetched."""
    snapshot = cached("org/model", saved("qwen2_vl"), FIRST, "main")
    entry = {"size": 1, "blob_id": "0" * 40}
    files = {p.name: entry for p in snapshot.iterdir()} | {"evaluation.json": entry}
    trees = snapshot.parents[1] / "trees"
    trees.mkdir()
    listing = {"format_version": 1, "files": files}
    (trees / f"{FIRST}.json").write_text(json.dumps(listing))
    with pytest.raises(errors.LocalEntryNotFoundError):
        huggingface_hub.snapshot_download("org/model")
    assert Path(locate("org/model").where) == snapshot


def test_a_repository_without_a_model_is_none(cached: Cache, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    cached("org/words", tmp_path / "words", FIRST, "main")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        locate("org/words")


def test_only_text_and_safetensors_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, cached: Cache, trained: Path
) -> None:
    asked: list[str] = []
    real = huggingface_hub.snapshot_download

    def listening(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return real(repo, revision=revision, allow_patterns=allow_patterns)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", listening)
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    cached("me/lora", trained, SECOND, "main")
    locate("me/lora")
    filtered = huggingface_hub.utils.filter_repo_objects
    hostile = ["pytorch_model.bin", "a.pt", "modeling.py", "x.pkl", "adapter_model.bin", "c.h5"]
    assert list(filtered(hostile, allow_patterns=asked)) == []
    wanted = ["config.json", "model.safetensors", "adapter_model.safetensors", "merges.txt"]
    assert list(filtered(wanted, allow_patterns=asked)) == wanted


def test_sharded_weights_are_taken_from_the_index(cached: Cache, tmp_path: Path) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    model = AutoModelForMultimodalLM.from_pretrained(saved("qwen2_vl"))
    model.save_pretrained(folder, max_shard_size="100KB")
    names = {p.name for p in folder.glob("*.safetensors")}
    assert len(names) > 1
    assert set(vetting.weight_files(folder)) == names
    cached("org/sharded", folder, FIRST, "main")
    assert locate("org/sharded").revision == FIRST
    shards = sorted(names)
    (folder / shards[0]).unlink()
    with pytest.raises(CheckpointError, match=rf"Expected {shards[0]} in"):
        locate(str(folder))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/x.safetensors", "w.bin", 3, None])
def test_an_index_names_files_beside_it(tmp_path: Path, name: Any) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "m")
    (folder / vetting.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="weight_map with names of safetensors"):
        locate(str(folder))


# ------------------------------------------------------------------------ what runs no code --


def trap(folder: Path, name: str) -> Path:
    """A module that leaves a mark when it is imported."""
    mark = folder / "EXECUTED"
    (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    return mark


def test_code_beside_a_known_architecture_is_not_run(tmp_path: Path) -> None:
    autos = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMultimodalLM")
    auto_map = dict.fromkeys(autos, "own.Own")
    folder = copied(saved("qwen2_vl"), tmp_path / "m", auto_map=auto_map)
    mark = trap(folder, "own.py")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        path = folder / name
        auto = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoImageProcessor": "own.Own",
                "AutoFeatureExtractor": "own.Own", "AutoProcessor": "own.Own"}  # fmt: skip
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": auto}))
    assert load_checkpoint("m", str(folder)).dim == 32
    assert load_processor(folder).modalities == ("text", "image")
    assert not mark.exists()


def test_code_for_an_unknown_architecture_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = copied(
        saved("qwen2_vl"), tmp_path / "m", model_type="own", auto_map={"AutoConfig": "own.Own"}
    )
    mark = trap(folder, "own.py")
    with pytest.raises(CheckpointError, match=r"got 'own' with code of its own \(auto_map\)"):
        locate(str(folder))
    assert not mark.exists()


def test_transformers_itself_ignores_the_private_attention_key(tmp_path: Path) -> None:
    """What geomkit refuses first would do no harm: shown, so that an update that changes it shows.

    The public key is another matter: transformers takes it, so only words are let through.
    """
    from transformers import AutoConfig

    folder = copied(saved("qwen2_vl"), tmp_path / "m", _attn_implementation_internal="evil/kernels")
    assert AutoConfig.from_pretrained(folder)._attn_implementation is None
    (folder / "config.json").unlink()
    shutil.copytree(saved("qwen2_vl"), folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["attn_implementation"] = "evil/kernels"
    (folder / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(folder)._attn_implementation == "evil/kernels"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"_attn_implementation_internal": "evil/kernels"}, "'_attn_implementation_internal'"),
        ({"text_config": {"_attn_implementation_internal": "sdpa"}}, "_attn_implementation_int"),
        ({"_experts_implementation_internal": "x"}, "private part of transformers"),
        ({"attn_implementation": "evil/kernels"}, "code of another repository"),
        ({"_attn_implementation": "evil/kernels:flash"}, "code of another repository"),
        ({"vision_config": {"attn_implementation": {"": "a/b"}}}, "code of another repository"),
        ({"attn_implementation": 3}, "name of an implementation"),
        ({"to_dict": "x"}, "got 'to_dict'"),
        ({"__class__": "x"}, "got '__class__'"),
        ({"vision_config": {"from_pretrained": 1}}, "got 'from_pretrained'"),
        ({"model_type": "no_such_model"}, "architecture that transformers .* has"),
        ({"model_type": 3}, "architecture that transformers .* has"),
        ({"model_type": None}, "architecture that transformers .* has"),
        ({"text_config": {"hidden_size": "wide"}}, "transformers refuses it"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "at most 10000 layers"),
    ],
)
def test_a_hostile_config_is_refused(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "m", **changed)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        locate(str(folder))
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_honest_settings_pass(tmp_path: Path) -> None:
    """Published configurations carry private keys and labels of any word."""
    folder = copied(
        saved("qwen2_vl"),
        tmp_path / "m",
        _attn_implementation="flash_attention_2",
        _name_or_path="somewhere/else",
        _commit_hash="abc",
        label2id={"update": 0, "to_dict": 1},
    )
    one = load_checkpoint("m", str(folder), attn="eager")
    assert one.record("t", {}).attention == "eager"  # what was asked for, not what the file says


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Expected JSON in"),
        (b"[]", "Expected a JSON object in"),
        (b"{}", "found none"),
        (b"\xff\xfe", "Expected JSON in"),
        (b"[" * 100_000, "Expected JSON in"),
        (b'{"a":' * 100_000, "Expected JSON in"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Expected JSON in"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "m")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        locate(str(folder))


def test_an_endless_config_is_not_read(tmp_path: Path) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "m")
    with (folder / "config.json").open("wb") as file:
        file.truncate(vetting.LARGEST + 1)
    with pytest.raises(CheckpointError, match="more than 64 MiB"):
        locate(str(folder))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "m.h5"])
def test_pickles_get_a_clear_refusal(tmp_path: Path, name: str) -> None:
    folder = copied(saved("qwen2_vl"), tmp_path / "m")
    torch.save(load_file(folder / "model.safetensors"), folder / name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"got {name}: only safetensors .* save_pretrained"):
        locate(str(folder))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="found no weights"):
        locate(str(folder))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "header too small"),
        (b"<html>404</html>" * 9, "header too large"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "git lfs pull"),
        (None, "Expected safetensors in"),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = copied(saved("qwen2_vl"), tmp_path / "m") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint("m", str(path.parent))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"tokenizer_class": 3}'),
        ("preprocessor_config.json", b"[]"),
        ("preprocessor_config.json", b'{"image_processor_type": "os"}'),
        (
            "preprocessor_config.json",
            b'{"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}',
        ),
    ],
)
def test_a_hostile_processor_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    # Unless it is told not to, transformers asks a person at a terminal, who may say yes.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = copied(saved("qwen2_vl"), tmp_path / "m")
    mark = trap(folder, "own.py")
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="Expected a tokenizer and, for media"):
        load_processor(folder)
    assert not mark.exists()


def test_an_adapter_in_a_pickle_is_refused(tmp_path: Path, trained: Path) -> None:
    folder = copied(trained, tmp_path / "lora", base_model_name_or_path=str(saved("qwen2_vl")))
    weights = folder / vetting.ADAPTER_WEIGHTS
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"got adapter_model\.bin: only safetensors"):
        locate(str(folder))


# ------------------------------------------------------------------------------------ adapters --


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"base_model_name_or_path": "."}, "full model, got the adapter"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path"),
        ({"base_model_name_or_path": "no such thing"}, "which its adapter_config.json names"),
        ({"base_model_name_or_path": "\0"}, "which its adapter_config.json names"),
        ({"base_model_name_or_path": "evil/base"}, "names: Expected a repository of the hub"),
        ({"revision": ["v1"]}, "Expected a revision of org/model"),
        ({"revision": "../../x"}, "hub id"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "names a module to import"),
    ],
)
def test_an_adapter_that_leads_elsewhere_is_refused(
    cached: Cache, tmp_path: Path, trained: Path, changed: dict[str, Any], sentence: str
) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    folder = copied(trained, tmp_path / "lora", **changed)
    with pytest.raises(CheckpointError, match=sentence):
        locate(str(folder))


@pytest.mark.parametrize("named", ["qwen", "./qwen", "../qwen"])
def test_a_base_beside_its_adapter_is_found_wherever_one_stands(
    tmp_path: Path, trained: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(trained, tmp_path / "w" / "lora", base_model_name_or_path=named)
    shutil.copytree(saved("qwen2_vl"), tmp_path / "w" / "qwen")
    for here in (tmp_path, tmp_path / "w", folder):
        monkeypatch.chdir(here)
        base = locate(str(folder)).base
        assert base is not None
        assert Path(base.where).resolve() == tmp_path / "w" / "qwen"


def test_an_adapter_says_its_base(tmp_path: Path, trained: Path, cached: Cache) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    folder = copied(trained, tmp_path / "lora")
    shown = f"{folder} (folder; an adapter on org/model at {FIRST[:12]})"
    assert locate(str(folder)).described == shown
    assert locate("lco").described == "sandbox:lco (built in)"
    assert Path(locate("lco").model.where) == sandbox.checkpoint_path("base")


def test_an_adapter_repository_with_a_pickle_is_refused(
    cached: Cache, tmp_path: Path, trained: Path
) -> None:
    cached("org/model", saved("qwen2_vl"), FIRST, "main")
    folder = copied(trained, tmp_path / "lora")
    (folder / vetting.ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
    cached("me/lora", folder, SECOND, "main")
    with pytest.raises(CheckpointError, match=r"Expected adapter_model\.safetensors in me/lora"):
        locate("me/lora")


# ----------------------------------------------------------------------- sentence-transformers --

NEW = "sentence_transformers.base.modules"
OLD = "sentence_transformers.models"
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"


def embedder(to: Path, *kinds: str, path: str = "", inner: Path | None = None) -> Path:
    """A sentence-transformers folder with these classes."""
    shutil.copytree(inner or saved("text_only"), to / path)
    modules = [
        {"idx": i, "name": str(i), "path": path if i == 0 else f"{i}_X", "type": kind}
        for i, kind in enumerate(kinds)
    ]
    (to / "modules.json").write_text(json.dumps(modules))
    return to


@pytest.mark.parametrize(
    ("kinds", "path"),
    [
        ((f"{OLD}.Transformer", f"{OLD}.Pooling", f"{OLD}.Normalize"), ""),
        ((f"{OLD}.Transformer", f"{OLD}.Pooling"), "0_Transformer"),
        ((f"{NEW}.transformer.Transformer", POOLING, f"{NEW}.normalize.Normalize"), ""),
    ],
)
def test_a_sentence_transformers_folder_is_its_transformer(
    tmp_path: Path, kinds: tuple[str, ...], path: str
) -> None:
    folder = embedder(tmp_path / "st", *kinds, path=path)
    one = load_checkpoint("st", str(folder))
    assert Path(one.place.where) == folder / path
    assert one.fingerprint == load_checkpoint("plain", str(saved("text_only"))).fingerprint
    said = one.record("t", {}).source
    assert "a sentence-transformers model, whose Pooling" in said
    assert ("Normalize" in said) == (len(kinds) == 3)
    assert load_processor(one.place.where).modalities == ("text",)


def test_what_sentence_transformers_writes_is_read(tmp_path: Path) -> None:
    """The library's own writer, not our idea of it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    first = Transformer(str(saved("text_only")))
    model = SentenceTransformer(modules=[first, Pooling(32, "lasttoken"), Normalize()])
    model.save_pretrained(str(tmp_path / "st"))
    one = load_checkpoint("st", str(tmp_path / "st"))
    # It saves no head; every other weight is the original's, and two loads are one checkpoint.
    plain = load_checkpoint("plain", str(saved("text_only")))
    assert one.fingerprint.decoder == plain.fingerprint.decoder
    assert one.fingerprint == load_checkpoint("again", str(tmp_path / "st")).fingerprint
    assert "whose Pooling and Normalize are not applied" in one.record("t", {}).source


def test_a_hub_embedder_has_its_weights_in_a_folder(cached: Cache, tmp_path: Path) -> None:
    kinds = (f"{OLD}.Transformer", f"{OLD}.Pooling")
    folder = embedder(tmp_path / "st", *kinds, path="0_Transformer")
    snapshot = cached("org/st", folder, FIRST, "main")
    place = locate("org/st")
    assert Path(place.where) == snapshot / "0_Transformer"
    assert place.revision == FIRST
    (folder / "0_Transformer" / "model.safetensors").unlink()
    cached("org/cut", folder, SECOND, "main")
    with pytest.raises(CheckpointError, match=r"Expected 0_Transformer/model\.safetensors"):
        locate("org/cut")


@pytest.mark.parametrize(
    ("kinds", "path", "sentence"),
    [
        (("own.Own",), "", "got 'own.Own': no code"),
        ((f"{OLD}.Transformer", "own.Pooling"), "", "got 'own.Pooling'"),
        (("os.system",), "", "got 'os.system'"),
        (("sentence_transformers.models.Transformer\n",), "", "Expected classes of sentence"),
        (("sentence_transformers.util.file_io.Transformer",), "", "Expected classes of sentence"),
        ((f"{OLD}.StaticEmbedding",), "", "got StaticEmbedding at ''"),
        ((f"{OLD}.Pooling", f"{OLD}.Transformer"), "", "as the first module"),
        ((f"{OLD}.Transformer", f"{OLD}.Router"), "", "after the Transformer"),
        ((f"{OLD}.Transformer",), "../elsewhere", "got Transformer at '../elsewhere'"),
        ((f"{OLD}.Transformer",), "deep/er", "got Transformer at 'deep/er'"),
        ((), "", "list of modules .* got an empty one"),
    ],
)
def test_foreign_modules_are_refused_and_not_run(
    tmp_path: Path, kinds: tuple[str, ...], path: str, sentence: str
) -> None:
    folder = embedder(tmp_path / "in" / "st", *kinds, path=path)
    mark = trap(folder, "own.py")
    with pytest.raises(CheckpointError, match=sentence):
        locate(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("modules", [{}, "x", [1], [{"type": None}], [{}]])
def test_modules_of_another_form_are_refused(tmp_path: Path, modules: Any) -> None:
    folder = embedder(tmp_path / "st", f"{OLD}.Transformer")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="Expected"):
        locate(str(folder))


# --------------------------------------------------------------------------------------- names --


@pytest.mark.parametrize(
    "name",
    ["MEDIA", "con", "NUL.x", "com1", "a.", "plan.json", "analysis.csv", "report.html", "a.tmp"],
)
def test_a_name_that_a_run_or_a_file_system_keeps_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="keeps for itself"):
        CheckpointSpec.parse(f"{name}=base")


@pytest.mark.parametrize("name", ["..", ".x", "-x", "a/b", "a" * 65, "é", "a\n", "a b", "\0"])
def test_a_name_is_plain(name: str) -> None:
    with pytest.raises(UsageError, match="NAME=SOURCE with a NAME of letters"):
        CheckpointSpec.parse(f"{name}=base")


@pytest.mark.parametrize("second", ["base", "Base", "BASE"])
def test_names_are_told_apart_on_every_file_system(second: str) -> None:
    specs = [CheckpointSpec("base", "base"), CheckpointSpec(second, "lco")]
    with pytest.raises(UsageError, match=r"--ckpt base=base --ckpt base2=lco"):
        check_distinct(specs)
    check_distinct([CheckpointSpec("before", "base"), CheckpointSpec("after", "base")])


@pytest.mark.parametrize("source", ["bsae", "\0", "x" * 5000, "a b/c", "./absent", "~nobody/x", ""])
def test_a_source_that_nothing_is_called_is_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match="near names: "):
        check_source(source)


def test_near_names_come_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copied(saved("qwen2_vl"), tmp_path / "omni-here")
    for asked, near in {"omni-her": "omni-here", "omni-filed": "omni-file", "bse": "base"}.items():
        with pytest.raises(CheckpointError, match=f"near names: .*{near}"):
            check_source(asked, names=["omni-file"])


def test_a_folder_that_may_not_be_looked_into_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shared folder for temporary files, where others' folders are closed."""
    (tmp_path / "closed").mkdir()
    monkeypatch.chdir(tmp_path)
    is_file = Path.is_file

    def guarded(path: Path) -> bool:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", guarded)
    with pytest.raises(CheckpointError, match="near names: base"):
        check_source("bsae")
