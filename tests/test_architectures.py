"""Every architecture of the table, from its folder on disk through the command line.

Stored rows are compared with a plain transformers loop (`tests.families`): one row at a time, no
padding, no geomkit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from geomkit import cli, forward, plans
from geomkit.batches import Reader
from geomkit.checkpoints import load_checkpoint
from geomkit.gate import deviation
from geomkit.processing import load_processor, repad
from geomkit.store import Run, open_run
from tests.families import SITES, plain, table
from tests.tiny_models import LAYERS, adapter, saved, scenes

TABLE = table()
POOLINGS = ("last", "mean")
SCENES = scenes(8)
WIDE = replace(SCENES[-1], image=SCENES[-1].image.resize((190, 60)))  # fewer tiles than the others
SAMPLES = (*SCENES[:-1], WIDE)


@dataclass(frozen=True, slots=True)
class Case:
    """One family, captured."""

    name: str
    data: Path
    together: Run  # the checkpoint "one" and its twin "two", eight rows at a time
    out: Path


@pytest.fixture(scope="module", params=TABLE)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, out = request.param, tmp_path_factory.mktemp(request.param)
    both = {"one": saved(name), "two": twin(saved(name), out / "weights")}
    data = written(out / "data", TABLE[name].modalities)
    return Case(name, data, capture(out / "both", data, 8, both), out)


def written(folder: Path, modalities: Sequence[str]) -> Path:
    """The samples as a manifest with lossless media beside it."""
    folder.mkdir()
    lines: list[dict[str, Any]] = [{"id": s.id, "text": s.text} for s in SAMPLES]
    for line, sample in zip(lines, SAMPLES, strict=True):
        if "image" in modalities:
            line["image"] = f"{sample.id}.png"
            sample.image.save(folder / line["image"])
        if "audio" in modalities:
            line["audio"] = f"{sample.id}.wav"
            sound: Any = sample.audio
            soundfile.write(folder / line["audio"], sound.samples, sound.rate, subtype="FLOAT")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def capture(
    out: Path, data: Path, size: int, checkpoints: Mapping[str, Path], limit: int = 0
) -> Run:
    """`geomkit capture` in this process."""
    named = [part for name, at in checkpoints.items() for part in ("--ckpt", f"{name}={at}")]
    options = ["--data", str(data), "--out", str(out), "--device", "cpu", "--batch-size", str(size)]
    options += ["--limit", str(limit)] if limit else []
    done = CliRunner().invoke(cli.app, ["capture", *named, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return open_run(out)


def twin(folder: Path, out: Path) -> Path:
    """The same checkpoint with another last block: its towers are equal, its decoder is not."""
    shutil.copytree(folder, out)
    state = load_file(out / "model.safetensors")
    (key,) = (k for k in state if k.endswith(f"layers.{LAYERS - 1}.input_layernorm.weight"))
    state[key] = state[key] + torch.linspace(0.0, 1.0, len(state[key]))  # no norm can undo it
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    return out


@cache
def truth(name: str) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Modality -> site -> `(samples, last and mean, dim)`."""
    family, folder = TABLE[name], saved(name)
    model, processor = family.load(folder).eval(), family.processor(folder)
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for modality in family.modalities:
        rows = [plain(family, model, processor, sample, modality) for sample in SAMPLES]
        found[modality] = {
            site: np.stack([np.stack([r[site][-1], r[site].mean(0)]) for r in rows])
            for site in SITES
        }
    return found


def far(run: Run, name: str, checkpoint: str = "one") -> float:
    """Largest absolute difference of the stored rows to the plain loop."""
    worst = 0.0
    for modality, sites in truth(name).items():
        for site in SITES:
            for number, pool in enumerate(POOLINGS):
                found = run.activations(checkpoint, site, modality, pool)  # type: ignore[arg-type]  # modality
                assert [row.id for row in found.rows] == [s.id for s in SAMPLES]
                worst = max(worst, float(np.abs(found.states - sites[site][:, number]).max()))
    return worst


def test_stored_rows_equal_a_plain_transformers_loop(case: Case) -> None:
    assert far(case.together, case.name) < 1e-5
    assert {row.modality for row in case.together.plan.rows} == set(TABLE[case.name].modalities)
    gates = case.together.checkpoint("one").gate
    assert all(result["passed"] for result in gates.values())
    checks = ("hook_equals_hf", "alone_equals_batched", "left_equals_right", "finite")
    for modality in TABLE[case.name].modalities:
        assert {f"{modality}.{check}" for check in checks} <= set(gates)
        assert gates[f"{modality}.hook_equals_hf"]["value"] == 0.0
        shown = case.together.activations("one", "embed", modality, "mean").states  # type: ignore[arg-type]  # modality
        assert np.ptp(shown, axis=0).max() > 1e-3  # the content reaches the decoder


