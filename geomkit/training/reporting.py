"""Numbers that a callback has, where the trainer reports: TensorBoard and Weights & Biases.

transformers gives a callback no way to log through the trainer, so the same two are written to
directly, and only where the trainer was asked to report to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


class Reporter:
    """Writes scalars to what `TrainingArguments.report_to` names, as far as it is known here."""

    def __init__(self, args: Any) -> None:
        named = args.report_to if isinstance(args.report_to, list | tuple) else [args.report_to]
        self._board = _writer(args) if "tensorboard" in named else None
        self._wandb = import_module("wandb") if "wandb" in named else None

    def __call__(self, values: Mapping[str, float | None], step: int) -> None:
        """Report the values that there are, at a step."""
        there = {name: value for name, value in values.items() if value is not None}
        if self._board is not None:
            for name, value in there.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        if self._wandb is not None and self._wandb.run is not None:
            # The trainer's own curves have this axis too.
            self._wandb.log({**there, "train/global_step": step})


def _writer(args: Any) -> Any:
    folder = getattr(args, "logging_dir", None) or f"{args.output_dir}/runs"
    return import_module("torch.utils.tensorboard").SummaryWriter(log_dir=folder)
