"""What is measured in a process of its own: peak memory, and the usual script beside geomkit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import models
from benchmarks.peers import bare
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.data.samples import load_samples
from geomkit.forward import to_model
from geomkit.worker import Worker
from tests.tiny_models import saved

SCRIPT = Path(__file__).with_name("capture.py")


@dataclass(frozen=True, slots=True)
class Child:
    """What a child process says of itself; memory in MiB."""

    wall: float
    cpu: float
    before: float  # memory when the work began: model loaded, inputs not read
    peak: float
    written: int  # bytes


def start(way: str, *, threads: int, **given: Any) -> Child:
    """Run one way in a new process and wait for what it says."""
    order = json.dumps({"way": way, "threads": threads, **given}, default=str)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--child", order], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the child '{way}' failed:\n{done.stderr}")
    return Child(**json.loads(done.stdout.splitlines()[-1]))


def answer(order: str) -> None:
    """In the child: do what was ordered and print what it took."""
    given: dict[str, Any] = json.loads(order)
    torch.set_num_threads(given.pop("threads"))
    way: Callable[..., Child] = WAYS[given.pop("way")]
    with tempfile.TemporaryDirectory(prefix="geomkit-benchmark-") as scratch:
        found = way(Path(scratch), **given)
    print(json.dumps({name: getattr(found, name) for name in Child.__slots__}))


def _measured(work: Callable[[], int]) -> Child:
    """Time and peak memory of the work, which gives the bytes that it wrote."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    written = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Child(wall, cpu, before, memory("VmHWM"), written)


def memory(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most. `ru_maxrss` would count the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{field} is not known on this system: memory is measured on Linux only")


def _ready(scratch: Path, size: str, rows: int, tokens: int, batch: int) -> Worker:
    chosen = models.SIZES[size]
    processor = models.processor(chosen, scratch)
    one = models.in_memory(models.build(chosen), scratch)
    asked = CaptureConfig(device="cpu", batch_size=batch, shard_batches=4)
    ready = models.worker([one], processor, models.texts(rows, tokens), asked, scratch / "run")
    reader = ready.session.reader
    bare(one, reader.read(reader.plan.batches[0][:1]).inputs)  # what the first pass imports
    return ready


def geomkit(scratch: Path, **given: Any) -> Child:
    """Read, run, pool, write shard by shard."""
    ready = _ready(scratch, **given)

    def work() -> int:
        ready.capture(range(ready.session.run.shard_count()))
        return _bytes(scratch / "run")

    return _measured(work)


def usual(scratch: Path, **given: Any) -> Child:
    """The same rows in the same batches: hidden states of all tokens kept, saved at the end."""
    ready = _ready(scratch, **given)
    reader, one = ready.session.reader, ready.checkpoints[0]

    @torch.inference_mode()
    def work() -> int:
        kept = []
        for indexes in reader.plan.batches:
            inputs = to_model(one, reader.read(indexes).inputs)
            out = one.model(**inputs, output_hidden_states=True, use_cache=False)
            kept.append(torch.stack(out.hidden_states))
        torch.save(kept, scratch / "states.pt")
        return (scratch / "states.pt").stat().st_size

    return _measured(work)


def manifest(scratch: Path, samples: int) -> Child:
    """A capture of samples on the disk, the way the command does it, gate and all."""
    listed = _written(scratch, samples)

    def work() -> int:
        spec = CheckpointSpec("tiny", str(saved("qwen2_5_vl")))
        asked = CaptureConfig(device="cpu", batch_size=32, batch_tokens=2048)
        dataset, rows = load_samples(listed)
        capture_run([spec], rows, scratch / "run", asked, dataset=dataset)
        return _bytes(scratch / "run")

    return _measured(work)


def _written(scratch: Path, samples: int) -> Path:
    """A manifest of texts and image files; made row by row, so that making it needs no memory."""
    listed = scratch / "samples.jsonl"
    with listed.open("w") as file:
        for number in range(samples):
            (row,) = models.texts(1, 60, seed=number)
            (shown,) = models.pictures(1, 64, 64, seed=number)
            shown.image.save(scratch / f"{number}.png", compress_level=1)
            file.write(json.dumps({"id": str(number), "text": row.text, "image": f"{number}.png"}))
            file.write("\n")
    return listed


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


WAYS: Mapping[str, Callable[..., Child]] = {
    "geomkit": geomkit,
    "usual": usual,
    "manifest": manifest,
}
