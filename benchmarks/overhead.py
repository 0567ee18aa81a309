"""(a) Our forward pass and our whole capture over the bare forward pass, and the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import models, peers
from benchmarks.clock import Clock, Spent, Way, interleaved, least
from benchmarks.floor import flops, rates
from benchmarks.lines import Line, Setup, compared, figure
from benchmarks.work import bench, modalities, model
from geomkit.checkpoints import DTYPES, Checkpoint
from geomkit.worker import Worker


def overhead(setup: Setup) -> list[Line]:
    """The lines of every modality that the model reads."""
    size, one = model(setup)
    return [
        line
        for modality in modalities(size)
        for line in Case(setup, one, modality, bench(setup, size, one, modality)).lines()
    ]


@dataclass(frozen=True, slots=True)
class Case:
    """One model before the batches of one modality."""

    setup: Setup
    one: Checkpoint
    modality: str
    ready: Worker

    def lines(self) -> list[Line]:
        """Pass against pass, capture against passes, capture against the floor."""
        reader = self.ready.session.reader
        batches = [reader.read(indexes).inputs for indexes in reader.plan.batches]
        found = [*self._passes(batches), *self._whole(batches)]
        if self.setup.cuda:
            found.append(self._memory(batches))
        return found

    def _line(self, what: str, ours: Sequence[Spent], theirs: Sequence[Spent], **more: Any) -> Line:
        return compared("a", f"{self.setup.size}, {self.modality}: {what}", ours, theirs, **more)

    def _passes(self, batches: Sequence[peers.Inputs]) -> list[Line]:
        def each(peer: peers.Peer) -> Way:
            return lambda number: peer(self.one, batches[number % len(batches)])

        ways = {"bare": each(peers.bare), "again": each(peers.bare), "tap": each(peers.tapped)}
        rounds = self.setup.rounds(4) * len(batches)
        times = interleaved(ways, rounds, self.setup.device)
        rows, width = batches[0]["input_ids"].shape
        pairs = f"{rounds} pairs, batches of about {rows} x {width} tokens"
        sites = f"{len(self.one.sites)} sites, {len(peers.POOLINGS)} poolings"
        target = 1.03 if self.setup.cuda else 1.1
        return [
            self._line("bare forward twice (A/A)", times["again"], times["bare"], figure=pairs),
            self._line(
                "forward with all sites pooled / bare forward",
                times["tap"],
                times["bare"],
                figure=sites,
                target=target,
            ),
        ]

    def _whole(self, batches: Sequence[peers.Inputs]) -> list[Line]:
        written = []

        def whole(_: int) -> None:
            again = models.anew(self.ready, self.setup.folder())
            again.capture(range(again.session.run.shard_count()))
            written.append(again.session.run.bytes_on_disk())

        ways: dict[str, Way] = {"bare": lambda _: self._all(batches), "whole": whole}
        times = interleaved(ways, self.setup.rounds(3), self.setup.device)
        what = "whole capture (read, run, pool, write) / bare forward"
        rows = f"{sum(len(inputs['input_ids']) for inputs in batches)} rows"
        return [
            self._line(what, times["whole"], times["bare"], figure=rows),
            self._floor(batches, times["whole"], written[-1]),
        ]

    def _all(self, batches: Sequence[peers.Inputs]) -> None:
        for inputs in batches:
            peers.bare(self.one, inputs)

    def _floor(self, batches: Sequence[peers.Inputs], times: Sequence[Spent], written: int) -> Line:
        """Rows a second, and how much of what the machine can do that is."""
        setup = self.setup
        rows = sum(len(inputs["input_ids"]) for inputs in batches)
        needed = flops(lambda: self._all(batches))
        side = 512 if setup.quick else 8192 if setup.cuda else 2048
        clock: Clock = "wall" if setup.cuda else "cpu"
        can = rates(setup.scratch, setup.device, DTYPES[setup.dtype], side, clock)
        share = can.floor(needed, written) / least(times, clock)
        told = (
            f"{rows / least(times, 'wall'):.3g} rows/s, {rows / least(times, clock):.3g} a {clock}"
            f" second, {share:.0%} of the floor's speed: {needed / 1e9:.0f} GFLOP at"
            f" {can.flops / 1e9:.0f} a {clock} second, {written / 1e6:.1f} MB at"
            f" {can.disk / 1e6:.0f} MB/s"
        )
        what = "speed of the whole capture"
        return Line("a", f"{setup.size}, {self.modality}: {what}", figure=told)

    def _memory(self, batches: Sequence[peers.Inputs]) -> Line:
        bare = peak(lambda: self._all(batches))
        ours = peak(lambda: [peers.tapped(self.one, inputs) for inputs in batches])
        what = f"{self.setup.size}, {self.modality}: peak memory of the device, ours / bare"
        return figure("a", what, ours / bare, f"{ours:.2f} GiB, {bare:.2f} GiB")


def peak(work: Callable[[], Any]) -> float:
    """GiB that the device held at most during a call."""
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30
