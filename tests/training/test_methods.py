"""Every method trains what it says, writes it, and what is written is what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from geomkit import summary
from geomkit.capture import capture_run
from geomkit.checkpoints import CheckpointSpec, load_checkpoint
from geomkit.errors import CheckpointError, MissingExtra, TrainingError, UsageError
from geomkit.plans import CaptureConfig
from geomkit.training import methods, trainer
from geomkit.training.config import METHODS, TrainConfig
from geomkit.training.generation import Captions
from geomkit.training.merging import merge
from geomkit.training.methods import prepare
from geomkit.training.pairs import PairSet, TextPair, shuffled
from geomkit.training.record import TrainingRecord
from geomkit.training.scope import region_hashes
from geomkit.training.speech import answer_loss, as_it_was, drift, without_branches
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.tiny_models import saved
from tests.training.loaded import load

Trained = tuple[TrainingRecord, Path]
CORE = {"decoder", "embeddings", "head"}


@pytest.fixture(scope="module")
def scenes(held_out: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Nine pictures and nine sounds with their captions."""
    many = [
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {'x' * k}", group="")
        for k in range(3)
        for s in held_out
    ]
    return tuple(many)


@pytest.fixture(scope="module")
def trained(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    scenes: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Trained]:
    """Method -> its record and folder, trained once."""
    done: dict[str, Trained] = {}

    def get(method: str) -> Trained:
        if method not in done:
            out = tmp_path_factory.mktemp(method) / "out"
            clip = method.startswith("clip")
            config = replace(
                quick,
                method=method.partition("+")[0],
                train_towers=method == "clip+towers",
                batch=4 if clip else 8,
            )
            rows: Any = scenes if clip else pairs
            captions = Captions(scenes[:6])
            done[method] = train(config, base, rows, out, captions=captions, source=str(base)), out
        return done[method]

    return get


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_what_is_to_stay_stays_and_it_is_on_record(
    method: str, trained: Callable[[str], Trained]
) -> None:
    record, out = trained(method)
    assert record.frozen_before == record.frozen_after
    stays = CORE - ({"decoder"} if method == "full" else set())
    assert stays < set(record.frozen_before)
    assert ("decoder" in record.frozen_before) is (method != "full")
    assert record.trainable_outside == 0
    assert json.loads((out / "training.json").read_text())["config"]["method"] == method
    assert record.trained == (("text", "image", "audio") if method == "clip" else ("text",))
    assert record.media["image"] == (9 if method == "clip" else 0)


@pytest.mark.parametrize("method", [*METHODS, "clip+towers"])
def test_every_method_is_captured_beside_its_base(
    method: str, trained: Callable[[str], Trained], base: Path, tmp_path: Path, scenes: Any
) -> None:
    _, out = trained(method)
    specs = [CheckpointSpec("base", str(base)), CheckpointSpec("tuned", str(out))]
    run = capture_run(specs, scenes[:6], tmp_path / "run", CaptureConfig())
    assert {row.modality for row in run.plan.rows} == {"text", "image", "audio"}
    before, after = (run.states(name, "final_norm")[0] for name in ("base", "tuned"))
    assert np.isfinite(after).all()
    assert not np.isclose(before, after, atol=1e-5).all(axis=1).any()  # every row moved
    early = [run.states(name, "block_00")[0] for name in ("base", "tuned")]
    assert np.allclose(*early, atol=1e-6) is (method == "linear")


def test_full_changes_the_decoder_in_the_files_and_nothing_else(
    trained: Callable[[str], Trained], base: Path
) -> None:
    record, out = trained("full")
    before, after = tensors(base), tensors(out)
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed
    assert not any(p in n for n in changed for p in ("visual", "audio", "lm_head", "embed"))
    assert any("layernorm" in n for n in changed)  # of equal ones: found by name, not by value
    assert record.agreement
    assert all(a.relative < 1e-5 for a in record.agreement)
    assert {a.modality for a in record.agreement} == {"text", "image", "audio"}
    now = region_hashes(load(out).model)
    assert {r for r in now if record.frozen_before.get(r) != now[r]} == {"decoder"}


def test_towers_train_when_they_are_asked_to(trained: Callable[[str], Trained], base: Path) -> None:
    record, out = trained("clip+towers")
    before, after = tensors(base), tensors(out)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert any("visual" in n for n in changed)
    assert any("audio" in n for n in changed)
    assert any("layers" in n and "q_proj" in n and "visual" not in n for n in changed)
    assert not any(p in n for n in changed for p in ("lm_head", "embed_tokens"))
    assert set(record.frozen_before) == {"decoder", "embeddings", "head"}
    assert record.trainable_outside > 0
    assert all(a.relative < 1e-4 for a in record.agreement)


