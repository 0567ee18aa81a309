"""Every instant at which a process or the power can end, replayed on a model of a disk.

A capture of two sessions is recorded, call by call, as what the system was asked to do. From the
record every state is rebuilt that a crash can leave:

    process killed   the calls up to a point, the last write torn
    power cut        of the calls before the point, those that were synced, and any of the others:
                     an unsynced rename may be undone, unsynced bytes may be absent, torn or zero

POSIX promises no more than that: bytes are safe after fsync of the file, names after fsync of their
folder. In every state, each shard whose write had returned must be there and right, nothing may be
believed that is not right, and the same capture must go on to the same bytes.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, create_run, files, open_run, verify_run
from tests.small_run import SITES, plan, record, shard_rows, token_rows

PLAN = plan(samples=3)  # two shards
Tree = dict[str, bytes | None]  # name -> bytes, None for a folder
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls of a POSIX system are recorded")


@dataclass(frozen=True)
class Call:
    """One change of the disk. `file` is the thing itself, whatever its name is at the moment."""

    what: str  # make | folder | cut | write | sync | rename | unlink | done
    name: str = ""
    to: str = ""
    file: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """Passes every call on, and keeps what it changes below `root`."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=lambda: {".": 0})
    opened: dict[int, int] = field(default_factory=dict)  # descriptor -> file
    count: int = 0

    def name(self, path: object) -> str | None:
        """The name below the root; None for what is elsewhere, and for the lock."""
        try:
            name = str(Path(os.fspath(path)).relative_to(self.root))  # type: ignore[call-overload]
        except (ValueError, TypeError):
            return None
        return None if name.endswith(".lock") else name

    def number(self, name: str) -> int:
        if name not in self.files:
            self.count += 1
            self.files[name] = self.count
        return self.files[name]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for call in ("open", "write", "close", "fsync", "replace", "rename", "unlink", "mkdir"):
            own = getattr(self, f"_{call}")
            monkeypatch.setattr(os, call, self._around(getattr(os, call), own))

    @staticmethod
    def _around(real: Callable[..., object], own: Callable[..., None]) -> Callable[..., object]:
        def called(*arguments: object, **options: object) -> object:
            result = real(*arguments, **options)
            own(result, *arguments)
            return result

        return called

    def _open(self, descriptor: int, path: object, flags: int, *_: object) -> None:
        name = self.name(path)
        if name is None:
            return
        if flags & os.O_CREAT and name not in self.files:
            self.calls.append(Call("make", name, file=self.number(name)))
        elif flags & os.O_TRUNC:
            self.calls.append(Call("cut", name, file=self.files[name]))
        self.opened[descriptor] = self.number(name)

    def _write(self, count: int, descriptor: int, data: bytes) -> None:
        if descriptor in self.opened:
            written = bytes(data[:count])
            self.calls.append(Call("write", file=self.opened[descriptor], data=written))

    def _close(self, _: None, descriptor: int) -> None:
        self.opened.pop(descriptor, None)

    def _fsync(self, _: None, descriptor: int) -> None:
        if descriptor in self.opened:
            self.calls.append(Call("sync", file=self.opened[descriptor]))

    def _replace(self, _: None, source: object, target: object) -> None:
        name, to = self.name(source), self.name(target)
        assert name is not None
        assert to is not None
        number = self.files.pop(name)
        self.files[to] = number
        self.calls.append(Call("rename", name, to, number))

    _rename = _replace

    def _unlink(self, _: None, path: object, *__: object) -> None:
        name = self.name(path)
        if name is not None:
            self.calls.append(Call("unlink", name, file=self.files.pop(name)))

    def _mkdir(self, _: None, path: object, *__: object) -> None:
        name = self.name(path)
        if name not in (None, "."):
            self.calls.append(Call("folder", name, file=self.number(name)))


# ------------------------------------------------------------------------ what a crash can leave


def tree_of(calls: Sequence[Call]) -> Tree:
    """The disk after these calls, all of them done."""
    names: dict[str, int] = {}
    content: dict[int, bytes | None] = {}
    for call in calls:
        if call.what in ("make", "cut"):
            names.setdefault(call.name, call.file)
            content[call.file] = b""
        elif call.what == "folder":
            names[call.name] = call.file
            content[call.file] = None
        elif call.what == "write":
            content[call.file] = (content.get(call.file) or b"") + call.data
        elif call.what == "rename":
            names.pop(call.name, None)
            names[call.to] = call.file
        elif call.what == "unlink":
            names.pop(call.name, None)
    tree = {name: content.get(number, b"") for name, number in names.items()}
    return {name: data for name, data in tree.items() if _reachable(name, tree)}


def _reachable(name: str, tree: Tree) -> bool:
    parent = str(Path(name).parent)
    return parent == "." or (parent in tree and tree[parent] is None)


