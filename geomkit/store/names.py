"""What may be a name in a run folder, and what a plan must be to have one."""

from __future__ import annotations

import re

from geomkit.errors import StoreError
from geomkit.store.datasets import check_store_dtype
from geomkit.store.shard import check_id
from geomkit.types import MODALITIES, Plan

PLAN_SCHEMA = "geomkit-plan/1"
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:05d}.h5"


def tokens_name(number: int) -> str:
    """File name of the token states of shard `number`."""
    return f"tokens-{number:05d}.h5"


def check_checkpoint_name(name: str) -> None:
    """Raise StoreError unless `name` can be a folder on every system and nothing else."""
    good = _CHECKPOINT.fullmatch(name) and not name.endswith(".") and name.lower() != "media"
    if not good or _DEVICES.fullmatch(name):
        raise StoreError(
            f"checkpoint name {name[:80]!r}: expected letters, digits, dot, dash, underscore, at "
            "most 64, starting with a letter or digit, and no reserved name; rename it"
        )


def check_plan(plan: Plan) -> None:
    """Raise StoreError unless every row is named once and in exactly one batch of its modality."""
    check_store_dtype(plan.store_dtype)
    if plan.schema != PLAN_SCHEMA:
        raise StoreError(
            f"expected a plan by {PLAN_SCHEMA!r}, got {plan.schema[:40]!r}; read it with the "
            "geomkit that wrote it, or capture again"
        )
    if plan.shard_batches < 1 or not plan.rows or not plan.poolings:
        raise StoreError("a plan needs rows, a pooling and at least one batch a shard")
    if [row.index for row in plan.rows] != list(range(len(plan.rows))):
        raise StoreError("a plan's rows must be numbered 0, 1, 2, ... in order")
    for row in plan.rows:
        check_id(row.id)
        if row.modality not in MODALITIES:
            raise StoreError(f"row {row.index}: unknown modality {row.modality!r}")
    if len({(row.id, row.modality) for row in plan.rows}) != len(plan.rows):
        raise StoreError("a sample id occurs twice in one modality; ids must be unique")
    flat = [index for batch in plan.batches for index in batch]
    if sorted(flat) != list(range(len(plan.rows))) or not all(plan.batches):
        raise StoreError("a plan's batches must hold every row exactly once, and none be empty")
    for batch in plan.batches:
        if len({plan.rows[index].modality for index in batch}) > 1:
            raise StoreError("a batch must hold one modality; group the rows by modality")
