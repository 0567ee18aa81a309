"""Training rows say what the chat template says, and the embedding prompt is never among them."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit import sandbox
from geomkit.sandbox import architecture, conversations, world
from geomkit.sandbox.conversations import IGNORED, Conversation, converse, tokens


def _drawn(modality: str, task: str, seed: int) -> Conversation:
    kind = "audio" if modality == "audio" else "image"
    rng = np.random.default_rng(seed)
    return converse(sandbox.scenes("train", kind, 1)[0], modality, task, rng)  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
@pytest.mark.parametrize("task", ["ask", "describe"])
def test_ids_equal_the_chat_template(modality: str, task: str) -> None:
    drawn = _drawn(modality, task, seed=4)
    words = architecture.tokenizer()
    messages = []
    for k, (instruction, answer) in enumerate(drawn.turns):
        opening = conversations.MEDIA[drawn.modality] + drawn.shown + "\n" if k == 0 else ""
        messages += [
            {"role": "user", "content": opening + instruction},
            {"role": "assistant", "content": answer},
        ]
    rendered = words.apply_chat_template(messages, tokenize=False)
    assert tokens(drawn)[0] == words(rendered, add_special_tokens=False)["input_ids"]


def test_only_answers_carry_a_label() -> None:
    drawn = _drawn("image", "ask", seed=2)
    ids, labels = tokens(drawn)
    words = architecture.tokenizer()
    spoken = words.decode([t for t in labels if t != IGNORED])
    assert spoken == " ".join(f"{answer} <|im_end|>" for _, answer in drawn.turns)
    assert len(ids) == len(labels)


def test_every_word_is_in_the_vocabulary() -> None:
    unknown = architecture.tokenizer().unk_token_id
    for seed in range(40):
        for modality in ("text", "image", "audio"):
            for task in ("ask", "describe"):
                assert unknown not in tokens(_drawn(modality, task, seed))[0]
    prompt = architecture.tokenizer()("Summarize the above image in one word:")["input_ids"]
    assert unknown not in prompt


def test_the_embedding_prompt_is_never_trained() -> None:
    """If it were, the base would already be an embedder and nothing would be left to find."""
    prompts = {i.lower() for instructions in world.DESCRIBE.values() for i in instructions}
    assert not any("summarize" in p and "one word" in p for p in prompts)
    assert not any("summarize" in form.lower() for form in world.ASK)
