"""A checkpoint as mteb takes it: rows of a task in, unit states of the last token out.

Rows are shown as capture shows them: the same processor, template, prompt and cut, the same
decoding of media (the datasets library is asked for bytes, so no torchcodec and no resampling of
its own), and the state is read at the final norm. A row may have a text beside its medium: the text
then stands between the medium and the instruction, as LCO-Embedding's own evaluation has it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.checkpoints import Checkpoint
from geomkit.data.media import load_audio, load_image
from geomkit.data.video import EXTRA, load_video
from geomkit.errors import MemoryFull, MissingExtra, SampleError
from geomkit.forward import run
from geomkit.plans import CaptureConfig
from geomkit.processing import Processor, Shown
from geomkit.prompts import control_tokens, cut, prompts, render
from geomkit.types import Modality, Stored, Waveform
from geomkit.worker import free

try:
    import datasets
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ImportError as cause:
    raise MissingExtra(
        f"Benchmarks need mteb: pip install 'geomkit[eval]' ({cause}); --data needs no package."
    ) from cause

SITE, POOLING = "final_norm", "last"
SHORT = 16  # hex digits of a hash in a revision
MEDIA: tuple[Modality, ...] = ("image", "video", "audio")  # whose prompt a row of several takes
FEATURES = {"image": datasets.Image, "audio": datasets.Audio, "video": datasets.Video}

Cells = Mapping[str, Any]
"""One row of a task's table: column -> cell."""


