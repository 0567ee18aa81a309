"""Every setting of a recipe does what it says: seen in the live trainer, and in its numbers.

Most settings are looked at in one or two trainings of a few steps, beside a reference that differs
in that setting alone. A field without a check here is an error of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geomkit.errors import MissingExtra, UsageError
from geomkit.prompts import prompts
from geomkit.training import quantising, trainer
from geomkit.training.config import METHODS, PRESETS, SCHEDULES, TrainConfig
from geomkit.training.fitting import arguments_of
from geomkit.training.guards import CollapseGuard, LossGuard
from geomkit.training.loss import false_negatives
from geomkit.training.pairs import TextPair
from geomkit.training.record import TrainingRecord
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.live import Live, seen

REFERENCE = TrainConfig.of(
    "sandbox",
    rank=4,
    alpha=8.0,
    steps=3,
    batch=8,
    mini_batch=8,
    warmup_steps=0,
    temperature=0.2,
    max_grad_norm=1e9,
    geometry_every=0,
)
RATE = REFERENCE.learning_rate


@dataclass(frozen=True, slots=True)
class Ran:
    """A training that is over."""

    record: TrainingRecord
    live: Live
    out: Path

    @property
    def first(self) -> float:
        """The loss of the first step, of a model that is still the base."""
        return float(self.live.losses[0])


@pytest.fixture(scope="module")
def run(
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Ran]:
    """Train with some settings changed; once for each change."""
    done: dict[str, Ran] = {}
    scenes = [
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {'x' * k}", group="")
        for k in range(3)
        for s in held_out
    ]
    grouped = [replace(pair, group=str(k // 2)) for k, pair in enumerate(pairs)]

    def go(**given: Any) -> Ran:
        key = repr(sorted(given.items()))
        if key not in done:
            config = replace(REFERENCE, **given)
            out = tmp_path_factory.mktemp("run") / "out"
            rows: Any = scenes if config.method == "clip" else grouped
            with seen() as live:
                record = train(config, base, rows, out)
            done[key] = Ran(record, live, out)
        return done[key]

    return go


Run = Callable[..., Ran]
CHECKS: dict[str, Callable[[Run], None]] = {}


def checks(field: str) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    def note(check: Callable[[Run], None]) -> Callable[[Run], None]:
        CHECKS[field] = check
        return check

    return note


@torch.no_grad()
def states(ran: Ran) -> list[Tensor]:
    """Unit vectors of the first batch's columns, of the base."""
    features, _ = ran.live.trainer.collect_features(ran.live.inputs[0])
    model = ran.live.trainer.model.eval()
    with ran.live.model.disable_adapter():
        return [functional.normalize(model(f)["sentence_embedding"].float()) for f in features]


def info_nce(ran: Ran, anchors: Tensor, columns: list[Tensor], *, masked: bool = True) -> float:
    """The loss written out."""
    scores = anchors @ torch.cat(columns).T / ran.record.config.temperature
    labels = ran.live.inputs[0]["label"]
    if masked:
        own = torch.arange(len(labels))
        scores = scores.masked_fill(false_negatives(labels, own), -torch.inf)
    return float(functional.cross_entropy(scores, torch.arange(len(anchors))))


def branches(ran: Ran) -> dict[str, Any]:
    return {n: m for n, m in ran.live.model.named_modules() if hasattr(m, "lora_A")}


def words(ran: Ran, column: str = "anchor") -> list[str]:
    """What the model was shown in the first batch."""
    ids = ran.live.inputs[0][f"{column}_input_ids"]
    return [str(t) for t in ran.live.trainer.job.processor.tokenizer.batch_decode(ids)]


@checks("preset")
def _(_run: Run) -> None:
    for name, changed in PRESETS.items():
        config = TrainConfig.of(name)
        assert {k: getattr(config, k) for k in changed} == dict(changed)
        usual = {f.name for f in fields(config)} - {*changed, "preset"}
        assert all(getattr(config, k) == getattr(TrainConfig(), k) for k in usual)