def test_linear_is_one_matrix_after_the_final_norm(
    trained: Callable[[str], Trained], base: Path
) -> None:
    record, out = trained("linear")
    (matrix,) = load_file(out / "adapter_model.safetensors").values()
    assert not torch.equal(matrix, torch.eye(len(matrix)))
    assert record.trainable_names == ("projection.weight",)
    # it changes no weight, so it says what the base says
    assert all(change.difference == 0 for change in record.generation)
    with pytest.raises(TrainingError, match="nothing to merge"):
        merge(out, base, out.parent / "merged")


def test_a_projection_of_another_width_is_refused(
    trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    record = json.loads((trained("linear")[1] / "adapter_config.json").read_text())
    record["base_model_name_or_path"] = str(saved("text_only"))
    (out / "adapter_config.json").write_text(json.dumps(record))
    from safetensors.torch import save_file

    save_file({"projection.weight": torch.eye(5)}, out / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="shape"):
        load_checkpoint("p", str(out))


def test_joint_keeps_more_of_the_speech_than_lora(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    """On the very texts that are trained on: the generative part does what it says."""
    shown = tuple(Sample(f"p{k}", text=p.anchor) for k, p in enumerate(pairs[:8]))
    captions = Captions(shown, answers={f"p{k}": p.positive for k, p in enumerate(pairs[:8])})
    config = replace(quick, steps=12, learning_rate=5e-3)
    after = {
        method: train(
            replace(config, method=method, generative=1.0),
            base,
            pairs[:16],
            tmp_path / method,
            captions=captions,
        ).generation[0]
        for method in ("lora", "joint")
    }
    assert after["joint"].after < after["lora"].after - 0.1
    parts = json.loads((tmp_path / "joint" / "training.json").read_text())["steps"][0]
    assert set(parts["parts"]) == {"contrastive", "generative"}
    assert parts["loss"] == pytest.approx(sum(parts["parts"].values()), abs=1e-3)


def test_the_penalty_keeps_the_model_near_its_base(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, steps=8, learning_rate=5e-3)
    moved = {}
    for kl in (0.0, 1000.0):
        for method in ("lora", "full"):
            out = tmp_path / f"{method}-{kl}"
            train(replace(config, kl=kl, method=method), base, pairs, out, source=str(base))
            plain, tuned = load(base), load_checkpoint("t", str(out), device="cpu")
            asked = "<|im_start|>user\n{}\nDescribe the above text:<|im_end|>\n"
            turn = f"{asked}<|im_start|>assistant\n{{}}"
            texts = [turn.format(p.anchor, p.positive) for p in pairs]
            ids = plain.processor.tokenizer(texts, return_tensors="pt", padding=True)
            with torch.no_grad(), tuned.active():
                old, new = plain.model(**ids).logits, tuned.model(**ids).logits
            moved[method, kl] = float(drift(new, old, ids["attention_mask"]))
    assert moved["lora", 1000.0] < moved["lora", 0.0] / 2
    assert moved["full", 1000.0] < moved["full", 0.0] / 2


def test_drift_is_the_divergence_written_out() -> None:
    torch.manual_seed(0)
    now, before = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    p, q = before.softmax(-1), now.softmax(-1)
    expected = (p * (p / q).log()).sum(-1)[mask.bool()].mean()
    assert float(drift(now, before, mask)) == pytest.approx(float(expected), abs=1e-6)
    assert float(drift(now, now, mask)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("left", [0, 1])
def test_answer_loss_is_over_the_last_real_tokens(left: int) -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(1, 6, 5), torch.randint(0, 5, (1, 6))
    expected = functional.cross_entropy(logits[0, 2:4], ids[0, 3:5])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    given = {"input_ids": ids.roll(left, 1), "attention_mask": mask.roll(left, 1)}
    found = answer_loss(logits.roll(left, 1), given, torch.tensor([2]))
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_the_base_of_the_penalty_is_the_model_as_it_was(base: Path, quick: TrainConfig) -> None:
    loaded = load(base)
    ids = dict(loaded.processor.tokenizer("a red circle", return_tensors="pt"))
    with torch.no_grad():
        expected = loaded.model(**ids).logits
        kept = as_it_was(loaded.model)
        arm = prepare(loaded.model, quick)
        for tensor in arm.trainable().values():
            tensor.normal_(std=0.1)
        assert not torch.allclose(arm.model(**ids).logits, expected, atol=1e-3)
    arm.model.train()
    assert torch.equal(without_branches(arm.model)(ids), expected)
    assert torch.equal(kept(ids), expected)
    assert arm.model.training


def test_a_shuffled_arm_has_no_pair_of_its_own(pairs: tuple[TextPair, ...]) -> None:
    rows = PairSet("rows", pairs, {"empty": 1})
    mixed = shuffled(rows, 3)
    assert isinstance(mixed, PairSet)
    assert mixed.dropped == {"empty": 1}
    texts = [p for p in mixed if isinstance(p, TextPair)]
    assert [p.anchor for p in texts] == [p.anchor for p in pairs]
    assert sorted(p.positive for p in texts) == sorted(p.positive for p in pairs)
    assert sum(a.positive == b.positive for a, b in zip(texts, pairs, strict=True)) < 3
    # a hard negative of its own anchor, or of its new positive, would say what is near what
    owner = {p.negative: row for row, p in enumerate(pairs)}
    source = {p.positive: row for row, p in enumerate(pairs)}
    assert len(owner) == len(source) == len(pairs)  # so that every text says whose it was
    assert sorted(str(p.negative) for p in texts) == sorted(str(p.negative) for p in pairs)
    for row, pair in enumerate(texts):
        assert len({row, source[pair.positive], owner[pair.negative]}) == 3
    assert shuffled(rows, 3) == mixed != shuffled(rows, 4)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_cannot_be_shuffled(count: int, pairs: tuple[TextPair, ...]) -> None:
    with pytest.raises(TrainingError, match=f"Expected 3 or more pairs to shuffle, got {count}"):
        shuffled(pairs[:count], 0)


def test_shuffling_is_part_of_a_training(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    null, honest = (
        train(replace(quick, shuffle_pairs=mixed), base, pairs, tmp_path / str(mixed))
        for mixed in (True, False)
    )
    assert null.pairs_sha != honest.pairs_sha
    assert null.adapter_sha != honest.adapter_sha
    assert null.config.shuffle_pairs
    assert "another row's positive, and the hard negative of a third" in null.null
    assert f"null arm: {null.null}" in list(summary.training_lines(null))
    assert honest.null == ""


def test_a_thawed_tower_is_caught_before_the_first_step(base: Path, quick: TrainConfig) -> None:
    model = load(base).model
    full = replace(quick, method="full")
    honest = methods.thaw

    def careless(model: Any, free: Any) -> None:
        honest(model, free)
        next(p for n, p in model.named_parameters() if "visual" in n).requires_grad_(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "thaw", careless)
        with pytest.raises(TrainingError, match=r"decoder to train and nothing else.*visual"):
            prepare(model, full)


def test_full_does_not_train_the_embeddings(base: Path, quick: TrainConfig) -> None:
    arm = prepare(load(base).model.to(torch.bfloat16), replace(quick, method="full"))
    names = arm.trainable()
    assert not any("embed" in n or "lm_head" in n or "visual" in n for n in names)
    assert any(n.endswith("language_model.norm.weight") for n in names)
    assert {t.dtype for t in names.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "lore"}, "method of lora, full"),
        ({"train_towers": True}, "method clip"),
        ({"method": "linear", "kl": 0.1}, "trains the decoder on text"),
        ({"method": "full", "qlora": True}, "uses LoRA"),
        ({"method": "clip", "train_towers": True, "qlora": True}, "without --train-towers"),
        ({"kl": -1.0}, "kl of 0 or more"),
        ({"spike": float("nan")}, "spike of 0 or more"),
    ],
)
def test_options_that_would_do_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig.of("sandbox", **given)


def test_pairs_must_fit_the_method(
    base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, scenes: Any, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="a medium and a text in every sample"):
        train(replace(quick, method="clip"), base, pairs, tmp_path / "a")
    with pytest.raises(TrainingError, match="Expected text pairs for method lora"):
        train(quick, base, scenes, tmp_path / "a")
    with pytest.raises(UsageError, match="dtype float32"):
        train(replace(quick, method="full", dtype="bfloat16"), base, pairs, tmp_path / "a")


def test_only_the_layers_that_get_branches_are_rounded(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for bitsandbytes, whose layers round their weights to a tenth."""

    class Linear4bit(torch.nn.Linear):
        def __init__(self, ins: int, outs: int, *, bias: bool, **_: Any) -> None:
            super().__init__(ins, outs, bias=bias)

    def rounded(weight: torch.Tensor, **_: Any) -> torch.nn.Parameter:
        return torch.nn.Parameter(weight.round(decimals=1), requires_grad=False)

    stand_in = SimpleNamespace(nn=SimpleNamespace(Linear4bit=Linear4bit, Params4bit=rounded))
    monkeypatch.setattr(trainer.quantising, "import_module", lambda _: stand_in)
    model = load(base).model
    before = region_hashes(model)
    assert trainer.quantising.quantise(model, quick.targets) == 14
    after = region_hashes(model)
    assert {region for region in after if after[region] != before[region]} == {"decoder"}
    names = [n for n, m in model.named_modules() if isinstance(m, Linear4bit)]
    assert all("language_model.layers." in n for n in names)
    record = train(replace(quick, qlora=True), base, pairs, tmp_path / "a", source=str(base))
    # the base on record is the one in the files, not the rounded one
    assert record.frozen_before == record.frozen_after == before
    assert merge(tmp_path / "a", base, tmp_path / "merged").merged == 14


def test_without_bitsandbytes_the_extra_is_named(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(trainer.quantising, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'geomkit\[qlora\]'"):
        train(replace(quick, qlora=True), base, pairs, tmp_path / "a")
    assert not (tmp_path / "a").exists()
