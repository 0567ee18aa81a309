"""Who captures which shard makes no difference: slices in any order, at once or twice.

The engine of ray actors is tested in `test_actors`.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomkit import checkpoints, cli
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.engines import EngineConfig, Slice, inline
from geomkit.errors import MissingExtra, UsageError
from geomkit.store import create_run, open_run, verify_run
from tests import small_run, tiny_models
from tests.test_kill import ENVIRONMENT, ROOT, tree


def config() -> CaptureConfig:
    return CaptureConfig(
        modalities=("text", "image"), batch_size=2, shard_batches=1, device="cpu", previews=True
    )


@pytest.fixture(scope="module")
def specs() -> list[CheckpointSpec]:
    families = {"before": "qwen2_vl", "after": "qwen2_5_vl"}
    return [CheckpointSpec(n, str(tiny_models.saved(family))) for n, family in families.items()]


@pytest.fixture(scope="module")
def whole(specs: list[CheckpointSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of two checkpoints, captured inline."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run = capture_run(specs, tiny_models.scenes(6), out, config(), engine=inline)
    assert run.shard_count() == 6
    return out


# ------------------------------------------------------------------------------------ the names


@pytest.mark.parametrize(
    ("text", "environment", "number", "count"),
    [
        ("0/1", {}, 0, 1),
        ("3/12", {"RANK": "1", "WORLD_SIZE": "2"}, 3, 12),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, 1, 2),
        ("auto", {"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, 5, 8),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, 2, 4),
        (
            "auto",  # --array=1-4, and one task in each
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
            },
            3,
            4,
        ),
        (
            "auto",  # --array=0-6:2
            {
                "SLURM_ARRAY_TASK_ID": "6",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            3,
            4,
        ),
    ],
)
def test_a_slice_is_read(
    text: str, environment: Mapping[str, str], number: int, count: int
) -> None:
    assert Slice.parse(text, environment) == Slice(number, count)


@pytest.mark.parametrize(
    "text", ["2/2", "1", "a/b", "-1/2", "0/0", "1/2/3", "", "²/3", "0/9999999"]
)
def test_what_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard i/n with i from 0 to n - 1"):
        Slice.parse(text, {})


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "4"},
        {
            "SLURM_ARRAY_TASK_ID": "7",  # --array=1,3,7: numbers with holes say nothing
            "SLURM_ARRAY_TASK_COUNT": "3",
            "SLURM_ARRAY_TASK_MIN": "1",
        },
        {
            "SLURM_ARRAY_TASK_ID": "1",
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_ARRAY_TASK_STEP": "0",
        },
    ],
)
def test_an_environment_that_says_no_slice_is_refused(environment: Mapping[str, str]) -> None:
    with pytest.raises(UsageError, match="--shard i/n"):
        Slice.parse("auto", environment)


def test_auto_outside_of_a_job_is_refused() -> None:
    with pytest.raises(UsageError, match=r"RANK and WORLD_SIZE, .* found none: write i/n"):
        Slice.parse("auto", {"RANK": "0"})


@pytest.mark.parametrize(
    ("options", "force", "match"),
    [
        ({"engine": "spark"}, False, r"an engine \(inline, ray\), got 'spark'"),
        ({"engine": "ray", "shard": "0/2"}, False, "no --shard with --engine ray"),
        ({"shard": "0/2"}, True, "no --force with --shard: .* wipe what the others wrote"),
        ({"workers": 2}, False, "--workers of at least 1, with --engine ray, got 2 with inline"),
        ({"engine": "ray", "workers": -1}, False, "got -1 with ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], force: bool, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        EngineConfig(**options).engine_itself(force=force)


def test_without_ray_its_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'geomkit\[ray\]'") as missing:
        EngineConfig(engine="ray").engine_itself()
    assert missing.value.exit_code == 4


@pytest.mark.parametrize(
    ("environment", "visible", "device"),
    [
        ({}, 4, "cuda:0"),
        ({"LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 4, "cuda:3"),
        ({"SLURM_LOCALID": "2"}, 4, "cuda:2"),
        ({"LOCAL_RANK": "3"}, 1, "cuda:0"),  # the launcher shows each its own GPU alone
    ],
)
def test_the_launcher_says_which_gpu(
    environment: Mapping[str, str], visible: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert checkpoints._device("auto") == device
    assert checkpoints._device("cuda") == device
    assert checkpoints._device("cuda:1") == "cuda:1"
    assert checkpoints._device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checkpoints._device("auto") == "cpu"


# --------------------------------------------------------------------------------- the same run


@pytest.mark.parametrize("slices", [("1/2", "0/2"), ("0/2", "0/2", "0/3", "1/2"), ("9/10", "0/1")])
def test_slices_in_any_order_give_the_run(
    slices: tuple[str, ...], specs: list[CheckpointSpec], whole: Path, tmp_path: Path
) -> None:
    out, samples = tmp_path / "run", tiny_models.scenes(6)
    for text in slices:
        run = capture_run(specs, samples, out, config(), engine=Slice.parse(text))
    assert run.missing("after") == ()
    assert tree(out) == tree(whole)


def test_a_slice_captures_its_shards_and_no_others(
    specs: list[CheckpointSpec], tmp_path: Path
) -> None:
    run = capture_run(specs, tiny_models.scenes(6), tmp_path, config(), engine=Slice(1, 4))
    assert [n for n in range(6) if run.has_shard("after", n)] == [1, 5]
    assert run.missing("before") == run.missing("after") == (0, 2, 3, 4)
    assert run.captured() == ()


SLICES = """
import os, random, sys
from pathlib import Path
import torch
from geomkit.capture import capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.engines import Slice
from tests import tiny_models
from tests.test_engines import config

