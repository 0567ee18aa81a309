"""Tiny random checkpoints on disk and a few sentences, for every training test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from geomkit.sandbox import architecture, render, world
from geomkit.sandbox.architecture import Size
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair
from geomkit.types import Sample

SMALL = Size(
    hidden=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    vision_hidden=32,
    vision_layers=1,
    audio_hidden=32,
    audio_layers=1,
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Many times faster on shared cores, and reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-Omni thinker."""
    folder = tmp_path_factory.mktemp("omni") / "base"
    torch.manual_seed(1)
    architecture.save(architecture.build(SMALL), folder)
    return folder


@pytest.fixture
def own_base(base: Path, tmp_path: Path) -> Path:
    """A copy of the base that a test may damage."""
    return Path(shutil.copytree(base, tmp_path / "own-base"))


@pytest.fixture(scope="session")
def pairs() -> tuple[TextPair, ...]:
    """Sixty triplets of the sandbox world."""
    rng = np.random.default_rng(0)
    combos = list(world.combinations("image", "train"))
    found = []
    for k in range(60):
        scene = world.scene("image", combos[k], rng)
        other = world.caption(world.neighbour(scene, rng), rng)
        found.append(
            TextPair(world.caption(scene, rng), world.caption(scene, rng), other, scene.group)
        )
    return tuple(found)


@pytest.fixture(scope="session")
def held_out() -> tuple[Sample, ...]:
    """Three captioned samples of each medium."""
    rng = np.random.default_rng(1)
    found = []
    for kind in ("image", "audio"):
        combos = list(world.combinations(kind, "test"))
        for k in range(3):
            scene = world.scene(kind, combos[k], rng)
            found.append(
                Sample(
                    id=f"{kind}-{k}",
                    text=world.caption(scene, rng),
                    image=render.image(scene) if kind == "image" else None,
                    audio=render.waveform(scene) if kind == "audio" else None,
                    group=scene.group,
                )
            )
    return tuple(found)


@pytest.fixture(scope="session")
def quick() -> TrainConfig:
    """Three steps of a small adapter."""
    return TrainConfig.of("sandbox", rank=4, steps=3, batch=8, mini_batch=8, warmup_steps=0)
