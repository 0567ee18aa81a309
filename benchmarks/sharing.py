"""(d) A second checkpoint on the same towers: in the base's run, and in a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import models, peers
from benchmarks.clock import Spent, interleaved
from benchmarks.floor import flops
from benchmarks.lines import Line, Setup, compared
from geomkit.architectures import decoder
from geomkit.checkpoints import Checkpoint, CheckpointSpec, load_checkpoints
from geomkit.forward import Towers
from geomkit.plans import CaptureConfig
from geomkit.worker import Worker
from tests.tiny_models import adapter

DECODER = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|v_proj|up_proj)"


def second_checkpoint(setup: Setup) -> list[Line]:
    """(d) Base and a second checkpoint in one run, against a run for each."""
    name, side, rows = ("tiny-vl", 112, 4) if setup.quick else ("120m-vl", 448, 4)
    size = models.SIZES[name]
    held = load_checkpoints(_saved_pair(setup, size), dtype="float32", attn="sdpa", device="cpu")
    asked = CaptureConfig(device="cpu", batch_size=2, shard_batches=1)
    samples = models.pictures(rows, side, side)
    processor = models.processor(size, setup.scratch)
    ready = models.worker(held, processor, samples, asked, setup.folder() / "run")
    base, lora, merged = held

    def capture(*chosen: Checkpoint) -> Callable[[int], Any]:
        def work(_: int) -> None:
            one = models.anew(ready, setup.folder(), chosen)
            one.capture(range(one.session.run.shard_count()))

        return work

    ways = {
        "base": capture(base),
        "adapter": capture(lora),
        "merged": capture(merged),
        "base and adapter": capture(base, lora),
        "base and merged": capture(base, merged),
    }
    times = interleaved(ways, setup.rounds(3))
    lines = []
    for second in ("adapter", "merged"):
        both, alone = times[f"base and {second}"], _sum(times["base"], times[second])
        more = [_minus(b, a) for b, a in zip(both, times["base"], strict=True)]
        about = f"{name}, {rows} images of {(side // 28) ** 2} tokens"
        lines += [
            compared("d", f"{about}: base and {second} in one run / in two runs", both, alone),
            compared("d", f"{about}: what the {second} adds to the base's run / its own run",
                     more, times[second]),
        ]  # fmt: skip
    share = _tower_share(base, ready)
    told = f"{share:.0%} of the base's operations: a second checkpoint cannot save more"
    return [*lines, Line("d", f"{about}: the towers' part", figure=told)]


def _saved_pair(setup: Setup, size: models.Size) -> list[CheckpointSpec]:
    """A base, an adapter on it, and a model that differs in its decoder only; on the disk."""
    logging.disable_progress_bar()
    model: Any = models.build(size)
    base, lora, merged = (setup.folder() for _ in range(3))
    model.save_pretrained(base)
    processor = models.processor_folder(size.family, setup.scratch)
    for file in processor.iterdir():
        if file.name != "config.json":
            (base / file.name).write_bytes(file.read_bytes())
    with torch.no_grad():
        for one in decoder(model)[1].parameters():
            one.mul_(1.01)
    model.save_pretrained(merged)
    adapter(lora, model, str(base), targets=DECODER)
    return [CheckpointSpec("base", str(base)), CheckpointSpec("lora", str(lora)),
            CheckpointSpec("merged", str(merged))]  # fmt: skip


def _tower_share(one: Checkpoint, ready: Worker) -> float:
    """The part of a pass that is not run again when the towers already ran on the batch."""
    reader, towers, counts = ready.session.reader, Towers(), []
    inputs = reader.read(reader.plan.batches[0]).inputs
    for _ in range(2):
        with towers.shared(one):
            counts.append(flops(lambda: peers.bare(one, inputs)))
    return 1 - counts[1] / counts[0]


def _sum(a: Sequence[Spent], b: Sequence[Spent]) -> list[Spent]:
    return [Spent(x.wall + y.wall, x.cpu + y.cpu) for x, y in zip(a, b, strict=True)]


def _minus(a: Spent, b: Spent) -> Spent:
    return Spent(a.wall - b.wall, a.cpu - b.cpu)
