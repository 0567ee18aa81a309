"""Checkpoints in memory: model, decoder, fingerprints; several may share one model.

Nothing is known by architecture: the decoder is what `get_decoder()` gives, its path is found by
identity. An adapter is loaded onto its base's weights in memory and switched on and off, so both
checkpoints cost one model. Only safetensors are read, and no code that came with weights is run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING
from transformers.utils import logging

from geomkit import fingerprints, hooks, sounds
from geomkit.errors import CheckpointError, MemoryFull, MissingExtra, UsageError
from geomkit.fingerprints import Fingerprint
from geomkit.places import (
    CheckpointSpec,
    Place,
    check_distinct,
    json_beside,
    locate,
    same_weights,
)
from geomkit.types import CheckpointRecord

__all__ = [
    "Checkpoint",
    "CheckpointSpec",
    "body",
    "decoder",
    "load_checkpoint",
    "load_checkpoints",
    "locate",
]

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Full omni models also hold a speech generator; the thinker is the part that reads and writes text.
THINKERS = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
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

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The model's body with exactly this checkpoint's weights in effect."""
        if self.adapter:
            self.model.enable_adapters()
            self.model.set_adapter(self.adapter)
        elif getattr(self.model, "_hf_peft_config_loaded", False):
            self.model.disable_adapters()
        yield self.body

    def record(
        self, template_sha: str, gate: Mapping[str, Any], sites: Sequence[str] = ()
    ) -> CheckpointRecord:
        """What is kept about it in the run folder; `sites` are those captured, all by default."""
        files = {f: json_beside(self.place, f) for f in ("training.json", "merge.json")}
        return CheckpointRecord(
            name=self.name,
            source=self.place.described,
            revision=self.revision,
            architecture=type(self.model).__name__,
            weights_sha=self.fingerprint.weights,
            decoder_sha=self.fingerprint.decoder,
            towers_sha=self.fingerprint.towers,
            adapter_sha=self.fingerprint.adapter,
            merged=bool(files["merge.json"]),
            template_sha=template_sha,
            dtype=str(next(self.decoder.parameters()).dtype).removeprefix("torch."),
            attention=str(getattr(self.model.config, "_attn_implementation", "")),
            sites=tuple(sites) or self.sites,
            dim=self.dim,
            versions={p: version(p) for p in ("torch", "transformers", "peft", "numpy", "pillow")},
            gate=dict(gate),
            training=files["training.json"],
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

    Raises:
        MemoryFull: they do not fit into memory together.
        CheckpointError: a checkpoint cannot be found, loaded completely or understood.
    """
    check_distinct(specs)
    loaded: list[Checkpoint] = []
    bases: list[Checkpoint] = []
    for spec in specs:
        place = locate(spec.source)
        base = next((b for b in bases if same_weights(b.place, place.model)), None)
        if base is None:
            where = {"device_map": device_map} if device_map else {}
            base = _load(spec.name, place.model, dtype=dtype, attn=attn, device=device, **where)
            bases.append(base)
        used = sum(c.model is base.model and bool(c.adapter) for c in loaded)
        one = replace(base, name=spec.name, place=place, revision=place.revision or "")
        loaded.append(_adapt(one, used) if place.base is not None else one)
    _check_adapters(loaded)
    return tuple(loaded)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is known of a checkpoint from its config alone, before any weight is read."""

    sites: tuple[str, ...]
    dim: int
    parameters: int  # of the model that is loaded, an adapter's own not counted


def skeleton(spec: CheckpointSpec) -> Skeleton:
    """The architecture of a checkpoint, built without memory for its weights.

    Raises:
        CheckpointError: it cannot be found, or its architecture is not supported.
    """
    place = locate(spec.source).model
    try:
        config = _config(place)
        with _quiet(), torch.device("meta"):
            config = getattr(config, "thinker_config", config)
            kind = _model_class(config)
            build = kind.from_config if hasattr(kind, "from_config") else kind._from_config  # noqa: SLF001 - the one way that needs no weights
            model = build(config)
    except CheckpointError:
        raise  # it says why already
    except ImportError as cause:
        raise _package(spec.name, cause) from cause
    except Exception as cause:  # its own errors, and what odd values set off inside
        raise CheckpointError(
            f"Checkpoint '{spec.name}' in {place.described} cannot be understood: {cause}"
        ) from cause
    _, module = decoder(model)
    parameters = sum(p.numel() for p in model.parameters())
    return Skeleton(hooks.sites(module), int(module.config.hidden_size), parameters)  # type: ignore[union-attr, arg-type]  # a config


def _config(place: Place) -> Any:
    return AutoConfig.from_pretrained(place.where, revision=place.revision, trust_remote_code=False)


def _device(asked: str) -> str:
    """The device itself; of several GPUs, the one that the launcher gives to this process."""
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
    try:
        config = _config(place)
        with _quiet():
            model, info = _model_class(config).from_pretrained(
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
        model = model.eval() if where else model.eval().to(_device(device))
    except torch.OutOfMemoryError:
        raise MemoryFull(
            f"'{name}' does not fit into the memory of {device}: use bfloat16, a larger device or"
            " --device-map auto."
        ) from None
    except ImportError as cause:
        raise _package(name, cause) from cause
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


def _package(name: str, cause: ImportError) -> MissingExtra:
    """For architectures whose code stands elsewhere: Gemma3n's image tower is timm's."""
    return MissingExtra(
        f"Checkpoint '{name}' needs another package: {' '.join(str(cause).split())}"
    )


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports: what they say is checked here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _model_class(config: Any) -> Any:
    _refuse_encoder_decoder(config)
    if config.model_type in THINKERS:
        import transformers  # by name: a version may not have the class

        return getattr(transformers, THINKERS[config.model_type])
    known = type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING
    return AutoModelForMultimodalLM if known else AutoModelForCausalLM


def _refuse_encoder_decoder(config: Any) -> None:
    """Raise CheckpointError for a model that reads its input in one stack and answers in another.

    The decoder's states there are states of the answer; what it was shown never passes its blocks.
    """
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        kind = (config.architectures or [config.model_type])[0]
        raise CheckpointError(
            f"Expected a model that reads text and media with its decoder, got {kind}: an"
            " encoder-decoder, whose decoder never holds the states of what it was shown. Such"
            " models are not supported: choose a decoder-only checkpoint."
        )


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


def decoder(model: Any) -> tuple[str, nn.Module]:
    """Path and module of the stack of blocks, found by identity in `named_modules()`.

    Raises:
        CheckpointError: the model has no decoder with a list of blocks.
    """
    found = model.get_decoder() if hasattr(model, "get_decoder") else None
    if not hasattr(found, "layers"):
        found = getattr(found, "model", None)  # some families answer with a causal LM
    if not isinstance(getattr(found, "layers", None), nn.ModuleList):
        raise CheckpointError(
            f"Expected a decoder with a list of blocks in {type(model).__name__}, found none:"
            " this architecture is not supported."
        )
    path = next(name for name, module in model.named_modules() if module is found)
    return path, found  # type: ignore[return-value]  # it has .layers, so it is a module


def body(model: Any, decoder_path: str) -> nn.Module:
    """The part of the model that merges the media and runs the decoder, without the head.

    It is the child that holds the decoder when nothing but heads stands beside it, else the model.
    """
    child = decoder_path.partition(".")[0]
    heads = {id(model.get_output_embeddings())}
    beside = [m for n, m in model.named_children() if n != child and id(m) not in heads]
    if not child or any(next(m.parameters(), None) is not None for m in beside):
        return model  # type: ignore[no-any-return]  # a PreTrainedModel
    return getattr(model, child)  # type: ignore[no-any-return]  # a child module


def _adapt(one: Checkpoint, number: int) -> Checkpoint:
    """The checkpoint with its adapter loaded onto the shared model, as the `number`-th there."""
    folder = Path(one.place.where)
    state = _adapter_state(folder)
    # transformers tells adapters' tensors apart by substring, so no name may be part of another.
    name = f"geomkit_{number:03d}"
    try:
        with _quiet(), warnings.catch_warnings():
            # Several adapters on one model are meant here; transformers reports the others'
            # tensors as missing, which `_check_adapters` answers by looking at every one.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            one.model.load_adapter(str(folder), adapter_name=name, use_safetensors=True)
    except ImportError as cause:
        raise MissingExtra(f"An adapter needs PEFT: pip install peft ({cause}).") from cause
    except Exception as cause:  # PEFT's own, and what odd values set off inside
        raise CheckpointError(f"The adapter in {folder} cannot be loaded: {cause}") from cause
    own = fingerprints.with_adapter(one.fingerprint, state, outside=_outside(one, name))
    return replace(one, adapter=name, fingerprint=own)


def _adapter_state(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"Expected {ADAPTER_WEIGHTS} in {folder}: only safetensors are read.")
    try:
        state = load_file(path)
    except Exception as cause:
        raise CheckpointError(f"Expected safetensors in {path}: {cause}.") from cause
    if not state:
        raise CheckpointError(f"Expected adapter weights in {path}, got an empty file.")
    return state


def _placed(one: Checkpoint) -> dict[str, torch.Tensor]:
    mark = f".{one.adapter}"
    return {n: p for n, p in one.model.named_parameters() if mark in n}


def _outside(one: Checkpoint, adapter: str) -> bool:
    """True when the adapter touches more than the decoder."""
    inside = one.decoder_path + "."
    return any(not n.startswith(inside) for n in _placed(replace(one, adapter=adapter)))


def _check_adapters(checkpoints: Sequence[Checkpoint]) -> None:
    """Every tensor of every adapter file stands in the model, unchanged.

    A prefix that does not match, or a second adapter, can leave random or zero weights with no
    more than a warning.

    Raises:
        CheckpointError: a tensor is missing, or another one stands in its place.
    """
    for one in checkpoints:
        if not one.adapter:
            continue
        state, placed = _adapter_state(Path(one.place.where)), _placed(one)
        dtype = next(iter(placed.values())).dtype if placed else torch.float32
        want = sorted(fingerprints.tensor_sha(t.to(dtype)) for t in state.values())
        have = sorted(fingerprints.tensor_sha(t) for t in placed.values())
        if want != have:
            right = len(set(want) & set(have))
            raise CheckpointError(
                f"Expected all {len(want)} tensors of the adapter in {one.place.where} in the"
                f" model, found {right}: was it trained on another base or another version?"
            )
