"""The whole thread on tiny models of the real architectures; `test_architectures` has them all.

The truth is a plain transformers loop (`tests.families`): one row at a time, no hooks, no padding,
the family's own processor class, the prompt spelled out.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForMultimodalLM

from geomkit import forward, gate, plans, pooling
from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec, load_checkpoint
from geomkit.errors import (
    CaptureError,
    ProvenanceMismatch,
    SampleError,
    StoreError,
    UsageError,
)
from geomkit.glance import run_lines
from geomkit.plans import build_plan, content_sha
from geomkit.store import Run, overview
from geomkit.types import Sample, Waveform
from tests.families import SITES, plain, table
from tests.tiny_models import RATE, adapter, saved, scenes

INSIDE = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|v_proj|up_proj)"


def config(**more: Any) -> CaptureConfig:
    return CaptureConfig(**{"device": "cpu", "batch_size": 3, "shard_batches": 2, **more})


def specs(*sources: Path | str) -> list[CheckpointSpec]:
    return [CheckpointSpec(f"c{i}", str(source)) for i, source in enumerate(sources)]


def independent(family: str, sample: Sample, modality: str) -> dict[str, NDArray[np.float32]]:
    """site -> (last token, mean of tokens), by transformers alone."""
    row, folder = table()[family], saved(family)
    states = plain(row, row.load(folder).eval(), row.processor(folder), sample, modality)
    return {site: np.stack([s[-1], s.mean(0)]) for site, s in states.items()}


def deviation_from_truth(run: Run, family: str, samples: Sequence[Sample], modality: str) -> float:
    worst = 0.0
    truth = {s.id: independent(family, s, modality) for s in samples}
    for site in SITES:
        for number, pool in enumerate(("last", "mean")):
            found = run.activations("c0", site, modality, pool)  # type: ignore[arg-type]  # modality
            assert [row.id for row in found.rows] == [s.id for s in samples]
            expected = np.stack([truth[s.id][site][number] for s in samples])
            worst = max(worst, float(np.abs(found.states - expected).max()))
    return worst


@pytest.mark.parametrize("wrong", ["slot", "first", "unmasked"])
def test_a_wrong_pooling_would_be_seen(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "slot": lambda states, _: states[:, -1].float(),
        "first": lambda states, _: states[:, 0].float(),
        "unmasked": lambda states, _: states.float().mean(dim=1),
    }
    name = "mean" if wrong == "unmasked" else "last"
    monkeypatch.setattr(pooling, "POOLINGS", {**pooling.POOLINGS, name: planted[wrong]})
    samples = scenes(4)
    run = capture_run(specs(saved("qwen2_5_vl")), samples, tmp_path / "run", config(gate=False))
    assert deviation_from_truth(run, "qwen2_5_vl", samples, "text") > 1e-2


def test_the_gate_stops_a_pooling_that_reads_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = {**pooling.POOLINGS, "last": lambda states, _: states[:, -1].float()}
    monkeypatch.setattr(pooling, "POOLINGS", slot)
    with pytest.raises(CaptureError, match=r"text\.alone_equals_batched = \d.*allowed 0\.0001"):
        capture_run(specs(saved("qwen2_5_vl")), scenes(4), tmp_path / "run", config())
    assert not list((tmp_path / "run").glob("*/shard-*.h5"))
    run = capture_run(specs(saved("qwen2_5_vl")), scenes(4), tmp_path / "run", config(gate=False))
    record = run.checkpoint("c0").gate
    assert record["text.alone_equals_batched"]["passed"] is False
    assert record["text.left_equals_right"]["passed"] is False
    assert record["text.finite"]["passed"] is True


@pytest.mark.parametrize("family", ["qwen2_5_omni", "llava_next"])
def test_the_batch_size_does_not_move_a_state(family: str, tmp_path: Path) -> None:
    samples = scenes(5)
    runs = [
        capture_run(specs(saved(family)), samples, tmp_path / str(size), config(batch_size=size))
        for size in (1, 3, 8)
    ]
    for site in SITES:
        for pool in ("last", "mean"):
            tables = [run.states("c0", site, pool) for run in runs]
            for states, ok in tables[1:]:
                np.testing.assert_array_equal(ok, tables[0][1])
                np.testing.assert_allclose(states, tables[0][0], atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_5_omni", "llava_next"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_the_side_of_the_padding_does_not_move_a_state(
    family: str, modality: str, tmp_path: Path
) -> None:
    one = load_checkpoint("one", str(saved(family)), device="cpu")
    processor = gate_processor(family)
    samples = scenes(3)
    plan = build_plan("d", samples, config(modalities=(modality,)))
    batch = batch_of(plan, samples, processor)
    results = gate.check(one, processor, batch, SITES, ("last", "mean"))
    assert results[f"{modality}.left_equals_right"]["passed"]
    assert results[f"{modality}.left_equals_right"]["value"] < 1e-5


def gate_processor(family: str) -> Any:
    from geomkit.processing import load_processor

    return load_processor(saved(family))


def batch_of(plan: Any, samples: Sequence[Sample], processor: Any) -> Any:
    from geomkit.batches import Reader

    return Reader(plan, plans.by_id(samples), processor, 300).read(plan.batches[0])


def test_capture_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        capture_run(specs(saved("qwen2_5_omni")), scenes(4), tmp_path / name, config(previews=True))
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert sum(str(p).endswith(".h5") for p in files[0]) == 3


def test_a_resume_repeats_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, samples = tmp_path / "run", scenes(4)
    run = capture_run(specs(saved("qwen2_5_omni")), samples, out, config())
    before = {p.name: p.read_bytes() for p in (out / "c0").iterdir()}
    (out / "c0" / "shard-00001.h5").unlink()
    damaged = out / "c0" / "shard-00002.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert not run.complete("c0")
    written: list[int] = []
    write = Run.write_shard

    def spy(self: Run, name: str, number: int, *rest: Any, **more: Any) -> None:
        written.append(number)
        write(self, name, number, *rest, **more)

    monkeypatch.setattr(Run, "write_shard", spy)
    again = capture_run(specs(saved("qwen2_5_omni")), samples, out, config())
    assert written == [1, 2]
    assert again.complete("c0")
    assert {p.name: p.read_bytes() for p in (out / "c0").iterdir()} == before


def test_an_adapter_beside_its_base_equals_captures_apart(tmp_path: Path) -> None:
    base = saved("qwen2_5_omni")
    model = AutoModelForMultimodalLM.from_pretrained(base)
    tuned = adapter(tmp_path / "lco", model, str(base), targets=INSIDE)
    samples = scenes(4)
    together = capture_run(specs(base, tuned), samples, tmp_path / "both", config())
    for number, source in enumerate((base, tuned)):
        apart = capture_run(specs(source), samples, tmp_path / f"alone{number}", config())
        for site in SITES:
            np.testing.assert_array_equal(
                together.states(f"c{number}", site)[0], apart.states("c0", site)[0]
            )
    first, second = together.checkpoints()
    assert (first.adapter_sha, second.adapter_sha != "") == ("", True)
    assert first.towers_sha == second.towers_sha
    states = [together.states(name, "final_norm")[0] for name in ("c0", "c1")]
    assert np.abs(states[0] - states[1]).max() > 0.1
    np.testing.assert_array_equal(  # what enters the decoder does not depend on it
        together.states("c0", "embed", "mean")[0], together.states("c1", "embed", "mean")[0]
    )


def test_equal_towers_run_once_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between two models in memory, as after a merge: only the decoder differs."""
    from safetensors.torch import load_file, save_file

    merged = shutil.copytree(saved("qwen2_5_omni"), tmp_path / "merged")
    state = load_file(merged / "model.safetensors")
    key = next(k for k in state if "layers.2.mlp.down_proj" in k)
    state[key] = state[key] * 1.5
    save_file(state, merged / "model.safetensors", metadata={"format": "pt"})

    calls: list[str] = []
    remembered = forward._remembered

    def spy(run: Any, outputs: list[Any]) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(type(run.__self__).__name__)
            return run(*args, **kwargs)

        return remembered(counted, outputs)

    monkeypatch.setattr(forward, "_remembered", spy)
    samples, both = scenes(3), specs(saved("qwen2_5_omni"), merged)
    run = capture_run(both, samples, tmp_path / "run", config())
    assert sorted(calls) == ["Qwen2_5OmniAudioEncoder", "Qwen2_5OmniVisionEncoder"]
    for number, spec in enumerate(both):
        apart = capture_run([replace(spec, name="c0")], samples, tmp_path / f"a{number}", config())
        for site in SITES:
            np.testing.assert_array_equal(
                run.states(f"c{number}", site)[0], apart.states("c0", site)[0]
            )


