"""Voxtral's inputs against its makers' own tokenizer, where that is installed, and by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from geomkit.errors import SampleError
from geomkit.processing import Processor, Shown, load_processor
from geomkit.prompts import PRESETS, render
from tests.tiny_models import RATE, saved

ASKED = PRESETS["lco"]


@pytest.fixture(scope="module")
def ours() -> Processor:
    return load_processor(saved("voxtral"))


def noise(samples: int) -> Any:
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)


def sound(ours: Processor, samples: int) -> Shown:
    return Shown(render(ours, "audio", "", ASKED["audio"]), "audio", noise(samples))


def test_the_prompt_is_mistral_s_instruction_format(ours: Processor) -> None:
    text = render(ours, "text", "a bell", ASKED["text"])
    assert text == f"<s>[INST]a bell{ASKED['text']}[/INST]"
    (ids,) = ours.encode([Shown(text, "text")])["input_ids"].tolist()
    assert ids[:2] == [1, 3]  # <s>, once, and [INST]
    assert ids[-1] == 4
    assert len(ids) == 3 + len(f"a bell{ASKED['text']}")
    assert ours.media_tokens == {"audio": (24,)}
    assert ours.chat_template


@pytest.mark.parametrize(
    ("seconds", "windows"), [(1.0, 1), (30.0, 1), (30.0 + 1 / RATE, 2), (61.0, 3)]
)
def test_every_thirty_seconds_begun_are_one_window(
    ours: Processor, seconds: float, windows: int
) -> None:
    found = ours.encode([sound(ours, round(seconds * RATE))])
    assert found["input_features"].shape == (windows, 32, 3000)
    (ids,) = found["input_ids"].tolist()
    first = ids.index(24)
    assert ids[:first] == [1, 3, 25]  # <s>, [INST], [BEGIN_AUDIO]
    assert ids.count(24) == 375 * windows
    assert set(ids[first : first + 375 * windows]) == {24}


def test_windows_of_a_batch_are_in_the_order_of_its_rows(ours: Processor) -> None:
    rows = [sound(ours, n) for n in (RATE, 31 * RATE, 2 * RATE)]
    found = ours.encode(rows)
    alone = torch.cat([ours.encode([row])["input_features"] for row in rows])
    assert torch.equal(found["input_features"], alone)
    assert (found["input_ids"] == 24).sum(dim=1).tolist() == [375, 750, 375]


def test_a_placeholder_in_a_text_is_refused(ours: Processor) -> None:
    with pytest.raises(SampleError, match=r"control token \[AUDIO\]"):
        render(ours, "text", "say [AUDIO]", "")


def test_a_folder_s_own_template_comes_first(tmp_path: Path) -> None:
    for file in saved("voxtral").iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'][0]['text'] }}!")
    assert render(load_processor(tmp_path), "text", "a", "b") == "ab!"


@pytest.mark.parametrize("samples", [RATE, 30 * RATE, 30 * RATE + 1, 900_000])
def test_inputs_equal_those_of_mistral_common(ours: Processor, samples: int) -> None:
    pytest.importorskip("mistral_common", reason="cannot be installed beside NumPy 2.4")
    from transformers import AutoTokenizer, VoxtralProcessor, WhisperFeatureExtractor

    folder = saved("voxtral")
    words, extractor = AutoTokenizer.from_pretrained(folder), WhisperFeatureExtractor
    theirs = VoxtralProcessor(extractor.from_pretrained(folder), words)
    file = io.BytesIO()
    soundfile.write(file, noise(samples), RATE, format="WAV", subtype="FLOAT")
    parts = [
        {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()},
        {"type": "text", "text": ASKED["audio"]},
    ]
    expected = theirs.apply_chat_template([{"role": "user", "content": parts}])
    found = ours.encode([sound(ours, samples)])
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
