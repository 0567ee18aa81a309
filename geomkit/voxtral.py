"""Voxtral's processor with a call that takes sounds.

transformers' own can only be spoken to through mistral-common, which does the chat template, the
placeholders and the tokens in one step and cannot be installed beside a current NumPy. What it
writes is little: `<s>[INST]`, for a sound `[BEGIN_AUDIO]` and one `[AUDIO]` for every eight frames
of its mel spectrogram, the text, `[/INST]`. It is written here, and tokenised by the tokenizer that
transformers reads from `tekken.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from transformers import BatchFeature, ProcessorMixin, VoxtralProcessor

TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}<s>{% endif %}[INST]"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}[BEGIN_AUDIO][AUDIO]{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}[/INST]{% endfor %}"
)
"""User turns in the seventh version of Mistral's instruction format."""

FRAMES = 3000  # of the mel spectrogram of one window
SAMPLES = 480_000  # of one window: 30 seconds
FRAMES_A_TOKEN = 8  # a convolution of stride 2, then four states side by side


class SoundingVoxtral(VoxtralProcessor):  # type: ignore[misc]  # transformers is untyped
    """VoxtralProcessor as other families have theirs: `processor(text=..., audio=...)`."""

    audio_kwargs: Mapping[str, Any] = {
        "padding": True,
        "truncation": False,  # a long sound is read in several windows
        "pad_to_multiple_of": SAMPLES,
        "return_tensors": "pt",
    }
    apply_chat_template = ProcessorMixin.apply_chat_template

    def __init__(
        self, feature_extractor: Any, tokenizer: Any, chat_template: str | None = None
    ) -> None:
        """With the folder's own template, which released folders do not have."""
        super().__init__(feature_extractor, tokenizer)
        self.chat_template = chat_template or TEMPLATE

    def __call__(
        self,
        text: Sequence[str],
        audio: Sequence[NDArray[Any]] = (),
        *,
        text_kwargs: Mapping[str, Any],
        audio_kwargs: Mapping[str, Any] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Texts with one `[AUDIO]` for each sound; the whole of a sound is read."""
        whole, found = list(text), {}
        if len(audio) > 0:
            asked = {**SoundingVoxtral.audio_kwargs, **(audio_kwargs or {})}
            mels = [self._retrieve_input_features([sound], FRAMES, **asked) for sound in audio]
            marks = [self.audio_token * (len(mel) * FRAMES // FRAMES_A_TOKEN) for mel in mels]
            whole = [t.replace(self.audio_token, m) for t, m in zip(whole, marks, strict=True)]
            found["input_features"] = torch.cat(mels)
        tokens = self.tokenizer(whole, return_tensors=return_tensors, **text_kwargs)
        return BatchFeature({**tokens, **found})
