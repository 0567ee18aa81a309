"""Ray actors that capture shards: one a GPU, on this machine or on all of a cluster.

    queue of shard numbers -> the next free actor -> its word that the shard is in the run folder

States never travel: an actor writes its shards into the run folder itself, which all machines must
see. An actor that dies is replaced and its shard goes back to the queue.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import CaptureError, GeomkitError, MissingExtra, UsageError
from geomkit.store import Run, open_run

if TYPE_CHECKING:
    from geomkit.capture import Job
    from geomkit.progress import Progress
    from geomkit.worker import Worker

TRIES = 3  # actors that one shard may cost
OBJECT_STORE_BYTES = 128 << 20  # holds the job; what is larger goes to the disk by itself


@dataclass(frozen=True, slots=True)
class Actors:
    """The engine `ray`: `workers` actors, or one a GPU."""

    workers: int = 0

    def __post_init__(self) -> None:
        """Raise MissingExtra now where ray is not installed, not after the plan."""
        if find_spec("ray") is None:
            raise MissingExtra("The engine 'ray' needs ray: pip install 'geomkit[ray]'.")

    def __call__(self, job: Job, run: Run, progress: Progress) -> None:
        """Capture the shards that the run lacks; groups of checkpoints one after the other.

        Raises:
            UsageError: more actors than there is room for, or a device that no actor can have.
            CaptureError: no cluster answers, or one shard ended several actors.
            GeomkitError: what an actor raised, as it raised it.
        """
        import ray

        _check_device(job.config.device)
        progress("start ray", 0, 1)
        with _cluster(ray, self.workers):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            on_gpus = job.config.device != "cpu"
            room = seats(nodes, self.workers, gpus=on_gpus, spread=bool(job.config.device_map))
            progress("start ray", 1, 1)
            shared = ray.put(job)
            for group, specs in enumerate(job.groups()):
                lacking = _lacking(run, [spec.name for spec in specs])
                # Somebody must look at the checkpoints, even where every shard is there.
                numbers = [n for n in lacking if lacking[n]] or [0]
                hire = _hiring(ray, shared, group, room.gpus)
                _drain(ray, deque(numbers), room.count, hire, _Rows(run, lacking, progress))


class Hand:
    """What an actor is: one process with a group of checkpoints in memory."""

    def __init__(self, job: Job, group: int, folder: str, threads: int) -> None:
        """Loads nothing yet, so that what goes wrong goes wrong in `capture`."""
        self.job, self.group, self.folder, self.threads = job, group, folder, threads
        self.worker: Worker | None = None

    def capture(self, number: int) -> GeomkitError | None:
        """Put a shard into the run folder; gives back the user's error instead of raising it.

        Raised, it would arrive wrapped in ray's own error and its traceback.
        """
        try:
            if self.worker is None:
                self.worker = self._ready()
            self.worker.capture([number])
        except GeomkitError as error:
            return error
        return None

    def _ready(self) -> Worker:
        import torch

        torch.set_num_threads(self.threads)  # sums of floats depend on who adds what
        try:
            os.chdir(self.folder)  # paths of the job may be relative
            run = open_run(self.job.out)
        except (OSError, GeomkitError) as cause:
            raise CaptureError(
                f"Expected {Path(self.folder, self.job.out)} on every machine of the cluster, got:"
                f" {cause}. Work in a folder that all of them share."
            ) from cause
        return self.job.worker(self.job.session(run), self.group)


# ------------------------------------------------------------------------------------ the queue


def _drain(ray: Any, waiting: deque[int], count: int, hire: Callable[[], Any], rows: _Rows) -> None:
    """Give every number to some actor until it is done; at most `count` actors at a time."""
    hired: list[Any] = []
    idle: list[Any] = []
    busy: dict[Any, tuple[Any, int]] = {}
    lost: Counter[int] = Counter()
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                if not idle:
                    hired.append(hire())
                    idle.append(hired[-1])
                actor, number = idle.pop(), waiting.popleft()
                busy[actor.capture.remote(number)] = actor, number
            (first, *_), _ = ray.wait(list(busy))
            actor, number = busy.pop(first)
            try:
                error = ray.get(first)
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as death:
                ray.kill(actor)  # one that cannot be reached may still be alive
                lost[number] += 1
                _check_lost(number, lost[number], death)
                rows.again(lost.total())
                waiting.append(number)
                continue
            if error is not None:
                raise error
            idle.append(actor)
            rows.add(number)
    finally:  # also on Ctrl-C: a shard in flight is whole or absent
        for actor in hired:
            ray.kill(actor)


def _check_lost(number: int, times: int, death: Exception) -> None:
    """Raise CaptureError when another actor would die in the same way."""
    last = str(death).strip().splitlines()[-1].strip()
    if getattr(death, "actor_init_failed", False):
        raise CaptureError(
            f"Expected an actor to start, got: {last}. Every machine of the cluster needs the same"
            " Python, geomkit and model code."
        ) from death
    if times >= TRIES:
        raise CaptureError(
            f"Expected shard {number} to be captured, but {times} actors died of it, most often"
            f" because memory ran out ({last}). Use a smaller --batch-size or fewer --workers; the"
            " same command goes on from there."
        ) from death


def _lacking(run: Run, names: Sequence[str]) -> dict[int, list[str]]:
    """Shard number -> checkpoints that lack it."""
    return {
        number: [name for name in names if not run.has_shard(name, number)]
        for number in range(run.shard_count())
    }


class _Rows:
    """Rows done, checkpoint by checkpoint, for the progress."""

    def __init__(self, run: Run, lacking: Mapping[int, Sequence[str]], progress: Progress) -> None:
        self.run, self.lacking, self.progress = run, lacking, progress
        self.total: Counter[str] = Counter()
        for number, names in lacking.items():
            self.total.update(dict.fromkeys(names, len(run.shard_rows(number))))
        self.done = Counter(dict.fromkeys(self.total, 0))
        for name, total in self.total.items():
            progress(f"capture {name}", 0, total)

    def add(self, number: int) -> None:
        for name in self.lacking[number]:
            self.done[name] += len(self.run.shard_rows(number))
            self.progress(f"capture {name}", self.done[name], self.total[name])

    def again(self, times: int) -> None:
        self.progress("replace actors that died", times, times)


# ---------------------------------------------------------------------------------- the cluster


@dataclass(frozen=True, slots=True)
class Seats:
    """Room for so many actors, each with so many GPUs; without any it has one CPU."""

    count: int
    gpus: int


def seats(nodes: Sequence[Mapping[str, float]], workers: int, *, gpus: bool, spread: bool) -> Seats:
    """Room for actors on machines with these resources; `workers` of 0 takes one a GPU, or one.

    Without `gpus` they are not used. With `spread` an actor gets all GPUs of a machine, as a
    device map needs them.

    Raises:
        UsageError: there is less room than `workers`.
    """
    found = [int(node.get("GPU", 0)) for node in nodes if node.get("GPU", 0) >= 1 and gpus]
    each = (min(found) if spread else 1) if found else 0
    most = sum(n // each for n in found) if each else sum(int(n.get("CPU", 0)) for n in nodes)
    if workers > most:
        what = f"{each} GPU{'s' * (each > 1)}" if each else "a CPU"
        raise UsageError(f"Expected at most {most} --workers ({what} each), got {workers}.")
    return Seats(workers or (most if each else 1), each)


def _hiring(ray: Any, job: Any, group: int, gpus: int) -> Callable[[], Any]:
    import torch

    kind = ray.remote(num_gpus=gpus, num_cpus=0 if gpus else 1, max_restarts=0)(Hand)
    return lambda: kind.remote(job, group, str(Path.cwd()), torch.get_num_threads())


def _check_device(device: str) -> None:
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(
            f"Expected --device auto, cuda or cpu with --engine ray, got '{device}': ray gives"
            " every actor its own GPU. Choose GPUs with CUDA_VISIBLE_DEVICES."
        )


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[None]:
    """A connection to the cluster of RAY_ADDRESS, or to one on this machine for as long."""
    if ray.is_initialized():  # the caller's: it stays as it was found
        yield
        return
    try:
        _connect(ray, os.environ.get("RAY_ADDRESS") or "local", workers)
        with _off_stdout(ray):
            yield
    finally:
        ray.shutdown()  # of a cluster that was there it only takes leave


def _connect(ray: Any, address: str, workers: int) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        own = {"num_cpus": max(1, workers), "include_dashboard": False}
        options |= {**own, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        with _same_sigterm(), warnings.catch_warnings():
            # Some releases announce a change for actors without a GPU: these never look for one.
            warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
            ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as cause:
        raise CaptureError(
            f"Expected a ray cluster at '{address}', got: {cause}. Set RAY_ADDRESS to a cluster"
            " that runs (with RAY_AUTH_MODE=token where it asks for one), or unset it to use this"
            " machine."
        ) from cause


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def _off_stdout(ray: Any) -> Iterator[None]:
    """Keep ray's words about dead actors off stdout, where only the result goes."""
    inside = ray._private.worker  # noqa: SLF001 - `log_to_driver` does not reach them
    inside._worker_logs_enabled = False  # noqa: SLF001 - as above
    try:
        yield
    finally:
        inside._worker_logs_enabled = True  # noqa: SLF001 - as above