torch.set_num_threads(1)
specs = [CheckpointSpec(*text.split("=", 1)) for text in sys.argv[2:]]
samples = tiny_models.scenes(6)

def start(out, text):
    child = os.fork()
    if not child:
        capture_run(specs, samples, out, config(), engine=Slice.parse(text))
        os._exit(0)
    return child

for number, slices in enumerate((["0/2", "1/2"], ["1/2", "0/3", "0/2"])):
    children = [start(Path(sys.argv[1], f"run{number}"), text) for text in slices]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(slices)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_slices_at_the_same_time_give_the_run(
    specs: list[CheckpointSpec], whole: Path, tmp_path: Path
) -> None:
    named = [f"{spec.name}={spec.source}" for spec in specs]
    done = subprocess.run(
        [sys.executable, "-c", SLICES, str(tmp_path), *named],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for number in range(2):
        assert tree(tmp_path / f"run{number}") == tree(whole)
        assert verify_run(tmp_path / f"run{number}") == ()


WRITERS = """
import os, sys
from pathlib import Path
from geomkit.store import create_run
from tests import small_run

children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        run = create_run(Path(sys.argv[1]), small_run.plan(12))
        run.write_checkpoint(small_run.record("base"))
        for number in range(run.shard_count()):
            run.write_shard("base", number, small_run.shard_rows(run, number), small_run.SITES)
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_write_the_same_shards_wait_for_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, str(tmp_path / "same")],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    alone = create_run(tmp_path / "alone", small_run.plan(12))
    assert tree(small_run.fill(alone).path) == tree(tmp_path / "same")


# ------------------------------------------------------------------ the order of the checkpoints


@given(turns=st.lists(st.integers(0, 2), max_size=12))
@settings(max_examples=15, deadline=None)
def test_the_order_of_checkpoints_is_the_jobs_whoever_is_first(turns: list[int]) -> None:
    """Each process writes the records in the job's order; any interleaving of three of them."""
    names = ("zeta", "alpha", "midst")
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), small_run.plan())
        left = [iter(names) for _ in range(3)]
        every = itertools.chain(turns, itertools.cycle(range(3)))
        for process in itertools.islice(every, len(turns) + 9):
            name = next(left[process], None)
            if name is not None:
                open_run(Path(folder)).write_checkpoint(small_run.record(name))
        assert tuple(entry.record.name for entry in run.entries()) == names
        assert [entry.order for entry in run.entries()] == [0, 1, 2]


# ------------------------------------------------------------------------------ the command line


@pytest.fixture
def geomkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `geomkit capture` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geomkit", "capture", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


def test_a_slice_says_what_is_missing_and_what_to_run(
    geomkit: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = tmp_path / "data.jsonl", tmp_path / "run"
    rows = (json.dumps({"id": f"s{i}", "text": f"thing {i}"}) for i in range(11))
    manifest.write_text("\n".join(rows))
    command = [
        "--ckpt", f"tiny={tiny_models.saved('qwen2_vl')}", "--data", str(manifest),
        "--out", str(out), "--batch-size", "1", "--shard-batches", "1", "--device", "cpu",
    ]  # fmt: skip
    code, said, told = geomkit(*command, "--shard", "0/11", "--json")
    assert code == 0
    assert json.loads(said)["checkpoints"]  # what is missing is said on stderr, beside it
    assert "tiny lacks 10 of 11 shards: 1, 2, 3, 4, 5, 6, 7, 8, ..." in told
    assert "run the other slices, or the same command without --shard" in told
    code, _, told = geomkit(*command, "--shard", "0/11", "--force")
    assert (code, "no --force with --shard" in told) == (2, True)
    assert len(open_run(out).missing("tiny")) == 10
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, told = geomkit(*command, "--shard", "auto")
    assert (code, "tiny lacks 5 of 11 shards: 2, 4, 6, 8, 10" in told) == (0, True)
    code, _, told = geomkit(*command)
    assert (code, "lacks" in told) == (0, False)
