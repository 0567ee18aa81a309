"""What a checkpoint folder of a stranger says of itself, looked at before anything is loaded.

Nothing in it is executed: an architecture that transformers does not have, a class that
sentence-transformers does not have, or weights in pickles are refused, each with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geomkit.errors import CheckpointError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODULES = "modules.json"  # of a sentence-transformers folder
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
LFS = b"version https://git-lfs"  # how a file begins that git has not fetched
DEEPEST = 10_000  # blocks; a configuration is built before its weights are looked at
LARGEST = 64 << 20  # bytes of JSON that are read; a large index has two or three million
LONGEST = 200  # characters that are kept of an error of another library

PRIVATE = ("_attn_implementation_internal", "_experts_implementation_internal")
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation",
           "_experts_implementation")  # fmt: skip
WORD = re.compile(r"[A-Za-z0-9_|]*")  # "sdpa", not "org/kernel": that is code of a repository

BUILT_IN_MODULE = re.compile(
    r"sentence_transformers\.(models|(base|sentence_transformer)\.modules\.[a-z_]+)\.(?P<kind>\w+)"
)
AFTER = ("Pooling", "Normalize", "Dense", "Dropout", "LayerNorm", "WeightedLayerPooling")
"""What may follow the transformer; geomkit pools by itself, so none of it is applied."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        CheckpointError: it is no JSON, or larger than any honest one.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB, the most that is read")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise CheckpointError(f"Expected JSON in {path}: {_short(str(cause))}.") from cause


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds, or {} when there is no file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"Expected a JSON object in {path}, got {type(found).__name__}.")
    return found


def is_checkpoint(folder: Path) -> bool:
    """True when a folder says that it is a model, an adapter or a sentence-transformers model."""
    try:
        return any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG, MODULES))
    except (OSError, ValueError):  # not ours to look into, or a name that no file can have
        return False


