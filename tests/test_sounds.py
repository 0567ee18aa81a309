"""Sounds beside others: batches, windows, rates, and sounds that are too long or too short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomkit import sounds
from geomkit.batches import Reader
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.plans import build_plan, by_id
from geomkit.processing import Shown, load_processor
from geomkit.prompts import PRESETS, render
from geomkit.store import Run
from geomkit.types import Sample, Waveform
from tests.families import SITES, plain, table
from tests.tiny_models import RATE, saved

FAMILIES = ("qwen2_5_omni", "qwen3_omni", "qwen2_audio", "gemma3n", "voxtral")
SHORT, LONG = 11_000, 40_000  # samples; a chunk of Qwen3-Omni is 16 000


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def shown(processor: Any, waveform: NDArray[np.float32]) -> Shown:
    return Shown(render(processor, "audio", "", PRESETS["lco"]["audio"]), "audio", waveform)


def captured(family: str, samples: tuple[Sample, ...], out: Path, **more: Any) -> Run:
    config = CaptureConfig(device="cpu", modalities=("audio",), batch_size=8, **more)
    return capture_run([CheckpointSpec("c0", str(saved(family)))], samples, out, config)


def heard(*waveforms: NDArray[np.float32], rate: int = RATE) -> tuple[Sample, ...]:
    return tuple(Sample(id=f"s{i}", audio=Waveform(w, rate)) for i, w in enumerate(waveforms))


@torch.inference_mode()
def final(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """States of the first row's real tokens."""
    states: Tensor = model.model(**inputs, use_cache=False).last_hidden_state
    return states[0, : int(inputs["attention_mask"][0].sum())]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_s_features_do_not_depend_on_the_sounds_beside_it(family: str) -> None:
    processor = load_processor(saved(family))
    rows = [shown(processor, noise(n)) for n in (SHORT, LONG)]
    alone, both = processor.encode(rows[:1]), processor.encode(rows)
    assert set(alone) == set(both)
    for name, tensor in alone.items():
        inside = both[name][tuple(slice(n) for n in tensor.shape)]
        assert torch.equal(inside, tensor), name
        assert not both[name][0][..., tensor.shape[-1] :].any() or name == "input_ids"


@pytest.mark.parametrize("family", ["qwen3_omni", "gemma3n"])
def test_towers_that_see_the_padding_are_run_apart(family: str) -> None:
    """Without that, the family's own model gives a short sound other states in a batch."""
    processor, model = load_processor(saved(family)), table()[family].load(saved(family)).eval()
    rows = [shown(processor, noise(n)) for n in (SHORT, LONG, SHORT)]
    alone, both = processor.encode(rows[:1]), processor.encode(rows)
    expected = final(model, alone)
    assert (final(model, both) - expected).abs().max() > 1e-3
    sounds.keep_apart(model)
    torch.testing.assert_close(final(model, both), expected, atol=1e-5, rtol=0.0)
    assert torch.equal(final(model, alone), expected)


@pytest.mark.parametrize(
    ("family", "seconds"),
    [
        ("qwen2_audio", 2.0),
        ("qwen2_5_omni", 2.0),
        ("gemma3n", 30.0),
        ("qwen3_omni", 0.0),
        ("voxtral", 0.0),
    ],
)
def test_what_is_said_to_be_cut_is_cut(family: str, seconds: float, tmp_path: Path) -> None:
    """A sound changed after the cut has the same states; where none is made, it has others."""
    assert load_processor(saved(family)).seconds == seconds
    end = int((seconds or 31.0) * RATE)
    same, other = noise(end + RATE), noise(end + RATE)
    other[end:] *= 0.5
    run = captured(family, heard(same, other), tmp_path / "run")
    (first, second), ok = run.states("c0", "final_norm", "mean")
    assert ok.all()
    assert np.array_equal(first, second) == bool(seconds)
    truth = plain_mean(family, other)
    assert np.abs(second - truth).max() < 1e-5
    note = dict.fromkeys(range(2), f"audio cut to {seconds:g} seconds") if seconds else {}
    samples = heard(same, other)
    plan = build_plan("d", samples, CaptureConfig(modalities=("audio",)))
    batch = Reader(plan, by_id(samples), load_processor(saved(family)), 300).read([0, 1])
    assert batch.notes == note


def plain_mean(family: str, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    row = table()[family]
    model, processor = row.load(saved(family)).eval(), row.processor(saved(family))
    (sample,) = heard(waveform)
    states = plain(row, model, processor, sample, "audio")
    assert set(states) == set(SITES)
    return np.asarray(states["final_norm"].mean(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_too_short_for_a_token_is_a_row_that_is_not_ok(family: str, tmp_path: Path) -> None:
    lengths = (SHORT, 1, 100, 500, LONG)
    run = captured(family, heard(*map(noise, lengths)), tmp_path / "run")
    states, ok = run.states("c0", "final_norm")
    whole = family == "voxtral"  # its window is padded, and all of it is tokens
    assert ok.tolist() == [True, whole, whole, whole, True]
    assert np.isfinite(states[ok]).all()


def test_a_file_of_another_rate_and_two_channels_is_brought_to_the_processor_s(
    tmp_path: Path,
) -> None:
    rate = 44_100
    stereo = np.stack([noise(rate, 1), noise(rate, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    sample = Sample(id="s0", audio=tmp_path / "a.wav")
    run = captured("qwen2_audio", (sample,), tmp_path / "run")
    (found,), _ = run.states("c0", "final_norm", "mean")
    mono = soxr.resample(stereo.mean(axis=1), rate, RATE).astype(np.float32)
    assert np.abs(found - plain_mean("qwen2_audio", mono)).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_of_media_is_over_the_sound_s_own_tokens(family: str, tmp_path: Path) -> None:
    (sample,) = heard(noise(SHORT))
    run = captured(family, (sample,), tmp_path / "run", poolings=("mean-of-media",))
    (found,), _ = run.states("c0", "block_01", "mean-of-media")
    row = table()[family]
    model, processor = row.load(saved(family)).eval(), row.processor(saved(family))
    states = plain(row, model, processor, sample, "audio")["block_01"]
    inputs = processor(text=[row.written["audio"]], audio=[noise(SHORT)], return_tensors="pt")
    stand = inputs["input_ids"][0] == model.config.audio_token_id
    assert 1 < int(stand.sum()) < len(stand)
    assert np.abs(found - np.asarray(states[stand].mean(0))).max() < 1e-5
