"""One way to a number, in a process of its own: its time, its memory, its value.

Both ends are here. The child needs NumPy and torch and nothing of geomkit, since a peer may ask for
other versions of everything: it runs under whatever Python it is started with. The data are in
memory before anything is counted, and the way is called once on a corner of them, so that imports,
compilers and thread pools are not counted either.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CORNER = (slice(64), slice(16))
PATIENCE = 4
"""Wall seconds that a way may take for each CPU second it is allowed: others use the cores."""

Status = Literal["done", "time", "memory", "absent", "failed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one way may use; `memory` in MiB, beyond the data."""

    threads: int
    seconds: float  # of CPU
    memory: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a way. Time and memory are lower bounds where they ran out."""

    status: Status
    cpu: float = 0.0
    wall: float = 0.0
    memory: float = 0.0  # MiB beyond the data
    value: Any = None
    version: str = ""
    said: str = ""


def start(python: Path, way: str, limits: Limits, *, sets: list[Path], rows: int) -> Outcome:
    """Run `module.function` of this folder on the first rows of the sets and wait for it."""
    order = {"way": way, "sets": [str(s) for s in sets], "rows": rows, "threads": limits.threads,
             "seconds": limits.seconds, "memory": limits.memory}  # fmt: skip
    few = dict.fromkeys(THREADS, str(limits.threads))
    environment = os.environ | few | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        [python, __file__, json.dumps(order)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    patience = PATIENCE * limits.seconds + 120
    peak = _waited(child, patience)
    out, err = child.communicate()
    ended = time.time()
    said = [json.loads(line[1:]) for line in out.split("\n") if line.startswith("\x1e")]
    if said and "status" in said[-1]:
        return Outcome(**said[-1])
    if not said:
        raise RuntimeError(f"'{way}' did not start:\n{err}")
    began = said[0]
    used = Outcome("failed", wall=ended - began["at"], memory=max(0.0, peak - began["memory"]))
    if child.returncode == -signal.SIGXCPU:
        return replace(used, status="time", cpu=limits.seconds)
    if used.wall > patience:
        return replace(used, said=f"not done after {used.wall:.0f} s of wall time")
    return replace(used, said=f"ended by signal or error {child.returncode}: {err[-200:]}")


def _waited(child: subprocess.Popen[str], seconds: float) -> float:
    """MiB at most that the child was seen with; what is killed cannot say so itself."""
    peak, end = 0.0, time.monotonic() + seconds
    while child.poll() is None:
        if time.monotonic() > end:
            child.kill()
        try:
            peak = max(peak, memory("VmHWM", child.pid))
        except (OSError, LookupError):  # it has just ended
            break
        time.sleep(0.1)
    return peak


def memory(field: str, process: int | str = "self") -> float:
    """MiB of a process: VmRSS now, VmHWM at most, VmSize mapped.

    Not `ru_maxrss`, which starts from what the parent had when it made the process.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"{field} is not known on this system: memory is measured on Linux only")


def answer(order: dict[str, Any]) -> None:
    """In the child: do what was ordered within the limits, and print what it took."""
    module, _, name = order["way"].partition(".")
    try:
        home = importlib.import_module(f"benchmarks.{module}")
        way: Callable[..., Any] = getattr(home, name)
        sets = [np.array(np.load(s, mmap_mode="r")[: order["rows"]]) for s in order["sets"]]
        _threads(order["threads"])
        if sets:
            way(*(s[CORNER] for s in sets))
    except ImportError as error:
        _say(status="absent", said=str(error))
        return
    found = _measured(lambda: way(*sets), order)
    package = getattr(way, "package", "")
    _say(**found, version=_version(package) if package else "")


def _measured(work: Callable[[], Any], order: dict[str, Any]) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    _limit(resource.RLIMIT_AS, int((memory("VmSize") + order["memory"]) * 2**20))
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + order["seconds"]))
    _say(at=time.time(), memory=before)
    status, said, value = "done", "", None
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        value = work()
    except (MemoryError, RuntimeError) as error:  # torch says it with the second
        status, said = "memory", str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            status = "failed"
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    used = order["memory"] if status == "memory" else memory("VmHWM") - before
    took = {"cpu": cpu, "wall": wall, "memory": used}
    return {"status": status, "value": value, "said": said, **took}


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from source"


def _say(**told: Any) -> None:
    """One line that nothing else on the output can be taken for."""
    print("\x1e" + json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # this folder's names would hide packages
    answer(json.loads(sys.argv[1]))
