"""Training against the plain sentence-transformers trainer, the callback's cost, memory and cache.

    python benchmarks/training.py [--steps 6] [--batch 48]

Seconds are of this process's processor time, so neighbours on the machine count little; the ways
take turns. Memory is the largest resident set of a process of its own, above one that only loads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from transformers import PrinterCallback

from geomkit import sandbox
from geomkit.prompts import PRESETS
from geomkit.training import fitting
from geomkit.training.columns import dataset
from geomkit.training.config import TrainConfig
from geomkit.training.embedder import DecoderEmbedder
from geomkit.training.fitting import Job, fit
from geomkit.training.geometry import EVERY, GeometryCallback
from geomkit.training.methods import prepare
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import load_base

WATCHED = 24  # scenes of each kind, as `geomkit train` follows in the sandbox
MEMORY = ((48, 48), (192, 192), (48, 16), (192, 16), (768, 16))  # batch, texts a forward pass


def job(config: TrainConfig, *, watched: bool = False) -> Job:
    """The sandbox's base, ready to train."""
    checkpoint, processor = load_base(config, str(sandbox.checkpoint_path("base")))
    arm = prepare(checkpoint.model, config)
    pairs = tuple(TextPair(*row) for row in sandbox.text_pairs(6 * config.batch))
    scenes = sandbox.samples("validation", images=WATCHED, sounds=WATCHED) if watched else ()
    return Job(config, checkpoint, processor, arm, pairs, watched=scenes)


def ours(config: TrainConfig) -> None:
    fit(job(config))


def plain(config: TrainConfig) -> None:
    """The library's own trainer and loss on the same model, table and arguments."""
    one = job(config)
    text = PRESETS[config.prompt]["text"]
    embedder = DecoderEmbedder(one.checkpoint.decoder, one.processor, text, config.max_tokens)
    model = SentenceTransformer(modules=[embedder], device="cpu")
    table = dataset(one.pairs, mask_equal=True).remove_columns("label")  # type: ignore[arg-type]  # texts
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=config.scale, mini_batch_size=config.mini_batch
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = fitting.arguments_of(one, Path(folder), "cpu")
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=table, loss=loss
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def spent(way: Callable[[TrainConfig], None], config: TrainConfig) -> float:
    """Processor seconds a step: the difference of a long and a short training."""
    found = []
    for steps in (2, 2 + config.steps):
        start = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            way(replace(config, steps=steps))
        found.append(time.process_time() - start)
    return (found[1] - found[0]) / config.steps


def look(config: TrainConfig) -> float:
    """Processor seconds of one look at the probe set."""
    one = job(config, watched=True)
    callback = GeometryCallback(one.watched, one.processor, model=one.arm.model)
    state: Any = argparse.Namespace(global_step=0, log_history=[])
    callback.on_train_begin(argparse.Namespace(report_to=[]), state, None)
    times = []
    for step in range(1, 6):
        state.global_step = step
        start = time.process_time()
        callback.look(state, None)
        times.append(time.process_time() - start)
    return statistics.median(times)


def peak(batch: int, mini_batch: int) -> float:
    """Largest resident set in MB of a process that trains two steps; 0 of a batch: that loads."""
    given = json.dumps([batch, mini_batch])
    command = [sys.executable, __file__, "--child", given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.splitlines()[-1])


def child(given: str) -> None:
    batch, mini_batch = json.loads(given)
    if batch:
        config = TrainConfig.of("sandbox", batch=batch, mini_batch=mini_batch, steps=2)
        with contextlib.redirect_stdout(sys.stderr):
            ours(config)
    else:
        job(TrainConfig.of("sandbox", batch=2))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", default="")
    parser.add_argument("--no-memory", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.child:
        child(asked.child)
        return
    config = TrainConfig.of(
        "sandbox",
        steps=asked.steps,
        batch=asked.batch,
        mini_batch=asked.batch // 3,
        geometry_every=0,
        warmup_steps=0,
    )
    pairs = [(spent(ours, config), spent(plain, config)) for _ in range(asked.rounds)]
    ratios = sorted(a / b for a, b in pairs)
    step = statistics.median(a for a, _ in pairs)
    texts = 3 * config.batch / step
    print(f"a step of {config.batch} triplets: {step:.3f} s, {texts:.0f} texts/s")
    middle, low, high = statistics.median(ratios), ratios[0], ratios[-1]
    print(f"ours / plain trainer, cached: {middle:.3f} ({low:.3f} to {high:.3f})")
    seconds = look(config)
    full = step * 96 / config.batch  # a step of the sandbox's own recipe
    print(f"one look at {4 * WATCHED} rows: {seconds:.3f} s, {seconds / full:.2f} steps of 96")
    print(f"cost at the default of every {EVERY} steps: {100 * seconds / (EVERY * full):.2f} %")
    if not asked.no_memory:
        floor = peak(0, 0)
        for batch, mini_batch in MEMORY:
            kind = "cached" if mini_batch < batch else "whole"
            above = peak(batch, mini_batch) - floor
            print(f"memory, batch {batch}, {mini_batch} a pass ({kind}): {above:.0f} MB above load")


if __name__ == "__main__":
    main()
