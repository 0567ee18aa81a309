"""Generative pretraining of the sandbox model: next-token loss on answers, fresh scenes always.

    python -m geomkit.sandbox.pretrain OUT --steps 5300

Warm up, hold, then a linear decay to zero over the last fifth. Every step draws its scenes from a
generator seeded by its own number, so a run resumed from a snapshot sees the scenes that an
uninterrupted run would have seen. The log (`pretraining.jsonl`) is kept with the checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch.utils.data import DataLoader, Dataset

from geomkit.sandbox import architecture, world
from geomkit.sandbox.architecture import Size
from geomkit.sandbox.conversations import IGNORED, Conversation, Task, collate, converse
from geomkit.types import Modality

KINDS: tuple[world.Kind, ...] = ("image", "audio")
MODALITIES: tuple[Modality, ...] = ("text", *KINDS)


@dataclass(frozen=True, slots=True)
class Mix:
    """Conversations a step and modality, from step `start` on; half questions, half captions."""

    start: int
    text: int
    image: int
    audio: int


@dataclass(frozen=True, slots=True)
class Pretraining:
    """The schedule. What is learned gives its rows to what is not: text first, sound last."""

    steps: int = 5300
    warmup: int = 200
    decay_share: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    mixes: tuple[Mix, ...] = (Mix(0, 10, 18, 12), Mix(2000, 16, 12, 20), Mix(3250, 6, 14, 28))
    seed: int = 0
    evaluate_every: int = 250
    evaluation_scenes: int = 120

    def rate(self, step: int) -> float:
        """Learning rate at a step: warm up, hold, decay to zero."""
        left = (self.steps - step) / (self.steps * self.decay_share)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, max(left, 0.0))

    def mix(self, step: int) -> Mix:
        """The mix that holds at a step."""
        return [m for m in self.mixes if m.start <= step][-1]


class Scenes(Dataset[list[dict[str, torch.Tensor]]]):
    """Step number -> its micro-batches: one of questions, one of descriptions."""

    def __init__(self, schedule: Pretraining) -> None:
        self.schedule = schedule
        self.combinations = {kind: list(world.combinations(kind, "train")) for kind in world.SPOKEN}

    def __len__(self) -> int:
        return self.schedule.steps

    def __getitem__(self, step: int) -> list[dict[str, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.schedule.seed, step])
        mix = self.schedule.mix(step)
        counts = {m: getattr(mix, m) // 2 for m in MODALITIES}
        return [
            collate([self._draw(m, task, rng) for m in MODALITIES for _ in range(counts[m])])
            for task in ("ask", "describe")
        ]

    def _draw(self, modality: Modality, task: Task, rng: np.random.Generator) -> Conversation:
        kind = KINDS[int(rng.integers(2))] if modality == "text" else _kind(modality)
        spoken = self.combinations[kind]
        chosen = world.scene(kind, spoken[int(rng.integers(len(spoken)))], rng)
        return converse(chosen, modality, task, rng)


def _kind(modality: Modality) -> world.Kind:
    return "audio" if modality == "audio" else "image"


def pretrain(
    out: Path, schedule: Pretraining, size: Size, *, resume: Path | None = None, workers: int = 1
) -> None:
    """Train from random weights (or a snapshot) and write the checkpoint, its log and snapshots."""
    torch.manual_seed(schedule.seed)
    out.mkdir(parents=True, exist_ok=True)
    model = architecture.build(size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    first = 0
    if resume is not None:
        state = torch.load(resume, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
    loader = DataLoader(
        Scenes(schedule),
        batch_size=None,
        sampler=range(first, schedule.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    with (out / "pretraining.jsonl").open("a") as log:
        _note(log, {"schedule": asdict(schedule), "size": asdict(size), "from": first})
        _loop(model, optimizer, loader, schedule, first, out, log)
    architecture.save(model.half(), out)


def _loop(
    model: Any, optimizer: Any, loader: Any, schedule: Pretraining, first: int, out: Path, log: Any
) -> None:
    started, smooth = time.perf_counter(), None
    for step, batches in enumerate(loader, start=first):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = _step(model, optimizer, batches, schedule.clip)
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        done = step + 1
        if done % 50 == 0:
            seconds = round((time.perf_counter() - started) / (done - first), 3)
            _note(log, {"step": done, "loss": round(smooth, 4), "seconds_a_step": seconds})
        if done % schedule.evaluate_every == 0 or done == schedule.steps:
            _note(
                log,
                {"step": done, **evaluate(model, "validation", scenes=schedule.evaluation_scenes)},
            )
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": done}, out / f"snapshot-{done:05d}.pt")


def _step(model: Any, optimizer: Any, batches: list[dict[str, torch.Tensor]], clip: float) -> float:
    total = 0.0
    for batch in batches:
        loss = model(**batch).loss / len(batches)
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


@torch.inference_mode()
def evaluate(model: Any, split: world.Split, *, scenes: int, seed: int = 7) -> dict[str, Any]:
    """Accuracy of greedy one-word answers per modality and attribute, and caption loss in nats.

    Every question is asked alone, on combinations of `split`. An answer counts when every token is
    the model's first choice, which is exactly when greedy decoding would have said it.
    """
    rng = np.random.default_rng(seed)
    training = model.training
    model.eval()
    report: dict[str, Any] = {"accuracy": {}, "caption_loss": {}}
    for modality in MODALITIES:
        kinds = ("image", "audio") if modality == "text" else (modality,)
        for kind in kinds:
            combos = list(world.combinations(kind, split))  # type: ignore[arg-type]
            picks = rng.choice(len(combos), scenes, replace=len(combos) < scenes)
            drawn = [world.scene(kind, combos[i], rng) for i in picks]  # type: ignore[arg-type]
            name = modality if modality == kind else f"text about {kind}"
            report["accuracy"][name] = _accuracy(model, drawn, modality, rng)
            told = [converse(s, modality, "describe", rng) for s in drawn]
            losses = [
                float(model(**collate(told[i : i + 60])).loss) for i in range(0, len(told), 60)
            ]
            report["caption_loss"][name] = round(float(np.mean(losses)), 4)
    model.train(training)
    return report


def _accuracy(
    model: Any, scenes: list[world.Scene], modality: Modality, rng: np.random.Generator
) -> dict[str, float]:
    found: dict[str, float] = {}
    for attribute in world.SPOKEN[scenes[0].kind]:
        asked = []
        for s in scenes:
            whole = converse(s, modality, "ask", rng)
            answer = world.answer(s, attribute)
            turn = (f"{attribute.question}?", answer)
            asked.append(Conversation(s, modality, (turn,), whole.shown))
        right = [r for i in range(0, len(asked), 60) for r in _correct(model, asked[i : i + 60])]
        found[attribute.name] = round(float(np.mean(right)), 4)
    return found


def _correct(model: Any, asked: list[Conversation]) -> list[bool]:
    batch = collate(asked)
    labels = batch.pop("labels")
    choice = model(**batch).logits[:, :-1].argmax(-1)
    wanted = labels[:, 1:]
    right: list[bool] = ((choice == wanted) | (wanted == IGNORED)).all(1).tolist()
    return right


def _note(log: Any, record: Mapping[str, Any]) -> None:
    log.write(json.dumps(record) + "\n")
    log.flush()
    typer.echo(json.dumps(record), err=True)


def main(
    out: Path,
    steps: int = 5300,
    width: str = "default",
    resume: Path | None = None,
    threads: int = 2,
    evaluate_every: int = 250,
) -> None:
    """Pretrain a sandbox model into OUT."""
    torch.set_num_threads(threads)
    size = architecture.NARROW if width == "narrow" else Size()
    schedule = Pretraining(steps=steps, evaluate_every=evaluate_every)
    pretrain(out, schedule, size, resume=resume)


if __name__ == "__main__":
    typer.run(main)
