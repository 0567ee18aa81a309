"""A merged folder as a sentence-transformers model gives the states that capture reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from geomkit.places import locate
from geomkit.processing import load_processor
from geomkit.prompts import PRESETS, render
from geomkit.training import merging, writing
from geomkit.training import soup as soups
from geomkit.training.assembly import ASSEMBLED, asking_template, assemble
from geomkit.training.config import TrainConfig
from geomkit.training.merging import merge
from geomkit.training.pairs import TextPair
from geomkit.training.soup import soup
from geomkit.training.states import last_states, probes
from geomkit.training.trainer import train
from tests.families import table
from tests.tiny_models import saved
from tests.training.loaded import load

# Those whose processors transformers can build without torchvision.
LOADS = ("text_only", "llava_next", "qwen2_audio", "gemma3n")

pytestmark = pytest.mark.filterwarnings("ignore:.*timm.*:UserWarning")


def assembled(family: str, folder: Path) -> Path:
    shutil.copytree(saved(family), folder)
    loaded = load(folder)
    dim = int(loaded.decoder.config.hidden_size)  # type: ignore[union-attr, arg-type]  # a config
    kept = assemble(folder, loaded.processor, dim, PRESETS["lco"])
    assert kept == loaded.processor.modalities
    return folder


@pytest.mark.parametrize("family", LOADS)
def test_it_embeds_what_capture_reads(family: str, tmp_path: Path) -> None:
    embeds_what_capture_reads(assembled(family, tmp_path / "merged"))


def embeds_what_capture_reads(folder: Path, prompt: str = "lco") -> None:
    """Every modality of a folder, loaded by sentence-transformers and by geomkit."""
    loaded = load(folder)
    samples = probes(loaded.processor)
    states = last_states(loaded.model, loaded.processor, samples, prompt=prompt)
    assert tuple(states) == loaded.processor.modalities
    model = SentenceTransformer(str(folder), device="cpu")
    for modality, expected in states.items():
        given = [
            {"array": s.audio.samples, "sampling_rate": s.audio.rate}  # type: ignore[union-attr]  # a waveform
            if modality == "audio"
            else getattr(s, modality)
            for s in samples
        ]
        found = torch.cat([model.encode([one], convert_to_tensor=True) for one in given])
        unit = torch.nn.functional.normalize(expected, dim=1)
        assert torch.allclose(found, unit, atol=2e-3 if modality == "image" else 1e-5), modality


@pytest.mark.parametrize("family", ["text_only", "llava_next", "qwen2_audio"])
def test_every_checkpoint_that_is_written_is_one(
    family: str, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """Merged, trained in full on a base or on what was merged, and soups of both; in two prompts.

    The base is one too, with another instruction and a folder of its own: neither is copied.
    """
    base = assembled(family, tmp_path / "base")
    config = replace(quick, prompt="e5v", steps=1)
    train(config, base, pairs, tmp_path / "a", source=str(base))
    merge(tmp_path / "a", base, tmp_path / "merged")
    full = replace(config, method="full")
    for seed in (0, 1):
        train(replace(full, seed=seed), base, pairs, tmp_path / f"full-{seed}", source=str(base))
    train(full, tmp_path / "merged", pairs, tmp_path / "further", source="merged")
    soup([tmp_path / "full-0", tmp_path / "full-1"], tmp_path / "soup")
    soup([tmp_path / "merged", tmp_path / "full-0"], tmp_path / "mixed-soup")
    for made in ("merged", "full-0", "further", "soup", "mixed-soup"):
        embeds_what_capture_reads(tmp_path / made, "e5v")


def test_an_assembly_is_not_half_copied(
    pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """Of a base that is one, whose template cannot be used: nothing of it, instead of a part."""
    base = assembled("text_only", tmp_path / "base")
    with pytest.MonkeyPatch.context() as patch:
        for module in (merging, writing, soups):
            patch.setattr(module, "assemble", lambda *_: ())
        train(quick, base, pairs, tmp_path / "a", source=str(base))
        merge(tmp_path / "a", base, tmp_path / "merged")
        train(replace(quick, method="full"), base, pairs, tmp_path / "full", source=str(base))
        soup([tmp_path / "full", tmp_path / "full"], tmp_path / "soup")
    for made in ("merged", "full", "soup"):
        assert not {p.name for p in (tmp_path / made).iterdir()} & {*ASSEMBLED, "1_Pooling"}


@pytest.mark.parametrize("family", table())
def test_its_template_says_what_capture_says(family: str) -> None:
    processor = load_processor(saved(family))
    template = asking_template(processor, PRESETS["lco"])
    for modality in processor.modalities:
        word = "a red circle" if modality == "text" else ""
        parts = [{"type": "text", "text": word}] if word else [{"type": modality}]
        found = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": parts if processor.takes_parts else word}],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
        )
        assert found == render(processor, modality, word, PRESETS["lco"][modality])


def test_the_checkpoint_is_still_one(tmp_path: Path) -> None:
    folder = assembled("llava_next", tmp_path / "merged")
    own, before = load_processor(folder), load_processor(saved("llava_next"))
    assert own.chat_template == before.chat_template
    assert (
        locate(str(folder)).where == str(folder) + "/" or Path(locate(str(folder)).where) == folder
    )
    kinds = [
        m["type"].rpartition(".")[2] for m in json.loads((folder / "modules.json").read_text())
    ]
    assert kinds == ["Transformer", "Pooling", "Normalize"]


def test_nothing_is_written_where_the_template_is_deaf(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("text_only"), tmp_path / "deaf"))
    processor = load_processor(folder)
    mute = replace(processor, chat_template="{{ messages[0]['role'] }}" + "{{ 1 / 0 }}")
    assert assemble(folder, mute, 32, PRESETS["lco"]) == ()
    assert assemble(folder, replace(processor, chat_template=""), 32, PRESETS["lco"]) == ()
    assert not (folder / "modules.json").exists()