def test_a_batch_of_one_agrees_with_a_batch_of_eight(case: Case) -> None:
    single = capture(case.out / "single", case.data, 1, {"one": saved(case.name)})
    assert far(single, case.name) < 1e-5
    for site in SITES:
        for pool in POOLINGS:
            (one, ok), (eight, _) = (r.states("one", site, pool) for r in (single, case.together))
            assert ok.all()
            np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_checkpoint_beside_one_with_equal_towers_equals_it_alone(case: Case) -> None:
    first, second = case.together.checkpoints()
    assert first.towers_sha == second.towers_sha
    assert first.decoder_sha != second.decoder_sha
    for name, folder in (("one", saved(case.name)), ("two", case.out / "weights")):
        alone = capture(case.out / name, case.data, 8, {name: folder})
        for site in SITES:
            for pool in POOLINGS:
                np.testing.assert_array_equal(
                    case.together.states(name, site, pool)[0], alone.states(name, site, pool)[0]
                )
    last = [case.together.states(name, "final_norm")[0] for name in ("one", "two")]
    assert np.abs(last[0] - last[1]).max() > 1e-3


def test_the_side_of_the_padding_moves_no_state(case: Case) -> None:
    one = load_checkpoint("one", str(saved(case.name)), device="cpu")
    processor = load_processor(saved(case.name))
    seen = set(processor.modalities) - {"video"}  # which needs torchvision
    assert seen == set(TABLE[case.name].modalities)
    assert set(processor.media_tokens) - {"video"} == seen - {"text"}
    config = plans.CaptureConfig(modalities=processor.modalities)
    plan = plans.build_plan("d", SAMPLES, config)
    reader = Reader(plan, plans.by_id(SAMPLES), processor, 300)
    for indexes in plan.batches:
        inputs = reader.read(indexes).inputs
        sides = [
            forward.states(
                one, repad(inputs, side, 3, processor.tokenizer.pad_token_id), SITES, POOLINGS
            )
            for side in ("left", "right")
        ]
        assert deviation(*sides) < 1e-5


def test_an_adapter_equals_its_product_added_to_the_weights_by_hand(case: Case) -> None:
    family, base = TABLE[case.name], saved(case.name)
    inside = re.escape(family.decoder.removeprefix("model").strip("."))
    targets = rf"(.*\.)?{inside}\.?layers\.\d+\.self_attn\.(q_proj|o_proj)"
    tuned = adapter(case.out / "lora", family.load(base), str(base), targets=targets)
    run = capture(case.out / "adapted", case.data, 8, {"one": base, "two": tuned}, limit=2)
    kept = (SAMPLES[0], SAMPLES[len(SAMPLES) // 2])  # as the limit has it

    model, processor = family.load(base).eval(), family.processor(base)
    state = load_file(tuned / "adapter_model.safetensors")
    for key in (k for k in state if ".lora_A." in k):
        path = key.removeprefix("base_model.model.").partition(".lora_A.")[0]
        product = state[key.replace("lora_A", "lora_B")] @ state[key]
        model.model.get_submodule(path).weight.data += 2.0 * product  # alpha over rank
    for modality in family.modalities:
        rows = [plain(family, model, processor, s, modality) for s in kept]
        for site in SITES:
            found = run.activations("two", site, modality, "mean").states  # type: ignore[arg-type]  # modality
            expected = np.stack([row[site].mean(0) for row in rows])
            np.testing.assert_allclose(found, expected, atol=1e-5)
    first, second = (run.states(name, "final_norm")[0] for name in ("one", "two"))
    assert np.abs(first - second).max() > 1e-3


def test_towers_that_are_read_at_another_layer_are_not_shared(tmp_path: Path) -> None:
    """Equal weights are not enough: the configuration says which layer's features are used."""
    other = shutil.copytree(saved("llava_next"), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["vision_feature_layer"] = -1
    (other / "config.json").write_text(json.dumps(config))
    data = written(tmp_path / "data", ("text", "image"))
    both = capture(tmp_path / "both", data, 8, {"one": saved("llava_next"), "two": other})
    alone = capture(tmp_path / "alone", data, 8, {"two": other})
    np.testing.assert_array_equal(
        both.states("two", "embed", "mean")[0], alone.states("two", "embed", "mean")[0]
    )
    seen = [both.activations(name, "embed", "image", "mean").states for name in ("one", "two")]
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


def test_images_that_a_text_model_cannot_see_are_recorded(tmp_path: Path) -> None:
    data = written(tmp_path / "data", ("text", "image"))
    run = capture(tmp_path / "run", data, 8, {"one": saved("qwen3")})
    reasons = {(row["modality"], row["reason"]) for row in run.skipped()}
    assert reasons == {("image", "this checkpoint cannot be shown image")}
    assert run.states("one", "final_norm")[1].sum() == len(SAMPLES)
