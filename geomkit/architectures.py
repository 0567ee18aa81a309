"""What a model is made of, found structurally: its class, its decoder, the body that runs it.

Nothing is known by a path: the decoder is what `get_decoder()` gives, found again by identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING
from transformers.utils import logging

from geomkit import hooks
from geomkit.errors import CheckpointError, MissingExtra
from geomkit.places import CheckpointSpec, Place, locate

# Full omni models also hold a speech generator; the thinker is the part that reads and writes text.
THINKERS = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is known of a checkpoint from its config alone, before any weight is read."""

    sites: tuple[str, ...]
    dim: int
    parameters: int  # of the model that is loaded, an adapter's own not counted


def skeleton(spec: CheckpointSpec) -> Skeleton:
    """The architecture of a checkpoint, built without memory for its weights.

    Raises:
        CheckpointError: it cannot be found, or its architecture is not supported.
    """
    place = locate(spec.source).model
    try:
        config = config_of(place)
        with quiet(), torch.device("meta"):
            config = getattr(config, "thinker_config", config)
            kind = model_class(config)
            build = kind.from_config if hasattr(kind, "from_config") else kind._from_config  # noqa: SLF001 - the one way that needs no weights
            model = build(config)
    except CheckpointError:
        raise  # it says why already
    except ImportError as cause:
        raise package(spec.name, cause) from cause
    except Exception as cause:  # its own errors, and what odd values set off inside
        raise CheckpointError(
            f"Checkpoint '{spec.name}' in {place.described} cannot be understood: {cause}"
        ) from cause
    _, module = decoder(model)
    parameters = sum(p.numel() for p in model.parameters())
    return Skeleton(hooks.sites(module), int(module.config.hidden_size), parameters)  # type: ignore[union-attr, arg-type]  # a config


def config_of(place: Place) -> Any:
    """The configuration of a checkpoint's folder; no code of its own is run."""
    return AutoConfig.from_pretrained(place.where, revision=place.revision, trust_remote_code=False)


def model_class(config: Any) -> Any:
    """The class that loads it. Raises CheckpointError for an encoder-decoder."""
    _refuse_encoder_decoder(config)
    if config.model_type in THINKERS:
        import transformers  # by name: a version may not have the class

        return getattr(transformers, THINKERS[config.model_type])
    known = type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING
    return AutoModelForMultimodalLM if known else AutoModelForCausalLM


def _refuse_encoder_decoder(config: Any) -> None:
    """Raise CheckpointError for a model that reads its input in one stack and answers in another.

    The decoder's states there are states of the answer; what it was shown never passes its blocks.
    """
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        kind = (config.architectures or [config.model_type])[0]
        raise CheckpointError(
            f"Expected a model that reads text and media with its decoder, got {kind}: an"
            " encoder-decoder, whose decoder never holds the states of what it was shown. Such"
            " models are not supported: choose a decoder-only checkpoint."
        )


def decoder(model: Any) -> tuple[str, nn.Module]:
    """Path and module of the stack of blocks, found by identity in `named_modules()`.

    Raises:
        CheckpointError: the model has no decoder with a list of blocks.
    """
    found = model.get_decoder() if hasattr(model, "get_decoder") else None
    if not hasattr(found, "layers"):
        found = getattr(found, "model", None)  # some families answer with a causal LM
    if not isinstance(getattr(found, "layers", None), nn.ModuleList):
        raise CheckpointError(
            f"Expected a decoder with a list of blocks in {type(model).__name__}, found none:"
            " this architecture is not supported."
        )
    path = next(name for name, module in model.named_modules() if module is found)
    return path, found  # type: ignore[return-value]  # it has .layers, so it is a module


def body(model: Any, decoder_path: str) -> nn.Module:
    """The part of the model that merges the media and runs the decoder, without the head.

    It is the child that holds the decoder when nothing but heads stands beside it, else the model.
    """
    child = decoder_path.partition(".")[0]
    heads = {id(model.get_output_embeddings())}
    beside = [m for n, m in model.named_children() if n != child and id(m) not in heads]
    if not child or any(next(m.parameters(), None) is not None for m in beside):
        return model  # type: ignore[no-any-return]  # a PreTrainedModel
    return getattr(model, child)  # type: ignore[no-any-return]  # a child module


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports: what they say is checked here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def package(name: str, cause: object) -> MissingExtra:
    """For what stands in another package: Gemma3n's image tower, flash attention."""
    return MissingExtra(
        f"Checkpoint '{name}' needs another package: {' '.join(str(cause).split())}"
    )
