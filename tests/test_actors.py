"""Ray actors give the run that one process gives, whatever happens to them.

Most tests use jobs without models (`fake_jobs`) on one cluster of two CPUs; two capture real ones.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from geomkit.actors import TRIES, Actors, Hand, Seats, seats
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.errors import CaptureError, GeomkitError, MemoryFull, StoreError, UsageError
from geomkit.progress import silent
from geomkit.store import Run, create_run, verify_run
from tests import small_run, tiny_models
from tests.fake_jobs import FakeConfig, FakeJob
from tests.test_kill import tree

ray = pytest.importorskip("ray", reason="needs ray: pip install 'geomkit[ray]'")
SHARDS = 6


def started(folder: Path) -> Run:
    return create_run(folder / "run", small_run.plan(9, shard_batches=1))


def notes(run: Run) -> list[tuple[int, int]]:
    """Shard and process of every attempt, in their order."""
    lines = run.path.with_suffix(".pids").read_text().splitlines()
    return [(int(number), int(pid)) for number, pid in map(str.split, lines)]


def pids(run: Run) -> list[int]:
    return [pid for _, pid in notes(run)]


def gone(processes: Sequence[int]) -> bool:
    """True once none of the processes is alive; waits, as a killed one needs its moment."""
    deadline = time.monotonic() + 60
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(_alive, processes))


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# ------------------------------------------------------------------------------ without a cluster


@pytest.mark.parametrize(
    ("nodes", "workers", "options", "room"),
    [
        ([{"CPU": 8.0}], 0, {}, Seats(1, 0)),
        ([{"CPU": 2.0}, {"CPU": 2.0}], 4, {}, Seats(4, 0)),
        ([{"CPU": 2.0, "GPU": 4.0}, {"GPU": 2.0}, {"CPU": 64.0}], 0, {}, Seats(6, 1)),
        ([{"CPU": 1.0, "GPU": 4.0}], 3, {}, Seats(3, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], 0, {"gpus": False}, Seats(1, 0)),
        ([{"GPU": 8.0}, {"GPU": 4.0}], 0, {"spread": True}, Seats(3, 4)),
    ],
)
def test_there_is_an_actor_a_gpu(
    nodes: Any, workers: int, options: dict[str, bool], room: Seats
) -> None:
    assert seats(nodes, workers, **{"gpus": True, "spread": False, **options}) == room


@pytest.mark.parametrize(
    ("nodes", "workers", "match"),
    [
        ([{"CPU": 2.0}], 3, r"at most 2 --workers \(a CPU each\), got 3"),
        ([{"CPU": 9.0, "GPU": 2.0}], 3, r"at most 2 --workers \(1 GPU each\), got 3"),
    ],
)
def test_more_actors_than_there_is_room_for_are_refused(
    nodes: Any, workers: int, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        seats(nodes, workers, gpus=True, spread=False)


def test_a_device_that_no_actor_can_have_is_refused(tmp_path: Path) -> None:
    job: Any = FakeJob(tmp_path, config=FakeConfig(device="cuda:1"))
    with pytest.raises(UsageError, match=r"--device auto, cuda or cpu .* got 'cuda:1'"):
        Actors()(job, started(tmp_path), silent)


def test_only_errors_of_the_user_travel_and_never_states(tmp_path: Path) -> None:
    run = started(tmp_path)
    job: Any = FakeJob(run.path, {1: "SampleError", 2: "bug"})
    hand = Hand(job, 0, str(tmp_path), 1)
    assert hand.capture(0) is None
    found = hand.capture(1)
    assert (type(found).__name__, str(found)) == ("SampleError", "shard 1: SampleError")
    with pytest.raises(ZeroDivisionError):
        hand.capture(2)


def test_a_folder_that_a_machine_does_not_see_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an actor goes to the folder of the command
    job: Any = FakeJob(Path("run"))
    for folder in (tmp_path, tmp_path / "absent"):
        found = Hand(job, 0, str(folder), 1).capture(0)
        assert isinstance(found, CaptureError)
        assert f"Expected {folder / 'run'} on every machine of the cluster" in str(found)


# ------------------------------------------------------------------------------- real captures


@pytest.mark.slow
def test_actors_give_the_run_also_when_one_is_killed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    families = {"before": "qwen2_vl", "after": "qwen2_5_vl"}
    specs = [CheckpointSpec(n, str(tiny_models.saved(family))) for n, family in families.items()]
    samples = tiny_models.scenes(12)
    config = CaptureConfig(
        modalities=("text", "image"), batch_size=2, shard_batches=1, device="cpu", previews=True
    )
    capture_run(specs, samples, tmp_path / "whole", config)
    told: list[tuple[str, int, int]] = []
    killed: list[int] = []

    def kill_one(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        if stage == "capture before" and done and not killed:
            children = psutil.Process().children(recursive=True)
            killed.extend(p.pid for p in children if p.cmdline()[:1] == ["ray::Hand.capture"])
            os.kill(killed[0], signal.SIGKILL)

    answer = signal.getsignal(signal.SIGTERM)
    run = capture_run(specs, samples, tmp_path / "ray", config, engine=Actors(2), progress=kill_one)
    assert len(killed) >= 1
    assert told[-1] == ("capture after", 24, 24)
    assert ("replace actors that died", 1, 1) in told
    assert capfd.readouterr().out == ""  # it is the result's
    assert tree(tmp_path / "ray") == tree(tmp_path / "whole")
    assert verify_run(run.path) == ()
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is answer
    assert gone(killed)


def test_a_cluster_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(CaptureError, match=r"a ray cluster at 'nowhere', got: .*RAY_ADDRESS"):
        Actors()(FakeJob(tmp_path), started(tmp_path), silent)  # type: ignore[arg-type]  # it is used as a Job


# ------------------------------------------------------------------------ what may happen to them


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of the caller's own, which the engine uses and leaves as it is."""
    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    assert ray.is_initialized()
    ray.shutdown()


