"""Rows of the table that hear: audio language models, and what omni models share with them.

As in `tests.tiny_models`: transformers' own classes at toy sizes, saved as their hub folders look.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tests import tiny_models as tiny
from tests.families import ASKED, Family, chatml

RATE = tiny.RATE


def whisper(seconds: int, **more: Any) -> WhisperFeatureExtractor:
    """The feature extractor of most families, with a short window."""
    return WhisperFeatureExtractor(
        feature_size=32,
        sampling_rate=RATE,
        chunk_length=seconds,
        return_attention_mask=True,
        **more,
    )


def whisper_encoder(positions: int, **more: Any) -> dict[str, Any]:
    """Sizes of an encoder of `positions` states."""
    return {
        "num_mel_bins": 32,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "max_source_positions": positions,
        "initializer_range": 0.1,
        **more,
    }


def qwen2_audio(folder: Path) -> Path:
    """Qwen2-Audio: a window of fixed length; the chat template is the processor class's own."""
    names = ("audio_token", "audio_bos_token", "audio_eos_token")
    words = tiny.tokenizer({name: tiny.QWEN_OMNI[name] for name in names})
    words.chat_template = None
    config = Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **tiny.text_config(words)},
        audio_config={"model_type": "qwen2_audio_encoder", **whisper_encoder(100)},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = Qwen2AudioForConditionalGeneration(config)
    return tiny.save(folder, model, words, "Qwen2AudioProcessor", sound=whisper(2))


MISTRAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS]"
    " [/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX]"
    " [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] <20> <21> <22> <23> [AUDIO] [BEGIN_AUDIO]"
    " <26> <27> <28> <29> <30> <31> <32> <33> [TRANSCRIBE] <35>"
)
"""Special tokens where Voxtral's `tekken.json` has them."""


def tekken() -> dict[str, Any]:
    """A `tekken.json` of single bytes, with the special tokens where Voxtral has them."""
    special = [
        {"rank": i, "token_str": token, "is_control": True}
        for i, token in enumerate(MISTRAL.split())
    ]
    one = [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
        for i in range(256)
    ]
    return {
        "config": {
            "pattern": r"[^\s]+|\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 256 + len(MISTRAL.split()),
            "default_num_special_tokens": len(MISTRAL.split()),
            "version": "v7",
        },
        "vocab": one,
        "special_tokens": special,
        "audio": {
            "sampling_rate": RATE,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 32, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }


def voxtral(folder: Path) -> Path:
    """Voxtral: a Mistral `tekken.json`, no chat template, windows of 30 seconds side by side."""
    text = {
        "model_type": "llama",
        "vocab_size": 256 + len(MISTRAL.split()),
        "hidden_size": tiny.WIDTH,
        "intermediate_size": 2 * tiny.WIDTH,
        "num_hidden_layers": tiny.LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        "pad_token_id": 11,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    audio = {
        "model_type": "voxtral_encoder",
        "num_mel_bins": 32,
        "hidden_size": 16,
        "intermediate_size": 64,  # four frames become one token, as in the released model
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.1,
    }
    config = VoxtralConfig(text_config=text, audio_config=audio, audio_token_id=24)
    VoxtralForConditionalGeneration(config).eval().save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(tekken()))
    parts = {**whisper(30).to_dict(), "processor_class": "VoxtralProcessor"}
    parts.pop("mel_filters", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(parts, default=str))
    return folder


@dataclass(frozen=True, slots=True, eq=False)
class ByHand:
    """Voxtral's inputs without its processor's call, which takes no sound."""

    words: Any
    sound: Any

    def __call__(
        self, text: list[str], audio: list[Any] | None = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """One row: 375 placeholders and one mel spectrogram for each 30 seconds begun."""
        (prompt,) = text
        mels: tuple[torch.Tensor, ...] = ()
        for waveform in audio or []:
            silence = -len(waveform) % (30 * RATE)
            whole = self.sound(
                np.pad(waveform, (0, silence)),
                sampling_rate=RATE,
                truncation=False,
                padding=False,
                return_tensors="pt",
            )
            mels = whole["input_features"][0].split(3000, dim=1)
        written = prompt.replace("[AUDIO]", "[AUDIO]" * 375 * len(mels))
        found = dict(self.words(written, add_special_tokens=False, return_tensors="pt"))
        return found | ({"input_features": torch.stack(mels)} if mels else {})


def by_hand(folder: Path) -> ByHand:
    """Voxtral's tokenizer, from `tekken.json` alone, and its feature extractor."""
    words = AutoTokenizer.from_pretrained(folder, mistral_format=False)
    return ByHand(words, WhisperFeatureExtractor.from_pretrained(folder))


AUDIO_1 = "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
INSTRUCT = "<s>[INST]{}{}[/INST]"

FAMILIES = {
    "qwen2_audio": Family(qwen2_audio, chatml("You are a helpful assistant.", audio=AUDIO_1)),
    "voxtral": Family(
        voxtral,
        {
            "text": INSTRUCT.format("{text}", ASKED.format("text")),
            "audio": INSTRUCT.format("[BEGIN_AUDIO][AUDIO]", ASKED.format("audio")),
        },
        processor=by_hand,
    ),
}