def test_towers_that_differ_are_not_shared(tmp_path: Path) -> None:
    base = saved("qwen2_5_omni")
    model = AutoModelForMultimodalLM.from_pretrained(base)
    # The names alone also match both towers: nothing of theirs may be taken from the base.
    tuned = adapter(tmp_path / "wide", model, str(base), targets=["q_proj", "k_proj"])
    samples = scenes(3)
    together = capture_run(specs(base, tuned), samples, tmp_path / "both", config())
    apart = capture_run(specs(tuned), samples, tmp_path / "alone", config())
    for pool in ("last", "mean"):
        ours = together.states("c1", "final_norm", pool)[0]
        np.testing.assert_array_equal(ours, apart.states("c0", "final_norm", pool)[0])
    first, second = together.checkpoints()
    assert first.towers_sha != second.towers_sha


def test_the_forward_of_a_tower_is_put_back() -> None:
    one = load_checkpoint("one", str(saved("qwen2_5_omni")), device="cpu")
    modules = forward.towers(one)
    assert set(modules) == {"audio_tower", "visual"}
    with forward.Towers().shared(one):
        assert all("forward" in vars(m) for m in modules.values())
    with pytest.raises(ZeroDivisionError), forward.Towers().shared(one):
        1 // 0  # noqa: B018  # the way out that leaves no result
    assert not any("forward" in vars(m) for m in modules.values())


