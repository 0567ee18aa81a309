"""Real architectures at toy sizes with random weights, saved as full checkpoint folders.

The classes are transformers' own: only widths, depths and the vocabulary (bytes) are small. A
folder holds what a hub repository holds, so every loading path runs on it.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from geomkit.types import Sample, Waveform

torch.set_num_threads(1)  # six to fifteen times faster at these sizes
LAYERS, WIDTH, RATE = 3, 32, 16_000

QWEN_VL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
QWEN_OMNI = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
LLAVA = {"image_token": "<image>"}

ASSISTANT = "You are a helpful assistant."
SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nWORDS<|im_end|>\n{% endif %}"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'audio' %}AUDIO"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(
    special: Sequence[str],
    template: str,
    named: Mapping[str, str],
    *,
    pad: str,
    eos: str,
    bos: str = "",
    last: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes that puts `bos` before every text, as those that have one do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = dict.fromkeys([pad, *([bos] if bos else []), eos, *special, *alphabet, *last])
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(known)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=2048,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos or None,
        extra_special_tokens={**{f"mark_{i}": token for i, token in enumerate(special)}, **named},
        chat_template=template,
    )


def tokenizer(
    named: Mapping[str, str], last: Sequence[str] = (), system: str = ""
) -> PreTrainedTokenizerFast:
    """One token a byte: every string has its own ids and decodes back exactly.

    The tokens `last` take the highest ids, where some families keep those of their media. `system`
    is the turn that the template puts first when the conversation brings none.
    """
    first = [token for token in named.values() if token not in last]
    fast = byte_tokenizer(
        ["<|im_start|>", *first],
        TEMPLATE,
        {"im_start_token": "<|im_start|>", **named},
        pad="<|endoftext|>",
        eos="<|im_end|>",
        last=last,
    )
    image = named.get("image_token", "")
    if "vision_bos_token" in named:
        image = named["vision_bos_token"] + image + named["vision_eos_token"]
    audio = "".join(named.get(f"audio_{part}token", "") for part in ("bos_", "", "eos_"))
    before = SYSTEM.replace("WORDS", system) if system else ""
    fast.chat_template = before + TEMPLATE.replace("IMAGE", image).replace("AUDIO", audio)
    return fast


def text_config(words: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": words.eos_token_id,
        **more,
    }


MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}


def ids(words: PreTrainedTokenizerFast, **names: str) -> dict[str, Any]:
    return {key: words.convert_tokens_to_ids(token) for key, token in names.items()}


def qwen_image() -> Qwen2VLImageProcessorPil:
    side = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    return Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2, size=side)


def qwen_vision(**more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": 0.1,
        **more,
    }


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: right padding, `mm_token_type_ids`, three-dimensional positions."""
    words = tokenizer(QWEN_VL, system=ASSISTANT)
    special = ids(
        words,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    vision = qwen_vision(
        hidden_size=16,
        intermediate_size=32,
        out_hidden_size=WIDTH,
        window_size=56,
        fullatt_block_indexes=[1],
    )
    config = Qwen2_5_VLConfig(
        text_config=text_config(words, **MROPE), vision_config=vision, **special
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    return save(folder, model, words, "Qwen2_5_VLProcessor", image=qwen_image())


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: the older vision tower."""
    words = tokenizer(QWEN_VL, system=ASSISTANT)
    special = ids(
        words,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    vision = qwen_vision(embed_dim=16, mlp_ratio=2, hidden_size=WIDTH)
    config = Qwen2VLConfig(text_config=text_config(words, **MROPE), vision_config=vision, **special)
    model = Qwen2VLForConditionalGeneration(config)
    return save(folder, model, words, "Qwen2VLProcessor", image=qwen_image())


def qwen2_5_omni(folder: Path) -> Path:
    """Qwen2.5-Omni's thinker: text, image and audio."""
    words = tokenizer(QWEN_OMNI)
    special = ids(
        words,
        image_token_id="<|IMAGE|>",
        audio_token_id="<|AUDIO|>",
        video_token_id="<|VIDEO|>",
        vision_start_token_id="<|vision_bos|>",
        vision_end_token_id="<|vision_eos|>",
        audio_start_token_id="<|audio_bos|>",
        audio_end_token_id="<|audio_eos|>",
    )
    vision = qwen_vision(
        hidden_size=16,
        intermediate_size=32,
        out_hidden_size=WIDTH,
        window_size=56,
        fullatt_block_indexes=[1],
    )
    audio = {
        "num_mel_bins": 32,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "n_window": 50,
        "output_dim": WIDTH,
        "max_source_positions": 256,
        "initializer_range": 0.1,
    }
    config = Qwen2_5OmniThinkerConfig(
        text_config=text_config(words, tie_word_embeddings=False, **MROPE),
        vision_config=vision,
        audio_config=audio,
        tie_word_embeddings=False,
        **special,
    )
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    sound = WhisperFeatureExtractor(
        feature_size=32, sampling_rate=RATE, chunk_length=2, return_attention_mask=True
    )
    return save(folder, model, words, "Qwen2_5OmniProcessor", image=qwen_image(), sound=sound)


def llava_next(folder: Path) -> Path:
    """LLaVA-NeXT: CLIP tower, any-resolution tiles, one-dimensional positions."""
    words = tokenizer(LLAVA)
    words.chat_template = words.chat_template.replace("<image>", "<image>\n")
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        text_config={"model_type": "qwen2", **text_config(words)},
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "projection_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
        image_seq_length=16,
    )
    model = LlavaNextForConditionalGeneration(config)
    image = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=pinpoints,
    )
    own = {
        "patch_size": 7,
        "vision_feature_select_strategy": "default",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
    }
    return save(folder, model, words, "LlavaNextProcessor", image=image, own=own)