class Encoder(AbsEncoder):  # type: ignore[misc]  # untyped
    """What mteb calls; `notes` count what was done to rows before they could be shown."""

    def __init__(self, checkpoint: Checkpoint, processor: Processor, config: CaptureConfig) -> None:
        """Nothing is run yet."""
        self.checkpoint = checkpoint
        self.processor = processor
        self.config = config
        self.instructions = prompts(config.prompt)
        self.notes: Counter[str] = Counter()
        self.mteb_model_meta = meta(checkpoint, processor, config)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,  # noqa: ARG002  # the protocol is mteb's
        hf_split: str,  # noqa: ARG002
        hf_subset: str,  # noqa: ARG002
        prompt_type: Any = None,  # noqa: ARG002
        **_: Any,
    ) -> NDArray[np.float32]:
        """Float32 `(rows, dim)`, each row of length one.

        Raises:
            SampleError: a row that cannot be shown; no row is left out of a benchmark.
        """
        states = np.full((len(inputs.dataset), self.checkpoint.dim), np.nan, np.float32)
        for rows in _pieces(inputs.dataset, self.config.batch_size):
            for kind, own in _kinds(rows).items():
                shown = [self._show(row, kind, number) for number, row in own]
                states[[number for number, _ in own]] = self._states(shown)
        norms = np.linalg.norm(states, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise SampleError("Expected finite states that are not zero, got others.")
        return np.asarray(states / norms)

    def _states(self, shown: Sequence[Shown]) -> NDArray[np.float32]:
        """States of rows of one kind, in halves where memory is too small."""
        try:
            inputs = self.processor.encode(shown)
            return run(self.checkpoint, inputs, (SITE,), (POOLING,)).arrays()[POOLING][:, 0]
        except MemoryFull:
            if len(shown) == 1:
                raise
        free()
        middle = len(shown) // 2
        return np.concatenate([self._states(shown[:middle]), self._states(shown[middle:])])

    def _show(self, row: Cells, kind: Modality, number: int) -> Shown:
        try:
            content = self._text(row)
            media = None if kind == "text" else self._medium(row[kind], kind)
            rendered = render(self.processor, kind, content, self.instructions[kind])
        except SampleError as cause:
            raise SampleError(f"Row {number} of the task cannot be shown: {cause}") from cause
        return Shown(rendered, kind, media)

    def _text(self, row: Cells) -> str:
        """The row's text, cut; control tokens in it are broken by a space, and counted."""
        text = str(row.get("text") or "")
        for token in control_tokens(self.processor.tokenizer):
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
                self.notes["texts held a control token, which is shown with a space in it"] += 1
        content, was_cut = cut(self.processor.tokenizer, text, self.config.text_tokens)
        if was_cut:
            self.notes[f"texts were cut to {self.config.text_tokens} tokens"] += 1
        if not content.strip() and not any(row.get(kind) is not None for kind in MEDIA):
            self.notes["texts were empty: the prompt alone is shown"] += 1
        return content

    def _medium(self, cell: Any, kind: Modality) -> Any:
        if kind in self.processor.lacking:
            raise SampleError(EXTRA)
        if kind not in self.processor.modalities:
            raise SampleError(f"this checkpoint cannot be shown {kind}")
        if kind == "image":
            return load_image(_source(cell), self.config.max_pixels)
        if kind == "video":
            return load_video(_source(cell), self.config.max_pixels)
        return load_audio(_source(cell), self.processor.rate)


def meta(checkpoint: Checkpoint, processor: Processor, config: CaptureConfig) -> Any:
    """The record mteb has of a checkpoint; results are kept by its name and revision.

    The revision is a hash of the weights, and one of how rows are shown: a result is found again
    exactly where both are the same.
    """
    return ModelMeta.create_empty(
        overwrites={
            "name": f"geomkit/{checkpoint.name}",
            "revision": f"{weights_sha(checkpoint)}-{shown_sha(processor, config)[:8]}",
            "modalities": list(processor.modalities),
            "n_parameters": sum(p.numel() for p in checkpoint.model.parameters()),
            "embed_dim": checkpoint.dim,
            "max_tokens": float(config.text_tokens),
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "use_instructions": False,
        }
    )


def weights_sha(checkpoint: Checkpoint) -> str:
    """Short hash of every weight in effect: model, towers and adapter."""
    own = checkpoint.fingerprint
    return _short([own.weights, own.towers, own.adapter])


def shown_sha(processor: Processor, config: CaptureConfig) -> str:
    """Short hash of what decides the numbers beside the weights."""
    asked = [prompts(config.prompt)[m] for m in processor.modalities]
    return _short([processor.sha, asked, config.text_tokens, config.max_pixels, config.dtype])


def _short(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:SHORT]


def _pieces(dataset: Any, size: int) -> Iterator[list[tuple[int, Cells]]]:
    """Numbered rows piece by piece, media undecoded; texts alone go by length, to pad little."""
    table = _undecoded(dataset)
    order = list(range(len(table)))
    columns = getattr(table, "column_names", ())
    if "text" in columns and not set(columns) & set(MEDIA):
        lengths = [len(text or "") for text in table["text"]]
        order.sort(key=lengths.__getitem__)
    for first in range(0, len(order), size):
        yield [(number, table[number]) for number in order[first : first + size]]


def _undecoded(table: Any) -> Any:
    for column, feature in (getattr(table, "features", None) or {}).items():
        wanted = FEATURES.get(column)
        if wanted is not None and isinstance(feature, wanted):
            table = table.cast_column(column, wanted(decode=False))
    return table


def _kinds(rows: Sequence[tuple[int, Cells]]) -> dict[Modality, list[tuple[int, Cells]]]:
    """The rows of a piece, kind by kind: one forward pass has one kind."""
    found: dict[Modality, list[tuple[int, Cells]]] = {}
    for number, row in rows:
        media = [kind for kind in MEDIA if row.get(kind) is not None]
        if len(media) > 1:
            raise SampleError(
                f"Expected at most one medium a row, row {number} of the task has"
                f" {' and '.join(media)}: such tasks cannot be shown, leave them out."
            )
        kind: Modality = media[0] if media else "text"
        found.setdefault(kind, []).append((number, row))
    return found


def _source(cell: Any) -> Any:
    """What geomkit's loaders take, of a cell: encoded bytes, or media that mteb decoded."""
    if isinstance(cell, Mapping) and cell.get("array") is not None:
        sound = np.asarray(cell["array"], dtype=np.float32)
        mono = sound.mean(axis=0) if sound.ndim > 1 else sound
        return Waveform(mono, int(cell["sampling_rate"]))
    if isinstance(cell, Mapping) and (cell.get("bytes") or cell.get("path")):
        return Stored("the cell", lambda: _bytes(cell))
    if isinstance(cell, list | Mapping):
        raise SampleError(f"its cell holds a {type(cell).__name__}, not one medium")
    return cell


def _bytes(cell: Mapping[str, Any]) -> bytes:
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    with open(str(cell["path"]), "rb") as file:  # noqa: PTH123  # mteb's cache may hold odd names
        return file.read()
