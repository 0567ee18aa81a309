"""Our processors against transformers' own, and against counting by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from transformers.models.smolvlm import processing_smolvlm

from geomkit import processing
from geomkit.errors import CheckpointError, MissingExtra
from geomkit.processing import Shown, load_processor, repad, token_sha
from tests.tiny_models import FAMILIES, RATE, hf_processor, pictures, saved, sounds

ASKED = "\nSummarize the above {} in one word:"


def shown(theirs: Any, modality: str, media: list[Any]) -> tuple[list[str], list[Shown]]:
    content: list[dict[str, str]] = [{"type": modality}] if modality != "text" else []
    turn = [*content, {"type": "text", "text": ASKED.format(modality)}]
    text = theirs.tokenizer.apply_chat_template(  # no video processor is asked for
        [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
    )
    texts = [text if modality != "text" else f"{text}{m}" for m in media]
    return texts, [
        Shown(t, modality, None if modality == "text" else m)  # type: ignore[arg-type]  # a modality
        for t, m in zip(texts, media, strict=True)
    ]


def equal(ours: dict[str, torch.Tensor], theirs: Any) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("modality", ["text", "image"])
def test_inputs_equal_those_of_the_family_s_own_class(family: str, modality: str) -> None:
    ours, theirs = load_processor(saved(family)), hf_processor(saved(family))
    media = pictures(3) if modality == "image" else ["a", "bb", "a longer one"]
    texts, rows = shown(theirs, modality, media)
    given = {"images": media} if modality == "image" else {}
    expected = theirs(text=texts, **given, padding=True, padding_side="right", return_tensors="pt")
    found = ours.encode(rows)
    equal(found, expected)
    assert ("mm_token_type_ids" in found) == (family in {"qwen2_vl", "qwen2_5_vl"})


def test_omni_sounds_equal_those_of_its_own_class() -> None:
    ours, theirs = load_processor(saved("qwen2_5_omni")), hf_processor(saved("qwen2_5_omni"))
    media = [w.samples for w in sounds(3)]
    texts, rows = shown(theirs, "audio", media)
    expected = theirs(
        text=texts,
        audio=media,
        padding=True,
        return_tensors="pt",
        text_kwargs={"padding_side": "right"},
    )
    equal(ours.encode(rows), expected)


def test_placeholders_are_as_many_as_the_model_s_features_by_hand() -> None:
    ours, theirs = load_processor(saved("qwen2_5_omni")), hf_processor(saved("qwen2_5_omni"))
    _, rows = shown(theirs, "image", pictures(3))
    found = ours.encode(rows)
    image = ours.tokenizer.image_token_id
    grids = found["image_grid_thw"].prod(dim=1) // 4  # patches are merged two by two
    assert (found["input_ids"] == image).sum(dim=1).tolist() == grids.tolist()

    media = [w.samples for w in sounds(3)]
    _, rows = shown(theirs, "audio", media)
    found = ours.encode(rows)
    frames = [len(m) // 160 for m in media]  # one every ten milliseconds at 16 kHz
    after_two_strides = [((f - 1) // 2 + 1 - 2) // 2 + 1 for f in frames]
    audio = ours.tokenizer.audio_token_id
    assert (found["input_ids"] == audio).sum(dim=1).tolist() == after_two_strides


def test_llava_next_equals_auto_processor_which_needs_no_torchvision() -> None:
    folder = saved("llava_next")
    theirs = AutoProcessor.from_pretrained(folder)
    texts, rows = shown(theirs, "image", pictures(2))
    expected = theirs(
        text=texts, images=pictures(2), padding=True, padding_side="right", return_tensors="pt"
    )
    equal(load_processor(folder).encode(rows), expected)


def test_the_sandbox_has_a_processor_of_all_three_modalities() -> None:
    from geomkit import sandbox

    ours = load_processor(sandbox.checkpoint_path("base"))
    assert ours.modalities == ("text", "image", "audio")
    assert ours.rate == 16_000


def test_a_text_model_s_processor_is_its_tokenizer() -> None:
    ours = load_processor(saved("text_only"))
    assert ours.modalities == ("text",)
    found = ours.encode([Shown("abc", "text"), Shown("abcde", "text")])
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_media_tokens_are_those_that_only_rows_with_media_hold(family: str) -> None:
    ours, theirs = load_processor(saved(family)), hf_processor(saved(family))
    content = {"image": pictures(2), "audio": [w.samples for w in sounds(2)]}
    assert set(ours.media_tokens) == set(ours.modalities) - {"text"}
    for modality in content.keys() & ours.media_tokens.keys():
        ids = ours.media_tokens[modality]
        _, rows = shown(theirs, modality, content[modality])
        found = ours.encode(rows)["input_ids"]
        counts = sum(found == i for i in ids).sum(dim=1)  # type: ignore[union-attr]  # ids is not empty
        assert bool((counts > 2).all())  # a placeholder for every feature, not one an image
        words = ours.encode(shown(theirs, "text", ["a"])[1])["input_ids"]
        assert not any(bool((words == i).any()) for i in ids)


def test_a_text_model_has_no_media_tokens() -> None:
    assert load_processor(saved("text_only")).media_tokens == {}


def test_a_start_token_that_the_template_writes_is_not_written_again() -> None:
    ours = load_processor(saved("text_only"))
    ours.tokenizer.bos_token = "<|im_start|>"
    asked: dict[str, Any] = {}

    def tokenizer(texts: list[str], **kwargs: Any) -> dict[str, Any]:
        asked.update(kwargs)
        return {}

    spy = processing.Processor(tokenizer, ours.tokenizer, ("text",), 0, 0.0, "")
    spy.encode([Shown("<|im_start|>user", "text")])
    assert asked["add_special_tokens"] is False
    spy.encode([Shown("user", "text")])
    assert asked["add_special_tokens"] is True


@pytest.mark.parametrize("side", ["left", "right"])
def test_repad_moves_padding_and_nothing_else(side: str) -> None:
    theirs = hf_processor(saved("qwen2_5_vl"))
    inputs = load_processor(saved("qwen2_5_vl")).encode(shown(theirs, "image", pictures(3))[1])
    moved = repad(inputs, side, 2, pad=0)
    mask = moved["attention_mask"].bool()
    assert mask.shape[1] == inputs["attention_mask"].shape[1] + 2
    assert bool((mask[:, 0] if side == "right" else mask[:, -1]).all())
    before = inputs["attention_mask"].bool()
    for name in ("input_ids", "mm_token_type_ids"):
        for i in range(3):
            assert torch.equal(moved[name][i, mask[i]], inputs[name][i, before[i]])
    assert token_sha(moved) == token_sha(inputs)
    assert torch.equal(moved["pixel_values"], inputs["pixel_values"])


def test_token_sha_sees_every_real_token() -> None:
    ours = load_processor(saved("text_only"))
    a, b, c = token_sha(ours.encode([Shown(t, "text") for t in ("abc", "abd", "abc!")]))
    assert len({a, b, c}) == 3
    assert token_sha(ours.encode([Shown("abc", "text")])) == (a,)


@pytest.mark.parametrize("family", ["gemma3", "llava_next", "qwen3_vl", "smolvlm", "internvl"])
@pytest.mark.parametrize("form", ["one file", "old"])
def test_every_form_of_a_hub_folder_gives_the_same_inputs(
    family: str, form: str, tmp_path: Path
) -> None:
    """Processors were a file a part once, with the template as JSON; now they are one file."""
    folder = shutil.copytree(saved(family), tmp_path / family)
    if form == "one file":
        theirs = hf_processor(folder)
        whole = theirs.to_dict() | {"image_processor": theirs.image_processor.to_dict()}
        whole.pop("video_processor", None)
        (folder / "preprocessor_config.json").unlink()
        (folder / "processor_config.json").write_text(json.dumps(whole, default=str))
    else:
        template = folder / "chat_template.jinja"
        text = json.dumps({"chat_template": template.read_text()})
        (folder / "chat_template.json").write_text(text)
        template.unlink()
    ours, usual = load_processor(folder), load_processor(saved(family))
    assert (ours.chat_template, ours.modalities) == (usual.chat_template, usual.modalities)
    assert (ours.media_tokens, ours.vocabulary_sha) == (usual.media_tokens, usual.vocabulary_sha)
    _, rows = shown(hf_processor(saved(family)), "image", pictures(2))
    equal(ours.encode(rows), usual.encode(rows))


def test_a_package_that_a_family_s_processor_needs_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(MissingExtra, match="pip install num2words"):
        load_processor(saved("smolvlm"))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved("qwen2_5_vl") / "config.json").read_text())
    with pytest.raises(CheckpointError, match="Save the processor beside the weights"):
        load_processor(tmp_path)


def test_a_torchvision_that_does_not_import_is_named(tmp_path: Path) -> None:
    """Transformers only looks whether there is one, and then cannot even read an image."""
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from geomkit.errors import MissingExtra\n"
        "try: import geomkit.processing\n"
        "except MissingExtra as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "torchvision built for another torch" in done.stdout, done.stderr
    assert "operator torchvision::nms" in done.stdout


def test_rate_and_length_come_from_the_feature_extractor() -> None:
    ours = load_processor(saved("qwen2_5_omni"))
    assert (ours.rate, ours.seconds) == (RATE, 2.0)
    assert np.isclose(load_processor(saved("qwen2_vl")).seconds, 0.0)


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(saved("text_only") / name, tmp_path)
    with pytest.raises(CheckpointError, match="no tokenizer files"):
        load_processor(tmp_path)
