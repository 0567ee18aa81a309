"""A worker under pressure: memory that is too small, samples that may not be missing, other plans.

What a full device does is planted: the models here are tiny.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForMultimodalLM

from geomkit import capture, checkpoints, worker
from geomkit.architectures import skeleton
from geomkit.capture import CaptureConfig, Job, capture_run, preflight
from geomkit.checkpoints import CheckpointSpec, load_checkpoint
from geomkit.errors import CaptureError, MemoryFull, SampleError, StoreError, UsageError
from geomkit.store import Run
from geomkit.training import merging
from geomkit.types import Sample
from tests.families import SITES, plain, table
from tests.tiny_models import adapter, saved, scenes

INSIDE = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|v_proj|up_proj)"
FULL = torch.OutOfMemoryError("CUDA out of memory.")


def config(**more: Any) -> CaptureConfig:
    return CaptureConfig(**{"device": "cpu", "batch_size": 4, "shard_batches": 2, **more})


def spec(name: str, source: Path | str) -> CheckpointSpec:
    return CheckpointSpec(name, str(source))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = saved("qwen2_5_omni")
    model = AutoModelForMultimodalLM.from_pretrained(base)
    return adapter(tmp_path_factory.mktemp("a") / "lco", model, str(base), targets=INSIDE)


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[int]]:
    """`room_for(rows, name)`: that checkpoint's device holds no more rows at once."""

    def plant(rows: int, name: str) -> list[int]:
        shown: list[int] = []
        active = checkpoints.Checkpoint.active

        @contextmanager
        def cramped(self: Any) -> Iterator[Any]:
            with active(self) as body:

                def run(**inputs: Any) -> Any:
                    if self.name == name:
                        shown.append(len(inputs["input_ids"]))
                        if shown[-1] > rows:
                            raise FULL
                    return body(**inputs)

                yield run

        monkeypatch.setattr(checkpoints.Checkpoint, "active", cramped)
        return shown

    return plant


def same_states(a: Run, b: Run, name: str, tolerance: float) -> None:
    for site in SITES:
        for pooling in a.plan.poolings:
            ours, theirs = (run.states(name, site, pooling) for run in (a, b))
            np.testing.assert_array_equal(ours[1], theirs[1])
            np.testing.assert_allclose(ours[0], theirs[0], atol=tolerance)


# ------------------------------------------------------------------------------------- memory


def test_a_batch_that_does_not_fit_is_shown_in_halves_to_all(
    tmp_path: Path, tuned: Path, room_for: Callable[[int, str], list[int]]
) -> None:
    both = [spec("base", saved("qwen2_5_omni")), spec("lco", tuned)]
    samples = (*scenes(6), Sample(id="gone", text="x", image=tmp_path / "gone.png"))
    whole = capture_run(both, samples, tmp_path / "whole", config())
    shown = room_for(1, "lco")
    run = capture_run(both, samples, tmp_path / "run", config(gate=False))
    assert {2, 4} <= set(shown)  # halves of halves were tried
    for name in ("base", "lco"):
        same_states(run, whole, name, 1e-5)
        assert any("out of memory" in event for event in run.events(name))
        assert not whole.events(name)
    run.check_pairing()


def test_an_event_stands_with_the_shard_it_happened_in(
    tmp_path: Path, room_for: Callable[[int, str], list[int]]
) -> None:
    room_for(3, "c")
    asked = config(modalities=("text",), shard_batches=1)  # four rows, then one
    one = [spec("c", saved("qwen2_5_vl"))]
    run = capture_run(one, scenes(5), tmp_path / "run", asked)
    first = run.plan.batches[0][0]
    assert run.events("c") == (
        f"out of memory: the batch from row {first} on was shown as 2 + 2 rows",
    )
    receipts = [json.loads(p.read_text()) for p in sorted(run.path.glob("c/shard-*.json"))]
    assert [len(receipt.get("events", ())) for receipt in receipts] == [1, 0]


def test_one_row_that_does_not_fit_is_an_error_that_says_so(
    tmp_path: Path, room_for: Callable[[int, str], list[int]]
) -> None:
    room_for(0, "c")
    with pytest.raises(MemoryFull, match=r"'c' ran out of memory on 1 x \d+ tokens: use"):
        capture_run([spec("c", saved("qwen2_5_vl"))], scenes(2), tmp_path / "run", config())
    assert MemoryFull("").exit_code == 3


