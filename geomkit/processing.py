"""A checkpoint's own processor: conversation and media in, model inputs out.

transformers' processor classes do the work (placeholders, `mm_token_type_ids`, grids), built from
their parts here rather than by `AutoProcessor`, for two reasons. Several of them insist on a video
processor, which insists on torchvision, even where no video is shown: a missing one is left out.
And pixels of the Pillow and torchvision backends differ by up to 0.2: Pillow is always used, so
that installing a package does not move every state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomkit.data.video import torchvision_works, video_arguments
from geomkit.errors import CheckpointError, GeomkitError, MissingExtra
from geomkit.types import Modality

try:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoImageProcessor,
        AutoTokenizer,
        AutoVideoProcessor,
        ProcessorMixin,
    )
    from transformers.models.auto.processing_auto import (
        PROCESSOR_MAPPING_NAMES,
        processor_class_from_name,
    )

    from geomkit.sounds import beside, longest
    from geomkit.voxtral import SoundingVoxtral
except ImportError as cause:  # it looks for torchvision, and trusts that what it finds imports
    raise MissingExtra(
        "transformers cannot import its processors. The usual cause is a torchvision built for"
        " another torch: install the one that matches, or uninstall it, geomkit needs it only for"
        f" video ({cause.__cause__ or cause})."
    ) from cause

OWN: Mapping[str | None, type[Any]] = {"VoxtralProcessor": SoundingVoxtral}
"""Processors that cannot be asked for a batch, and what stands in their place."""

PADDING_SIDE = "right"
"""With right padding the last real token's state is bit-equal to the unpadded one; left moves it
by about 1e-6. Pooling reads the mask, so either side is right; this one is also exact."""

DAY = "26 Jul 2024"
"""The date in templates that ask for today's: the one Llama 3.2's falls back to."""

TOKEN_TENSORS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""Inputs with one entry a token, `(rows, tokens)`; all others belong to the media."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One row as the model is shown it: the rendered conversation and its media."""

    rendered: str
    modality: Modality
    media: Any = None  # PIL image, float32 samples, Clip, or None for text


