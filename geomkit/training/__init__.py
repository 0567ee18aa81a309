"""Make the second checkpoint: pairs -> what a method trains -> adapter -> merged checkpoint.

`pairs` and `config` are light; `train` and `merge` bring torch, so they are looked up on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomkit.training.config import PRESETS, TrainConfig
from geomkit.training.pairs import PairSet, TextPair, load_pairs

if TYPE_CHECKING:
    from geomkit.training.generation import GenerationChange, generative_change, generative_losses
    from geomkit.training.geometry import GeometryCallback
    from geomkit.training.merging import MergeRecord, merge
    from geomkit.training.record import TrainingRecord
    from geomkit.training.trainer import train

__all__ = [
    "PRESETS",
    "GenerationChange",
    "GeometryCallback",
    "MergeRecord",
    "PairSet",
    "TextPair",
    "TrainConfig",
    "TrainingRecord",
    "generative_change",
    "generative_losses",
    "load_pairs",
    "merge",
    "train",
]

_HEAVY = {
    "GenerationChange": "generation",
    "GeometryCallback": "geometry",
    "generative_change": "generation",
    "generative_losses": "generation",
    "MergeRecord": "merging",
    "merge": "merging",
    "TrainingRecord": "record",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    """The heavy names, imported when asked for."""
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)
