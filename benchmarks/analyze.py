"""What a whole analysis costs: time, memory, and which metric has what share of it.

run      a synthetic run: sites x checkpoints x modalities x samples x dim, written once
whole    `geomkit analyze` on it, probes and all, in processes: wall, CPU, peak memory of all
again    the same once more: what is kept costs nothing
shares   one site of one checkpoint in one process: every product made once, then every metric
floor    the multiplications and decompositions that no order of work avoids, at measured rates

python benchmarks/analyze.py                       # 29 sites x 2 x 3 x 2000 x 2048
python benchmarks/analyze.py --sites 3 --samples 200 --dim 256
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from geomkit import estimates
from geomkit.estimates.between import BETWEEN, Pair
from geomkit.estimates.retrieved import RETRIEVED, searches
from geomkit.estimates.space import Outliers, space
from geomkit.estimates.within import WITHIN
from geomkit.store import Run, ShardRows, create_run
from geomkit.types import CheckpointRecord, Plan, Row

MODALITIES = ("text", "image", "audio")
SHARED = ("unit", "centred", "cosines", "products", "squares", "axes", "raw_axes", "unit_axes",
          "near", "apart")  # fmt: skip
CLASSES = 10
BATCH = 100


@dataclass(frozen=True, slots=True)
class Size:
    """How large the run is: `samples` of each modality, text and media of the same ones."""

    sites: int
    checkpoints: int
    samples: int
    dim: int

    @property
    def states(self) -> int:
        """Bytes of its states."""
        return self.sites * self.checkpoints * len(MODALITIES) * self.samples * self.dim * 4


def main() -> None:
    """Write a run, analyze it twice, and say where the time goes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sites", type=int, default=29)
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=0, help="0 is one a core")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB, of all processes")
    parser.add_argument("--metrics", default="", help="as in cone,spectrum; all but costly ones")
    parser.add_argument("--probes", default="", help="none leaves them out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    size = Size(asked.sites, asked.checkpoints, asked.samples, asked.dim)
    with tempfile.TemporaryDirectory(prefix="geomkit-benchmark-") as scratch:
        path = Path(scratch) / "run"
        write(path, size)
        command = [sys.executable, "-c", "from geomkit.cli import main; main()", "analyze"]
        command += [str(path), "--memory", str(asked.memory), "--device", asked.device]
        command += ["--workers", str(asked.workers)]
        metrics = [name for name in asked.metrics.split(",") if name]
        command += [word for name in metrics for word in ("--metrics", name)]
        command += ["--probes", asked.probes] if asked.probes else []
        found = {
            "states, GiB": size.states / 2**30,
            "whole": watched(command),
            "again": watched(command),
            "one space": list(shares(size, asked.device)),
            "floor": floor(size),
        }
    if asked.json:
        print(json.dumps(found))
        return
    for name in ("whole", "again"):
        told = found[name]
        print(f"{name}: {told['wall']:.0f} s wall, {told['cpu']:.0f} CPU-s, peak of all processes "
              f"{told['peak'] / 2**30:.2f} GiB (cap {asked.memory:g})")  # fmt: skip
    print(f"states {found['states, GiB']:.2f} GiB; floor {found['floor']['seconds']:.0f} CPU-s: "
          f"{found['floor']['told']}")  # fmt: skip
    whole = sum(seconds for _, seconds in found["one space"])
    for name, seconds in found["one space"]:
        print(f"  {name:24s} {seconds:7.3f} s  {seconds / whole:5.1%}")


def watched(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a command and its processes, and the most memory of all together."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    peak, cpu, over = 0.0, {}, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.1):
            total = 0.0
            for one in (psutil.Process(process.pid), *_below(process.pid)):
                try:
                    total += one.memory_info().rss
                    times = one.cpu_times()
                    cpu[one.pid] = times.user + times.system
                except psutil.Error:
                    continue  # it has just ended
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"the analysis ended with exit code {code}")
    return {"wall": time.perf_counter() - started, "cpu": sum(cpu.values()), "peak": peak}


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def shares(size: Size, device: str) -> Iterator[tuple[str, float]]:
    """CPU seconds of every product that a space shares, then of every metric on top of it."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, size.dim + 1) ** -0.5
    x = (rng.standard_normal((size.samples, size.dim)) * spread + 0.3).astype(np.float32)
    y = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    out = Outliers((0, 1, 2), (0, 1, 2))
    with threadpool_limits(1):
        one, two = (space(s, outliers=out, device=estimates.Device(device)) for s in (x, y))
        for name in SHARED:
            yield f"shared: {name}", _timed(lambda name=name: getattr(one, name))
            getattr(two, name)
        for name, metric in WITHIN.items():
            yield name, _timed(lambda metric=metric: metric.of(one))
        for name, metric in BETWEEN.items():
            if not metric.costly:
                yield name, _timed(lambda metric=metric: metric.of(Pair(one, two)))
        there, _ = searches(one, two)
        yield "shared: ranks", _timed(lambda: there.found)
        for name, metric in RETRIEVED.items():
            yield name, _timed(lambda metric=metric: metric.of(there))


def floor(size: Size) -> dict[str, object]:
    """CPU seconds of what cannot be left out, at the rates of this machine in this run.

    Of each space two products and three decompositions; of each pair one product more.
    """
    n, dim = size.samples, size.dim
    rng = np.random.default_rng(1)
    a = rng.standard_normal((n, dim))
    with threadpool_limits(1):
        gemm = min(_timed(lambda: a @ a.T) for _ in range(2))
        small = a @ a.T if n <= dim else a.T @ a
        eigh = _timed(lambda: np.linalg.eigh(small))
    spaces = size.sites * size.checkpoints * len(MODALITIES)
    pairs = size.sites * size.checkpoints * (len(MODALITIES) - 1)
    seconds = spaces * (2 * gemm + 3 * eigh) + pairs * gemm
    told = (f"{spaces} spaces x (2 products of {gemm:.2f} s + 3 decompositions of {eigh:.2f} s), "
            f"{pairs} pairs x 1 product; {2 * n * n * dim / gemm / 1e9:.0f} GFLOP/s")  # fmt: skip
    return {"seconds": seconds, "told": told}


def write(path: Path, size: Size) -> Run:
    """A run with labels, shard by shard: a cone that the second checkpoint has left."""
    rows = [
        Row(
            index=m * size.samples + i,
            id=f"s{i:06d}",
            modality=modality,
            content_sha=f"{i:064x}",
            group="",
            text=f"a thing of class {i % CLASSES}",
            labels={"class": str(i % CLASSES)},
            controls={} if modality == "text" else {"hidden": str(i // CLASSES % 4)},
        )
        for m, modality in enumerate(MODALITIES)
        for i in range(size.samples)
    ]
    order = range(0, size.samples, BATCH)
    batches = tuple(
        tuple(range(m * size.samples + start, m * size.samples + min(start + BATCH, size.samples)))
        for m in range(len(MODALITIES))
        for start in order
    )
    plan = Plan(
        schema="geomkit-plan/1", dataset="synthetic", rows=tuple(rows),
        prompts=dict.fromkeys(MODALITIES, "Say it in one word:"), poolings=("last",), sites=(),
        batches=batches, shard_batches=2,
    )  # fmt: skip
    run = create_run(path, plan)
    sites = (*(f"block_{i:02d}" for i in range(size.sites - 1)), "final_norm")
    rng = np.random.default_rng(0)
    common = rng.standard_normal(size.dim)
    for number in range(size.checkpoints):
        run.write_checkpoint(_record(f"step-{number}", sites, size.dim))
        for shard in range(run.shard_count()):
            index = run.shard_rows(shard)
            of_class = [np.random.default_rng(i % size.samples).standard_normal(size.dim)
                        for i in index]  # fmt: skip
            one = np.stack(of_class) + (2.0 if number == 0 else 0.2) * common
            states = np.stack(
                [one + 0.5 * rng.standard_normal(one.shape) for _ in sites], axis=1
            ).astype(np.float32)
            run.write_shard(f"step-{number}", shard, _shard(run, index, states), sites)
    return run


def _shard(run: Run, index: tuple[int, ...], states: np.ndarray) -> ShardRows:
    rows = [run.plan.rows[i] for i in index]
    return ShardRows(
        states={"last": states}, index=np.array(index), ids=[r.id for r in rows],
        modality=[r.modality for r in rows], ok=np.ones(len(rows), bool),
        n_tokens=np.full(len(rows), 7, np.int32), token_sha=[r.content_sha for r in rows],
        notes=[""] * len(rows),
    )  # fmt: skip


def _record(name: str, sites: tuple[str, ...], dim: int) -> CheckpointRecord:
    return CheckpointRecord(
        name=name, source="synthetic", revision="", architecture="Synthetic", weights_sha=name,
        decoder_sha="", towers_sha="", adapter_sha="", merged=False, template_sha="",
        dtype="float32", attention="eager", sites=sites, dim=dim, versions={}, gate={},
    )  # fmt: skip


def _timed(work: object) -> float:
    started = time.process_time()
    work()  # type: ignore[operator]  # what is given is called
    return time.process_time() - started


if __name__ == "__main__":
    main()