def test_hooks_are_gone_after_a_forward_that_fails() -> None:
    one = load_checkpoint("one", str(saved("qwen2_5_omni")), device="cpu")
    ids = torch.full((1, 4), 10_000)
    with pytest.raises(IndexError):
        forward.states(
            one, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, SITES, ["last"]
        )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in one.model.modules())


def test_what_cannot_be_shown_is_recorded_and_moves_no_other_row(tmp_path: Path) -> None:
    good = scenes(4)
    (tmp_path / "broken.png").write_text("no image")
    thin = Image.new("RGB", (1, 900))  # the processor refuses this shape
    bad = (
        Sample(id="broken", image=tmp_path / "broken.png"),
        Sample(id="absent", audio=tmp_path / "absent.wav"),
        Sample(id="thin", image=thin),
        Sample(id="control", text="look <|IMAGE|> here"),
    )
    mixed = (*good[:1], *bad, *good[1:])
    run = capture_run(specs(saved("qwen2_5_omni")), mixed, tmp_path / "run", config(batch_size=4))
    assert len(run.plan.rows) == 3 * 4 + 4
    reasons = {(row["id"], row["modality"]): row["reason"] for row in run.skipped()}
    assert set(reasons) == {
        ("broken", "image"),
        ("absent", "audio"),
        ("thin", "image"),
        ("control", "text"),
    }
    assert "decoded" in reasons["broken", "image"]
    assert "aspect ratio" in reasons["thin", "image"]
    assert str(tmp_path) not in " ".join(reasons.values())
    alone = capture_run(specs(saved("qwen2_5_omni")), good, tmp_path / "good", config())
    for modality in ("text", "image", "audio"):
        found = run.activations("c0", "final_norm", modality)  # type: ignore[arg-type]  # modality
        clean = alone.activations("c0", "final_norm", modality)  # type: ignore[arg-type]  # modality
        assert [r.id for r in found.rows] == [r.id for r in clean.rows]
        np.testing.assert_allclose(found.states, clean.states, atol=1e-5)