@checks("method")
def _(run: Run) -> None:
    """What trains is of test_methods; here, which loss is taken, on which columns."""
    found = {m: run(method=m, batch=6, mini_batch=6, steps=1) for m in METHODS}
    assert {m: bool(branches(r)) for m, r in found.items()} == {
        "lora": True, "full": False, "linear": False, "clip": True, "joint": True,
    }  # fmt: skip
    assert {m: r.live.trainer.loss.symmetric for m, r in found.items()} == {
        m: m == "clip" for m in METHODS
    }
    clip = found["clip"]
    media, texts = states(clip)
    there, back = info_nce(clip, media, [texts]), info_nce(clip, texts, [media])
    assert clip.first == pytest.approx((there + back) / 2, abs=1e-5)
    assert abs(there - back) > 1e-3  # so that one direction alone would be seen
    for method in ("lora", "joint"):
        anchors, *columns = states(found[method])[:3]
        said = found[method].record.steps[0].parts.get("contrastive", found[method].first)
        assert said == pytest.approx(info_nce(found[method], anchors, columns), abs=1e-4)


@checks("prompt")
def _(run: Run) -> None:
    for name in ("lco", "Say it with one {modality}:"):
        found = run(prompt=name, steps=1)
        asked = found.record.instruction
        assert asked == prompts(name)["text"]
        tokens = found.live.trainer.job.processor.tokenizer(asked)["input_ids"]
        told = " ".join(map(str, tokens))
        for row in found.live.inputs[0]["anchor_input_ids"].tolist():
            assert f" {told} " in " ".join(map(str, row)), asked


@checks("rank")
def _(run: Run) -> None:
    for rank in (4, 3):
        for module in branches(run(rank=rank)).values():
            assert module.lora_A["default"].weight.shape[0] == rank
            assert module.lora_B["default"].weight.shape[1] == rank


@checks("alpha")
def _(run: Run) -> None:
    one, two = run(), run(alpha=24.0)
    assert {m.scaling["default"] for m in branches(one).values()} == {8 / 4}
    assert {m.scaling["default"] for m in branches(two).values()} == {24 / 4}
    # before the first step the branches give nothing, but three times the slope
    assert one.first == two.first
    for name, gradient in one.live.gradients[0].items():
        assert torch.allclose(3 * gradient, two.live.gradients[0][name], rtol=1e-4, atol=1e-6)


@checks("dropout")
def _(run: Run) -> None:
    one, two, again = run(), run(dropout=0.5), run(dropout=0.5, seed=0, workers=0)
    for ran, share in ((one, 0.0), (two, 0.5)):
        for module in branches(ran).values():
            found = [m for m in module.lora_dropout.modules() if isinstance(m, nn.Dropout)]
            assert [m.p for m in found] == ([share] if share else [])
    assert one.first == two.first
    name = next(n for n in one.live.gradients[0] if "lora_B" in n)
    apart = one.live.gradients[0][name] - two.live.gradients[0][name]
    assert apart.norm() > 0.1 * one.live.gradients[0][name].norm()
    assert torch.equal(two.live.gradients[2][name], again.live.gradients[2][name])


@checks("targets")
def _(run: Run) -> None:
    found = run(targets=("q_proj", "up_proj"))
    assert {name.rsplit(".", 1)[-1] for name in branches(found)} == {"q_proj", "up_proj"}
    assert len(branches(found)) == found.record.lora_modules == 4


@checks("learning_rate")
def _(run: Run) -> None:
    for rate in (RATE, 3 * RATE):
        found = run(learning_rate=rate)
        assert found.record.steps[0].learning_rate == pytest.approx(rate)
        # the first step of Adam moves every weight by the rate, whatever its gradient
        before, after = found.live.weights[:2]
        moved = max(float((after[n] - before[n]).abs().max()) for n in before)
        assert moved == pytest.approx(rate, rel=1e-3)


def rates(schedule: str, warm: int, steps: int) -> list[float]:
    """The share of the peak at every step, written out."""
    found = []
    for step in range(steps):
        gone = (step - warm) / (steps - warm)
        if step < warm:
            found.append(step / warm)
        elif schedule == "cosine":
            found.append((1 + math.cos(math.pi * gone)) / 2)
        elif schedule == "linear":
            found.append(1 - gone)
        elif schedule == "polynomial":
            end = 1e-7 / RATE  # what transformers leaves
            found.append((1 - end) * (1 - gone) + end)
        else:
            found.append(1.0)
    return found


def warm(schedule: str) -> int:
    return 0 if schedule == "constant" else 2


