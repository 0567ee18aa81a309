"""Rows to model inputs: what is shown is what the plan says, and fits into the model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from transformers import AutoConfig, OPTConfig, OPTForCausalLM

from geomkit.batches import Reader
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.data import sources
from geomkit.plans import build_plan, by_id
from geomkit.processing import Processor, Shown, _positions, load_processor
from geomkit.types import Sample, Stored
from tests import tiny_models as tiny
from tests.families import table
from tests.tiny_models import RATE, saved, scenes


def reader(folder: Path, samples: Sequence[Sample], **more: Any) -> Reader:
    asked = CaptureConfig(**{"device": "cpu", "batch_size": 8, **more})
    plan = build_plan("set", samples, asked)
    return Reader(plan, by_id(samples), load_processor(folder), asked.text_tokens)


def index(one: Reader, id: str, modality: str) -> int:  # noqa: A002 - the record's own word
    return next(r.index for r in one.plan.rows if (r.id, r.modality) == (id, modality))


# ------------------------------------------------------------------------- content that changed


def media(folder: Path, count: int) -> list[Sample]:
    """Scenes whose images and sounds are files."""
    kept = []
    for one in scenes(count):
        assert one.audio is not None
        one.image.save(folder / f"{one.id}.png")
        soundfile.write(folder / f"{one.id}.wav", one.audio.samples, RATE)  # type: ignore[union-attr]  # a waveform
        kept.append(replace(one, image=folder / f"{one.id}.png", audio=folder / f"{one.id}.wav"))
    return kept


@pytest.mark.parametrize("at_once", [sources.AT_ONCE, 10])
@pytest.mark.parametrize(("modality", "suffix"), [("image", "png"), ("audio", "wav")])
def test_a_file_that_changed_is_not_shown_under_the_old_hash(
    at_once: int, modality: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "AT_ONCE", at_once)
    samples = media(tmp_path, 4)
    one = reader(saved("qwen2_5_omni"), samples)
    rows = [index(one, s.id, modality) for s in samples]
    assert set(one.read(rows).shown) == set(rows)
    shutil.copy(tmp_path / f"s3.{suffix}", tmp_path / f"s2.{suffix}")
    batch = one.read(rows)
    assert set(batch.shown) == {rows[0], rows[1], rows[3]}
    assert batch.notes == {rows[2]: "changed since the plan was made"}
    (tmp_path / f"s1.{suffix}").unlink()
    told = one.read(rows).notes[rows[1]]
    assert told == f"{modality} cannot be decoded: no such file as s1.{suffix}"


def test_stored_bytes_that_changed_are_not_shown(tmp_path: Path) -> None:
    media(tmp_path, 2)
    held = [(tmp_path / "s0.png").read_bytes()]
    fetched: list[int] = []

    def fetch() -> bytes:
        fetched.append(1)
        return held[0]

    one = reader(saved("qwen2_5_vl"), [Sample(id="a", image=Stored("cell", fetch))])
    fetched.clear()
    assert set(one.read([0]).shown) == {0}
    assert len(fetched) == 1  # the bytes that were hashed are those that are decoded
    held[0] = (tmp_path / "s1.png").read_bytes()
    assert one.read([0]).notes == {0: "changed since the plan was made"}


def test_a_file_that_came_later_has_no_hash_to_stand_under(tmp_path: Path) -> None:
    late = Sample(id="late", image=tmp_path / "s0.png")
    one = reader(saved("qwen2_5_vl"), [late])
    media(tmp_path, 1)
    assert one.read([0]).notes == {0: "changed since the plan was made"}


def test_a_change_during_a_capture_is_recorded(tmp_path: Path) -> None:
    samples = media(tmp_path, 4)

    def swap(stage: str, *_: int) -> None:
        if stage == "check the capture":
            shutil.copy(tmp_path / "s0.png", tmp_path / "s2.png")

    run = capture_run(
        [CheckpointSpec("c", str(saved("qwen2_5_vl")))],
        samples,
        tmp_path / "run",
        CaptureConfig(device="cpu", modalities=("image",)),
        progress=swap,
    )
    assert [(r["id"], r["reason"]) for r in run.skipped()] == [
        ("s2", "changed since the plan was made")
    ]


# ------------------------------------------------------------------------------------ positions


def with_positions(folder: Path, family: str, **more: Any) -> Path:
    """A copy of the family's checkpoint with another text config."""
    shutil.copytree(saved(family), folder)
    config = json.loads((folder / "config.json").read_text())
    (config.get("text_config") or config).update(more)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """OPT: positions are rows of a table, which ends."""
    words = tiny.tokenizer({})
    config = OPTConfig(
        vocab_size=len(words), hidden_size=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=128, word_embed_proj_dim=32,
        pad_token_id=words.pad_token_id, bos_token_id=None, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    return tiny.save(tmp_path / "opt", model, words, "", reads="PreTrainedTokenizerFast")


def test_a_row_past_the_last_position_is_recorded(learned: Path, tmp_path: Path) -> None:
    samples = [Sample(id="long", text="x" * 200), Sample(id="short", text="hi")]
    one = [CheckpointSpec("c", str(learned))]
    asked = CaptureConfig(device="cpu", modalities=("text",))
    run = capture_run(one, samples, tmp_path / "run", asked)
    (skipped,) = run.skipped()
    assert skipped["id"] == "long"
    expected = r"2\d\d tokens, the model has 128 positions: use a smaller --text-tokens"
    assert re.fullmatch(expected, skipped["reason"])
    cut = capture_run(one, samples, tmp_path / "cut", replace(asked, text_tokens=20))
    assert not list(cut.skipped())


def test_the_last_position_itself_can_be_shown(learned: Path) -> None:
    samples = [Sample(id=str(n), text="x" * n) for n in range(1, 120)]
    batch = reader(learned, samples).read(range(119))
    assert max(batch.n_tokens.values()) == 128
    whole = reader(saved("text_only"), samples).read(range(119))
    assert set(batch.shown) == {i for i, n in whole.n_tokens.items() if n <= 128}
    assert set(batch.shown) | set(batch.notes) == set(range(119))
    assert batch.inputs["input_ids"].shape == (len(batch.shown), 128)


def test_rotations_past_their_positions_are_not_silent(tmp_path: Path) -> None:
    folder = with_positions(tmp_path / "c", "qwen3", max_position_embeddings=64)
    batch = reader(folder, [Sample(id="a", text="x" * 250)]).read([0])
    assert not batch.shown
    assert not batch.inputs
    assert "the model has 64 positions: use a smaller --text-tokens" in batch.notes[0]


def test_media_past_the_positions(tmp_path: Path) -> None:
    """Qwen2.5-VL's image tokens share positions, LLaVA's do not."""
    samples = scenes(1)
    shared = with_positions(tmp_path / "a", "qwen2_5_vl", max_position_embeddings=5)
    own = with_positions(tmp_path / "b", "llava_next", max_position_embeddings=5)
    one, other = reader(shared, samples), reader(own, samples)
    image = index(one, "s0", "image")
    assert one.read([image]).shown
    assert not one.read([index(one, "s0", "text")]).shown
    assert other.read([image]).notes[image].endswith("has 5 positions: use a smaller image")


@pytest.mark.parametrize(
    ("given", "positions"),
    [
        ({}, 2048),
        ({"max_position_embeddings": None}, 0),
        ({"max_position_embeddings": -1}, 0),
        ({"alibi": True}, 0),
        ({"rope_parameters": {"rope_type": "default"}}, 2048),
        ({"rope_parameters": None}, 2048),
        ({"rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 2048}}, 8192),
        ({"rope_parameters": {"factor": 8.0, "original_max_position_embeddings": 64}}, 2048),
        ({"rope_parameters": {"factor": 2.0}}, 4096),
    ],
)
def test_positions_of_a_config(given: dict[str, Any], positions: int) -> None:
    class Text:
        max_position_embeddings = 2048

    text = Text()
    for name, value in given.items():
        setattr(text, name, value)
    assert _positions(text) == positions


@pytest.mark.parametrize("family", sorted(table()))
def test_no_family_is_refused_for_its_positions(family: str) -> None:
    processor = load_processor(saved(family))
    text = AutoConfig.from_pretrained(saved(family)).get_text_config()
    assert processor.positions == text.max_position_embeddings
    assert processor.grids == (family.startswith(("qwen2_vl", "qwen2_5", "qwen3_vl", "qwen3_omni")))


# ------------------------------------------------------------------------------- batch and turn


def test_a_light_batch_has_no_tensors_and_no_media() -> None:
    one = reader(saved("qwen2_5_vl"), scenes(3), modalities=("image",))
    batch = one.read(range(3))
    assert all(shown.media is not None for shown in batch.shown.values())
    light = batch.light()
    assert light.inputs == {}
    assert [shown.media for shown in light.shown.values()] == [None] * 3
    assert (light.rows, light.n_tokens) == (batch.rows, batch.n_tokens)
    assert list(light.shown) == list(batch.shown)


def test_whoever_uses_the_tokenizer_has_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    one = reader(saved("qwen2_5_vl"), scenes(4), modalities=("text",))
    encode, held = Processor.encode, []

    def spy(self: Processor, rows: Sequence[Shown]) -> Any:
        held.append(one.turn.locked())
        return encode(self, rows)

    monkeypatch.setattr(Processor, "encode", spy)
    one.halves(one.read(range(4)))
    assert held == [True] * 3
    assert not one.turn.locked()
