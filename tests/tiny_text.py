"""Tiny checkpoints without media, and their rows of the table."""

from __future__ import annotations

from pathlib import Path

from transformers import Qwen3Config, Qwen3ForCausalLM

from tests import tiny_models as tiny
from tests.families import Family, chatml, text_decoder


def qwen3(folder: Path) -> Path:
    """Qwen3: a text decoder whose queries and keys are normed."""
    words = tiny.tokenizer({})
    config = Qwen3Config(**tiny.text_config(words, head_dim=16))
    return tiny.save(folder, Qwen3ForCausalLM(config), words, "")


FAMILIES = {
    "text_only": Family(tiny.text_only, chatml(), load=text_decoder, decoder="model"),
    "qwen3": Family(qwen3, chatml(), load=text_decoder, decoder="model"),
}
