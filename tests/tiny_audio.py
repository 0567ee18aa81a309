"""Tiny checkpoints of the architectures that hear: audio language models and omni models.

As in `tests.tiny_models`: transformers' own classes at toy sizes, saved as their hub folders look.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests import tiny_models as tiny
from tests.families import ASKED, SITES, Family, chatml

LAYERS, WIDTH, RATE = tiny.LAYERS, tiny.WIDTH, tiny.RATE
TIMM = importlib.util.find_spec("timm") is not None


def whisper(seconds: int, **more: Any) -> WhisperFeatureExtractor:
    """The feature extractor of most families, with a short window."""
    return WhisperFeatureExtractor(
        feature_size=32,
        sampling_rate=RATE,
        chunk_length=seconds,
        return_attention_mask=True,
        **more,
    )


def _whisper_encoder(positions: int, **more: Any) -> dict[str, Any]:
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
        audio_config={"model_type": "qwen2_audio_encoder", **_whisper_encoder(100)},
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
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
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


class StandInTower(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """A convolution in the place of timm's MobileNet, which needs timm and torchvision."""

    config_class = Gemma3nVisionConfig
    _supports_sdpa = True  # it has no attention to choose for

    def __init__(self, config: Gemma3nVisionConfig) -> None:
        """One patch embedding with a nonlinearity."""
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, kernel_size=8, stride=8)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
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
        sound=Gemma3nAudioFeatureExtractor(feature_size=32, sampling_rate=RATE),
        own={"audio_seq_length": 188, "image_seq_length": 16},
    )


def _omni_ids(words: PreTrainedTokenizerFast, suffix: str = "id") -> dict[str, Any]:
    names = ("image_token", "audio_token", "video_token")
    ends = {"vision_start": "vision_bos", "vision_end": "vision_eos"}
    ends |= {"audio_start": "audio_bos", "audio_end": "audio_eos"}
    tokens = {f"{name}_{suffix}": tiny.QWEN_OMNI[name] for name in names}
    tokens |= {f"{a}_token_id": tiny.QWEN_OMNI[f"{b}_token"] for a, b in ends.items()}
    return tiny.ids(words, **tokens)


def _qwen3_thinker(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    text = tiny.text_config(
        words,
        head_dim=16,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
        **tiny.MROPE,
    )
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
        "initializer_range": 0.1,
    }
    audio = _whisper_encoder(
        1500, n_window=50, n_window_infer=100, output_dim=WIDTH, downsample_hidden_size=8
    )
    return {
        "text_config": text,
        "vision_config": vision,
        "audio_config": audio,
        **_omni_ids(words),
    }


def qwen3_omni(folder: Path) -> Path:
    """Qwen3-Omni's thinker: a mixture of experts, deepstack images, windows of one second."""
    words = tiny.tokenizer(tiny.QWEN_OMNI)
    config = Qwen3OmniMoeThinkerConfig(**_qwen3_thinker(words))
    model = Qwen3OmniMoeThinkerForConditionalGeneration(config)
    return _save_qwen3(folder, model, words)


def _save_qwen3(folder: Path, model: Any, words: PreTrainedTokenizerFast) -> Path:
    image = tiny.qwen_image()
    return tiny.save(folder, model, words, "Qwen3OmniMoeProcessor", image=image, sound=whisper(2))


