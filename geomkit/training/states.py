"""Last-token states of a whole multimodal model: proofs of equality on a few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from geomkit.architectures import decoder
from geomkit.data.media import load_audio, load_image
from geomkit.data.video import load_video
from geomkit.errors import TrainingError
from geomkit.processing import Processor, Shown
from geomkit.prompts import PRESETS, render
from geomkit.training.scope import unwrap
from geomkit.types import MODALITIES, Modality, Sample, Waveform

RATE, SECONDS, SIDE = 16_000, 1.28, 84


def shown(processor: Processor, sample: Sample, modality: Modality, instruction: str) -> Shown:
    """A sample in one modality, rendered and decoded as it is at capture."""
    content = str(sample.text) if modality == "text" else ""
    media: Any = None
    if modality == "image":
        media = load_image(sample.image)
    elif modality == "audio" and sample.audio is not None:
        media = load_audio(sample.audio, processor.rate)
    elif modality == "video" and sample.video is not None:
        media = load_video(sample.video)
    return Shown(render(processor, modality, content, instruction), modality, media)


def probes(processor: Processor) -> tuple[Sample, ...]:
    """Three synthetic samples with a text and what else the processor takes: noise and tones."""
    rng = np.random.default_rng(0)
    sees, hears = "image" in processor.modalities, "audio" in processor.modalities
    seconds = np.arange(int(RATE * SECONDS)) / RATE
    found = []
    for k, text in enumerate(("a red circle", "what is the sound", "one small star on the left")):
        noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        tone = np.sin(2 * np.pi * 220 * 2**k * seconds).astype(np.float32)
        found.append(
            Sample(
                id=f"probe-{k}",
                text=text,
                image=Image.fromarray(noise) if sees else None,
                audio=Waveform(tone, RATE) if hears else None,
            )
        )
    return tuple(found)


def last_states(
    model: nn.Module, processor: Processor, samples: Sequence[Sample], *, prompt: str = "lco"
) -> Mapping[Modality, Tensor]:
    """Per modality, float32 `(samples, dim)`: the decoder's output at the last token."""
    model.eval()
    found: dict[Modality, list[Tensor]] = {}
    for modality in MODALITIES:
        for sample in samples:
            if modality in sample.modalities():
                state = _last_state(model, processor, sample, modality, PRESETS[prompt][modality])
                found.setdefault(modality, []).append(state)
    return {modality: torch.stack(states) for modality, states in found.items()}


def speak(
    model: nn.Module, processor: Processor, samples: Sequence[Sample], *, tokens: int = 4
) -> int:
    """How many tokens the model generates for the first sample's last modality, at least one.

    Raises:
        TrainingError: nothing was generated.
    """
    modality = samples[0].modalities()[-1]
    inputs = _inputs(model, processor, samples[0], modality, PRESETS["lco"][modality])
    with torch.inference_mode():
        said = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)  # type: ignore[operator]  # nn.Module attribute
    count = int(said.shape[1] - inputs["input_ids"].shape[1])
    if count < 1:
        raise TrainingError("Expected the merged model to generate, it said nothing.")
    return count


def say(
    model: nn.Module,
    processor: Processor,
    sample: Sample,
    modality: Modality,
    instruction: str,
    tokens: int = 16,
) -> str:
    """The first `tokens` tokens that the model generates for a sample, as text."""
    model.eval()
    inputs = _inputs(model, processor, sample, modality, instruction)
    with torch.inference_mode():
        said = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)  # type: ignore[operator]  # nn.Module attribute
    start = inputs["input_ids"].shape[1]
    return str(processor.tokenizer.decode(said[0, start:], skip_special_tokens=True))


def _last_state(
    model: nn.Module, processor: Processor, sample: Sample, modality: Modality, instruction: str
) -> Tensor:
    inputs = _inputs(model, processor, sample, modality, instruction)
    seen: list[Tensor] = []
    hook = decoder(unwrap(model))[1].register_forward_hook(
        lambda _module, _given, out: seen.append(out.last_hidden_state[0, -1].float().cpu().clone())
    )
    try:
        with torch.inference_mode():
            model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return seen[-1]


def _inputs(
    model: nn.Module, processor: Processor, sample: Sample, modality: Modality, instruction: str
) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    row = shown(processor, sample, modality, instruction)
    return {name: tensor.to(device) for name, tensor in processor.encode([row]).items()}
