"""(b) The usual script, and (c) what other tools take for the same pooled sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import children, peers
from benchmarks.clock import Spent, interleaved, least
from benchmarks.lines import Line, Setup, compared, figure
from benchmarks.work import bench, model


def usual_script(setup: Setup) -> list[Line]:
    """(b) Keep all hidden states and save them at the end: time, memory, bytes."""
    size = {"size": "tiny", "rows": 32, "tokens": 40, "batch": 8}
    if not setup.quick:
        size = {"size": "90m", "rows": 64, "tokens": 128, "batch": 8}
    found: dict[str, list[children.Child]] = {"geomkit": [], "usual": []}
    for number in range(1 if setup.quick else 3):
        for way in sorted(found, reverse=bool(number % 2)):
            found[way].append(children.start(way, threads=setup.threads, **size))
    ours, theirs = found["geomkit"], found["usual"]
    times = {way: [Spent(c.wall, c.cpu) for c in found[way]] for way in found}
    memory = {way: max(c.peak - c.before for c in found[way]) for way in found}
    about = f"{size['size']}, {size['rows']} texts of about {size['tokens']} tokens"
    return [
        compared("b", f"{about}: geomkit / usual script, time", times["geomkit"], times["usual"]),
        figure("b", f"{about}: memory beyond the loaded model, geomkit / usual script",
                memory["geomkit"] / memory["usual"],
                f"{memory['geomkit']:.0f} MiB, {memory['usual']:.0f} MiB; the usual script's grows"
                " with the rows"),
        figure("b", f"{about}: bytes written, geomkit / usual script",
                ours[0].written / theirs[0].written,
                f"{ours[0].written / 1e6:.1f} MB, {theirs[0].written / 1e6:.1f} MB"),
    ]  # fmt: skip


def other_tools(setup: Setup) -> list[Line]:
    """(c) The same sites pooled the same way by others; a thin model shows the cost of a pass."""
    lines = []
    for name in dict.fromkeys((setup.size, *(() if setup.quick or setup.cuda else ("thin",)))):
        lines += _other_tools(replace(setup, size=name))
    return lines


def _other_tools(setup: Setup) -> list[Line]:
    size, one = model(setup)
    reader = bench(setup, size, one, "text").session.reader
    batches = [reader.read(indexes).inputs for indexes in reader.plan.batches]
    ways: dict[str, peers.Peer] = {
        "bare": peers.bare,
        "geomkit": peers.tapped,
        "output_hidden_states": peers.hidden_states,
    }
    absent = []
    for name, make in (("nnsight", peers.nnsight), ("baukit", peers.baukit)):
        if peers.installed(name):
            ways[name] = make(one)
        else:
            absent.append(Line("c", f"{name} / bare forward", figure="not installed"))
    _check_equal({name: way(one, batches[0]) for name, way in ways.items() if name != "bare"})

    def each(way: peers.Peer) -> Callable[[int], Any]:
        return lambda number: way(one, batches[number % len(batches)])

    thin = setup.size == "thin"
    rounds = setup.rounds(100 if thin else 8)
    times = interleaved({name: each(way) for name, way in ways.items()}, rounds, setup.device)
    bare = times.pop("bare")
    added = {n: 1000 * (least(t, "wall") - least(bare, "wall")) for n, t in times.items()}
    return [
        compared("c", f"{setup.size}: {name} {peers.installed(name)}".strip() + " / bare forward",
                 spent, bare, figure=f"{added[name]:+.1f} ms a pass (least times)")
        for name, spent in times.items()
    ] + absent  # fmt: skip


def _check_equal(found: dict[str, dict[str, torch.Tensor]]) -> None:
    """All ways read the same states; only the last block is missing in transformers' own."""
    for name, tables in found.items():
        for pooling, table in tables.items():
            ours = found["geomkit"][pooling]
            if table.shape[1] < ours.shape[1]:
                ours = torch.cat([ours[:, :-2], ours[:, -1:]], dim=1)
            if not torch.equal(table.float(), ours):
                raise SystemExit(f"{name} pools other states than geomkit: {pooling}")
