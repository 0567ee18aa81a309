"""What makes two states comparable: the same rows, through one processor, by one checkpoint.

Each test is a way to mix states that differ in more than their weights; all are refused or made
impossible.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geomkit.capture import CaptureConfig, Job, capture_run, preflight
from geomkit.checkpoints import CheckpointSpec
from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.fingerprints import config_sha
from geomkit.processing import DAY, load_processor
from geomkit.prompts import render
from geomkit.store import create_run
from tests.tiny_models import saved, scenes


def config(**more: Any) -> CaptureConfig:
    return CaptureConfig(**{"device": "cpu", "batch_size": 2, "shard_batches": 1, **more})


def spec(name: str, source: Path | str) -> CheckpointSpec:
    return CheckpointSpec(name, str(source))


def copy(family: str, folder: Path) -> Path:
    return Path(shutil.copytree(saved(family), folder))


def edited(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def brighter(folder: Path) -> Path:
    edited(folder / "preprocessor_config.json", image_mean=[0.9, 0.1, 0.4])
    return folder


# ------------------------------------------------------------------------------- the processor


def test_a_checkpoint_that_joins_brings_the_same_processor_or_is_refused(tmp_path: Path) -> None:
    out, samples = tmp_path / "run", scenes(2)
    capture_run([spec("a", saved("qwen2_5_vl"))], samples, out, config())
    other = brighter(copy("qwen2_5_vl", tmp_path / "other"))
    with pytest.raises(ProvenanceMismatch, match=r"'b'.*'a' was, but processor_sha differ"):
        capture_run([spec("b", other)], samples, out, config())
    same = copy("qwen2_5_vl", tmp_path / "same")
    run = capture_run([spec("b", same)], samples, out, config())
    assert run.complete("b")
    run.check_pairing()


def test_a_resume_through_another_processor_is_refused(tmp_path: Path) -> None:
    out, samples = tmp_path / "run", scenes(2)
    other = brighter(copy("qwen2_5_vl", tmp_path / "other"))
    both = [spec("b", other), spec("a", saved("qwen2_5_vl"))]
    run = capture_run(both, samples, out, config())  # a is shown b's pixels
    (out / "a" / "shard-00000.json").unlink()
    with pytest.raises(ProvenanceMismatch, match="processor_sha"):
        capture_run([both[1]], samples, out, config())
    assert capture_run(both, samples, out, config()).complete("a")
    np.testing.assert_array_equal(
        run.states("a", "final_norm")[0], run.states("b", "final_norm")[0]
    )


def test_one_processor_has_one_sha_wherever_it_lies(tmp_path: Path) -> None:
    here = load_processor(saved("qwen2_5_omni"))
    there = load_processor(copy("qwen2_5_omni", tmp_path / "there"))
    assert here.sha == there.sha
    moved = load_processor(brighter(copy("qwen2_5_omni", tmp_path / "moved")))
    assert (moved.sha != here.sha, moved.template_sha == here.template_sha) == (True, True)


# --------------------------------------------------------------------------- the configuration


def test_another_configuration_of_the_same_weights_is_another_checkpoint(tmp_path: Path) -> None:
    folder, samples = copy("qwen2_5_vl", tmp_path / "m"), scenes(2)
    run = capture_run([spec("a", folder)], samples, tmp_path / "run", config())
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edited(folder / "config.json", text_config={**text, "rms_norm_eps": 0.5})
    (run.path / "a" / "shard-00000.json").unlink()
    with pytest.raises(StoreError, match="config_sha differ"):
        capture_run([spec("a", folder)], samples, run.path, config())


def test_names_and_versions_in_a_configuration_do_not_count() -> None:
    from transformers import Qwen2Config

    one = Qwen2Config(hidden_size=32)
    other = Qwen2Config(hidden_size=32, name_or_path="elsewhere", architectures=["X"])
    assert config_sha(one) == config_sha(other)
    assert config_sha(one) != config_sha(Qwen2Config(hidden_size=32, rms_norm_eps=0.5))


# -------------------------------------------------------------------------------- the template


def test_a_template_that_writes_the_date_writes_one_date(tmp_path: Path) -> None:
    folder = copy("qwen2_5_vl", tmp_path / "dated")
    template = folder / "chat_template.jinja"
    template.write_text(
        "Today is {{ strftime_now('%d %b %Y %H:%M:%S') }}.\n" + template.read_text()
    )
    processor = load_processor(folder)
    rendered = render(processor, "text", "hello", "\nIn one word:")
    assert rendered.startswith(f"Today is {DAY}.\n<|im_start|>")


def test_the_prompt_is_kept_as_it_was_shown(tmp_path: Path) -> None:
    run = capture_run([spec("a", saved("qwen2_5_vl"))], scenes(2), tmp_path / "run", config())
    rendered = run.checkpoint("a").rendered
    asked = "\nSummarize the above {} in one word:<|im_end|>\n<|im_start|>assistant\n"
    assert rendered["text"].endswith("user\n{text}" + asked.format("text"))
    assert rendered["image"].endswith(
        "<|vision_start|><|image_pad|><|vision_end|>" + asked.format("image")
    )


def test_an_end_token_that_a_tokenizer_appends_is_not_pooled(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = copy("text_only", tmp_path / "ending")
    words = load_processor(folder).tokenizer
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", words.eos_token_id)]
    )
    words.save_pretrained(folder)
    assert load_processor(folder).tokenizer("a")["input_ids"][-1] == words.eos_token_id
    runs = [
        capture_run([spec("a", source)], scenes(2), tmp_path / f"run-{name}", config())
        for name, source in (("plain", saved("text_only")), ("ending", folder))
    ]
    states = [run.states("a", "final_norm")[0] for run in runs]
    np.testing.assert_array_equal(states[0], states[1])


# --------------------------------------------------------------------------------- the processes


def test_two_processes_with_other_weights_under_one_name_never_mix(tmp_path: Path) -> None:
    """Both start before either has a shard: the record of the later one stands in the folder."""
    other = copy("qwen2_5_vl", tmp_path / "other")
    state = load_file(other / "model.safetensors")
    key = next(k for k in state if "layers.1.mlp.down_proj" in k)
    save_file({**state, key: state[key] * 2}, other / "model.safetensors", {"format": "pt"})
    samples, asked = scenes(4), config(modalities=("text",))
    jobs = [
        Job((spec("c", source),), samples, tmp_path / "run", asked)
        for source in (saved("qwen2_5_vl"), other)
    ]
    run = create_run(tmp_path / "run", preflight(jobs[0].checkpoints, samples, asked).plan)
    assert run.shard_count() == 2
    first, second = (job.worker(job.session(run), 0) for job in jobs)
    with pytest.raises(StoreError, match=r"another process captures 'c'.*weights_sha, decoder_sha"):
        first.capture([0])
    second.capture([0, 1])
    assert run.complete("c")
    alone = capture_run([spec("c", other)], samples, tmp_path / "alone", asked)
    np.testing.assert_array_equal(
        run.states("c", "final_norm")[0], alone.states("c", "final_norm")[0]
    )


def test_other_versions_are_named(tmp_path: Path) -> None:
    run = capture_run([spec("a", saved("qwen2_5_vl"))], scenes(2), tmp_path / "run", config())
    record = run.checkpoint("a")
    older = replace(record, versions={**record.versions, "torch": "1.0"})
    with pytest.raises(
        StoreError, match=rf"versions \(torch {torch.__version__.split('+')[0]}.* and 1\.0\)"
    ):
        run.write_checkpoint(older)
