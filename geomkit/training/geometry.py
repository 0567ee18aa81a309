"""The geometry of a fixed probe set while a model trains: a callback for any Trainer.

    look = GeometryCallback(samples, "path/of/base", every=50)
    trainer = SentenceTransformerTrainer(model, args, ..., callbacks=[look])

Every so many steps the probe set is shown in each of its modalities, through the tap and the
pooling of capture, and what is measured goes to the trainer's log history, to TensorBoard and W&B
where the trainer reports to them, and to `history`. Nothing random is drawn and every module is
left in the mode it was in, so a training with the callback gives the weights it gives without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from geomkit.architectures import body, decoder
from geomkit.errors import DegenerateInput, TrainingError, UsageError
from geomkit.geometry import alignment, effective_rank, mean_cosine, rank_me, uniformity
from geomkit.hooks import tap
from geomkit.pooling import pooler
from geomkit.processing import Processor, load_processor
from geomkit.prompts import prompts
from geomkit.training.reporting import Reporter
from geomkit.training.scope import unwrap
from geomkit.training.states import shown
from geomkit.types import MODALITIES, Modality, Sample

EVERY = 50
SITE = "final_norm"
WITHIN: Mapping[str, Callable[[Any], float]] = {
    "mean_cosine": mean_cosine,
    "uniformity": uniformity,
    "effective_rank": effective_rank,
    "rank_me": rank_me,  # not centred: it also falls when the states move into one point
}
BETWEEN: Mapping[str, Callable[[Any, Any], float]] = {
    "alignment": alignment,
    "paired_cosine": lambda x, y: 1 - alignment(x, y) / 2,
}
LOGGED = "geometry/"


@dataclass(frozen=True, slots=True)
class Geometry:
    """One number of the probe set at one step; None where it is not defined."""

    step: int
    metric: str
    modality: str
    value: float | None


class GeometryCallback(TrainerCallback):  # type: ignore[misc]  # untyped
    """Measures a fixed probe set before the first step, every `every` steps and after the last.

    A training that is resumed goes on with what its log has of the steps before.

    Args:
        samples: the probe set; a few dozen are enough. Each is shown in every modality it has.
        processor: a loaded processor, or the folder or hub id of the checkpoint it belongs to.
        model: the whole model, where the trainer's own holds less than that.
        every: steps between two looks.
        prompt: preset or template of the instruction that follows what is shown.
        batch: rows of a forward pass.
        projection: applied to the states, as by a head that trains on top of them.

    Raises:
        UsageError: no sample, `every` or `batch` below 1, or a prompt that does not exist.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Processor | str | Path,
        *,
        model: Any = None,
        every: int = EVERY,
        prompt: str = "lco",
        batch: int = 16,
        projection: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not samples:
            raise UsageError("Expected samples to look at, got none: give GeometryCallback some.")
        for name, value in (("every", every), ("batch", batch)):
            if value < 1:
                raise UsageError(f"Expected {name} of 1 or more for GeometryCallback, got {value}.")
        prompts(prompt)
        given = processor if isinstance(processor, Processor) else load_processor(processor)
        self.processor: Processor = given
        self.samples = tuple(samples)
        self.model = model
        self.every = every
        self.prompt = prompt
        self.batch = batch
        self.projection = projection
        self.history: list[Geometry] = []
        self._inputs: dict[Modality, tuple[tuple[str, ...], list[dict[str, Tensor]]]] = {}
        self._reporter: Reporter | None = None

    def on_train_begin(self, args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Make the inputs once, and look before the first step."""
        self._reporter = Reporter(args) if getattr(state, "is_world_process_zero", True) else None
        self.history = [*recorded(state.log_history)]  # of a training that is resumed
        self._inputs = dict(self._shown())
        if not self.history:
            self.look(state, given.get("model"))

    def on_step_end(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Look every so many steps."""
        if state.global_step % self.every == 0:
            self.look(state, given.get("model"))

    def on_train_end(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Look after the last step."""
        self.look(state, given.get("model"))

    def look(self, state: Any, model: Any) -> None:
        """Measure at the state's step, unless that was done, and log what was found."""
        step = int(state.global_step)
        if any(one.step == step for one in self.history):
            return
        found = [Geometry(step, *one) for one in measured(self._states(model))]
        self.history += found
        values = {f"{LOGGED}{one.metric}/{one.modality}": one.value for one in found}
        state.log_history.append({**values, "step": step})
        if self._reporter is not None:
            self._reporter(values, step)

    def _shown(self) -> Iterator[tuple[Modality, tuple[tuple[str, ...], list[dict[str, Tensor]]]]]:
        instructions = prompts(self.prompt)
        for modality in MODALITIES:
            rows = [s for s in self.samples if modality in s.modalities()]
            if not rows or modality not in self.processor.modalities:
                continue
            told = [shown(self.processor, s, modality, instructions[modality]) for s in rows]
            parts = [told[at : at + self.batch] for at in range(0, len(told), self.batch)]
            yield modality, (tuple(s.id for s in rows), [self.processor.encode(p) for p in parts])

    def _states(self, trained: Any) -> dict[Modality, tuple[tuple[str, ...], Any]]:
        """Modality -> ids and states `(rows, dim)`."""
        model = unwrap(self.model if self.model is not None else whole(trained))
        path, text = decoder(model)
        runs = body(model, path)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return {
                modality: (ids, self._run(runs, text, batches))
                for modality, (ids, batches) in self._inputs.items()
            }
        finally:
            for module, training in modes:
                module.training = training

    @torch.no_grad()
    def _run(
        self, runs: nn.Module, text: nn.Module, batches: Sequence[Mapping[str, Tensor]]
    ) -> Any:
        first = next(text.parameters())
        found = []
        for batch in batches:
            given = {
                name: t.to(first.device, first.dtype if t.is_floating_point() else t.dtype)
                for name, t in batch.items()
            }
            with tap(text, (SITE,), pooler(("last",), batch["attention_mask"])) as seen:
                runs(**given, use_cache=False)
            state = seen[SITE]["last"]
            found.append(state if self.projection is None else self.projection(state))
        return torch.cat(found).float().cpu().numpy()


def whole(trained: Any) -> Any:
    """The transformers model inside whatever a Trainer trains.

    Raises:
        TrainingError: there is none with a decoder.
    """
    inner = (m for m in trained.modules() if callable(getattr(m, "get_decoder", None)))
    if (found := next(inner, None)) is None:
        raise TrainingError(
            f"Expected a transformers model with a decoder in {type(trained).__name__}, found "
            "none: give GeometryCallback the whole model as model=."
        )
    return found


def measured(
    states: Mapping[Modality, tuple[tuple[str, ...], Any]],
) -> Iterator[tuple[str, str, float | None]]:
    """(metric, modality or pair of modalities, value) of states `(rows, dim)` with their ids."""
    for modality, (_, table) in states.items():
        for name, metric in WITHIN.items():
            yield name, modality, _defined(metric, table)
    for (one, (ids, ours)), (other, (names, theirs)) in combinations(states.items(), 2):
        shared = [(ids.index(name), k) for k, name in enumerate(names) if name in ids]
        if shared:
            left, right = zip(*shared, strict=True)
            for name, between in BETWEEN.items():
                value = _defined(between, ours[list(left)], theirs[list(right)])
                yield name, f"{one}-{other}", value


def recorded(log_history: Sequence[Mapping[str, Any]]) -> Iterator[Geometry]:
    """What a Trainer's log history holds of the geometry."""
    for row in log_history:
        for key, value in row.items():
            if key.startswith(LOGGED):
                _, metric, modality = key.split("/")
                yield Geometry(int(row["step"]), metric, modality, value)


def _defined(metric: Callable[..., float], *tables: Any) -> float | None:
    try:
        return float(metric(*tables))
    except DegenerateInput:
        return None
