"""Models of real architectures and sizes with random weights, and rows to show them.

Speed and memory do not depend on what the weights are. The vocabulary is bytes for the small
sizes: embeddings and head are no part of what is measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, PreTrainedModel

from geomkit import architectures, hooks
from geomkit.batches import Reader
from geomkit.checkpoints import DTYPES, Checkpoint
from geomkit.fingerprints import Fingerprint
from geomkit.places import Place
from geomkit.plans import CaptureConfig, build_plan, by_id
from geomkit.processing import Processor, load_processor
from geomkit.progress import silent
from geomkit.store import create_run
from geomkit.types import Sample, Waveform
from geomkit.worker import Session, Worker
from tests.tiny_models import saved

Fields = Mapping[str, Any]
QWEN_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
EARS = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "n_window": 100,
    "max_source_positions": 1500,
}


@dataclass(frozen=True, slots=True)
class Size:
    """A family of `tests.tiny_models` at other widths."""

    family: str
    text: Fields = field(default_factory=dict)
    vision: Fields = field(default_factory=dict)
    audio: Fields = field(default_factory=dict)


def _decoder(width: int, inner: int, layers: int, **more: Any) -> Fields:
    """A small decoder whose heads are 64 wide."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 512),
        **more,
    }


SIZES: Mapping[str, Size] = {
    "tiny": Size("text_only", _decoder(64, 128, 4)),
    "thin": Size("text_only", _decoder(64, 128, 24)),
    "90m": Size("text_only", _decoder(512, 2048, 24)),
    "360m": Size("text_only", _decoder(1024, 4096, 24)),
    "tiny-vl": Size("qwen2_5_vl"),
    # Tower to decoder as in Qwen2.5-VL-3B: about as much work a token of an image in either.
    "120m-vl": Size(
        "qwen2_5_vl",
        _decoder(768, 3072, 12),
        {**TOWER, "depth": 7, "hidden_size": 512, "intermediate_size": 1368, "num_heads": 8}
        | {"fullatt_block_indexes": [3, 6]},
    ),
    "3b": Size("qwen2_5_vl", QWEN_3B, TOWER),
    "7b": Size("qwen2_5_vl", QWEN_7B, TOWER),
    "tiny-omni": Size("qwen2_5_omni", audio={"num_mel_bins": 128, "max_source_positions": 1500}),
    "omni7b": Size("qwen2_5_omni", QWEN_7B, TOWER, EARS),
}


def config(size: Size) -> Any:
    """The family's configuration at that size."""
    found = AutoConfig.from_pretrained(saved(size.family))
    named = found.to_dict()
    text = named.get("text_config", named)
    text.pop("layer_types", None)  # made anew for the number of layers
    text |= size.text
    width = text["hidden_size"]
    if "rope_parameters" in text and "text_config" in named:
        eighth = width // text["num_attention_heads"] // 8
        sections = [eighth * 4 - 2 * (eighth * 3 // 2), eighth * 3 // 2, eighth * 3 // 2]
        text["rope_parameters"] |= {"mrope_section": sections}
    if "vision_config" in named:
        named["vision_config"] |= {**size.vision, "out_hidden_size": width}
    if "audio_config" in named:
        named["audio_config"] |= {**size.audio, "output_dim": width}
    return type(found).from_dict(named)


def build(size: Size, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """The model with random weights, made on the device."""
    asked = config(size)
    kind: Any = architectures.model_class(asked)
    make = getattr(kind, "from_config", None) or kind._from_config  # noqa: SLF001 - as above
    torch.manual_seed(0)
    with torch.device(device):
        model = make(asked, dtype=DTYPES[dtype], attn_implementation="sdpa")
    return model.eval()  # type: ignore[no-any-return]  # from_config is not annotated


def in_memory(model: Any, scratch: Path, name: str = "c0") -> Checkpoint:
    """The checkpoint that loading this model would give, without its hashes."""
    path, module = architectures.decoder(model)
    return Checkpoint(
        name=name,
        place=Place(str(scratch), "random weights"),
        model=model,
        body=architectures.body(model, path),
        decoder=module,
        decoder_path=path,
        sites=hooks.sites(module),
        dim=int(model.config.get_text_config().hidden_size),
        fingerprint=Fingerprint("0" * 64, "0" * 64, "0" * 64),
        adapter="",
        revision="",
    )


@cache
def processor_folder(family: str, scratch: Path) -> Path:
    """The family's processor; images keep their size, sounds are read as real models read them."""
    folder = scratch / f"processor-{family}"
    shutil.copytree(saved(family), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    about = folder / "preprocessor_config.json"
    if about.is_file():
        told = json.loads(about.read_text())
        told["size"] = {"shortest_edge": 56 * 56, "longest_edge": 1 << 20}
        if "feature_size" in told and family == "qwen2_5_omni":
            told |= {"feature_size": 128, "chunk_length": 30}
            told.pop("nb_max_frames", None)
            told.pop("n_samples", None)
        about.write_text(json.dumps(told))
    return folder


def texts(count: int, tokens: int, seed: int = 0) -> list[Sample]:
    """Texts of about `tokens` bytes each, a quarter more or less."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(round(0.75 * tokens), round(1.25 * tokens) + 1, count)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz     ", dtype=np.uint8)
    rows = (rng.choice(letters, n).tobytes().decode().strip() for n in sizes)
    return [Sample(id=f"t{i}", text=text) for i, text in enumerate(rows)]


def pictures(count: int, width: int, height: int, seed: int = 0) -> list[Sample]:
    """Noise images; 28 x 28 pixels are a token."""
    rng = np.random.default_rng(seed)
    arrays = (rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count))
    return [Sample(id=f"i{i}", image=Image.fromarray(one)) for i, one in enumerate(arrays)]


def sounds(count: int, seconds: float, seed: int = 0) -> list[Sample]:
    """Noise of one length; 25 tokens a second."""
    rng = np.random.default_rng(seed)
    waves = (rng.uniform(-0.5, 0.5, round(16_000 * seconds)) for _ in range(count))
    rows = (Waveform(one.astype(np.float32), 16_000) for one in waves)
    return [Sample(id=f"a{i}", audio=wave) for i, wave in enumerate(rows)]


def worker(
    held: Sequence[Checkpoint],
    processor: Processor,
    samples: Sequence[Sample],
    asked: CaptureConfig,
    out: Path,
) -> Worker:
    """Checkpoints in memory before a new run folder: what is left to do is to capture."""
    plan = build_plan("benchmark", samples, asked)
    run = create_run(out, plan)
    reader = Reader(plan, by_id(samples), processor, asked.text_tokens)
    sites = {one.name: hooks.resolve(one.decoder, asked.sites) for one in held}
    for one in held:
        run.write_checkpoint(one.record(processor.template_sha, {}, sites[one.name]))
    return Worker(Session(run, reader, asked, {}, silent), tuple(held), sites)


def anew(ready: Worker, out: Path, held: Sequence[Checkpoint] = ()) -> Worker:
    """The same work once more, into another folder, perhaps for some of the checkpoints only."""
    chosen = tuple(held) or ready.checkpoints
    session = ready.session
    run = create_run(out, session.run.plan)
    for one in chosen:
        run.write_checkpoint(session.run.checkpoint(one.name))
    return replace(ready, session=replace(session, run=run), checkpoints=chosen, events=[])


def processor(size: Size, scratch: Path) -> Processor:
    """The processor of a size's family."""
    return load_processor(processor_folder(size.family, scratch))
