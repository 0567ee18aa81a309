"""A checkpoint's folder as a sentence-transformers model too: three small files beside the weights.

    SentenceTransformer("lco-merged").encode(["a text", image, {"image": ..., "text": ...}])

Transformer, then the last token, then the unit length. The instruction is in the chat template that
sentence-transformers is told to use, where no truncation can cut it; the checkpoint's own template
is left as it is, so the folder generates as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomkit.processing import Processor
from geomkit.prompts import render
from geomkit.types import MODALITIES, Modality

_LIBRARY = "sentence_transformers"
MODULES = (
    ("", f"{_LIBRARY}.base.modules.transformer.Transformer"),
    ("1_Pooling", f"{_LIBRARY}.sentence_transformer.modules.pooling.Pooling"),
    ("2_Normalize", f"{_LIBRARY}.sentence_transformer.modules.normalize.Normalize"),
)
ASSEMBLED = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""Files beside the weights that only sentence-transformers reads."""

# The last turn with the instruction of what it shows after it; where it shows several media with
# or without words, that of the last medium. Then the checkpoint's own template, on these messages.
ASKING = """\
{%- set ask = ASK -%}
{%- set turn = namespace(kind='text', words='', parts=[]) -%}
{%- set shown = messages[-1]['content'] -%}
{%- if shown is string -%}{%- set turn.words = shown -%}{%- else -%}
{%- for part in shown -%}{%- if part['type'] in ask and part['type'] != 'text' -%}
{%- set turn.kind = part['type'] -%}{%- set turn.parts = turn.parts + [{'type': part['type']}] -%}
{%- else -%}{%- set turn.words = turn.words + part['text'] -%}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- set turn.words = turn.words + ask[turn.kind] -%}
{%- set turn.parts = turn.parts + [{'type': 'text', 'text': turn.words}] -%}
{%- set asked = turn.parts if PARTS else turn.words -%}
{%- set messages = messages[:-1] + [{'role': messages[-1]['role'], 'content': asked}] -%}
"""


def assemble(
    folder: Path, processor: Processor, dim: int, instructions: Mapping[Modality, str]
) -> tuple[Modality, ...]:
    """Write the files; returns the modalities whose prompt is then the one of training.

    Nothing is written, and nothing returned, for a checkpoint without a template or with one that
    renders otherwise inside ours.
    """
    if not processor.chat_template:
        return ()
    asked = {m: instructions[m] for m in MODALITIES if m in instructions}
    template = asking_template(processor, asked)
    kept = tuple(m for m in processor.modalities if _same(processor, template, m, asked[m]))
    if kept != processor.modalities:
        return ()
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(MODULES)
    ]
    _write(folder / ASSEMBLED[0], modules)
    asking = {"chat_template": template, "add_generation_prompt": True}
    read = {"method": "forward", "method_output_name": "last_hidden_state"}
    modes: dict[str, dict[str, str]] = dict.fromkeys(kept, read)
    turns = {**read, "format": "structured" if processor.takes_parts else "flat"}
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {**modes, "message": turns},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {"chat_template": asking},
    }
    _write(folder / ASSEMBLED[1], transformer)
    pooling = {"embedding_dimension": dim, "pooling_mode": "lasttoken", "include_prompt": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    about = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"}
    _write(folder / ASSEMBLED[2], about)
    return kept


def asking_template(processor: Processor, instructions: Mapping[Modality, str]) -> str:
    """The checkpoint's template, with the instruction of its modality after the last turn."""
    ask = json.dumps(dict(instructions))  # a mapping of strings is the same in jinja
    parts = "true" if processor.takes_parts else "false"
    return ASKING.replace("ASK", ask).replace("PARTS", parts) + processor.chat_template


def _same(processor: Processor, template: str, modality: Modality, instruction: str) -> bool:
    """Whether a turn is rendered as it is at capture."""
    words = [{"type": "text", "text": "a word"}] if modality == "text" else []
    media = [] if modality == "text" else [{"type": modality}]
    given = [*media, *words] if processor.takes_parts else "a word"
    try:
        found = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": given}],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
        )
    except Exception:  # noqa: BLE001  # a template is a program of a stranger, in jinja's sandbox
        return False
    content = "a word" if modality == "text" else ""
    return bool(found == render(processor, modality, content, instruction))


def _write(path: Path, what: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
