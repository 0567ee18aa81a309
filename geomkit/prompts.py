"""The one-word prompt that follows the content, and its rendering through the chat template.

The pooled state is read at the end of the generation prompt, so what stands there is part of the
measurement: the same instruction for every row of a modality, never cut off. A row is one user
turn: the media item (or the text) first, then the instruction, then the template's own ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from geomkit.errors import CheckpointError, SampleError, UsageError
from geomkit.types import MODALITIES, Modality

if TYPE_CHECKING:  # it imports torch, and presets are read by `--help`
    from geomkit.processing import Processor


def _each(template: str, **other: str) -> Mapping[Modality, str]:
    return MappingProxyType({m: template.format(modality=other.get(m, m)) for m in MODALITIES})


PRESETS: Mapping[str, Mapping[Modality, str]] = MappingProxyType(
    {
        "lco": _each("\nSummarize the above {modality} in one word:"),
        "e5v": _each("\nSummary above {modality} in one word: ", text="sentence"),
        "none": _each(""),
    }
)
"""`lco`: LCO-Embedding. `e5v`: E5-V. `none`: the chat template alone."""


def prompts(spec: str) -> Mapping[Modality, str]:
    r"""The instruction of each modality: a preset's name, or a template with `{modality}` in it.

    A template may be written on a command line: the two characters `\n` stand for a new line.

    Raises:
        UsageError: neither a preset nor a template.
    """
    if spec in PRESETS:
        return PRESETS[spec]
    if " " not in spec and "{" not in spec:
        known = ", ".join(PRESETS)
        raise UsageError(
            f"Expected a prompt preset ({known}) or a sentence, got '{spec}'; a sentence may hold"
            " {modality}."
        )
    text = spec.replace("\\n", "\n").replace("{modality}", "\0")
    if "{" in text or "}" in text:
        raise UsageError(f"Expected {{modality}} as the only field of a prompt, got '{spec}'.")
    return MappingProxyType({m: text.replace("\0", m) for m in MODALITIES})


def cut(tokenizer: Any, content: str, limit: int) -> tuple[str, bool]:
    """The first `limit` tokens of `content` as text, and whether anything was cut.

    The original characters are kept: nothing is decoded and written anew.
    """
    if tokenizer.is_fast:
        encoded = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        if len(offsets) <= limit:
            return content, False
        return content[: offsets[limit - 1][1]], True
    ids = tokenizer(content, add_special_tokens=False)["input_ids"]
    return (content, False) if len(ids) <= limit else (tokenizer.decode(ids[:limit]), True)


def render(processor: Processor, modality: Modality, content: str, instruction: str) -> str:
    """One conversation as the model's template writes it, ready for its answer.

    Raises:
        CheckpointError: the chat template cannot be rendered, or leaves the instruction out.
        SampleError: the content holds a control token, which the tokenizer would obey, or the
            template leaves the content out.
    """
    for token in control_tokens(processor.tokenizer):
        if token in content:
            raise SampleError(f"text holds the control token {token}: it would be obeyed, not read")
    if not processor.chat_template:
        return content + instruction
    turn: Any = content + instruction
    if processor.takes_parts:
        words = [{"type": "text", "text": turn}] if turn else []
        turn = words if modality == "text" else [{"type": modality}, *words]
    rendered = _templated(processor, turn)
    if instruction.strip() not in rendered:
        raise CheckpointError(
            f"Expected the chat template to show {modality} with the prompt, got a conversation"
            f" without it ({rendered[:80]!r}): use a checkpoint whose template shows what is said."
        )
    if content.strip() not in rendered:
        raise SampleError("the checkpoint's chat template does not show this text")
    return rendered


def _templated(processor: Processor, turn: Any) -> str:
    try:
        # The tokenizer's method, not the processor's: that one also asks for a video processor.
        rendered: str = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}],
            chat_template=processor.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
    except Exception as cause:  # a template is a program of a stranger, in jinja's sandbox
        said = " ".join(str(cause).split())[:200]
        raise CheckpointError(
            "Expected a chat template that renders one turn of a user, got"
            f" {type(cause).__name__}: {said}; mend the checkpoint's chat_template."
        ) from cause
    return rendered


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokenizer's special tokens: templates and placeholders speak in them, content may not."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(sorted({str(token) for token in added if token.special}))
