"""Plan rows to model inputs: decode, render, tokenise once, for all checkpoints.

A row that cannot be shown (a broken file, a modality the model does not have, a control token in
its text) keeps its place with the reason; the others of its batch are shown without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from geomkit.data.media import MAX_PIXELS, image_and_note, load_audio, one_line
from geomkit.data.sources import unchanged
from geomkit.data.video import EXTRA, load_video, video_note
from geomkit.errors import CaptureError, MissingExtra, SampleError
from geomkit.processing import Processor, Shown, token_sha
from geomkit.prompts import cut, render
from geomkit.types import Plan, Row, Sample, Stored


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The rows of one forward pass. `inputs` hold only the rows that are ok, in their order."""

    rows: tuple[Row, ...]
    shown: Mapping[int, Shown]  # row index -> what is shown, for the rows that are ok
    inputs: Mapping[str, Tensor]  # empty when no row is ok
    token_shas: Mapping[int, str]
    n_tokens: Mapping[int, int]
    notes: Mapping[int, str]  # why a row is not ok, or what was cut

    def light(self) -> Batch:
        """The same rows without their tensors and media."""
        names = {i: replace(one, media=None) for i, one in self.shown.items()}
        return replace(self, shown=names, inputs={})


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Everything that turns a row into something shown. Threads take turns: tokenizers must."""

    plan: Plan
    samples: Mapping[str, Sample]
    processor: Processor
    text_tokens: int
    max_pixels: int = MAX_PIXELS
    turn: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        """Refuse rows that this installation, not the checkpoint, cannot show.

        Raises:
            MissingExtra: an extra would make them readable.
        """
        if any(row.modality in self.processor.lacking for row in self.plan.rows):
            raise MissingExtra(f"{EXTRA}, or leave video out with --modalities.")

    def read(self, indexes: Sequence[int]) -> Batch:
        """The batch of these plan rows, all of one modality."""
        with self.turn:
            return self._read(indexes)

    def halves(self, batch: Batch) -> tuple[Batch, Batch]:
        """The rows of a batch that are shown, in two batches; each is padded to its own length."""
        shown = list(batch.shown)
        middle = len(shown) // 2
        with self.turn:
            first, second = (
                replace(
                    batch,
                    shown={i: batch.shown[i] for i in half},
                    inputs=self.processor.encode([batch.shown[i] for i in half]),
                )
                for half in (shown[:middle], shown[middle:])
            )
        return first, second

    def _read(self, indexes: Sequence[int]) -> Batch:
        rows = tuple(self.plan.rows[i] for i in indexes)
        shown: dict[int, Shown] = {}
        notes: dict[int, str] = {}
        for row in rows:
            try:
                shown[row.index], note = self._show(row)
                notes |= {row.index: note} if note else {}
            except SampleError as cause:
                notes[row.index] = str(cause)
        inputs = self._within(self._encode(shown, notes), shown, notes)
        ids = token_sha(inputs) if inputs else ()
        counts = inputs["attention_mask"].sum(dim=1).tolist() if inputs else []
        return Batch(
            rows=rows,
            shown=shown,
            inputs=inputs,
            token_shas=dict(zip(shown, ids, strict=True)),
            n_tokens=dict(zip(shown, counts, strict=True)),
            notes=notes,
        )

    def _show(self, row: Row) -> tuple[Shown, str]:
        """One row rendered and decoded, and a note of what was cut."""
        if row.modality not in self.processor.modalities:
            raise SampleError(f"this checkpoint cannot be shown {row.modality}")
        content, note = "", ""
        media: Any = None
        source = self._source(row)
        if row.modality == "text":
            if not source.strip():
                raise SampleError("text is empty")
            content, was_cut = cut(self.processor.tokenizer, source, self.text_tokens)
            note = f"text cut to {self.text_tokens} tokens" if was_cut else ""
        elif row.modality == "image":
            media, note = image_and_note(source, self.max_pixels)
        elif row.modality == "video":
            media = load_video(source, self.max_pixels)
            note = video_note(media)
        else:
            media = load_audio(source, self.processor.rate)
            if len(media) > self.processor.seconds * self.processor.rate > 0:
                note = f"audio cut to {self.processor.seconds:g} seconds"
        instruction = self.plan.prompts[row.modality]
        rendered = render(self.processor, row.modality, content, instruction)
        return Shown(rendered, row.modality, media), note

    def _source(self, row: Row) -> Any:
        """What the sample has; encoded bytes are those that the plan was made of."""
        source: Any = getattr(self.samples[row.id], row.modality)
        if not isinstance(source, Path | Stored):
            return source
        try:
            return unchanged(source, row.content_sha)
        except OSError as cause:
            told = one_line(cause, source)
            raise SampleError(f"{row.modality} cannot be decoded: {told}") from cause

    def _encode(self, shown: dict[int, Shown], notes: dict[int, str]) -> dict[str, Tensor]:
        """Inputs of all rows; rows that the processor refuses are taken out of `shown`."""
        if not shown:
            return {}
        try:
            return self.processor.encode(list(shown.values()))
        except (ValueError, TypeError, RuntimeError, IndexError) as cause:
            before = len(shown)
            for index, one in list(shown.items()):
                if (reason := self._refusal(one)) is not None:
                    notes[index] = f"{one.modality} cannot be processed: {reason}"
                    del shown[index]
            if len(shown) == before:  # each is fine alone: the fault is not the samples'
                raise CaptureError(
                    f"Expected a batch of {before} {notes or 'rows'} to be processed: {cause}"
                ) from cause
            return self._encode(shown, notes)

    def _within(
        self, inputs: dict[str, Tensor], shown: dict[int, Shown], notes: dict[int, str]
    ) -> dict[str, Tensor]:
        """Inputs of the rows that the model has positions for; the others leave `shown`."""
        most, before = self.processor.positions, len(shown)
        counts = inputs["attention_mask"].sum(dim=1).tolist() if inputs and most else []
        for (index, one), count in zip(list(shown.items()), counts, strict=False):
            if count > most and not (self.processor.grids and one.modality in {"image", "video"}):
                smaller = "--text-tokens" if one.modality == "text" else one.modality
                notes[index] = (
                    f"{count} tokens, the model has {most} positions: use a smaller {smaller}"
                )
                del shown[index]
        return inputs if len(shown) == before else self._encode(shown, notes)

    def _refusal(self, one: Shown) -> str | None:
        try:
            self.processor.encode([one])
        except (ValueError, TypeError, RuntimeError, IndexError) as cause:
            return " ".join(str(cause).split()) or type(cause).__name__
        return None
