"""Gemma3n at toy size: text, images and sounds in AltUp's streams."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests import tiny_models as tiny
from tests.families import SITES, Family, chatml

TIMM = importlib.util.find_spec("timm") is not None


class StandInTower(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """A convolution in the place of timm's MobileNet, which needs timm and torchvision."""

    config_class = Gemma3nVisionConfig
    _supports_sdpa = True  # it has no attention to choose for

    def __init__(self, config: Gemma3nVisionConfig) -> None:
        """One patch embedding with a nonlinearity."""
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, kernel_size=8, stride=8)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """A map of features, `(rows, channels, height, width)`."""
        return BaseModelOutputWithPooling(last_hidden_state=torch.tanh(self.patches(pixel_values)))


if not TIMM:
    AutoModel.register(Gemma3nVisionConfig, StandInTower, exist_ok=True)

GEMMA3N = {
    "image_token": "<image_soft_token>",
    "audio_token": "<audio_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}


def gemma3n(folder: Path) -> Path:
    """Gemma3n: AltUp streams, shared keys and values, soft-token vocabularies at the end."""
    vision = ["<end_of_image>", "<image_soft_token>", *(f"<unused_{i}>" for i in range(6))]
    audio = ["<end_of_audio>", "<audio_soft_token>", *(f"<unused_{i}>" for i in range(6, 12))]
    words = tiny.tokenizer(GEMMA3N, last=(*vision, *audio))
    first = len(words) - 16
    text = tiny.text_config(
        words,
        head_dim=16,
        num_kv_shared_layers=1,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        sliding_window=16,
        activation_sparsity_pattern=[0.95, 0.0, 0.0],
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=first,
        laurel_rank=8,
    )
    config = Gemma3nConfig(
        text_config=text,
        vision_config={
            "architecture": "test_resnet",
            "hidden_size": 96 if TIMM else 16,
            "vocab_size": 8,
            "vocab_offset": first,
        },
        audio_config={
            "vocab_size": 8,
            "vocab_offset": first + 8,
            "input_feat_size": 32,
            "hidden_size": 16,
            "conf_attention_chunk_size": 4,
            "conf_attention_context_left": 5,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": (8, 4),
        },
        vision_soft_tokens_per_image=16,
        **tiny.ids(
            words,
            image_token_id=GEMMA3N["image_token"],
            audio_token_id=GEMMA3N["audio_token"],
            boi_token_id=GEMMA3N["boi_token"],
            eoi_token_id=GEMMA3N["eoi_token"],
            boa_token_id=GEMMA3N["boa_token"],
            eoa_token_id=GEMMA3N["eoa_token"],
        ),
    )
    torch.manual_seed(1)  # of the first few, one whose encoder does not die at a sound's end
    model = Gemma3nForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and "altup" in name:
                weight.normal_(0.5, 0.2)  # as zeros, AltUp's streams would never mix
            if "q_norm" in name:
                weight.fill_(0.5)  # random logits of full size would magnify rounding
    side = 128 if TIMM else 32
    image = SiglipImageProcessorPil(size={"height": side, "width": side})
    return tiny.save(
        folder,
        model,
        words,
        "Gemma3nProcessor",
        image=image,
        sound=Gemma3nAudioFeatureExtractor(feature_size=32, sampling_rate=tiny.RATE),
        own={"audio_seq_length": 188, "image_seq_length": 16},
    )


def first_stream(model: Any, _: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gemma3n's hidden states, `(streams, rows, tokens, dim)` each, the last one's included."""
    out = model.model(**inputs, output_hidden_states=True, use_cache=False)
    states = {site: s[0, 0] for site, s in zip(SITES, out.hidden_states, strict=False)}
    return {**states, "final_norm": out.last_hidden_state[0]}


SOFT = {"image": "<image_soft_token>", "audio": "<audio_soft_token>"}

FAMILIES = {"gemma3n": Family(gemma3n, chatml(**SOFT), states=first_stream)}
