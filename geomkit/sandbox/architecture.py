"""A real Qwen2.5-Omni thinker at a tiny size, with the tokenizer and processors to match.

Nothing here is a stand-in: the classes are transformers' own, only the widths, depths and the
vocabulary are small. A folder written by `save` loads through the same path as a hub checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from geomkit.sandbox.render import RATE, SIDE
from geomkit.sandbox.world import vocabulary

PATCH, MERGE, MEL_BINS = 14, 2, 64
# Qwen's 0.02 suits widths of thousands; at 128 it leaves attention flat for hundreds of steps.
INITIALIZER_RANGE = 0.06

SPECIAL = {
    "pad_token": "<|pad|>",
    "unk_token": "<|unk|>",
    "eos_token": "<|im_end|>",
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "im_start_token": "<|im_start|>",
}

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part['type'] == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part['type'] == 'video' -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif 'text' in part -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


@dataclass(frozen=True, slots=True)
class Size:
    """Widths and depths of a sandbox model; the default is the model that ships."""

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    vision_hidden: int = 128
    vision_layers: int = 3
    audio_hidden: int = 96
    audio_layers: int = 3


NARROW = Size(hidden=64, layers=6, heads=2, key_value_heads=1, vision_hidden=64, audio_hidden=64)


def tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, lower-casing tokenizer of the world's words, with Qwen's special tokens."""
    words = [*SPECIAL.values(), "user", "assistant", "system", *vocabulary()]
    core = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=SPECIAL["unk_token"])
    )
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="right",
        model_max_length=512,
        extra_special_tokens={
            k: v for k, v in SPECIAL.items() if k not in {"pad_token", "unk_token", "eos_token"}
        },
        **{k: SPECIAL[k] for k in ("pad_token", "unk_token", "eos_token")},
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's image processor for `SIDE` x `SIDE` pixels: nine tokens after the merge."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def feature_extractor() -> WhisperFeatureExtractor:
    """Whisper's log-mel features: `MEL_BINS` bins, one frame every 10 ms."""
    return WhisperFeatureExtractor(
        feature_size=MEL_BINS,
        sampling_rate=RATE,
        hop_length=160,
        n_fft=400,
        chunk_length=2,
        return_attention_mask=True,
    )


def config(size: Size, words: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerConfig:
    """The thinker's configuration at the given size."""
    token = words.convert_tokens_to_ids
    head_dim = size.hidden // size.heads
    half = head_dim // 2
    section = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    special = {
        "image_token_id": token("<|IMAGE|>"),
        "audio_token_id": token("<|AUDIO|>"),
        "video_token_id": token("<|VIDEO|>"),
        "vision_start_token_id": token("<|vision_bos|>"),
        "vision_end_token_id": token("<|vision_eos|>"),
        "audio_start_token_id": token("<|audio_bos|>"),
        "audio_end_token_id": token("<|audio_eos|>"),
    }
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": size.hidden,
            "intermediate_size": 3 * size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.key_value_heads,
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
            "initializer_range": INITIALIZER_RANGE,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": section,
            },
            "pad_token_id": token("<|pad|>"),
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 3 * size.vision_hidden,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": list(range(size.vision_layers)),
            "out_hidden_size": size.hidden,
            "initializer_range": INITIALIZER_RANGE,
        },
        audio_config={
            "num_mel_bins": MEL_BINS,
            "d_model": size.audio_hidden,
            "encoder_layers": size.audio_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 3 * size.audio_hidden,
            "n_window": 100,
            "output_dim": size.hidden,
            "max_source_positions": 256,
            "initializer_range": INITIALIZER_RANGE,
        },
        pad_token_id=token("<|pad|>"),
        tie_word_embeddings=False,
        initializer_range=INITIALIZER_RANGE,
        **special,
    )


def build(size: Size = Size()) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A thinker with fresh random weights; seed torch first for a reproducible one."""
    model = Qwen2_5OmniThinkerForConditionalGeneration(config(size, tokenizer()))
    model.generation_config.eos_token_id = tokenizer().eos_token_id
    model.generation_config.pad_token_id = tokenizer().pad_token_id
    return model


def save(model: Qwen2_5OmniThinkerForConditionalGeneration, folder: Path) -> None:
    """Write weights, tokenizer, processors and chat template, as a hub checkpoint has them."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    # One file serves image processor and feature extractor, as in Qwen's own repositories.
    picture = image_processor().to_dict()
    both = {
        **feature_extractor().to_dict(),
        **picture,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5OmniProcessor",
    }
    both.pop("mel_filters", None)  # computed again from the sizes on loading
    _write_json(folder / "preprocessor_config.json", both)
    video = {**picture, "video_processor_type": "Qwen2VLVideoProcessor"}
    video.pop("image_processor_type", None)
    _write_json(folder / "video_preprocessor_config.json", video)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")
