"""The decoder on text alone is the whole model on text, with the prompt whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geomkit.prompts import PRESETS
from geomkit.training.embedder import DecoderEmbedder
from geomkit.training.states import last_states
from geomkit.types import Sample
from tests.training.loaded import Loaded, load

TEXTS = ["a red circle", "a large blue star at the upper left of a pale picture"]


@pytest.fixture(scope="module")
def loaded(base: Path) -> Loaded:
    return load(base)


def embedder(loaded: Loaded, max_tokens: int = 64) -> DecoderEmbedder:
    return DecoderEmbedder(loaded.decoder, loaded.processor, PRESETS["lco"]["text"], max_tokens)


@torch.inference_mode()
def test_equals_the_whole_model_row_by_row(loaded: Loaded) -> None:
    module = embedder(loaded)
    found = module(module.preprocess(TEXTS))["sentence_embedding"]
    samples = [Sample(str(k), text=text) for k, text in enumerate(TEXTS)]
    expected = last_states(loaded.model, loaded.processor, samples)["text"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert module.get_embedding_dimension() == found.shape[1]


def test_a_long_text_is_cut_and_the_instruction_is_not(loaded: Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    short, long = (
        tokenizer.decode(embedder(loaded, 3).preprocess([text])["input_ids"][0])
        for text in ("a large blue", TEXTS[1])
    )
    assert short == long
    assert "in one word" in long
    assert "pale" not in long