@checks("schedule")
def _(run: Run) -> None:
    for schedule in SCHEDULES:
        steps = warm(schedule)
        record = run(schedule=schedule, warmup_steps=steps, steps=5).record
        told = [step.learning_rate / RATE for step in record.steps]
        assert told == pytest.approx(rates(schedule, steps, 5)), schedule


@checks("warmup_steps")
def _(run: Run) -> None:
    for steps in (0, 2):
        record = run(schedule="cosine", warmup_steps=steps, steps=5).record
        told = [step.learning_rate / RATE for step in record.steps]
        assert told == pytest.approx(rates("cosine", steps, 5))
    with pytest.raises(UsageError, match="constant_with_warmup"):
        replace(REFERENCE, schedule="constant", warmup_steps=2)


@checks("weight_decay")
def _(run: Run) -> None:
    """Decoupled: apart from the gradient, every weight shrinks by rate times decay."""
    one, two = (run(method="full", steps=1, weight_decay=w) for w in (0.0, 0.5))
    own = two.live.trainer.job.arm.trainable()
    names = {id(p): n for n, p in own.items()}
    for group in two.live.trainer.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            spared = "norm" in name or name.endswith("bias")
            assert group["weight_decay"] == (0.0 if spared else 0.5), name
            shrunk = -RATE * (0.0 if spared else 0.5) * two.live.weights[0][name]
            apart = two.live.weights[1][name] - one.live.weights[1][name]
            assert torch.allclose(apart, shrunk, atol=1e-6), name
    assert {bool(g["weight_decay"]) for g in two.live.trainer.optimizer.param_groups} == {
        True,
        False,
    }


@checks("max_grad_norm")
def _(run: Run) -> None:
    free, held = run(steps=1), run(steps=1, max_grad_norm=1e-3)
    for ran, expected in ((free, free.record.steps[0].grad_norm), (held, 1e-3)):
        # after one step Adam's first moment is a tenth of the gradient that it was given
        moments = [s["exp_avg"] for s in ran.live.trainer.optimizer.state.values()]
        norm = float(torch.cat([m.flatten() for m in moments]).norm()) * 10
        assert norm == pytest.approx(expected, rel=1e-3)
    assert free.record.steps[0].grad_norm == pytest.approx(held.record.steps[0].grad_norm)
    assert free.record.steps[0].grad_norm > 0.01


@checks("epochs")
def _(run: Run) -> None:
    for epochs, steps in ((0.5, 4), (1.5, 11)):
        found = run(steps=0, epochs=epochs)
        assert len(found.record.steps) == found.live.trainer.state.max_steps == steps


@checks("steps")
def _(run: Run) -> None:
    for steps in (1, 5):
        assert len(run(steps=steps).record.steps) == steps


@checks("batch")
def _(run: Run) -> None:
    for size in (8, 5):
        found = run(batch=size)
        assert {len(given["label"]) for given in found.live.inputs} == {size}
        texts = words(found) + words(found, "positive")
        assert len(texts) == 2 * size


@checks("mini_batch")
def _(run: Run) -> None:
    """Three columns: in one pass each, or twice in three passes each."""
    assert run(steps=1).live.calls == [8] * 3
    found = run(steps=1, mini_batch=3)
    assert found.live.calls == [3, 3, 2] * 6
    assert found.first == pytest.approx(run(steps=1).first, abs=1e-6)


@checks("temperature")
def _(run: Run) -> None:
    for temperature in (0.2, 0.03):
        found = run(temperature=temperature, steps=1)
        anchors, *columns = states(found)
        assert found.first == pytest.approx(info_nce(found, anchors, columns), abs=1e-5)


@checks("mask_equal")
def _(run: Run) -> None:
    for masks in (True, False):
        found = run(mask_equal=masks, batch=40, mini_batch=40, steps=1)
        anchors, *columns = states(found)
        groups = found.live.inputs[0]["label"][:, 0]
        assert (len(set(groups.tolist())) < 40) is masks  # two of a group are in the batch
        assert found.first == pytest.approx(info_nce(found, anchors, columns), abs=1e-5)
    plain = run(mask_equal=False, batch=40, mini_batch=40, steps=1)
    masked = run(mask_equal=True, batch=40, mini_batch=40, steps=1)
    anchors, *columns = states(masked)
    assert plain.first == pytest.approx(info_nce(masked, anchors, columns, masked=False), abs=1e-5)
    assert abs(plain.first - masked.first) > 1e-3