def test_nothing_that_can_be_shown_is_an_error(tmp_path: Path) -> None:
    only = (Sample(id="a", audio=tmp_path / "absent.wav"),)
    with pytest.raises(CaptureError, match=r"at least one row.*text, image, audio"):
        capture_run(specs(saved("qwen2_5_omni")), only, tmp_path / "run", config())


def test_a_long_text_is_cut_and_its_prompt_is_not(tmp_path: Path) -> None:
    long, short = Sample(id="long", text="abcdefgh" * 9), Sample(id="short", text="abcdefgh")
    run = capture_run(
        specs(saved("qwen2_5_vl")), (long, short), tmp_path / "run", config(text_tokens=8)
    )
    states, ok = run.states("c0", "final_norm")
    assert ok.all()
    np.testing.assert_allclose(states[0], states[1], atol=1e-6)
    told = overview(run).checkpoints[0]
    assert (told.reasons, told.remarks) == ({}, {"text cut to 8 tokens": 1})
    assert "    1 x text cut to 8 tokens" in list(run_lines(overview(run)))


def test_sites_poolings_and_modalities_can_be_chosen(tmp_path: Path) -> None:
    chosen = config(
        sites=("final_norm", "block_01"), poolings=("mean",), modalities=("audio",), limit=2
    )
    run = capture_run(specs(saved("qwen2_5_omni")), scenes(4), tmp_path / "run", chosen)
    assert run.checkpoint("c0").sites == ("block_01", "final_norm")
    assert [(r.id, r.modality) for r in run.plan.rows] == [("s0", "audio"), ("s2", "audio")]
    assert run.states("c0", "block_01", "mean")[0].shape == (2, 32)
    with pytest.raises(UsageError, match="'block_9'; near names"):
        capture_run(
            specs(saved("qwen2_5_omni")), scenes(2), tmp_path / "no", config(sites=("block_9",))
        )
    assert not (tmp_path / "no").exists()


def test_previews_are_small_media_of_what_was_shown(tmp_path: Path) -> None:
    samples = (Sample(id="i", image=Image.new("RGB", (200, 100), "red")), *scenes(1))
    run = capture_run(
        specs(saved("qwen2_5_omni")), samples, tmp_path / "run", config(previews=True)
    )
    picture, sound = run.media("i", "image"), run.media("s0", "audio")
    assert picture is not None
    assert sound is not None
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("WEBP", (64, 32))
    heard, rate = soundfile.read(io.BytesIO(sound.read_bytes()))
    assert (rate, len(heard)) == (8_000, 3_000)
    assert run.media("s0", "text") is None
    plain = capture_run(specs(saved("qwen2_5_omni")), samples, tmp_path / "plain", config())
    assert plain.media("i", "image") is None


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    both = specs(saved("qwen2_5_vl"), saved("llava_next"))
    with pytest.raises(ProvenanceMismatch, match="another vocabulary"):
        capture_run(both, scenes(2), tmp_path / "run", config())


