"""What a training leaves on paper: `training.json`, beside the adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from geomkit.training.config import TrainConfig
from geomkit.training.generation import GenerationChange
from geomkit.training.geometry import Geometry
from geomkit.training.guards import Notice
from geomkit.training.merging import Agreement
from geomkit.training.sampling import Epoch

SCHEMA = "geomkit-training/1"
RECORD = "training.json"


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step: mean loss of the batch, in-batch accuracy, gradient norm, seconds.

    `parts` are the weighted parts of a loss that has several.
    """

    step: int
    loss: float
    accuracy: float
    grad_norm: float
    learning_rate: float
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What was trained on what, and the proof that nothing else changed; `training.json`.

    `frozen_before` and `frozen_after` are sha256 by region of the model (see `region_hashes`), of
    every region that was not to change; `base_regions` has those that train too, as they were.
    `agreement` and `assembly` are of a checkpoint that was written whole: how near its states are
    to those of the model that was trained, and what sentence-transformers embeds with it.
    """

    schema: str
    config: TrainConfig
    instruction: str
    base: str
    source: str
    pairs: int
    pairs_sha: str
    dropped: Mapping[str, int]
    trained: tuple[str, ...]
    media: Mapping[str, int]
    decoder: str
    targets: str
    lora_modules: int
    parameters: int
    trainable_inside: int
    trainable_outside: int
    trainable_names: tuple[str, ...]
    frozen_before: Mapping[str, str]
    frozen_after: Mapping[str, str]
    adapter_tensors: int
    adapter_sha: str
    steps: tuple[Step, ...]
    seconds: float
    steps_per_second: float
    generation: tuple[GenerationChange, ...]
    versions: Mapping[str, str]
    geometry: tuple[Geometry, ...] = ()
    notices: tuple[Notice, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    base_regions: Mapping[str, str] = field(default_factory=dict)
    assembly: tuple[str, ...] = ()
    epochs: tuple[Epoch, ...] = ()  # whole passes over the pairs
    cut: int = 0  # texts longer than max_tokens, of which the beginning was read
    null: str = ""  # of a null arm, what was drawn by lot

    def to_json(self) -> str:
        """Strict JSON, sorted keys."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"
