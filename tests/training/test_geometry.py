"""The callback measures what the metrics give, changes nothing, and works in other trainers."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from geomkit import geometry
from geomkit.errors import TrainingError, UsageError
from geomkit.training import GeometryCallback
from geomkit.training.config import TrainConfig
from geomkit.training.geometry import measured, recorded
from geomkit.training.pairs import TextPair
from geomkit.training.record import TrainingRecord
from geomkit.training.states import last_states
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.tiny_models import saved
from tests.training.loaded import load

UNITS = {"text", "image", "audio", "text-image", "text-audio"}


@pytest.fixture(scope="module")
def watched(
    base: Path,
    pairs: tuple[TextPair, ...],
    quick: TrainConfig,
    held_out: tuple[Sample, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainingRecord, TrainingRecord]:
    """A training that is watched every second step, and the same without."""
    folder = tmp_path_factory.mktemp("watched")
    records = [
        train(
            replace(quick, steps=5, geometry_every=every, dropout=0.1),
            base,
            pairs,
            folder / str(every),
            watched=held_out,
        )
        for every in (2, 0)
    ]
    return records[0], records[1]


def test_it_looks_before_every_k_steps_and_after(
    watched: tuple[TrainingRecord, TrainingRecord],
) -> None:
    looked, blind = watched
    assert sorted({g.step for g in looked.geometry}) == [0, 2, 4, 5]
    assert {g.modality for g in looked.geometry} == UNITS
    assert blind.geometry == ()


def test_watching_changes_no_bit(watched: tuple[TrainingRecord, TrainingRecord]) -> None:
    assert watched[0].adapter_sha == watched[1].adapter_sha


def test_values_are_those_of_the_metrics_on_the_states_of_capture(
    watched: tuple[TrainingRecord, TrainingRecord], base: Path, held_out: tuple[Sample, ...]
) -> None:
    plain = load(base)
    states = {m: t.numpy() for m, t in last_states(plain.model, plain.processor, held_out).items()}
    first = {(g.metric, g.modality): g.value for g in watched[0].geometry if g.step == 0}
    for modality, table in states.items():
        for name in ("mean_cosine", "uniformity", "effective_rank", "rank_me"):
            expected = getattr(geometry, name)(table)
            assert first[name, modality] == pytest.approx(expected, rel=1e-4)
    shown = [k for k, s in enumerate(held_out) if s.image is not None]
    unit = [t / (t**2).sum(1, keepdims=True) ** 0.5 for t in (states["text"], states["image"])]
    cosine = (unit[0][shown] * unit[1]).sum(1).mean()
    assert first["paired_cosine", "text-image"] == pytest.approx(cosine, abs=1e-5)
    assert first["alignment", "text-image"] == pytest.approx(2 - 2 * cosine, abs=1e-5)


def test_what_is_not_defined_is_none() -> None:
    found = list(measured({"text": (("a", "b"), torch.ones(2, 3).numpy())}))
    assert ("effective_rank", "text", None) in found


class Plain(nn.Module):
    """A model of someone else's: a transformers model somewhere inside, a loss of its own."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"loss": self.inner(input_ids=input_ids, use_cache=False).logits.square().mean()}


