"""A ladder of sandbox models for scaling experiments: five lengths of pretraining, two widths.

    python -m geomkit.sandbox.ladder OUT

Each rung is a whole run with its own decay, not a snapshot of a longer one, so rungs differ in
nothing but length and width; the mix of modalities at a step is the same in all, so short rungs
only see the first mix. `ladder.json` holds every rung's generative loss and accuracy per modality
on held-out combinations. All rungs together cost about four times the model that ships.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer

from geomkit.sandbox import architecture
from geomkit.sandbox.architecture import Size
from geomkit.sandbox.pretrain import Pretraining, pretrain
from geomkit.sandbox.ship import SCENES, ship

LENGTHS = (500, 1000, 2000, 3500, 5300)
SCHEDULE = Pretraining()
WIDTHS: Mapping[str, Size] = {"default": Size(), "narrow": architecture.NARROW}


def climb(
    out: Path,
    lengths: Sequence[int] = LENGTHS,
    widths: Mapping[str, Size] = WIDTHS,
    *,
    schedule: Pretraining = SCHEDULE,
    scenes: int = SCENES,
) -> list[dict[str, Any]]:
    """Pretrain and measure every rung that is not there yet; returns the ladder's records."""
    rungs = []
    for width, size in widths.items():
        for steps in lengths:
            work, folder = out / f"{width}-{steps:05d}-work", out / f"{width}-{steps:05d}"
            if not (folder / "mastery.json").exists():
                pretrain(work, replace(schedule, steps=steps, evaluate_every=steps), size)
                snapshot, log = work / f"snapshot-{steps:05d}.pt", work / "pretraining.jsonl"
                ship(snapshot, log, folder, size, scenes=scenes)
            mastery = json.loads((folder / "mastery.json").read_text())
            rungs.append({"width": width, "path": folder.name, **mastery})
            (out / "ladder.json").write_text(json.dumps(rungs, indent=1) + "\n")
    return rungs


def main(out: Path, threads: int = 2) -> None:
    """Build the ladder in OUT; a rung that is already there is kept."""
    torch.set_num_threads(threads)
    climb(out)


if __name__ == "__main__":
    typer.run(main)
