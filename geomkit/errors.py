"""Every error a user can cause, one class a cause.

    GeomkitError                 exit code 3: bad data, bad store
    ├── UsageError               exit code 2: the command or a name in it is wrong
    ├── SampleError              a manifest, an image or a sound cannot be used
    ├── CheckpointError          a checkpoint cannot be found, loaded or understood
    ├── CaptureError             the states that were asked for did not appear, or the gate failed
    │   └── MemoryFull           a model or a batch does not fit into the device's memory
    ├── TrainingError            pairs, scope or merge do not hold what they promise
    ├── StoreError               a run folder or a shard is not what its receipt says
    ├── ProvenanceMismatch       two things are compared that differ in more than weights
    ├── DegenerateInput          a metric is not defined on these rows (also a ValueError)
    ├── MissingExtra             exit code 4: an optional dependency is not installed
    └── CheckFailed              exit code 1: a geometry assertion does not hold

A message is one sentence or two: what was expected, what came, what to do.
"""

from __future__ import annotations


class GeomkitError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code: int = 3


class UsageError(GeomkitError):
    """A command, a flag or a name is wrong."""

    exit_code = 2


class SampleError(GeomkitError):
    """A manifest or one of its media cannot be used."""


class CheckpointError(GeomkitError):
    """A checkpoint cannot be found, loaded or understood."""


class CaptureError(GeomkitError):
    """A state that was asked for did not appear, or the gate failed."""


class MemoryFull(CaptureError):
    """A model or a batch does not fit into the device's memory; smaller pieces may."""


class TrainingError(GeomkitError):
    """Text pairs, the adapter's scope or a merge do not hold what they promise."""


class StoreError(GeomkitError):
    """A run folder or a shard is missing, damaged or hostile."""


class ProvenanceMismatch(GeomkitError):
    """Two captures differ in more than their weights, so a difference means nothing."""


class DegenerateInput(GeomkitError, ValueError):
    """A metric is not defined on these rows: constant, too few, rank zero or not finite."""

    def kept(self) -> DegenerateInput:
        """Itself as a result, without the frames it came through and the arrays they hold."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class MissingExtra(GeomkitError):
    """An optional dependency is missing; the message names the `pip install`."""

    exit_code = 4


class CheckFailed(GeomkitError, AssertionError):
    """A geometry assertion does not hold."""

    exit_code = 1