def transformer(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Where the transformer of a folder is, and which sentence-transformers modules follow it.

    A folder without modules.json is its own transformer.

    Raises:
        CheckpointError: the first module is no transformer, or a class is not the library's own.
    """
    path = folder / MODULES
    if not path.is_file():
        return folder, ()
    modules = read_json(path)
    if not isinstance(modules, list) or not modules:
        got = "an empty one" if isinstance(modules, list) else type(modules).__name__
        raise CheckpointError(f"Expected a list of modules in {path}, got {got}.")
    kinds = [_kind(module, path) for module in modules]
    where = modules[0].get("path")
    if kinds[0] != "Transformer" or where not in ("", "0_Transformer"):
        raise CheckpointError(
            f"Expected a Transformer at '' or '0_Transformer' as the first module in {path}, got"
            f" {kinds[0]} at {where!r}: geomkit reads the states of a decoder."
        )
    if odd := [kind for kind in kinds[1:] if kind not in AFTER]:
        raise CheckpointError(
            f"Expected {', '.join(AFTER)} after the Transformer in {path}, got {odd[0]}."
        )
    return folder / where, tuple(kinds[1:])


def _kind(module: Any, path: Path) -> str:
    named = module.get("type") if isinstance(module, dict) else None
    found = BUILT_IN_MODULE.fullmatch(named) if isinstance(named, str) else None
    if found is None:
        raise CheckpointError(
            f"Expected classes of sentence_transformers in {path}, got {_short(repr(named))}: no"
            " code that comes with a checkpoint is run."
        )
    return found["kind"]


def check_model(folder: Path) -> None:
    """Raise CheckpointError unless transformers itself knows the architecture of a folder."""
    path = folder / CONFIG
    config = read_object(path)
    if not config:
        raise CheckpointError(f"Expected a model's {CONFIG} in {folder}, found none.")
    _check_keys(config, path)
    _check_architecture(config, folder)


def _check_keys(config: Mapping[str, Any], path: Path) -> None:
    from transformers import PreTrainedConfig

    for key, value, sets in _pairs(config):
        shadows = key.startswith("__") or callable(getattr(PreTrainedConfig, key, None))
        if key in PRIVATE or (sets and shadows):
            raise CheckpointError(
                f"Expected settings of a model in {path}, got '{_short(key)}', which is a private"
                " part of transformers and no honest tool writes: do not use this checkpoint."
            )
        if key.endswith("layers") and isinstance(value, int) and value > DEEPEST:
            raise CheckpointError(f"Expected at most {DEEPEST} layers in {path}, got {value}.")
        if key in KERNELS and not _is_word(value):
            raise CheckpointError(
                f"Expected the name of an implementation for '{key}' in {path}, got"
                f" {_short(repr(value))}: no code of another repository is run."
            )


def _pairs(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Every key with its value, at any depth, and whether it sets an attribute of a config.

    Other keys are data, such as the names of classes, and may be any word.
    """
    waiting: list[tuple[Any, bool]] = [(config, True)]
    while waiting:
        one, sets = waiting.pop()
        if isinstance(one, Mapping):
            sets = sets or "model_type" in one
            yield from ((key, value, sets) for key, value in one.items())
            waiting.extend((value, key.endswith("_config")) for key, value in one.items())
        elif isinstance(one, list):
            waiting.extend((value, False) for value in one)


def _is_word(value: Any) -> bool:
    if isinstance(value, Mapping):  # one implementation a part of the model
        return all(_is_word(v) for v in value.values())
    return value is None or (isinstance(value, str) and bool(WORD.fullmatch(value)))


def _check_architecture(config: Mapping[str, Any], folder: Path) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        own = "auto_map" in config
        raise CheckpointError(
            f"Expected an architecture that transformers {transformers.__version__} has in"
            f" {folder / CONFIG}, got {_short(repr(kind))}"
            + (" with code of its own (auto_map), which is never run." if own else ".")
        )
    try:
        transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as cause:  # its own strict types, and whatever odd values set off
        raise CheckpointError(
            f"Expected a configuration of {kind} in {folder / CONFIG}, transformers refuses it:"
            f" {_short(str(cause))}"
        ) from cause


def check_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter folder.

    Raises:
        CheckpointError: it names no base, or asks for a module to be imported.
    """
    path = folder / ADAPTER_CONFIG
    config = read_object(path)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not (isinstance(base, str) and base):
        raise CheckpointError(f"Expected base_model_name_or_path in {path}.")
    if not (revision is None or isinstance(revision, str)):
        raise CheckpointError(f"Expected a revision of {base} in {path}, got {revision!r}.")
    if config.get("megatron_config"):
        raise CheckpointError(
            f"Expected an adapter for transformers in {path}, got one with megatron_config, which"
            " names a module to import: no code is run for a checkpoint."
        )
    return config


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the weight files that a folder says it has, there or still to be fetched.

    Raises:
        CheckpointError: the index names files elsewhere.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return (ADAPTER_WEIGHTS,)
    index = read_object(folder / INDEX)
    if not index:
        return (WEIGHTS,)
    named = index.get("weight_map")
    files = set(named.values()) if isinstance(named, dict) and _plain(named.values()) else set()
    if not files:
        raise CheckpointError(
            f"Expected a weight_map with names of safetensors files in {folder / INDEX}."
        )
    return tuple(sorted(files))


def _plain(names: Any) -> bool:
    return all(
        isinstance(n, str) and n.endswith(".safetensors") and Path(n).name == n and "\\" not in n
        for n in names
    )


def check_weights(folder: Path) -> None:
    """Raise CheckpointError unless the weights of a folder are there, as safetensors."""
    files = weight_files(folder)
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing:
        for name in files:
            _check_header(folder / name)
        return
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"Expected {missing[0]} in {folder}, got {pickles[0]}: only safetensors are read, a"
            " pickle can run code. Where you trust it, load it with transformers and write it"
            " again with save_pretrained."
        )
    raise CheckpointError(
        f"Expected {missing[0]} in {folder}, found no weights (only safetensors are read)."
    )


def _check_header(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return
    except (SafetensorError, OSError) as cause:
        with path.open("rb") as file:
            pointer = file.read(len(LFS)) == LFS
        got = "a git-lfs pointer: fetch the file with git lfs pull" if pointer else str(cause)
        raise CheckpointError(f"Expected safetensors in {path}, got {_short(got)}.") from cause


def _short(text: str) -> str:
    """The beginning of what another wrote, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
