"""Scenes to training rows: what the model is shown, what it is asked, what it should answer.

Only generative tasks: describe, answer, rewrite. Every word of the embedding prompt ("summarize
the above image in one word:") occurs somewhere, but never together: the state it is read from was
not trained to be a summary, as in a real MLLM (a model trained on that prompt would already be an
embedder, and nothing would be left to find).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from geomkit.sandbox import architecture, render, world
from geomkit.sandbox.world import ASK, DESCRIBE, SPOKEN, Attribute, Scene
from geomkit.types import Modality

IMAGE_TOKENS, AUDIO_TOKENS, IGNORED = 9, 32, -100
MEDIA: dict[Modality, str] = {
    "text": "",
    "image": "<|vision_bos|>" + "<|IMAGE|>" * IMAGE_TOKENS + "<|vision_eos|>",
    "audio": "<|audio_bos|>" + "<|AUDIO|>" * AUDIO_TOKENS + "<|audio_eos|>",
}

Turn = tuple[str, str]  # instruction, answer
Task = Literal["ask", "describe"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A scene shown in one modality, and the turns that follow. `shown` is the caption, if text."""

    scene: Scene
    modality: Modality
    turns: tuple[Turn, ...]
    shown: str = ""


@cache
def _tokenizer() -> Any:
    return architecture.tokenizer()


@cache
def _processors() -> tuple[Any, Any]:
    return architecture.image_processor(), architecture.feature_extractor()


def question(attribute: Attribute, modality: Modality, rng: np.random.Generator) -> str:
    """One of the ways to ask for an attribute."""
    form = ASK[int(rng.integers(len(ASK)))]
    return form.format(question=attribute.question, modality=modality)


def converse(
    scene: Scene, modality: Modality, task: Task, rng: np.random.Generator
) -> Conversation:
    """A conversation about a scene: every attribute asked in random order, or one description."""
    shown = world.caption(scene, rng) if modality == "text" else ""
    if task == "describe":
        instructions = DESCRIBE[modality]
        instruction = instructions[int(rng.integers(len(instructions)))]
        return Conversation(scene, modality, ((instruction, world.caption(scene, rng)),), shown)
    attributes = rng.permutation(np.array(SPOKEN[scene.kind], dtype=object))
    turns = tuple((question(a, modality, rng), world.answer(scene, a)) for a in attributes)
    return Conversation(scene, modality, turns, shown)


def tokens(conversation: Conversation) -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation in the chat template; only answers carry a label."""
    ids: list[int] = []
    labels: list[int] = []
    opening = MEDIA[conversation.modality] + conversation.shown + "\n"
    for instruction, answer in conversation.turns:
        asked = _encode(
            f"<|im_start|>user\n{opening}{instruction}<|im_end|>\n<|im_start|>assistant\n"
        )
        answered = _encode(f"{answer}<|im_end|>")
        ids += asked + answered
        labels += [IGNORED] * len(asked) + answered
        opening = ""
    return ids, labels


def _encode(text: str) -> list[int]:
    found: list[int] = _tokenizer()(text, add_special_tokens=False)["input_ids"]
    return found


def collate(conversations: Sequence[Conversation]) -> dict[str, torch.Tensor]:
    """Right-padded model inputs with labels; media are rendered here."""
    rows = [tokens(c) for c in conversations]
    width = max(len(ids) for ids, _ in rows)
    pad = _tokenizer().pad_token_id
    batch = {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([ls + [IGNORED] * (width - len(ls)) for _, ls in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]
        ),
    }
    pictures, sounds = _processors()
    images = [render.image(c.scene) for c in conversations if c.modality == "image"]
    if images:
        seen = pictures(images=images, return_tensors="pt")
        batch["pixel_values"], batch["image_grid_thw"] = (
            seen["pixel_values"],
            seen["image_grid_thw"],
        )
    waves = [render.waveform(c.scene).samples for c in conversations if c.modality == "audio"]
    if waves:
        heard = sounds(
            waves,
            sampling_rate=render.RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        batch["input_features"] = heard["input_features"]
        batch["feature_attention_mask"] = heard["attention_mask"]
    return batch