def test_checkpoints_that_do_not_fit_together_are_captured_one_after_the_other(
    tmp_path: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = [
        spec("base", saved("qwen2_5_omni")),
        spec("lco", tuned),
        spec("again", saved("qwen2_5_omni")),
    ]
    together = capture_run(three, scenes(4), tmp_path / "together", config())
    load, loaded = worker.load_checkpoints, []

    def cramped(specs: Any, **how: Any) -> Any:
        loaded.append([s.name for s in specs])
        if len(specs) > 1:
            raise MemoryFull("they do not fit")
        return load(specs, **how)

    monkeypatch.setattr(worker, "load_checkpoints", cramped)
    monkeypatch.setattr(capture, "same_weights", lambda *_: False)
    said: list[str] = []
    run = capture_run(
        three, scenes(4), tmp_path / "apart", config(), progress=lambda s, *_: said.append(s)
    )
    assert loaded == [["base", "lco", "again"], ["base"], ["lco"], ["again"]]
    assert any("one checkpoint after the other" in stage for stage in said)
    files = [
        {p.relative_to(r.path): p.read_bytes() for p in sorted(r.path.rglob("*")) if p.is_file()}
        for r in (run, together)
    ]
    assert files[0] == files[1]


def test_checkpoints_on_one_base_stay_together(tuned: Path) -> None:
    base, other = saved("qwen2_5_omni"), saved("qwen2_5_vl")
    specs = (spec("base", base), spec("lco", tuned), spec("other", other), spec("lco2", tuned))
    job = Job(specs, (), Path(), config(one_by_one=True))
    assert [[s.name for s in group] for group in job.groups()] == [
        ["base", "lco"],
        ["other"],
        ["lco2"],
    ]
    assert len(Job(specs, (), Path(), config()).groups()) == 1


def test_memory_that_even_one_checkpoint_fills_is_not_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def cramped(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise MemoryFull("it does not fit")

    monkeypatch.setattr(worker, "load_checkpoints", cramped)
    with pytest.raises(MemoryFull, match="does not fit"):
        capture_run([spec("c", saved("qwen2_5_vl"))], scenes(1), tmp_path / "run", config())
    assert len(tries) == 1


def test_a_full_device_is_known_by_its_words() -> None:
    from geomkit.forward import out_of_memory

    assert out_of_memory(FULL)
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("CUDA out of memory."))


# ------------------------------------------------------------------------------ what may be missing


def test_strict_stops_at_a_sample_that_cannot_be_shown_and_keeps_what_was_done(
    tmp_path: Path,
) -> None:
    samples = (*scenes(5), Sample(id="gone", image=tmp_path / "gone.png"))
    one = [spec("c", saved("qwen2_5_vl"))]
    asked = config(batch_size=2, shard_batches=1, modalities=("text", "image"))
    with pytest.raises(SampleError, match=r"image of 'gone' cannot be: .*no such file as"):
        capture_run(one, samples, tmp_path / "run", replace(asked, strict=True))
    kept = len(list((tmp_path / "run" / "c").glob("shard-*.h5")))
    assert kept >= 3  # the texts come first
    run = capture_run(one, samples, tmp_path / "run", asked)
    assert run.complete("c")
    assert [row["id"] for row in run.skipped()] == ["gone"]


def test_another_plan_is_noticed_before_any_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [spec("c", saved("qwen2_5_vl"))]
    capture_run(one, scenes(2), tmp_path / "run", config())
    monkeypatch.setattr(worker, "load_checkpoints", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(StoreError, match="plan"):
        capture_run(one, scenes(3), tmp_path / "run", config())


def test_a_gate_that_is_off_is_recorded(tmp_path: Path) -> None:
    one = [spec("c", saved("qwen2_5_vl"))]
    on = capture_run(one, scenes(2), tmp_path / "on", config())
    off = capture_run(one, scenes(2), tmp_path / "off", config(gate=False))
    assert on.checkpoint("c").gate["enforced"]["value"] == 1.0
    assert off.checkpoint("c").gate["enforced"]["value"] == 0.0


def test_the_gate_looks_on_where_the_first_batch_cannot_be_shown(tmp_path: Path) -> None:
    thin = Sample(id="thin", image=Image.new("RGB", (1, 20_000)))  # refused for its shape
    asked = config(batch_size=1, modalities=("text", "image"))
    run = capture_run([spec("c", saved("qwen2_5_vl"))], [thin, *scenes(2)], tmp_path / "r", asked)
    assert [row["id"] for row in run.skipped()] == ["thin"]
    first = next(b for b in run.plan.batches if run.plan.rows[b[0]].modality == "image")
    assert run.plan.rows[first[0]].id == "thin"
    assert {"text.finite", "image.finite"} <= set(run.checkpoint("c").gate)


# ------------------------------------------------------------------------------------ look ahead


@pytest.mark.parametrize("family", sorted(table()))
def test_a_skeleton_has_the_sites_and_sizes_of_the_loaded_model(family: str) -> None:
    bones, whole = skeleton(spec("c", saved(family))), load_checkpoint("c", str(saved(family)))
    assert (bones.sites, bones.dim) == (whole.sites, whole.dim)
    assert bones.parameters == sum(p.numel() for p in whole.model.parameters())


def test_a_look_ahead_knows_the_batches_and_the_bytes(tmp_path: Path) -> None:
    one = [spec("c", saved("qwen2_5_omni"))]
    asked = config(batch_size=8, batch_tokens=200, sites=("every:2",))
    look = preflight(one, scenes(6), asked)
    run = capture_run(one, scenes(6), tmp_path / "run", asked)
    assert look.plan == run.plan
    assert look.sites["c"] == run.checkpoint("c").sites
    held = sum(
        run.states("c", site, pooling)[0].nbytes
        for site in look.sites["c"]
        for pooling in run.plan.poolings
    )
    assert look.pooled_bytes("c") == held
    for batch, longest in zip(look.plan.batches, look.tokens, strict=True):
        assert len(batch) == 1 or len(batch) * longest <= 200


def test_an_image_that_only_looks_large_does_not_lift_the_budget(tmp_path: Path) -> None:
    one = [spec("c", saved("qwen2_5_vl"))]
    Image.new("RGB", (3000, 3000)).save(tmp_path / "cut.png")
    cut = (tmp_path / "cut.png").read_bytes()[:60]
    (tmp_path / "cut.png").write_bytes(cut)  # its header is whole
    samples = [Sample(id="cut", image=tmp_path / "cut.png"), *scenes(6)]
    asked = config(batch_size=8, batch_tokens=150, modalities=("image",))
    look = preflight(one, samples, asked)
    assert look.plan.batches[0][0] == 0
    for batch, longest in zip(look.plan.batches, look.tokens, strict=True):
        assert len(batch) == 1 or 0 < len(batch) * longest <= 150


def test_token_states_that_no_file_takes_are_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [spec("c", saved("qwen2_5_vl"))]
    asked = config(tokens=True, shard_batches=2, modalities=("text", "image"))
    look = preflight(one, scenes(6), asked)
    run = capture_run(one, scenes(6), tmp_path / "run", asked)
    sizes = [path.stat().st_size for path in run.path.glob("c/tokens-*.h5")]
    limit = look.largest_token_file("c")
    assert look.token_bytes("c") / 2 <= limit < look.token_bytes("c")
    assert 0.5 < max(sizes) / limit < 1.5  # near the bytes of the file itself
    monkeypatch.setattr(capture, "MAX_FILE_BYTES", limit)
    preflight(one, scenes(6), asked)
    monkeypatch.setattr(capture, "MAX_FILE_BYTES", limit - 1)
    told = rf"at most {limit - 1:,} bytes.* up to {limit:,} of 'c': .* --shard-batches \(now 2"
    monkeypatch.setattr(worker, "load_checkpoints", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=told):
        capture_run(one, scenes(6), tmp_path / "no", asked)
    assert not (tmp_path / "no").exists()
    preflight(one, scenes(6), replace(asked, shard_batches=1))
    preflight(one, scenes(6), replace(asked, tokens=False))


def test_no_checkpoint_is_an_error() -> None:
    with pytest.raises(CaptureError, match="at least one checkpoint"):
        preflight([], scenes(1), config())


# ------------------------------------------------------------------------- tokens, media, merges


def test_the_mean_of_media_is_the_mean_of_its_placeholders(tmp_path: Path) -> None:
    folder, family = saved("qwen2_5_omni"), table()["qwen2_5_omni"]
    samples = scenes(3)
    asked = config(poolings=("mean", "mean-of-media"))
    run = capture_run([spec("c", folder)], samples, tmp_path / "run", asked)
    model, processor = family.load(folder).eval(), family.processor(folder)
    for modality, token in (("image", "<|IMAGE|>"), ("audio", "<|AUDIO|>"), ("text", None)):
        for number, sample in enumerate(samples):
            states = plain(family, model, processor, sample, modality)
            keep = slice(None) if token is None else placeholders(run, folder, sample, modality)
            for site in SITES:
                found = run.activations("c", site, modality, "mean-of-media")  # type: ignore[arg-type]
                expected = states[site][keep].mean(0)
                np.testing.assert_allclose(found.states[number], expected, atol=1e-5)


def placeholders(run: Run, folder: Path, sample: Sample, modality: str) -> Any:
    """True at the tokens between the media's own start and end, counted here by hand."""
    from geomkit.batches import Reader
    from geomkit.plans import by_id
    from geomkit.processing import load_processor

    row = next(r for r in run.plan.rows if (r.id, r.modality) == (sample.id, modality))
    processor = load_processor(folder)
    inputs = Reader(run.plan, by_id([sample]), processor, 300).read([row.index]).inputs
    words = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    name = {"image": "<|IMAGE|>", "audio": "<|AUDIO|>"}[modality]
    return [i for i, word in enumerate(words) if word == name]


def test_every_token_is_kept_when_asked_for(tmp_path: Path) -> None:
    folder, family = saved("qwen2_5_vl"), table()["qwen2_5_vl"]
    samples = (*scenes(3), Sample(id="gone", image=tmp_path / "gone.png"))
    run = capture_run([spec("c", folder)], samples, tmp_path / "run", config(tokens=True))
    model, processor = family.load(folder).eval(), family.processor(folder)
    for row in run.plan.rows:
        if row.id == "gone" or row.modality == "audio":  # not shown
            assert run.tokens("c", "embed", row.index).shape == (0, 32)
            continue
        sample = next(s for s in samples if s.id == row.id)
        expected = plain(family, model, processor, sample, row.modality)
        for site in SITES:
            found = run.tokens("c", site, row.index)
            np.testing.assert_allclose(found, expected[site], atol=1e-5)


def test_a_merged_checkpoint_is_compared_with_its_adapter(tmp_path: Path, tuned: Path) -> None:
    base = saved("qwen2_5_omni")
    merging.merge(tuned, base, tmp_path / "merged", samples=scenes(2))
    both = [spec("lco", tuned), spec("merged", tmp_path / "merged")]
    run = capture_run(both, scenes(2), tmp_path / "run", config())
    checks = run.checkpoint("merged").gate
    for modality in ("text", "image", "audio"):
        assert checks[f"{modality}.merged_equals_adapter"]["passed"]
        assert 0 < checks[f"{modality}.merged_equals_adapter"]["value"] < 1e-4
    assert "text.merged_equals_adapter" not in run.checkpoint("lco").gate


def test_a_merge_that_was_touched_afterwards_does_not_pass(tmp_path: Path, tuned: Path) -> None:
    from safetensors.torch import load_file, save_file

    merging.merge(tuned, saved("qwen2_5_omni"), tmp_path / "merged", samples=scenes(2))
    file = tmp_path / "merged" / "model.safetensors"
    state = load_file(file)
    key = next(k for k in state if "layers.1.mlp.up_proj" in k)
    save_file({**state, key: state[key] * 1.2}, file, metadata={"format": "pt"})
    both = [spec("lco", tuned), spec("merged", tmp_path / "merged")]
    with pytest.raises(CaptureError, match=r"'merged'.*merged_equals_adapter = \d"):
        capture_run(both, scenes(2), tmp_path / "run", config())