@checks("shuffle_pairs")
def _(run: Run) -> None:
    own, other = (run(shuffle_pairs=mixed).live.trainer.train_dataset for mixed in (False, True))
    assert own["anchor"][:] == other["anchor"][:]
    same = sum(a == b for a, b in zip(own["positive"][:], other["positive"][:], strict=True))
    assert same < 5


@checks("generative")
def _(run: Run) -> None:
    none = run(steps=1).first
    one, two = (run(method="joint", generative=w, steps=1).first for w in (0.25, 1.0))
    assert one - none == pytest.approx((two - none) / 4, abs=1e-5)
    assert two - none > 1


@checks("kl")
def _(run: Run) -> None:
    """There is no drift before the first step, and so the second begins alike."""
    none, one, two = (run(kl=w, learning_rate=0.05).live.losses for w in (0.0, 10.0, 40.0))
    assert none[0] == pytest.approx(one[0]) == pytest.approx(two[0])
    assert float(two[1] - none[1]) == pytest.approx(4 * float(one[1] - none[1]), rel=0.01)
    assert one[1] - none[1] > 1e-3


@checks("train_towers")
def _(run: Run) -> None:
    for towers in (False, True):
        found = run(method="clip", batch=6, mini_batch=6, steps=1, train_towers=towers)
        own = found.live.trainer.job.arm.trainable()
        assert any("visual" in name for name in own) is towers
        assert any("audio_tower" in name for name in own) is towers


@checks("max_tokens")
def _(run: Run) -> None:
    long, short = run(), run(max_tokens=3)
    assert (long.record.cut, short.record.cut) == (0, 180)
    tokenizer = long.live.trainer.job.processor.tokenizer
    frame = len(tokenizer("a<|im_end|>" + prompts("lco")["text"])["input_ids"]) + 20
    assert short.live.inputs[0]["anchor_input_ids"].shape[1] <= frame
    assert all(len(a) > len(b) for a, b in zip(words(long), words(short), strict=True))


@checks("gradient_checkpointing")
def _(run: Run) -> None:
    plain, again = run(steps=1), run(steps=1, gradient_checkpointing=True)
    assert len(again.live.calls) == 2 * len(plain.live.calls)  # once more in the backward pass
    for name, gradient in plain.live.gradients[0].items():
        assert torch.allclose(gradient, again.live.gradients[0][name], atol=1e-6)


class _Stop(Exception):
    """Enough was seen."""


def loaded_with(config: TrainConfig) -> Mapping[str, Any]:
    """What the checkpoint of a recipe is loaded with."""
    asked: dict[str, Any] = {}

    def load(*_: Any, **given: Any) -> None:
        asked.update(given)
        raise _Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "load_checkpoint", load)
        with pytest.raises(_Stop):
            trainer.load_base(config, "base")
    return asked


@checks("dtype")
def _(run: Run) -> None:
    for name, dtype in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        model = (run(steps=1) if name == "auto" else run(dtype=name, steps=1)).live.model
        assert {p.dtype for n, p in model.named_parameters() if "lora_" not in n} == {dtype}
        assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}


@checks("qlora")
def _(run: Run) -> None:
    asked: list[Any] = []

    def quantise(_model: Any, targets: Any) -> None:
        asked.append(targets)
        raise MissingExtra("stop")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "quantise", quantise)
        with pytest.raises(MissingExtra):
            run(qlora=True, targets=("q_proj",))
        run()
    assert asked == [("q_proj",)]


@checks("attention")
def _(run: Run) -> None:
    for kernel, found in (("sdpa", run(steps=1)), ("eager", run(attention="eager", steps=1))):
        job = found.live.trainer.job
        assert job.checkpoint.decoder.config._attn_implementation == kernel
    assert run(attention="eager", steps=1).first == pytest.approx(run(steps=1).first, abs=1e-5)


@checks("device")
def _(run: Run) -> None:
    assert loaded_with(replace(REFERENCE, device="cuda:3"))["device"] == "cuda:3"
    found = run(device="cpu")
    assert found.live.trainer.model.device.type == "cpu"
    assert found.live.trainer.args.device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no GPU"):
            run(device="cuda")


