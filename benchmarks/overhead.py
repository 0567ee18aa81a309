"""(a) Our forward pass and our whole capture over the bare forward pass, and the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import models, peers
from benchmarks.clock import Clock, Spent, interleaved, least
from benchmarks.floor import flops, rates
from benchmarks.lines import Line, Setup, compared
from benchmarks.work import bench, modalities, model
from geomkit.checkpoints import DTYPES, Checkpoint


def overhead(setup: Setup) -> list[Line]:
    """(a) Our forward pass and our whole capture over the bare forward pass."""
    size, one = model(setup)
    lines = []
    for modality in modalities(size):
        lines += _overhead(setup, size, one, modality)
    return lines


def _overhead(setup: Setup, size: models.Size, one: Checkpoint, modality: str) -> list[Line]:
    ready = bench(setup, size, one, modality)
    reader = ready.session.reader
    batches = [reader.read(indexes).inputs for indexes in reader.plan.batches]
    about = f"{setup.size}, {modality}"

    def each(way: Callable[[Checkpoint, Any], Any]) -> Callable[[int], Any]:
        return lambda number: way(one, batches[number % len(batches)])

    ways = {name: each(way) for name, way in (("a", peers.bare), ("again", peers.bare))}
    times = interleaved(
        {**ways, "tap": each(peers.tapped)}, setup.rounds(4) * len(batches), setup.device
    )

    def bare_all(_: int) -> None:
        for inputs in batches:
            peers.bare(one, inputs)

    written = [0]

    def whole(_: int) -> None:
        run = models.anew(ready, setup.folder())
        run.capture(range(run.session.run.shard_count()))
        written[0] = run.session.run.bytes_on_disk()

    both = interleaved({"bare": bare_all, "whole": whole}, setup.rounds(3), setup.device)
    rows = len(reader.plan.rows)
    rows, width = batches[0]["input_ids"].shape
    pairs = f"{len(times['a'])} pairs, batches of about {rows} x {width} tokens"
    sites = f"{len(one.sites)} sites, {len(peers.POOLINGS)} poolings"
    told = (
        ("bare forward twice (A/A)", times["again"], times["a"], {"figure": pairs}),
        ("forward with all sites pooled / bare forward", times["tap"], times["a"],
         {"figure": sites, "target": 1.03 if setup.cuda else 1.1}),
        ("whole capture (read, run, pool, write) / bare forward", both["whole"], both["bare"],
         {"figure": f"{len(reader.plan.rows)} rows"}),
    )  # fmt: skip
    return [
        *(compared("a", f"{about}: {what}", a, b, **more) for what, a, b, more in told),
        *_floor(setup, about, one, batches, both["whole"], written[0]),
    ]


def _floor(
    setup: Setup,
    about: str,
    one: Checkpoint,
    batches: Sequence[Any],
    times: Sequence[Spent],
    written: int,
) -> list[Line]:
    """Rows a second, and how much of what the machine can do that is."""
    rows = sum(len(inputs["input_ids"]) for inputs in batches)
    needed = sum(flops(lambda inputs=inputs: peers.bare(one, inputs)) for inputs in batches)
    side = 512 if setup.quick else 8192 if setup.cuda else 2048
    clock: Clock = "wall" if setup.cuda else "cpu"
    can = rates(setup.scratch, setup.device, DTYPES[setup.dtype], side, clock)
    share = can.floor(needed, written) / least(times, clock)
    told = (
        f"{rows / least(times, 'wall'):.3g} rows/s, {rows / least(times, clock):.3g} a {clock}"
        f" second, {share:.0%} of the floor: {needed / 1e9:.0f} GFLOP at"
        f" {can.flops / 1e9:.0f} a {clock} second, {written / 1e6:.1f} MB at"
        f" {can.disk / 1e6:.0f} MB/s"
    )
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if setup.cuda else ""
    more = [Line("a", f"{about}: peak memory of the device", figure=memory)] if memory else []
    return [Line("a", f"{about}: speed of the whole capture", figure=told), *more]