def test_another_template_of_the_same_family_is_not_used(tmp_path: Path) -> None:
    other = shutil.copytree(saved("qwen2_5_omni"), tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text("You are a poet. " + template.read_text())
    run = capture_run(specs(saved("qwen2_5_omni"), other), scenes(2), tmp_path / "run", config())
    first, second = run.checkpoints()
    assert first.template_sha == second.template_sha
    assert (first.gate["own_template"]["value"], second.gate["own_template"]["value"]) == (1.0, 0.0)
    np.testing.assert_array_equal(
        run.states("c0", "final_norm")[0], run.states("c1", "final_norm")[0]
    )


def test_other_weights_under_a_name_that_is_taken_are_refused(tmp_path: Path) -> None:
    samples, out = scenes(2), tmp_path / "run"
    capture_run(specs(saved("qwen2_5_vl")), samples, out, config(modalities=("text", "image")))
    same_name = [CheckpointSpec("c0", str(saved("qwen2_vl")))]
    with pytest.raises(StoreError, match="weights_sha"):
        capture_run(same_name, samples, out, config(modalities=("text", "image")))


def test_a_checkpoint_can_join_a_run_later(tmp_path: Path) -> None:
    out, samples = tmp_path / "run", scenes(2)
    capture_run([CheckpointSpec("before", str(saved("qwen2_vl")))], samples, out, config())
    run = capture_run([CheckpointSpec("after", str(saved("qwen2_5_vl")))], samples, out, config())
    assert [r.name for r in run.checkpoints()] == ["before", "after"]
    assert all(run.complete(r.name) for r in run.checkpoints())
    run.check_pairing()


def test_states_that_are_not_finite_do_not_pass(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(saved("qwen2_vl"), tmp_path / "nan")
    state = load_file(folder / "model.safetensors")
    key = next(k for k in state if "layers.1.mlp.down_proj" in k)
    state[key] = torch.full_like(state[key], torch.nan)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CaptureError, match=r"text\.finite"):
        capture_run(specs(folder), scenes(2), tmp_path / "run", config())
    run = capture_run(specs(folder), scenes(2), tmp_path / "run", config(gate=False))
    assert {row["reason"] for row in run.skipped()} >= {"states are not finite"}


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    capture_run(
        specs(saved("qwen2_5_vl")),
        scenes(4),
        tmp_path / "run",
        config(modalities=("text",)),
        progress=lambda *now: told.append(now),
    )
    assert told[0] == ("plan", 0, 1)
    assert told[-1] == ("capture c0", 4, 4)
    stages = list(dict.fromkeys(stage for stage, *_ in told))
    assert stages == ["plan", "load checkpoints", "check the capture", "capture c0"]


# ------------------------------------------------------------------------------------- the plan


def test_a_plan_has_one_modality_a_batch_and_says_what_is_shown() -> None:
    plan = build_plan("set", scenes(4), config())
    assert [r.index for r in plan.rows] == list(range(12))
    assert [len(batch) for batch in plan.batches] == [3, 1, 3, 1, 3, 1]
    for batch in plan.batches:
        assert len({plan.rows[i].modality for i in batch}) == 1
    assert plan.prompts["audio"] == "\nSummarize the above audio in one word:"
    assert plan.hash == build_plan("set", scenes(4), config()).hash
    assert plan.hash != build_plan("set", scenes(4, seed=1), config()).hash
    assert plan.hash != build_plan("set", scenes(4), config(prompt="e5v")).hash


def test_content_hashes_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert content_sha(tmp_path / "a") == content_sha("abc")
    assert content_sha(tmp_path / "absent") == ""
    sound = np.zeros(4, np.float32)
    assert content_sha(Waveform(sound, RATE)) != content_sha(Waveform(sound, RATE + 1))
    assert content_sha(Image.new("RGB", (2, 3))) != content_sha(Image.new("RGB", (3, 2)))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"batch_size": 0}, r"batch_size \(--batch-size\) of at least 1, got 0"),
        ({"modalities": ("sound",)}, "modality .* got 'sound'"),
        ({"poolings": ("max",)}, "pooling .* got 'max'"),
        ({"poolings": ()}, "at least one pooling"),
        ({"poolings": ("last", "last")}, "each pooling once"),
    ],
)
def test_a_config_that_no_capture_can_have_is_refused(given: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        config(**given)


def test_samples_without_the_modality_are_refused() -> None:
    with pytest.raises(SampleError, match=r"samples with video, got 2 with text"):
        build_plan("set", scenes(2), config(modalities=("video",)))
    with pytest.raises(SampleError, match="an id twice"):
        build_plan("set", (*scenes(1), *scenes(1)), config())