@dataclass(frozen=True, slots=True, eq=False)
class Processor:
    """A loaded processor and what it can read."""

    inner: Any  # the transformers processor, or the bare tokenizer of a text-only model
    tokenizer: Any
    modalities: tuple[Modality, ...]
    rate: int  # hertz of the audio it reads; 0 without audio
    seconds: float  # what it reads of a sound before it cuts; 0 when it does not cut
    chat_template: str
    # Modality -> ids that stand for its content in `input_ids`; empty for a text model.
    media_tokens: Mapping[Modality, tuple[int, ...]] = field(default_factory=dict)
    lacking: tuple[Modality, ...] = ()  # what the checkpoint reads and this installation cannot
    positions: int = 0  # tokens that a row may have; 0 where the config names no end
    grids: bool = False  # tokens of an image or a video share positions, so they may be more

    @property
    def takes_parts(self) -> bool:
        """True when a turn is a list of typed parts, False when it is a plain string."""
        return isinstance(self.inner, ProcessorMixin)

    @property
    def template_sha(self) -> str:
        """sha256 of the chat template."""
        return hashlib.sha256(self.chat_template.encode()).hexdigest()

    @property
    def sha(self) -> str:
        """sha256 of everything that rows are shown through: template, vocabulary, media parts."""
        parts = self.inner.to_dict() if self.takes_parts else {}
        told = {k: v for k, v in parts.items() if k not in {"_name_or_path", "processor_class"}}
        whole = [self.template_sha, self.vocabulary_sha, told]
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def vocabulary_sha(self) -> str:
        """sha256 of token -> id: equal when two tokenizers can show a model the same ids."""
        tokens = sorted(self.tokenizer.get_vocab().items())
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()

    def encode(self, rows: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """Model inputs of rows of one modality, padded on `PADDING_SIDE`; every key is kept."""
        texts = [row.rendered for row in rows]
        bos = self.tokenizer.bos_token
        written = self.chat_template or (bos and texts[0].startswith(bos))
        asked: dict[str, Any] = {
            "padding": True,
            "padding_side": PADDING_SIDE,
            # A template writes the special tokens itself; an end token after it would be pooled.
            "add_special_tokens": not written,
        }
        if not self.takes_parts:
            return dict(self.inner(texts, return_tensors="pt", **asked))
        if rows[0].modality == "audio" and len(rows) > 1:
            return beside([self.encode([row]) for row in rows], self.tokenizer.pad_token_id)
        given: dict[str, Any] = {}
        if rows[0].modality == "image":
            # A list a row: some families take a flat list for the images of one row.
            given["images"] = [[row.media] for row in rows]
        if rows[0].modality == "audio":
            given["audio"] = [row.media for row in rows]
            given["audio_kwargs"] = {"sampling_rate": self.rate}
        if rows[0].modality == "video":
            given |= video_arguments([row.media for row in rows], self.inner.video_processor)
        found = dict(self.inner(text=texts, **given, text_kwargs=asked, return_tensors="pt"))
        self._check_shown(found, rows[0].modality)
        return found

    def _check_shown(self, inputs: Mapping[str, torch.Tensor], modality: Modality) -> None:
        """Raise where a row's media give no token: its states would be the prompt's alone.

        A sound must give two: Qwen2-Audio takes a lone one for a prompt of an older kind.
        """
        ids, least = self.media_tokens.get(modality, ()), 2 if modality == "audio" else 1
        stand = torch.isin(inputs["input_ids"], torch.tensor(ids)).sum(dim=1)
        if ids and not (bool((stand >= least).all()) and all(t.numel() for t in inputs.values())):
            raise ValueError(f"the {modality} is too short: it gives fewer than {least} tokens")


def repad(inputs: Mapping[str, torch.Tensor], side: str, extra: int, pad: int) -> dict[str, Any]:
    """The same rows with `extra` more padding, all of it on `side`."""
    mask = inputs["attention_mask"].bool()
    width = mask.shape[1] + extra
    padded = dict(inputs)
    for name in TOKEN_TENSORS:
        if name not in inputs:
            continue
        fill = pad if name == "input_ids" else 0
        table = torch.full((len(mask), width), fill, dtype=inputs[name].dtype, device=mask.device)
        for i, keep in enumerate(mask):
            row = inputs[name][i, keep]
            start = 0 if side == "right" else width - len(row)
            table[i, start : start + len(row)] = row
        padded[name] = table
    return padded


def token_sha(inputs: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """sha256 of each row's real token ids: equal rows were shown the same tokens."""
    ids, mask = inputs["input_ids"].cpu(), inputs["attention_mask"].cpu().bool()
    rows = (np.ascontiguousarray(i[m].numpy(), dtype="<i8") for i, m in zip(ids, mask, strict=True))
    return tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in rows)


def load_processor(folder: str | Path, *, revision: str | None = None) -> Processor:
    """The processor of a checkpoint folder or hub id.

    Raises:
        CheckpointError: a part of it is missing or cannot be read.
        MissingExtra: its family's processor needs a package that is not installed.
    """
    place = str(folder)
    try:
        # Left out, transformers asks at the terminal whether to run a checkpoint's code.
        return _load(place, {"revision": revision, "trust_remote_code": False})
    except GeomkitError:
        raise
    except ImportError as cause:
        raise MissingExtra(f"The processor of {place} needs another package: {cause}") from cause
    except Exception as cause:  # whatever odd files set off in parsers that expect honest ones
        raise CheckpointError(
            f"Expected a tokenizer and, for media, an image processor and a feature extractor in"
            f" {place}; they cannot be loaded ({cause}). Save the processor beside the weights."
        ) from cause


def _load(place: str, hub: Mapping[str, Any]) -> Processor:
    config = AutoConfig.from_pretrained(place, **hub)
    name = PROCESSOR_MAPPING_NAMES.get(config.model_type.removesuffix("_thinker"))
    kind: Any = OWN.get(name) or (processor_class_from_name(name) if name else None)
    if kind is None:
        tokenizer = _part("tokenizer", place, hub)
        return _processor(tokenizer, tokenizer, config)
    written, _ = ProcessorMixin.get_processor_dict(place, **hub)
    parts = [_part(part, place, hub) for part in kind.get_attributes()]
    inner = _lenient(kind).from_args_and_dict(parts, written)
    return _processor(inner, inner.tokenizer, config)


def _part(name: str, place: str, hub: Mapping[str, Any]) -> Any:
    if name == "tokenizer":
        # mistral-common's reads no control token in a text, and has no template to render.
        return AutoTokenizer.from_pretrained(place, mistral_format=False, **hub)
    if name == "image_processor":
        return AutoImageProcessor.from_pretrained(place, backend="pil", **hub)
    if name == "feature_extractor":
        return AutoFeatureExtractor.from_pretrained(place, **hub)
    if name == "video_processor":
        return _video_part(place, hub)
    raise ValueError(f"a processor part named '{name}' is not known")


def _video_part(place: str, hub: Mapping[str, Any]) -> Any:
    """None without torchvision, and for a checkpoint that says nothing of how it reads video."""
    if not torchvision_works():
        return None
    try:
        return AutoVideoProcessor.from_pretrained(place, **hub)
    except (OSError, ValueError):
        return None


@cache
def _lenient(kind: type[Any]) -> type[Any]:
    """`kind` that takes None for a part that is not installed; all else is its own."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def _processor(inner: Any, tokenizer: Any, config: Any) -> Processor:
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):  # transformers makes up an empty one
        raise ValueError("there are no tokenizer files, such as tokenizer.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _filler(tokenizer, config)
    sound = getattr(inner, "feature_extractor", None)
    seen: list[Modality] = ["text"]
    seen += ["image"] if getattr(inner, "image_processor", None) is not None else []
    seen += ["audio"] if sound is not None else []
    seen += ["video"] if getattr(inner, "video_processor", None) is not None else []
    rate = int(sound.sampling_rate) if sound is not None else 0
    return Processor(
        inner=inner,
        tokenizer=tokenizer,
        modalities=tuple(seen),
        rate=rate,
        seconds=longest(sound, type(inner)) if rate else 0.0,
        chat_template=_undated(getattr(inner, "chat_template", None) or tokenizer.chat_template),
        media_tokens={m: ids for m in seen if (ids := _media_token(m, config, inner))},
        lacking=("video",) if hasattr(inner, "video_processor") and not torchvision_works() else (),
        positions=_positions(config.get_text_config()),
        grids="mrope_section" in _rope(config.get_text_config()),
    )


def _filler(tokenizer: Any, config: Any) -> str:
    """A token to pad with where none is declared; it is masked, so which one is no matter."""
    known = config.get_text_config()
    for name in ("pad_token_id", "eos_token_id"):
        for holder in (tokenizer, known):
            if isinstance(found := getattr(holder, name, None), int):
                return str(tokenizer.convert_ids_to_tokens(found))
    raise ValueError("neither the tokenizer nor the config has a padding or an end token")


def _undated(template: str | None) -> str:
    """The template on one day for ever: some write today's date, and a run may take longer."""
    if not template or "strftime_now" not in template:
        return template or ""
    return "{% macro strftime_now(form) %}" + DAY + "{% endmacro %}" + template


def _rope(text: Any) -> Mapping[str, Any]:
    return getattr(text, "rope_parameters", None) or {}


def _positions(text: Any) -> int:
    """How many tokens a row of this decoder may have, stretched where its rotation says so."""
    named, rope = getattr(text, "max_position_embeddings", None), _rope(text)
    if not isinstance(named, int) or getattr(text, "alibi", False):
        return 0  # ALiBi has no last position, whatever the config holds
    own = rope.get("original_max_position_embeddings") or named
    return max(0, named, round(own * (rope.get("factor") or 1)))


def _media_token(modality: Modality, config: Any, inner: Any) -> tuple[int, ...]:
    """Ids of the tokens whose embeddings the modality's features replace.

    The config comes first: it is what the model looks for. A processor's attribute of the same name
    may mean the token before the image. A model without a token for video shows frames as images.
    """
    parts = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
    for holder in (config, *parts, inner):
        for name in (f"{modality}_token_id", f"{modality}_token_index"):
            if isinstance(found := getattr(holder, name, None), int):
                return (found,)
    return _media_token("image", config, inner) if modality == "video" else ()
