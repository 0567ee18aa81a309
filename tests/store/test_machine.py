"""Any order of capturing, killing, resuming, damaging, mending and verifying: a run never lies.

The model is what the user would say: which shards were written, and which of them were damaged
since. The run must agree after every step, whatever order hypothesis finds.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geomkit.errors import StoreError
from geomkit.store import create_run, files, open_run, verify_run
from tests.small_run import SITES, plan, record, shard_rows

PLAN = plan(samples=6)  # four shards
SHARDS = st.integers(0, 3)


class Killed(BaseException):
    """The process is gone; no handler runs, but for what `finally` does, which is undone."""


class Capture(RuleBasedStateMachine):
    """A run folder, and what is known of it."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="geomkit-machine-"))
        self.run = create_run(self.folder / "run", PLAN)
        self.run.write_checkpoint(record())
        self.written: set[int] = set()
        self.damaged: dict[Path, bytes] = {}  # a file, and what it was

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def path(self, number: int) -> Path:
        return self.run.path / "base" / f"shard-{number:05d}.h5"

    def broken(self) -> set[int]:
        return {int(path.stem.removeprefix("shard-")) for path in self.damaged}

    @rule(number=SHARDS)
    def write(self, number: int) -> None:
        self.run.write_shard("base", number, shard_rows(self.run, number), SITES)
        self.written.add(number)
        self.damaged = {p: d for p, d in self.damaged.items() if p.stem != self.path(number).stem}

    @rule(number=SHARDS, call=st.integers(0, 1), part=st.floats(0, 1))
    def kill_while_writing(self, number: int, call: int, part: float) -> None:
        """The process ends in the middle of the file, or of its receipt."""
        sound = number in self.written - self.broken()
        calls = iter(range(9))
        write, patch = files._write_synced, pytest.MonkeyPatch()

        def torn(path: Path, data: bytes) -> None:
            if next(calls) < call:
                write(path, data)
                return
            self.torn = (path, data[: int(len(data) * part)])
            raise Killed

        patch.setattr(files, "_write_synced", torn)
        try:
            self.run.write_shard("base", number, shard_rows(self.run, number), SITES)
            assert sound, "a shard that is not there was not written"
        except Killed:
            assert not sound, "a shard that is there was written again"
            path, data = self.torn
            path.write_bytes(data)  # as a kill leaves it: nobody cleans up
            if call == 1:  # the file itself is whole again
                self.damaged.pop(self.path(number), None)
        finally:
            patch.undo()
        if self.path(number).with_suffix(".json").exists() and not self.broken() & {number}:
            self.written.add(number)

    @rule(kind=st.sampled_from(["same", "again"]))
    def resume(self, kind: str) -> None:
        """Another process opens the run; nothing is lost by that."""
        if kind == "again":
            self.run = create_run(self.run.path, PLAN)
            self.run.write_checkpoint(record())
        else:
            self.run = open_run(self.run.path)

    @precondition(lambda self: self.written - self.broken())
    @rule(data=st.data(), place=st.floats(0, 1, exclude_max=True), receipt=st.booleans())
    def damage(self, data: st.DataObject, place: float, receipt: bool) -> None:
        """One byte of a shard or its receipt changes."""
        number = data.draw(st.sampled_from(sorted(self.written - self.broken())))
        path = self.path(number).with_suffix(".json" if receipt else ".h5")
        good = path.read_bytes()
        offset = int(place * len(good))
        changed = bytearray(good)
        changed[offset] ^= 1
        path.write_bytes(bytes(changed))
        self.damaged[path] = good

    @precondition(lambda self: self.damaged)
    @rule()
    def mend(self) -> None:
        """A backup is put back."""
        path, good = self.damaged.popitem()
        path.write_bytes(good)

    @invariant()
    def the_run_knows_what_is_there(self) -> None:
        if not hasattr(self, "run"):
            return
        sound = self.written - self.broken()
        found = {number for number in range(4) if self.run.has_shard("base", number)}
        assert found == sound
        assert self.run.complete("base") == (len(sound) == 4)

    def receipt(self, number: int) -> Path:
        return self.path(number).with_suffix(".json")

    @rule()
    def verify(self) -> None:
        sound = self.written - self.broken()
        absent = {number for number in range(4) if not self.receipt(number).exists()}
        damaged = {*range(4)} - sound - absent
        assert len(verify_run(self.run.path)) == len(damaged) + bool(absent)
        if len(sound) < 4:
            with pytest.raises(StoreError):
                self.run.states("base", "embed")
            return
        whole = create_run(self.folder / "whole", PLAN)
        whole.write_checkpoint(record())
        for number in range(4):
            whole.write_shard("base", number, shard_rows(whole, number), SITES)
            name = self.path(number).relative_to(self.run.path)
            assert (whole.path / name).read_bytes() == self.path(number).read_bytes()


Capture.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
test_a_run_never_lies = Capture.TestCase
