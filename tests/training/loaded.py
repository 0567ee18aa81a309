"""A checkpoint folder as the training tests use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from geomkit.checkpoints import load_checkpoint
from geomkit.processing import Processor, load_processor


@dataclass(frozen=True, slots=True)
class Loaded:
    """Model, its decoder and its processor."""

    model: Any
    decoder: nn.Module
    processor: Processor


def load(folder: Path) -> Loaded:
    """The checkpoint of a folder in float32 on the CPU."""
    checkpoint = load_checkpoint("loaded", str(folder), dtype="float32", device="cpu")
    return Loaded(checkpoint.model, checkpoint.decoder, load_processor(folder))
