"""The table of architectures: how each is saved, what its prompt is, and how it is run plainly.

A family is one row: the `tiny_` modules hold the rows. The plain way to run
it is transformers alone: one row, no padding, the family's own processor class, the prompt spelled
out. Nothing of geomkit is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

from geomkit.types import Sample
from tests.tiny_models import hf_processor

SITES = ("embed", "block_00", "block_01", "block_02", "final_norm")
ASKED = "\nSummarize the above {} in one word:"


def multimodal(folder: Path) -> Any:
    """The model as most families' cards load it."""
    return AutoModelForMultimodalLM.from_pretrained(folder)


def text_decoder(folder: Path) -> Any:
    """A model without media."""
    return AutoModelForCausalLM.from_pretrained(folder)


def hidden_states(model: Any, decoder: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Site -> `(tokens, dim)` of the only row.

    `hidden_states` has all but the last block's own output: the norm is taken out to see that.
    """
    out = model(**inputs, output_hidden_states=True, use_cache=False)
    norm, decoder.norm = decoder.norm, torch.nn.Identity()
    try:
        before = model.model(**inputs, use_cache=False).last_hidden_state
    finally:
        decoder.norm = norm
    states = [*out.hidden_states[:-1], before, out.hidden_states[-1]]
    return {site: s[0] for site, s in zip(SITES, states, strict=True)}


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture at toy size."""

    build: Callable[[Path], Path]
    written: Mapping[str, str]  # modality -> the whole prompt; `{text}` is the content of a text
    load: Callable[[Path], Any] = multimodal
    decoder: str = "model.language_model"
    states: Callable[[Any, Any, Mapping[str, Tensor]], dict[str, Tensor]] = hidden_states
    processor: Callable[[Path], Any] = hf_processor

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it can be shown."""
        return tuple(self.written)


def chatml(system: str = "", **media: str) -> dict[str, str]:
    """Prompts of a ChatML template; `media` is modality -> what it writes for the content."""
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    turn = "<|im_start|>user\n{}{}<|im_end|>\n<|im_start|>assistant\n"
    content = {"text": "{text}", **media}
    return {m: before + turn.format(c, ASKED.format(m)) for m, c in content.items()}


@torch.inference_mode()
def plain(family: Family, model: Any, processor: Any, sample: Sample, modality: str) -> Any:
    """Site -> `(tokens, dim)` of one sample in one modality, by transformers alone."""
    prompt = family.written[modality].replace("{text}", sample.text or "")
    given: dict[str, Any] = {}
    if modality == "image":
        given["images"] = [sample.image]
    if modality == "audio":
        given["audio"] = [sample.audio.samples]  # type: ignore[union-attr]  # a waveform
    # The prompt is whole: a start token stands in it where the template writes one.
    inputs = processor(text=[prompt], **given, add_special_tokens=False, return_tensors="pt")
    return family.states(model, model.get_submodule(family.decoder), inputs)


def table() -> dict[str, Family]:
    """Every family by its name."""
    # They import this module.
    from tests import tiny_audio, tiny_gemma3n, tiny_omni, tiny_text, tiny_vision

    rooms = (tiny_text, tiny_vision, tiny_audio, tiny_omni, tiny_gemma3n)
    return {name: family for room in rooms for name, family in room.FAMILIES.items()}
