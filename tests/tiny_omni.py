"""Rows of the table that read and hear: the omni models, alone and with what speaks in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from tests import tiny_models as tiny
from tests.families import Family, chatml
from tests.tiny_audio import whisper, whisper_encoder

WIDTH = tiny.WIDTH


def _omni_ids(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("image_token", "audio_token", "video_token")
    ends = {"vision_start": "vision_bos", "vision_end": "vision_eos"}
    ends |= {"audio_start": "audio_bos", "audio_end": "audio_eos"}
    tokens = {f"{name}_id": tiny.QWEN_OMNI[name] for name in names}
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
    audio = whisper_encoder(
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


FAMILIES = {
    "qwen2_5_omni": Family(tiny.qwen2_5_omni, chatml(**OMNI)),
    "qwen2_5_omni_full": Family(qwen2_5_omni_full, chatml(**OMNI), load=thinker),
    "qwen3_omni": Family(qwen3_omni, chatml(**OMNI)),
    "qwen3_omni_full": Family(qwen3_omni_full, chatml(**OMNI), load=thinker),
}