def qwen3_omni_full(folder: Path) -> Path:
    """Qwen3-Omni as released: thinker, talker and waveform decoder in one folder."""
    words = tiny.tokenizer(tiny.QWEN_OMNI)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 64,
    }
    talker = {
        "code_predictor_config": {**small, "num_code_groups": 2},
        "text_config": {
            **small,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        "num_code_groups": 2,
        "thinker_hidden_size": WIDTH,
        "codec_eos_token_id": 1,
        "codec_nothink_id": 2,
        "codec_think_bos_id": 3,
        "codec_think_eos_id": 4,
        "codec_pad_id": 5,
        "codec_bos_id": 6,
        "spatial_merge_size": 2,
    }
    wave = {
        "codebook_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_quantizers": 2,
        "upsample_rates": [2, 2],
        "upsampling_ratios": [2],
        "decoder_dim": 16,
    }
    config = Qwen3OmniMoeConfig(
        thinker_config=_qwen3_thinker(words),
        talker_config=talker,
        code2wav_config=wave,
        enable_audio_output=True,
    )
    return _save_qwen3(folder, Qwen3OmniMoeForConditionalGeneration(config), words)


def qwen2_5_omni_full(folder: Path) -> Path:
    """Qwen2.5-Omni as released: thinker, talker, token2wav and a pickled table of speakers."""
    thinker = json.loads((tiny.saved("qwen2_5_omni") / "config.json").read_text())
    words = tiny.tokenizer(tiny.QWEN_OMNI)
    talker = {
        "vocab_size": 64,
        "embedding_size": WIDTH,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    }
    diffusion = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "emb_dim": 8,
        "head_dim": 8,
        "num_embeds": 9,
        "mel_dim": 8,
        "enc_emb_dim": 8,
        "enc_dim": 8,
        "enc_channels": [8, 8, 8, 8, 16],
        "enc_attention_channels": 4,
        "enc_se_channels": 4,
    }
    vocoder = {
        "mel_dim": 8,
        "upsample_initial_channel": 8,
        "upsample_rates": [2, 2],
        "upsample_kernel_sizes": [4, 4],
    }
    config = Qwen2_5OmniConfig(
        thinker_config=thinker,
        talker_config=talker,
        token2wav_config={"dit_config": diffusion, "bigvgan_config": vocoder},
    )
    model = Qwen2_5OmniForConditionalGeneration(config)
    (folder / "spk_dict.pt").write_bytes(b"a pickle that nothing may open")
    image, sound = tiny.qwen_image(), whisper(2)
    return tiny.save(folder, model, words, "Qwen2_5OmniProcessor", image=image, sound=sound)


OMNI = {
    "image": "<|vision_bos|><|IMAGE|><|vision_eos|>",
    "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
}


def thinker(folder: Path) -> Any:
    """The whole omni model as it is saved, and of that the thinker."""
    config = AutoConfig.from_pretrained(folder)
    kind: Any = AutoModelForMultimodalLM._model_mapping[type(config)]
    # Qwen2.5-Omni's own `from_pretrained` opens the speakers' pickle too.
    whole = PreTrainedModel.from_pretrained.__func__(kind, folder)
    assert {name for name, _ in whole.named_children()} > {"thinker", "talker"}
    return whole.thinker


def first_stream(model: Any, _: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gemma3n's hidden states, `(streams, rows, tokens, dim)` each, the last one's included."""
    out = model.model(**inputs, output_hidden_states=True, use_cache=False)
    states = {site: s[0, 0] for site, s in zip(SITES, out.hidden_states, strict=False)}
    return {**states, "final_norm": out.last_hidden_state[0]}


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
SOFT = {"image": "<image_soft_token>", "audio": "<audio_soft_token>"}
INSTRUCT = "<s>[INST]{}{}[/INST]"

FAMILIES: dict[str, Family] = {
    "qwen2_5_omni": Family(tiny.qwen2_5_omni, chatml(**OMNI)),
    "qwen2_5_omni_full": Family(qwen2_5_omni_full, chatml(**OMNI), load=thinker),
    "qwen3_omni": Family(qwen3_omni, chatml(**OMNI)),
    "qwen3_omni_full": Family(qwen3_omni_full, chatml(**OMNI), load=thinker),
    "qwen2_audio": Family(qwen2_audio, chatml("You are a helpful assistant.", audio=AUDIO_1)),
    "voxtral": Family(
        voxtral,
        {
            "text": INSTRUCT.format("{text}", ASKED.format("text")),
            "audio": INSTRUCT.format("[BEGIN_AUDIO][AUDIO]", ASKED.format("audio")),
        },
        processor=by_hand,
    ),
    "gemma3n": Family(gemma3n, chatml(**SOFT), states=first_stream),
}
