"""Bytes of strangers are parsed by a child process first; what ends the child is an error here.

    parent: hash, receipt -> all new files of the run -> child: allow-list -> parent reads

The allow-list itself runs inside the HDF5 library, which is C that walks pointers of the file: a
hostile file can make it loop, crash or take all memory, and no exception handler sees that. One
child is started for all files of a run that this process neither wrote nor had parsed before.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from geomkit.errors import StoreError
from geomkit.store import files

Identity = tuple[int, int, int, int, int]

FILE_SECONDS = 20  # for one file; a shard of the usual size takes some milliseconds
START_SECONDS = 60  # for the interpreter and its imports, on a slow network disk
SLOW = 50 << 20  # bytes a second that the slowest disk gives
MEMORY = 2 << 30  # address space of the child beside what the files need themselves
_PATTERNS = ("shard-*.h5", "tokens-*.h5")
_READY = "ready"
_CHILD = f"from {__name__} import main; main()"

_lock = threading.Lock()
_trusted: set[str] = set()  # sha256 of what this process wrote, or a child has parsed
_verdicts: dict[Identity, str] = {}  # "" is good, else what is wrong


def identity(status: os.stat_result) -> Identity:
    """What changes when a file's content does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def trust(sha: str) -> None:
    """Say that the bytes with this sha256 were made by this process."""
    _trusted.add(sha)


def admit(path: Path, sha: str, status: os.stat_result) -> None:
    """Let the file at `path` pass, which has this sha256 and this status, or say why not.

    Raises:
        StoreError: it is not as the format says, or it ended the process that parsed it.
    """
    with _lock:
        if sha in _trusted:
            return
        key = identity(status)
        if key not in _verdicts:
            _screen((path, *_others(path)))
        problem = _verdicts.get(key, f"{path} changed while it was checked; try again")
        if problem:
            raise StoreError(problem)
        _trusted.add(sha)


def _others(path: Path) -> Iterator[Path]:
    """The other files of the run that have no verdict yet."""
    if not any(path.match(pattern) for pattern in _PATTERNS):
        return  # a packed run is alone
    run = path.parents[1]
    for other in sorted(p for pattern in _PATTERNS for p in run.glob(f"*/{pattern}")):
        try:
            if other != path and identity(other.lstat()) not in _verdicts:
                yield other
        except OSError:  # it has just gone: whoever reads it will say so
            continue


def _screen(paths: Sequence[Path]) -> None:
    """Parse files in a child and keep its verdicts; the file it died of gets one too."""
    largest, total = _sizes(paths)
    request = {"paths": [str(path) for path in paths], "memory": MEMORY + 4 * largest}
    seconds = START_SECONDS + FILE_SECONDS * len(paths) + total // SLOW
    code, lines, complaint = _run_child(json.dumps(request), seconds)
    if not lines or lines[0] != _READY:
        raise StoreError(
            f"{paths[0]} cannot be checked: the process that parses it did not start "
            f"({complaint or f'exit code {code}'}); see that {sys.executable} can be run"
        )
    for line in lines[1:]:
        key, problem = json.loads(line)
        if key is not None:
            _verdicts[tuple(key)] = problem
    if len(lines) - 1 < len(paths):
        culprit = paths[len(lines) - 1]
        _verdicts[identity(culprit.lstat())] = (
            f"{culprit} cannot be read as HDF5: the process that parsed it {_end(code)}; "
            "the file is damaged or hostile, capture again to redo it"
        )


def _sizes(paths: Iterable[Path]) -> tuple[int, int]:
    sizes = [path.lstat().st_size for path in paths]
    return max(sizes), sum(sizes)


def _run_child(request: str, seconds: float) -> tuple[int | None, list[str], str]:
    """Exit code (None: out of time), whole lines of stdout, and the last line of stderr."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    found = (str(Path(__file__).parents[2]), *(entry for entry in sys.path if entry))
    environment = {
        **os.environ,
        **threads,
        "PYTHONPATH": os.pathsep.join(found),
        "HDF5_PLUGIN_PRELOAD": "::",  # no filter is ever loaded from a library beside
    }
    # -P: the working folder may be the stranger's, and nothing is imported from there
    command = [sys.executable, "-P", "-c", _CHILD]
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
        )
    except OSError as error:
        return None, [], str(error)
    with child:
        code: int | None
        try:
            said, complaints = child.communicate(request, timeout=seconds)
            code = child.returncode
        except subprocess.TimeoutExpired:
            child.kill()
            said, complaints = child.communicate()
            code = None
    whole = said[: said.rfind("\n") + 1]
    return code, whole.splitlines(), (complaints.strip().splitlines() or [""])[-1]


def _end(code: int | None) -> str:
    """What became of the child, as the end of a sentence."""
    alarm, limit = getattr(signal, "SIGALRM", None), getattr(signal, "SIGXCPU", None)
    if code is None or (code < 0 and -code in (alarm, limit)):
        return "did not come to an end in time"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


# ------------------------------------------------------------------------------------ the child


def main() -> None:
    """Parse the files named on stdin, and print [identity, problem] for each, as JSON lines."""
    request = json.load(sys.stdin)
    _limit(request["memory"])
    answer = functools.partial(print, flush=True)
    answer(_READY)
    for path in map(Path, request["paths"]):
        answer(json.dumps(_verdict(path)))


def _limit(memory: int) -> None:
    """Bound the address space where the platform can, and let an alarm end the process."""
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a loop in C, which no handler does
    try:
        import resource
    except ImportError:  # Windows: there the parent's time-out is what is left
        return
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):  # macOS knows the limit and does not take it
        return


def _verdict(path: Path) -> tuple[Identity | None, str]:
    try:
        with files.open_regular(path, sys.maxsize) as stream:
            status = os.fstat(stream.fileno())
            _alarm(FILE_SECONDS + status.st_size // SLOW)
            try:
                _parse(stream, status.st_size, str(path))
            except StoreError as error:
                return identity(status), str(error)
            finally:
                _alarm(0)
            return identity(status), ""
    except StoreError:  # it cannot be opened: whoever reads it will say so
        return None, ""


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _parse(stream: BinaryIO, size: int, name: str) -> None:
    """All of the file, whichever form of the store it has."""
    from geomkit.store.forms import walk  # it knows every form, and this module is below them

    walk(stream, size, name)