def arguments(folder: Path, *, kind: Any = TrainingArguments, **given: Any) -> Any:
    usual = {"max_steps": 3, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    return kind(
        output_dir=str(folder), per_device_train_batch_size=2, use_cpu=True, **{**usual, **given}
    )


ROWS = Dataset.from_dict({"input_ids": [[5, 6, 7]] * 8})


def test_it_works_in_the_trainer_of_transformers(
    base: Path, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    callback = GeometryCallback(held_out, base, every=2)
    trainer = Trainer(
        Plain(load(base).model),
        args=arguments(tmp_path),
        train_dataset=ROWS,
        callbacks=[callback],
    )
    trainer.train()
    assert sorted({g.step for g in callback.history}) == [0, 2, 3]
    assert {g.modality for g in callback.history} == UNITS
    assert tuple(recorded(trainer.state.log_history)) == tuple(callback.history)
    moved = {(g.metric, g.modality, g.step): g.value for g in callback.history}
    assert moved["mean_cosine", "text", 0] != moved["mean_cosine", "text", 3]


DOCS = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.skipif(not DOCS.is_file(), reason="needs the checkout, not the wheel")
@pytest.mark.parametrize("number", [0, 1])
def test_the_manual_runs_as_it_stands(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the trainer of transformers and in that of sentence-transformers, on a model of text."""
    folder = saved("text_only")
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    texts = ("a red circle", "a blue ring", "one green star on the left")
    rows = [{"id": str(k), "text": text} for k, text in enumerate(texts)]
    (tmp_path / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "manual"}
    if number == 0:
        names["model"] = AutoModelForCausalLM.from_pretrained(folder)
        names["args"] = arguments(tmp_path / "out")
        names["rows"] = Dataset.from_dict({"input_ids": [[5, 6, 7]] * 8, "labels": [[5, 6, 7]] * 8})
    else:
        names["model"] = SentenceTransformer(str(folder), device="cpu")
        names["args"] = arguments(tmp_path / "out", kind=SentenceTransformerTrainingArguments)
        names["rows"] = Dataset.from_dict({"anchor": texts * 3, "positive": texts * 3})
        names["loss"] = MultipleNegativesRankingLoss(names["model"])
    block = blocks[number].replace('"org/model"', repr(str(folder))).replace("every=50", "every=2")
    exec(compile(block, "manual", "exec"), names)
    history = names["look"].history
    assert sorted({one.step for one in history}) == [0, 2, 3]
    moved = {one.step: one.value for one in history if one.metric == "mean_cosine"}
    assert moved[0] != moved[3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, "Expected every of 1 or more for GeometryCallback, got 0"),
        ({"every": -5}, "Expected every of 1 or more"),
        ({"batch": 0}, "Expected batch of 1 or more"),
        ({"samples": ()}, "Expected samples to look at, got none"),
        ({"prompt": "nothing"}, "prompt preset"),
    ],
)
def test_what_can_never_look_is_refused(
    given: dict[str, Any], message: str, base: Path, held_out: tuple[Sample, ...]
) -> None:
    with pytest.raises(UsageError, match=message):
        GeometryCallback(**{"samples": held_out, "processor": base, **given})


def test_a_resumed_trainer_goes_on_with_what_was_measured(
    base: Path, held_out: tuple[Sample, ...], tmp_path: Path
) -> None:
    """It looks at the steps that it would have looked at, and at no other."""

    def trained(resume: bool) -> GeometryCallback:
        callback = GeometryCallback(held_out, base, every=4)
        given = arguments(tmp_path, save_strategy="steps", save_steps=3, max_steps=6)
        model = Plain(load(base).model)
        trainer = Trainer(model, args=given, train_dataset=ROWS, callbacks=[callback])
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3") if resume else None)
        return callback

    whole, resumed = trained(resume=False), trained(resume=True)
    assert sorted({one.step for one in whole.history}) == [0, 4, 6]
    assert sorted({one.step for one in resumed.history}) == [0, 4, 6]


def test_a_model_without_a_decoder_asks_for_one(held_out: tuple[Sample, ...], base: Path) -> None:
    callback = GeometryCallback(held_out, base)
    state = SimpleNamespace(global_step=0, log_history=[])
    args = SimpleNamespace(report_to=[])
    with pytest.raises(TrainingError, match="give GeometryCallback the whole model"):
        callback.on_train_begin(args, state, None, model=nn.Linear(2, 2))


def test_it_reports_where_the_trainer_does(
    base: Path, held_out: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, int]] = []
    logged: list[dict[str, Any]] = []

    class Writer:
        def __init__(self, log_dir: str) -> None:
            assert str(tmp_path) in log_dir

        def add_scalar(self, name: str, _value: float, step: int) -> None:
            written.append((name, step))

        def flush(self) -> None:
            """Nothing to do."""

    board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]  # a stand-in
    wandb.run, wandb.log = object(), logged.append  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    callback = GeometryCallback(held_out, base, model=load(base).model)
    state = SimpleNamespace(global_step=7, log_history=[])
    args = SimpleNamespace(report_to=["tensorboard", "wandb"], output_dir=str(tmp_path))
    callback.on_train_begin(args, state, None)
    assert ("geometry/mean_cosine/audio", 7) in written
    assert logged[0]["train/global_step"] == 7
    assert logged[0]["geometry/paired_cosine/text-image"] == pytest.approx(
        next(g.value for g in callback.history if g.metric == "paired_cosine")
    )
