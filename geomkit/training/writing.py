"""A model whose own weights were trained, written as a full checkpoint and proven.

The base's files are taken as they are: a trained weight replaces the one it began as, rounded once
to the files' type; all else is copied byte for byte, heads and talkers included.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from geomkit.checkpoints import load_checkpoint
from geomkit.errors import TrainingError
from geomkit.processing import Processor
from geomkit.prompts import prompts
from geomkit.training.assembly import assemble
from geomkit.training.merging import USUAL_PROMPT, Agreement, agree, copy_rest, file_dtype
from geomkit.training.methods import Arm
from geomkit.training.naming import file_names, value_sha
from geomkit.training.rewriting import differing, shards
from geomkit.training.scope import unwrap
from geomkit.training.states import last_states, probes, speak
from geomkit.types import Modality, Sample


@dataclass(frozen=True, slots=True)
class Written:
    """How near the states of what was written are, and what sentence-transformers embeds."""

    agreement: tuple[Agreement, ...]
    assembly: tuple[Modality, ...]


def write_checkpoint(
    arm: Arm,
    processor: Processor,
    base: Path,
    out: Path,
    *,
    prompt: str = USUAL_PROMPT,
    samples: Sequence[Sample] = (),
) -> Written:
    """Write the arm's model to `out` as `base` with the trained weights in; prove it equal.

    `out` is then a sentence-transformers model too, with the instructions of `prompt`.

    Raises:
        TrainingError: a weight that is not in the files of `base`, more weights that changed, or
            states that are not those of the trained model.
    """
    samples = samples or probes(processor)
    values, originals = _trained(arm)
    names = file_names(base, originals)
    copy_rest(base, out)
    _rewrite(base, out, {names[path]: value for path, value in values.items()})
    _, changed = differing(base, out)
    if strays := sorted(changed - set(names.values())):
        raise TrainingError(
            f"Expected only trained weights to change, {len(strays)} more did (first: {strays[0]})."
        )
    expected = last_states(arm.model, processor, samples)
    again = load_checkpoint("written", str(out), device=str(next(arm.model.parameters()).device))
    states = last_states(again.model, processor, samples)
    speak(again.model, processor, samples)
    found = agree(expected, states, file_dtype(base, changed))
    return Written(found, assemble(out, processor, again.dim, prompts(prompt)))


def _trained(arm: Arm) -> tuple[dict[str, Tensor], dict[str, str]]:
    """New value and hash of the old one, by path; branches are added to what they branch from."""
    base = unwrap(arm.model)
    parameters = dict(base.named_parameters())
    values = {path: parameters[path].detach() for path in arm.originals}
    originals = dict(arm.originals)
    for path, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            values[f"{path}.weight"] = weight.detach().float() + layer.get_delta_weight("default")
            originals[f"{path}.weight"] = value_sha(weight)
    return values, originals


def _rewrite(base: Path, out: Path, values: Mapping[str, Tensor]) -> None:
    for shard in shards(base):
        with safe_open(shard, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            metadata = dict(file.metadata() or {"format": "pt"})
        shutil.copyfile(shard, out / shard.name)
        if hits := tensors.keys() & values.keys():
            for name in hits:
                tensors[name] = values[name].cpu().to(tensors[name].dtype).contiguous()
            save_file(tensors, out / shard.name, metadata=metadata)
            shutil.copymode(shard, out / shard.name)  # safetensors makes it private