@checks("workers")
def _(run: Run) -> None:
    found = run(workers=1)
    assert found.live.trainer.get_train_dataloader().num_workers == 1
    assert found.record.adapter_sha == run().record.adapter_sha


@checks("seed")
def _(run: Run) -> None:
    one, again, other = run(), run(seed=0, workers=0, dtype="auto"), run(seed=1)
    assert one.record.adapter_sha == again.record.adapter_sha
    assert [s.loss for s in one.record.steps] == [s.loss for s in again.record.steps]
    assert words(one) == words(again)
    assert words(one) != words(other)  # the order
    name = next(n for n in one.live.weights[0] if "lora_A" in n)
    assert not torch.equal(one.live.weights[0][name], other.live.weights[0][name])  # the start


@checks("save_steps")
def _(run: Run) -> None:
    found = run(save_steps=2, steps=5)
    kept = found.out / "checkpoints"
    assert sorted(p.name for p in kept.glob("checkpoint-*")) == [
        f"checkpoint-{k}" for k in (2, 4, 5)
    ]
    assert not (run().out / "checkpoints").exists()


@checks("geometry_every")
def _(run: Run) -> None:
    found = run(geometry_every=2, steps=5)
    assert {g.step for g in found.record.geometry} == {0, 2, 4, 5}
    assert run().record.geometry == ()


@checks("spike")
def _(run: Run) -> None:
    guards = run(spike=7.0, collapse=0.01, geometry_every=2).live.trainer.callback_handler.callbacks
    assert [g.factor for g in guards if isinstance(g, LossGuard)] == [7.0]


@checks("collapse")
def _(run: Run) -> None:
    guards = run(spike=7.0, collapse=0.01, geometry_every=2).live.trainer.callback_handler.callbacks
    (guard,) = (g for g in guards if isinstance(g, CollapseGuard))
    assert (guard.share, guard.stops) == (0.01, True)


@checks("report_to")
def _(run: Run) -> None:
    found = run()
    assert found.live.trainer.args.report_to == []
    job = found.live.trainer.job
    told = replace(job, config=replace(job.config, report_to="tensorboard"))
    assert arguments_of(told, found.out, "cpu").report_to == ["tensorboard"]


@pytest.mark.parametrize("field", [f.name for f in fields(TrainConfig)])
def test_a_setting_does_what_it_says(field: str, run: Run) -> None:
    assert field in CHECKS, f"{field} has no check: what would tell that it is ignored?"
    CHECKS[field](run)


def test_a_batch_never_holds_a_text_twice(run: Run) -> None:
    for given in run(batch=40, mini_batch=40, steps=1).live.inputs:
        for column in ("anchor", "positive", "negative"):
            ids = [tuple(row) for row in given[f"{column}_input_ids"].tolist()]
            assert len(set(ids)) == len(ids)


def test_every_setting_is_an_option_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed is what the recipe has."""
    from typer.testing import CliRunner

    from geomkit import cli, stages

    asked: list[TrainConfig] = []

    def fake(
        _base: str, _pairs: str, _out: Path, _report: Any, *, preset: Any, **given: Any
    ) -> None:
        extra = {k: given.pop(k) for k in ("mix", "probe_set")}
        assert extra == {"mix": "", "probe_set": ""}
        asked.append(TrainConfig.of(preset or "lco-text", **given))
        raise _Stop

    monkeypatch.setattr(stages, "train", fake)
    other: dict[str, Any] = {
        "preset": "e5v", "method": "clip", "prompt": "e5v", "schedule": "linear", "device": "cpu",
        "dtype": "float32", "attention": "eager", "report_to": "all", "dropout": 0.5,
        "targets": ("q_proj", "o_proj"), "collapse": 0.5,
    }  # fmt: skip
    for field in fields(TrainConfig):
        usual = getattr(TrainConfig(), field.name)
        value = other.get(field.name)
        if value is None:
            value = (not usual) if isinstance(usual, bool) else usual + 2
        flag = "--" + field.name.replace("_", "-")
        typed = [flag, str(value)]
        if isinstance(usual, bool):
            typed = [flag if value else f"--no-{flag[2:]}"]
        if isinstance(usual, tuple):
            typed = [part for one in value for part in (flag, one)]
        more = ["--method", "clip"] if field.name == "train_towers" else []
        CliRunner().invoke(cli.app, ["train", *typed, *more])
        assert getattr(asked.pop(), field.name) == value
