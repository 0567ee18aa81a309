"""Turn a pretraining snapshot into the checkpoint that ships, measured as it ships.

    python -m geomkit.sandbox.ship SNAPSHOT LOG OUT

Weights are rounded to half precision first; the accuracies and losses in `mastery.json` are those
of the rounded weights, on combinations that pretraining never saw.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import typer

from geomkit.sandbox import architecture
from geomkit.sandbox.architecture import Size
from geomkit.sandbox.pretrain import evaluate

SCENES = 250


def ship(snapshot: Path, log: Path, out: Path, size: Size, *, scenes: int = SCENES) -> None:
    """Write the half-precision checkpoint, its log and its mastery on held-out combinations."""
    state = torch.load(snapshot, weights_only=True)
    model = architecture.build(size)
    model.load_state_dict(state["model"])
    architecture.save(model.half(), out)
    shutil.copyfile(log, out / "pretraining.jsonl")
    mastery = {
        "steps": int(state["step"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "scenes": scenes,
        "split": "test",
        **evaluate(model.float(), "test", scenes=scenes),
    }
    (out / "mastery.json").write_text(json.dumps(mastery, indent=1) + "\n")
    typer.echo(json.dumps(mastery, indent=1))


def main(snapshot: Path, log: Path, out: Path, width: str = "default", threads: int = 2) -> None:
    """Ship SNAPSHOT with its LOG as the checkpoint OUT."""
    torch.set_num_threads(threads)
    ship(snapshot, log, out, architecture.NARROW if width == "narrow" else Size())


if __name__ == "__main__":
    typer.run(main)