def killed(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """The process is gone after these calls, or in the middle of the last."""
    yield calls
    if calls and calls[-1].what == "write":
        for part in (1, len(calls[-1].data) // 2):
            yield [*calls[:-1], Call("write", file=calls[-1].file, data=calls[-1].data[:part])]


def cut_off(calls: Sequence[Call], numbers: dict[str, int]) -> Iterator[Sequence[Call]]:
    """The power is gone after these calls."""
    open_ones = [i for i, call in enumerate(calls) if not _synced(calls, i, numbers)]
    fates = [(None, *_torn(calls[i])) for i in open_ones]
    for fate in itertools.product(*fates):
        kept = dict(zip(open_ones, fate, strict=True))
        left = [kept.get(i, call) for i, call in enumerate(calls)]
        yield [call for call in left if call is not None]


def _torn(call: Call) -> tuple[Call, ...]:
    if call.what != "write":
        return (call,)
    parts = (call.data, call.data[: len(call.data) // 2], bytes(len(call.data)))
    return tuple(Call("write", file=call.file, data=part) for part in parts)


def _synced(calls: Sequence[Call], i: int, numbers: dict[str, int]) -> bool:
    """True when the change is safe: its file, or the folders of its names, were synced after."""
    call = calls[i]
    if call.what in ("sync", "done"):
        return True
    later = {c.file for c in calls[i + 1 :] if c.what == "sync"}
    if call.what in ("write", "cut"):
        return call.file in later
    folders = {str(Path(name).parent) for name in (call.name, call.to) if name}
    return all(numbers[folder] in later for folder in folders)


# ------------------------------------------------------------------------------------- the check


def capture(folder: Path, shards: Sequence[int], done: Callable[[int], None]) -> Run:
    run = create_run(folder, PLAN)
    run.write_checkpoint(record())
    for number in shards:
        rows = shard_rows(run, number)
        kept = token_rows(rows) if number else None  # one shard with token states, one without
        run.write_shard("base", number, rows, SITES, tokens=kept)
        done(number)
    return run


def recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A capture in two sessions; `done` stands where the write of a shard returned."""
    recorder = Recorder(root)
    with monkeypatch.context() as patched:
        recorder.install(patched)
        for shards in ((0,), (0, 1)):
            capture(root, shards, lambda n: recorder.calls.append(Call("done", str(n))))
    return recorder


def on_disk(folder: Path) -> Tree:
    found = (p for p in sorted(folder.rglob("*")) if not p.name.endswith(".lock"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}


def lay_out(tree: Tree, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in sorted(tree):
        data = tree[name]
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def broken(tree: Tree, done: set[int], whole: Tree, folder: Path) -> str:
    """What is wrong with a state in which the shards `done` had been promised; "" if nothing."""
    lay_out(tree, folder)
    try:
        run = open_run(folder)
        believed = {n for n in range(2) if run.has_shard("base", n)}
    except StoreError as error:
        believed = set()
        if done:
            return f"lost everything: {error}"
    if not done <= believed:
        return f"lost shard {done - believed}"
    for number in believed:
        for name in (f"base/shard-{number:05d}.h5", f"base/tokens-{number:05d}.h5"):
            if tree.get(name) != whole.get(name):
                return f"believes another {name}"
    try:
        capture(folder, (0, 1), lambda _: None)
    except StoreError as error:
        return f"does not go on: {error}"
    if on_disk(folder) != whole or verify_run(folder):
        return f"goes on to another end: {sorted(set(on_disk(folder)) ^ set(whole))}"
    return ""


def states(recorder: Recorder) -> Iterator[tuple[str, Tree, set[int]]]:
    """Every different state that a crash can leave: when, what is there, what was promised."""
    numbers = {".": 0} | {c.name: c.file for c in recorder.calls if c.what == "folder"}
    seen: set[int] = set()
    for point in range(len(recorder.calls) + 1):
        calls = recorder.calls[:point]
        done = {int(call.name) for call in calls if call.what == "done"}
        for left in itertools.chain(killed(calls), cut_off(calls, numbers)):
            tree = tree_of(left)
            key = hash((frozenset(tree.items()), frozenset(done)))
            if key not in seen:
                seen.add(key)
                yield f"after call {point}", tree, done


def problems(recorder: Recorder, root: Path) -> Iterator[str]:
    """What is wrong with the states, one line each; the last says how many there were."""
    whole, count = on_disk(root), 0
    for when, tree, done in states(recorder):
        count += 1
        problem = broken(tree, done, whole, root.with_name("state"))
        if problem:
            yield f"{when}: {problem}"
    yield f"{count} states"


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states are laid out on a disk that nobody unplugs."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_no_instant_loses_a_shard_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sync: None
) -> None:
    recorder = recorded(tmp_path / "run", monkeypatch)
    assert tree_of(recorder.calls) == on_disk(tmp_path / "run"), "a change went past the record"
    *wrong, count = problems(recorder, tmp_path / "run")
    assert wrong == []
    assert int(count.split()[0]) > 40


def bytes_not_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


def rewritten_in_place(path: Path, data: bytes) -> None:
    files._write_synced(path, data)
    files.sync_folder(path.parent)


def removed_first(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    files._write_synced(temporary, data)
    path.unlink(missing_ok=True)
    temporary.replace(path)
    files.sync_folder(path.parent)


@pytest.mark.parametrize(
    ("name", "careless"),
    [
        ("_write_synced", bytes_not_synced),
        ("sync_folder", lambda _: None),
        ("write_atomic", rewritten_in_place),
        ("write_atomic", removed_first),
    ],
)
def test_a_careless_writer_is_found_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_sync: None,
    name: str,
    careless: Callable[..., None],
) -> None:
    """The replay is only worth something if it goes red for what it is there to find."""
    with monkeypatch.context() as patched:
        patched.setattr(files, name, careless)
        recorder = recorded(tmp_path / "run", patched)
    first = next(problems(recorder, tmp_path / "run"))
    assert "lost" in first or "does not go on" in first
