"""Where a loaded model's weights are in the files it came from: found by value, then by name.

Names in the files may differ from names in the loaded model: a thinker's are longer there, an old
family's have another order. A value that occurs once names its weight, and what is left of both
names before their common end tells how the others are renamed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from geomkit.errors import TrainingError
from geomkit.training.rewriting import shards
from geomkit.training.scope import tensor_bytes

BRANCHED = ".base_layer."


def value_sha(tensor: Tensor) -> str:
    """sha256 of a tensor's values as float32, whatever type it is loaded in, and its shape."""
    values = tensor.detach().float()
    digest = hashlib.sha256(str(tuple(values.shape)).encode())
    digest.update(tensor_bytes(values))
    return digest.hexdigest()


def file_names(base: Path, originals: Mapping[str, str]) -> Mapping[str, str]:
    """Path in the model -> name in the files of `base`, for weights whose value hash is given.

    Raises:
        TrainingError: a weight that is not in the files exactly once, as where layers are fused.
    """
    by_sha = _by_sha(base)
    renamings: Counter[tuple[str, str]] = Counter()
    for path, sha in originals.items():
        if len(names := by_sha.get(sha, [])) == 1:
            renamings[_beginnings(_plain(path), names[0])] += 1
    ranked = [renaming for renaming, _ in renamings.most_common()]
    found: dict[str, str] = {}
    for path, sha in originals.items():
        names = by_sha.get(sha, [])
        expected = [
            after + _plain(path).removeprefix(before)
            for before, after in ranked
            if _plain(path).startswith(before)
        ]
        name = next((name for name in expected if name in names), None)
        if name is None:
            raise TrainingError(
                f"Expected the weight {path} in the files of {base.name}, found it in "
                f"{len(names)} places under other names: layers that are stored fused or split, "
                "as experts are, cannot be written back; train with method lora."
            )
        found[path] = name
    if len(set(found.values())) < len(found):
        raise TrainingError(f"Expected every weight once in the files of {base.name}.")
    return found


def _plain(path: str) -> str:
    return path.replace(BRANCHED, ".")


def _by_sha(base: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for shard in shards(base):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                found.setdefault(value_sha(file.get_tensor(name)), []).append(name)
    return found


def _beginnings(path: str, name: str) -> tuple[str, str]:
    """What is left of two dotted names when their common end is taken off."""
    ours, theirs = path.split("."), name.split(".")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    ends = ".".join(ours[len(ours) - same :])
    return path.removesuffix(ends), name.removesuffix(ends)
