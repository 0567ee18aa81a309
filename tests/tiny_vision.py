"""Tiny checkpoints of the architectures that see, and their rows of the table.

As in `tests.tiny_models`: transformers' own classes at toy sizes, saved as their hub folders look.
Templates speak in the family's own special tokens, in its order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests import tiny_models as tiny
from tests.families import ASKED, Family, chatml

LAYERS, WIDTH = tiny.LAYERS, tiny.WIDTH
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def stirred(model: Any) -> Any:
    """The model with noise where a fresh one has zeros: projectors and positions must count."""
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0.0, 0.1)
    return model


# ------------------------------------------------------------------------------------- Qwen3-VL

QWEN3_ROPE = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "mrope_section": [4, 2, 2],
    "mrope_interleaved": True,
}


def _qwen3_vl(folder: Path, config: Any, model: Any, **text: Any) -> Path:
    words = tiny.tokenizer(tiny.QWEN_VL)
    special = tiny.ids(
        words,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    vision = tiny.qwen_vision(
        depth=3,
        patch_size=16,
        hidden_size=16,
        intermediate_size=32,
        out_hidden_size=WIDTH,
        num_position_embeddings=36,
        deepstack_visual_indexes=[0, 2],
    )
    more = {"head_dim": 16, "rope_parameters": QWEN3_ROPE, **text}
    whole = config(text_config=tiny.text_config(words, **more), vision_config=vision, **special)
    side = {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}
    image = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, size=side, image_mean=[0.5] * 3
    )
    return tiny.save(
        folder, stirred(model(whole)), words, "Qwen3VLProcessor", image=image, fast=True
    )


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL: interleaved positions, tower features added after the first blocks (deepstack)."""
    return _qwen3_vl(folder, Qwen3VLConfig, Qwen3VLForConditionalGeneration)


def qwen3_vl_moe(folder: Path) -> Path:
    """Qwen3-VL with experts."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return _qwen3_vl(folder, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, **experts)


# --------------------------------------------------------------------------------------- Gemma3

GEMMA = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def gemma3(folder: Path) -> Path:
    """Gemma3: sliding windows, image tokens that see each other both ways, a start token."""
    words = tiny.byte_tokenizer(
        ["<start_of_turn>", "<end_of_turn>", *GEMMA.values()],
        GEMMA_TEMPLATE,
        GEMMA,
        pad="<pad>",
        bos="<bos>",
        eos="<eos>",
    )
    text = tiny.text_config(
        words,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        bos_token_id=words.bos_token_id,
    )
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "vision_use_head": False,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        initializer_range=0.1,
        **tiny.ids(
            words,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )
    return tiny.save(
        folder,
        stirred(Gemma3ForConditionalGeneration(config)),
        words,
        "Gemma3Processor",
        image=Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
        own={"image_seq_length": 4},
        reads="PreTrainedTokenizerFast",  # Gemma's own class would read other bytes than these
    )


# ------------------------------------------------------------------------------------- InternVL

INTERNVL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def internvl(folder: Path) -> Path:
    """InternVL: tiles of the image and a thumbnail, each shuffled to a quarter of its tokens."""
    words = tiny.tokenizer(INTERNVL)
    image, shown = "{% if part['type'] == 'image' %}", "<IMG_CONTEXT>\n"
    words.chat_template = words.chat_template.replace(image, image + shown)
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **tiny.text_config(words)},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "attention_bias": True,
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "initializer_range": 0.1,
        },
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return tiny.save(
        folder,
        stirred(InternVLForConditionalGeneration(config)),
        words,
        "InternVLProcessor",
        image=GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4),
        fast=True,
        own={"image_seq_length": 4},
    )


# -------------------------------------------------------------------------------------- SmolVLM

SMOL = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
SMOL_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def smolvlm(folder: Path) -> Path:
    """SmolVLM: an image is split into tiles with row and column tokens; tiles have masks."""
    tiles = [f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)]
    words = tiny.byte_tokenizer(
        [*SMOL.values(), *tiles],
        SMOL_TEMPLATE,
        SMOL,
        pad="<|im_end|>",
        bos="<|im_start|>",
        eos="<end_of_utterance>",
    )
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **tiny.text_config(words)},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "initializer_range": 0.1,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    image = SmolVLMImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    return tiny.save(
        folder,
        stirred(SmolVLMForConditionalGeneration(config)),
        words,
        "SmolVLMProcessor",
        image=image,
        own={"image_seq_len": 4},
        reads="GPT2Tokenizer",
    )


GEMMA_TURN = "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
SMOL_TURN = "<|im_start|>User:{}{}<end_of_utterance>\nAssistant:"

FAMILIES = {
    "qwen2_5_vl": Family(tiny.qwen2_5_vl, chatml(tiny.ASSISTANT, image=QWEN_IMAGE)),
    "qwen2_vl": Family(tiny.qwen2_vl, chatml(tiny.ASSISTANT, image=QWEN_IMAGE)),
    "qwen3_vl": Family(qwen3_vl, chatml(image=QWEN_IMAGE)),
    "qwen3_vl_moe": Family(qwen3_vl_moe, chatml(image=QWEN_IMAGE)),
    "llava_next": Family(tiny.llava_next, chatml(image="<image>\n")),
    "gemma3": Family(
        gemma3,
        {  # its template trims every part
            "text": GEMMA_TURN.format("{text}" + ASKED.format("text")),
            "image": GEMMA_TURN.format("<start_of_image>" + ASKED.format("image").strip()),
        },
    ),
    "internvl": Family(internvl, chatml(image="<IMG_CONTEXT>\n")),
    "smolvlm": Family(
        smolvlm,
        {
            "text": SMOL_TURN.format(" {text}", ASKED.format("text")),
            "image": SMOL_TURN.format("<image>", ASKED.format("image")),
        },
        decoder="model.text_model",
    ),
}
