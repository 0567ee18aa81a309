"""Checkpoints in memory: model, decoder, fingerprints; several may share one model.

An adapter is loaded onto its base's weights in memory and switched on and off, so both
checkpoints cost one model. Only safetensors are read, and no code that came with weights is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomkit import adapters, fingerprints, hooks, sounds
from geomkit.architectures import THINKERS, body, config_of, decoder, model_class, package, quiet
from geomkit.errors import CheckpointError, MemoryFull, UsageError
from geomkit.fingerprints import Fingerprint
from geomkit.places import (
    CheckpointSpec,
    Place,
    check_distinct,
    json_beside,
    locate,
    same_weights,
    training_of,
)
from geomkit.types import CheckpointRecord

__all__ = ["Checkpoint", "CheckpointSpec", "load_checkpoint", "load_checkpoints"]

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A checkpoint in memory. Several may share `model`: run it inside `active()`."""

    name: str
    place: Place
    model: Any
    body: nn.Module  # the model without its head: what is run
    decoder: nn.Module
    decoder_path: str
    sites: tuple[str, ...]
    dim: int
    fingerprint: Fingerprint
    adapter: str  # the adapter's name inside the model, "" for a full model
    revision: str
    projection: torch.Tensor | None = None  # applied to what leaves the final norm

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The model's body with exactly this checkpoint's weights in effect."""
        if self.adapter:
            self.model.enable_adapters()
            self.model.set_adapter(self.adapter)
        elif getattr(self.model, "_hf_peft_config_loaded", False):
            self.model.disable_adapters()
        with _projected(self.decoder, self.projection):
            yield self.body

    def record(
        self, template_sha: str, gate: Mapping[str, Any], sites: Sequence[str] = ()
    ) -> CheckpointRecord:
        """What is kept about it in the run folder; `sites` are those captured, all by default."""
        return CheckpointRecord(
            name=self.name,
            source=self.place.described,
            revision=self.revision,
            architecture=type(self.model).__name__,
            weights_sha=self.fingerprint.weights,
            decoder_sha=self.fingerprint.decoder,
            towers_sha=self.fingerprint.towers,
            adapter_sha=self.fingerprint.adapter,
            merged=bool(json_beside(self.place, "merge.json")),
            template_sha=template_sha,
            dtype=str(next(self.decoder.parameters()).dtype).removeprefix("torch."),
            attention=str(getattr(self.model.config, "_attn_implementation", "")),
            sites=tuple(sites) or self.sites,
            dim=self.dim,
            versions={p: version(p) for p in ("torch", "transformers", "peft", "numpy", "pillow")},
            gate=dict(gate),
            training=training_of(Path(self.place.where)),
            config_sha=fingerprints.config_sha(self.model.config),
        )


def load_checkpoint(
    name: str,
    source: str | None = None,
    *,
    dtype: str = "float32",
    attn: str = "sdpa",
    device: str = "auto",
) -> Checkpoint:
    """One checkpoint, alone in memory."""
    spec = CheckpointSpec(name, source or name)
    return load_checkpoints([spec], dtype=dtype, attn=attn, device=device)[0]


def load_checkpoints(
    specs: Sequence[CheckpointSpec], *, dtype: str, attn: str, device: str, device_map: str = ""
) -> tuple[Checkpoint, ...]:
    """All checkpoints; those on the same base weights share one model in memory.

    An adapter that cannot be switched off completely gets a model of its own.

    Raises:
        MemoryFull: they do not fit into memory together.
        CheckpointError: a checkpoint cannot be found, loaded completely or understood.
    """
    check_distinct(specs)
    loaded: list[Checkpoint] = []
    bases: list[Checkpoint] = []
    for spec in specs:
        place = locate(spec.source)
        shared = place.base is None or adapters.shareable(Path(place.where))
        base = next((b for b in bases if shared and same_weights(b.place, place.model)), None)
        if base is None:
            where = {"device_map": device_map} if device_map else {}
            base = _load(spec.name, place.model, dtype=dtype, attn=attn, device=device, **where)
            bases += [base] if shared else []
        used = sum(c.model is base.model and bool(c.adapter) for c in loaded)
        one = replace(base, name=spec.name, place=place, revision=place.revision or "")
        loaded.append(_adapted(one, used) if place.base is not None else one)
    for one in loaded:
        if one.adapter:  # after all are on: a later one may have moved an earlier one's tensors
            adapters.check_whole(one.model, one.adapter, Path(one.place.where))
    return tuple(loaded)


def _adapted(one: Checkpoint, number: int) -> Checkpoint:
    """The checkpoint with its adapter loaded onto its model, as the `number`-th there."""
    folder = Path(one.place.where)
    if adapters.is_projection(folder):
        own = fingerprints.with_adapter(one.fingerprint, adapters.sha(folder), outside=False)
        matrix = adapters.projection(folder, one.dim).to(next(one.decoder.parameters()).device)
        return replace(one, projection=matrix, fingerprint=own)
    name = adapters.attach(one.model, folder, number)
    outside = adapters.outside(one.model, name, one.decoder_path)
    own = fingerprints.with_adapter(one.fingerprint, adapters.sha(folder), outside=outside)
    return replace(one, adapter=name, fingerprint=own)


@contextmanager
def _projected(decoder: nn.Module, matrix: torch.Tensor | None) -> Iterator[None]:
    """The final norm with a matrix after it, for as long as it is in effect."""
    if matrix is None:
        yield
        return
    weight = matrix
    # A hook set before the tap's: what it returns is what the tap and the model see. In float32,
    # as it was trained, and then in the model's precision.
    hook = hooks.final_norm(decoder).register_forward_hook(
        lambda _module, _given, out: (out.float() @ weight.T).to(out.dtype)
    )
    try:
        yield
    finally:
        hook.remove()


def _device(asked: str) -> str:
    """The device itself; of several GPUs, the one that the launcher gives to this process."""
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"Expected a device of this machine, got '{asked}': torch sees no GPU.")
    if asked not in {"auto", "cuda"} or not torch.cuda.is_available():
        return "cpu" if asked == "auto" else asked
    place = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    # A launcher that shows every process its own GPU alone numbers the processes all the same.
    return f"cuda:{int(place) % torch.cuda.device_count()}"


def _load(
    name: str, place: Place, *, dtype: str, attn: str, device: str, **where: Any
) -> Checkpoint:
    if dtype not in DTYPES:
        raise UsageError(f"Expected a dtype ({', '.join(DTYPES)}), got '{dtype}'.")
    device = _device(device)
    try:
        config = config_of(place)
        with quiet():
            model, info = model_class(config).from_pretrained(
                place.where,
                revision=place.revision,
                dtype=DTYPES[dtype],
                attn_implementation=attn,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **_chosen(config),
                **where,
            )
        model = model.eval() if where else model.eval().to(device)
    except torch.OutOfMemoryError:
        raise MemoryFull(
            f"'{name}' does not fit into the memory of {device}: use bfloat16, a larger device or"
            " --device-map auto."
        ) from None
    except ImportError as cause:
        hint = "; or leave --attention out" if attn.startswith("flash") else ""
        raise package(name, f"{cause}{hint}") from cause
    except Exception as cause:  # its own errors, and what odd values set off inside
        raise CheckpointError(
            f"Checkpoint '{name}' cannot be loaded from {place.described}: {cause}"
        ) from cause
    lost = sorted(
        {*info["missing_keys"], *map(str, info["mismatched_keys"])} - _headless(model, info)
    )
    if lost:
        raise CheckpointError(
            f"Expected every weight of {type(model).__name__} in {place.described};"
            f" {len(lost)} are missing or of another shape, the first is {lost[0]}."
        )
    return _understood(name, place, model)


def _chosen(config: Any) -> dict[str, Any]:
    """The configuration to load with: read anew, a private key in it would overrule `--attn`."""
    return {} if config.model_type in THINKERS else {"config": config}  # a part takes its own


def _headless(model: Any, info: Mapping[str, Any]) -> set[str]:
    """The head's weights where the files have none, as embedding models are saved.

    States are read before the head. It is zeroed: transformers leaves it random, and no two
    loads would have one fingerprint.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or any(p is embeddings.weight for p in head.parameters()):
        return set()
    path = next(name for name, module in model.named_modules() if module is head)
    own = {f"{path}.{name}" for name, _ in head.named_parameters()} & set(info["missing_keys"])
    for name in own:
        torch.nn.init.zeros_(model.get_parameter(name))
    return own


def _understood(name: str, place: Place, model: Any) -> Checkpoint:
    path, module = decoder(model)
    sounds.keep_apart(model)
    return Checkpoint(
        name=name,
        place=place,
        model=model,
        body=body(model, path),
        decoder=module,
        decoder_path=path,
        sites=hooks.sites(module),
        dim=int(module.config.hidden_size),  # type: ignore[union-attr, arg-type]  # a config
        fingerprint=fingerprints.fingerprint(model, path),
        adapter="",
        revision=place.revision or "",
    )
