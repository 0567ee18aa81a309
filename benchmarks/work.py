"""The model of a run, the rows it is shown, and a capture that is ready to start."""

from __future__ import annotations

from benchmarks import models
from benchmarks.lines import Setup
from geomkit.checkpoints import Checkpoint
from geomkit.plans import CaptureConfig
from geomkit.types import Sample
from geomkit.worker import Worker

MODALITIES = {"text_only": ("text",), "qwen2_5_vl": ("text", "image")}


def model(setup: Setup) -> tuple[models.Size, Checkpoint]:
    size = models.SIZES[setup.size]
    built = models.build(size, dtype=setup.dtype, device=setup.device)
    return size, models.in_memory(built, setup.scratch)


def modalities(size: models.Size) -> tuple[str, ...]:
    return MODALITIES.get(size.family, ("text", "image", "audio"))


def _samples(setup: Setup, modality: str) -> list[Sample]:
    large = setup.cuda
    if modality == "image":
        return models.pictures(64, 560, 448) if large else models.pictures(4, 112, 112)
    if modality == "audio":
        return models.sounds(64, 15.0) if large else models.sounds(4, 1.0)
    if setup.quick:
        return models.texts(8, 40)
    return models.texts(512, 256) if large else models.texts(8, 32)


def bench(setup: Setup, size: models.Size, one: Checkpoint, modality: str) -> Worker:
    asked = CaptureConfig(device=setup.device, batch_size=32 if setup.cuda else 2, shard_batches=2)
    processor = models.processor(size, setup.scratch)
    return models.worker([one], processor, _samples(setup, modality), asked, setup.folder() / "run")