def text_only(folder: Path) -> Path:
    """A plain text decoder."""
    words = tokenizer({})
    model = Qwen2ForCausalLM(Qwen2Config(**text_config(words)))
    return save(folder, model, words, "")


FAMILIES: Mapping[str, Callable[[Path], Path]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_omni": qwen2_5_omni,
    "llava_next": llava_next,
}


def save(
    folder: Path,
    model: Any,
    words: PreTrainedTokenizerFast,
    processor: str,
    *,
    image: Any = None,
    sound: Any = None,
    own: Mapping[str, Any] | None = None,
    fast: bool = False,
    reads: str = "Qwen2Tokenizer",
) -> Path:
    """Write the folder as the family's hub repositories have it.

    Those name the image processor that was current when they were made, `fast` or not, and the
    class that reads the tokenizer.
    """
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about["tokenizer_class"] = reads
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    parts: dict[str, Any] = {}
    for part in (sound, image):
        parts |= part.to_dict() if part is not None else {}
    parts.pop("mel_filters", None)
    if image is not None:
        parts["image_processor_type"] = type(image).__name__.removesuffix("Pil") + "Fast" * fast
    if parts:
        parts["processor_class"] = processor
        text = json.dumps(parts, default=str)
        (folder / "preprocessor_config.json").write_text(text)
    if own is not None:
        text = json.dumps({**own, "processor_class": processor})
        (folder / "processor_config.json").write_text(text)
    return folder


def adapter(folder: Path, model: Any, base: str, *, targets: str | list[str]) -> Path:
    """A LoRA adapter folder with random non-zero weights, as training leaves it.

    Keys are relative to the model without its head, the way an embedding trainer saves them.
    """
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=0.0)
    inner = inject_adapter_in_model(config, model.model)
    generator = torch.Generator().manual_seed(5)
    state = {
        key: torch.randn(value.shape, generator=generator) * 0.2
        for key, value in sorted(get_peft_model_state_dict(inner).items())
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{key}": value for key, value in state.items()},
        folder / "adapter_model.safetensors",
    )
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    return folder


@cache
def saved(family: str) -> Path:
    """A folder with the family's tiny checkpoint, written once for all tests of a session."""
    folder = Path(tempfile.mkdtemp(prefix=f"geomkit-{family}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    from tests.families import table  # its rows are built with what stands here

    build = table()[family].build
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return build(folder)


def hf_processor(folder: Path) -> Any:
    """The family's processor built by its own class, with a stand-in for the video processor.

    That class insists on a video processor, which insists on torchvision. No video is shown here,
    so nothing ever calls the stand-in: text, images and sounds take transformers' own path.
    """
    if not (folder / "preprocessor_config.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    written = json.loads((folder / "preprocessor_config.json").read_text())
    kind = getattr(transformers, written["processor_class"])
    own = folder / "processor_config.json"
    extra = json.loads(own.read_text()) if own.is_file() else {}
    extra.pop("processor_class", None)
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    parts = {"tokenizer": words, "video_processor": object()}
    if "image_processor_type" in written:
        pixels = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        parts["image_processor"] = pixels
    if "feature_extractor_type" in written:
        sound = transformers.AutoFeatureExtractor.from_pretrained(folder)
        parts["feature_extractor"] = sound
    wanted = {name: parts[name] for name in kind.get_attributes()}
    with mock.patch.object(kind, "check_argument_for_proper_class"):
        return kind(**wanted, **extra, chat_template=words.chat_template)


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise images of different sizes, so that rows differ in their number of tokens."""
    rng = np.random.default_rng(seed)
    sides = [(60 + 14 * (i % 4), 60 + 9 * (i % 3)) for i in range(count)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sides]


def sounds(count: int, seed: int = 0) -> list[Waveform]:
    """Noise of different lengths."""
    rng = np.random.default_rng(seed)
    lengths = [6_000 + 5_000 * (i % 4) for i in range(count)]
    return [Waveform(rng.uniform(-0.5, 0.5, n).astype(np.float32), RATE) for n in lengths]


def scenes(count: int, seed: int = 0) -> tuple[Sample, ...]:
    """Samples with a text, an image and a sound each."""
    both = zip(pictures(count, seed), sounds(count, seed), strict=True)
    return tuple(
        Sample(id=f"s{i}", text="a noisy thing " * (1 + i % 3) + str(i), image=image, audio=sound)
        for i, (image, sound) in enumerate(both)
    )
