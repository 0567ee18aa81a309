"""Epochs are as long as the schedule counts on, and what they leave out is counted and said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from geomkit import summary
from geomkit.errors import TrainingError
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import PairSet, TextPair
from geomkit.training.sampling import DistinctTexts, Epoch, few
from geomkit.training.trainer import train
from geomkit.types import Sample
from tests.training.live import seen

CROWD = 30  # of 60 pairs, how many share an anchor in `repeated`


@pytest.fixture
def repeated(pairs: tuple[TextPair, ...]) -> tuple[TextPair, ...]:
    """Sixty pairs, half of which have one anchor: a batch holds one of those at most."""
    return tuple(
        TextPair("a red circle" if k < CROWD else f"{p.anchor} {k}", f"{p.positive} {k}")
        for k, p in enumerate(pairs)
    )


def sampler(rows: list[str], batch: int, kind: Any = DistinctTexts) -> Any:
    table = Dataset.from_dict({"anchor": rows, "positive": [f"to {k}" for k in range(len(rows))]})
    return kind(table, batch_size=batch, drop_last=True, generator=torch.Generator(), seed=3)


def test_without_repeated_texts_it_is_the_librarys_sampler() -> None:
    rows = [f"text {k}" for k in range(23)]
    ours, theirs = (sampler(rows, 4, kind) for kind in (DistinctTexts, NoDuplicatesBatchSampler))
    for epoch in (0, 1):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        assert list(ours) == list(theirs)
        assert ours.done[epoch] == (23 % 4, 0)


@pytest.mark.parametrize("batch", [4, 7])
def test_an_epoch_is_never_short_and_every_batch_is_of_distinct_texts(batch: int) -> None:
    """The library alone gives up after two more draws."""
    rows = ["the same"] * 56 + [f"text {k}" for k in range(batch)]
    table = sampler(rows, batch)
    assert len(list(sampler(rows, batch, NoDuplicatesBatchSampler))) < len(table)
    found = list(table)
    assert len(found) == len(table) == len(rows) // batch
    assert all(len({rows[k] for k in one}) == batch for one in found)
    drawn = {k for one in found for k in one}
    assert table.done[0] == (len(rows) - len(drawn), batch * len(found) - len(drawn))
    table.set_epoch(1)
    assert list(table) != found


def test_not_one_batch_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"batches of 3 distinct texts, not one .* from 6 rows"):
        list(sampler(["a"] * 6, 3))


def test_steps_and_schedule_are_those_that_were_announced_and_the_rest_is_told(
    base: Path, repeated: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, steps=0, epochs=2.0, batch=12, mini_batch=12, geometry_every=0)
    told: list[tuple[int, int]] = []
    with seen() as found:
        record = train(
            config,
            base,
            PairSet("rows", repeated),
            tmp_path / "a",
            progress=lambda stage, done, total: (
                told.append((done, total)) if stage == "train" else None
            ),
        )
    steps = 2 * (60 // 12)
    assert len(record.steps) == found.trainer.state.max_steps == steps
    assert told == [(k + 1, steps) for k in range(steps)]
    assert found.trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-12)
    assert [e.epoch for e in record.epochs] == [1, 2]
    for epoch in record.epochs:
        # of the crowd each batch had one; rows that were left out made room for others, drawn again
        assert epoch.rows == 60
        assert epoch.left_out >= CROWD - 5
        assert epoch.repeated == epoch.left_out
    worst = max(record.epochs, key=lambda e: e.left_out)
    (notice,) = record.notices
    assert (notice.kind, notice.step) == ("rows", steps)
    assert f"left out {worst.left_out} of 60 rows" in notice.message
    lines = "\n".join(summary.training_lines(record))
    assert f"2 whole epochs; rows that one left out: at most {worst.left_out} of 60" in lines
    assert f"warning: {notice.message}" in lines
    written = json.loads((tmp_path / "a" / "training.json").read_text())
    assert [e["left_out"] for e in written["epochs"]] == [e.left_out for e in record.epochs]


def test_an_epoch_that_did_not_end_says_nothing(
    base: Path, repeated: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, steps=6, batch=12, mini_batch=12, workers=1)
    record = train(config, base, repeated, tmp_path / "a")  # one and a bit
    assert [e.epoch for e in record.epochs] == [1]


def test_rows_of_several_kinds_are_counted_together(
    base: Path,
    pairs: tuple[TextPair, ...],
    held_out: tuple[Sample, ...],
    quick: TrainConfig,
    tmp_path: Path,
) -> None:
    scenes = tuple(
        replace(s, id=f"{s.id}-{k}", text=f"{s.text} {'x' * k}", group="")
        for k in range(3)
        for s in held_out
    )
    config = replace(quick, method="clip", steps=0, epochs=1.0, batch=4, mini_batch=4)
    record = train(config, base, scenes, tmp_path / "a")
    assert len(record.steps) == 2 * (9 // 4)
    assert record.epochs == (Epoch(1, 18, 2, 0),)


def test_an_interruption_does_not_change_the_count(
    base: Path, repeated: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    given = {"steps": 0, "epochs": 3.0, "batch": 12, "mini_batch": 12, "save_steps": 5}
    config = replace(quick, geometry_every=0, **given)
    whole = train(config, base, repeated, tmp_path / "whole")

    def stop(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("train", 12):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, base, repeated, tmp_path / "cut", progress=stop)
    again = train(config, base, repeated, tmp_path / "cut")
    assert again.epochs == whole.epochs
    assert len(again.epochs) == 3
    assert again.adapter_sha == whole.adapter_sha


def test_a_few_per_cent_are_no_warning() -> None:
    assert few([], 1) == ()
    assert few([Epoch(1, 100, 3, 0)], 1) == ()
    assert (
        "epoch 2 left out 4 of 100" in few([Epoch(1, 100, 3, 0), Epoch(2, 100, 4, 1)], 9)[0].message
    )