def run_actors(run: Run, progress: Any = silent, **job: Any) -> None:
    Actors(2)(FakeJob(run.path, **job), run, progress)  # type: ignore[arg-type]  # as above


@pytest.fixture
def filled(tmp_path: Path) -> dict[str, bytes]:
    run = create_run(tmp_path / "filled", small_run.plan(9, shard_batches=1))
    run.write_checkpoint(small_run.record("base", weights_sha="w"))
    for number in range(SHARDS):
        run.write_shard("base", number, small_run.shard_rows(run, number), small_run.SITES)
    return tree(run.path)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_dead_actors_shard_goes_back_to_the_queue(
    tmp_path: Path, filled: dict[str, bytes]
) -> None:
    run = started(tmp_path)
    told: list[tuple[str, int, int]] = []
    run_actors(run, lambda *now: told.append(now), happens={0: "die once", 3: "die once"})
    assert len(pids(run)) == SHARDS + 2
    assert len(set(pids(run))) == 4
    assert tree(run.path) == filled
    assert told[:3] == [("start ray", 0, 1), ("start ray", 1, 1), ("capture base", 0, 18)]
    assert [now for now in told if "died" in now[0]] == [
        ("replace actors that died", 1, 1), ("replace actors that died", 2, 2),
    ]  # fmt: skip
    rows = [done for stage, done, _ in told if stage == "capture base"]
    assert rows == [0, 3, 6, 9, 12, 15, 18]
    assert gone(pids(run))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_shard_that_ends_every_actor_is_named_and_the_rest_is_kept(
    tmp_path: Path, filled: dict[str, bytes]
) -> None:
    run = started(tmp_path)
    with pytest.raises(CaptureError, match=r"shard 2 .* 3 actors died of it.*goes on from there"):
        run_actors(run, happens={2: "die"})
    assert 2 in run.missing("base")
    assert [number for number, _ in notes(run)].count(2) == TRIES
    run_actors(run)
    assert tree(run.path) == filled
    with pytest.raises(StoreError, match="weights_sha differ"):
        run_actors(run, weights="other")  # the checkpoint is looked at, though nothing is missing


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_error_arrives_as_it_was_raised(tmp_path: Path) -> None:
    run = started(tmp_path)
    with pytest.raises(GeomkitError) as arrived:
        run_actors(run, happens={1: "MemoryFull"})
    assert type(arrived.value) is MemoryFull  # what `capture_run` falls back on
    assert str(arrived.value) == "shard 1: MemoryFull"
    assert gone(pids(run))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_interrupt_stops_the_actors(tmp_path: Path) -> None:
    run = started(tmp_path)
    note = run.path.with_suffix(".pids")

    def interrupt() -> None:
        while not note.exists() or len(note.read_text().splitlines()) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        run_actors(run, happens={0: "sleep", 1: "sleep"})
    other.join()
    assert gone(pids(run))
