"""The run folder and the shard format: the specification, and the names that implement it.

This text is the format. Version 1. MUST and MAY are meant literally; whatever a reader does not
find as written here, it refuses.

Run folder

    RUN/
      plan.json                    a `geomkit.types.Plan` as canonical JSON; first, never changed
      media/<sha16>.webp | .wav    MAY: previews; 16 hex digits of sha256(sample id)
      <checkpoint>/checkpoint.json {"schema", "order", "plan_hash", "record", "sha256"}
      <checkpoint>/shard-00000.h5  one slice of the plan: `shard_batches` batches, in plan order
      <checkpoint>/tokens-00000.h5  MAY: the states of every token of that slice
      <checkpoint>/shard-00000.json  its receipt, last
      analysis.json, analysis.csv  MAY: written by the analysis, byte-reproducible
      umap-<sha16>.json            MAY: a layout of the report, kept under a hash of its inputs
      .lock, .*.tmp                not part of the run: a lock held while writing, a write in flight

`<checkpoint>` MUST match `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, MUST NOT be `media` nor end with a dot,
and names MUST differ by more than letter case. `order` counts captures from 0; the lowest is the
reference; `sha256` is of the record's canonical JSON without fields at their defaults. JSON files
are UTF-8, keys sorted, without NaN, Infinity or repeated keys.

Receipt

    {"schema": "geomkit-receipt/1", "file": "shard-00000.h5", "bytes": N, "sha256": "<of the file>",
     "rows": N, "plan_hash": "<sha256>", "checkpoint_hash": "<sha256>"}

    and MAY, left out at these defaults:
     "events": []      sentences: what happened while it was made, such as memory that ran out
     "tokens": null    {"file": "tokens-00000.h5", "bytes": N, "sha256": "<of the file>"}

A shard counts only when its file has the size and the sha256 of its receipt and the receipt names
this plan and this checkpoint; where the receipt names tokens, they MUST be there and match too.
Everything else at that name is as good as absent, and is redone. The plan hash is the sha256 of
plan.json's canonical form; the checkpoint hash covers what decides the numbers: weights, adapter,
towers, template, dtype, attention, sites, dim and library versions.

Shard (HDF5, superblock 3 or newer, signature at byte 0, no user block)

    /                       attributes, all MUST: format  fixed string "geomkit-shard"
                                                  version int64, 1
                                                  plan_hash, checkpoint_hash  fixed strings of 64
    /sites                  (sites,)  fixed UTF-8   names, in model order
    /samples/index          (rows,)   int64         row number in the plan
    /samples/id             (rows,)   fixed UTF-8   sample id, printable, at most 256 bytes
    /samples/modality       (rows,)   fixed UTF-8   text | image | audio | video
    /samples/ok             (rows,)   uint8         1: the state is good; 0: the sample was not read
    /samples/n_tokens       (rows,)   int32         tokens that were not padding
    /samples/token_sha      (rows,)   fixed UTF-8   sha256 of the token ids in hex; MAY be empty
    /samples/note           (rows,)   fixed UTF-8   why not ok, or what was cut
    /states/<pooling>       (rows, sites, dim) float32 or bfloat16, little-endian, as the plan says

Every dataset MUST be chunked with the one filter fletcher32, fully allocated, without compression,
external storage or virtual parts; every link MUST be a hard link; there MUST be nothing else in the
file. States are chunked `(64, 1, dim)`, capped to the shape, so that one site is read without the
others. Rows with ok = 0 are NaN; rows with ok = 1 are finite. Strings are padded with NUL.

A plan field at its default (`store_dtype` "float32") is left out of plan.json, and so of its hash.
bfloat16 is an HDF5 float type of two bytes: sign at bit 15, 8 bits of exponent from bit 7 with bias
127, 7 bits of mantissa. Any reader sees float32. Values are rounded to nearest, ties to even; a
finite value that would become infinite is an error.

Tokens (HDF5 as above; attributes with format "geomkit-tokens")

    /sites                  as in the shard
    /index                  (rows,)        int64   as /samples/index of the shard
    /offsets                (rows + 1,)    int64   row i has the tokens offsets[i] to offsets[i + 1]
    /states                 (tokens, sites, dim)   type as in the shard, chunks (256, 1, dim)

A good row has as many tokens as its n_tokens, and they are finite; those of other rows are NaN, and
there MAY be none. With no tokens at all the first axis is empty.

Packed run (HDF5 as above; one file, made from a run whose checkpoints are complete)

    /                       attributes: format "geomkit-run", version int64 1, plan_hash
    /plan                   uint8   plan.json
    /checkpoints/<name>     attributes and datasets of one shard that holds all rows in plan order
    /checkpoints/<name>/record    uint8   checkpoint.json
    /checkpoints/<name>/receipts  uint8   {"receipts": [...]}: those of its shards, for the record
    /checkpoints/<name>/tokens    MAY: a group like a tokens file, all rows in plan order
    /media/{name,offset,data}     MAY: previews one after the other, under their file names
    /analysis               MAY: uint8   analysis.json
    the last 81 bytes       after what HDF5 reads, the seal: LF, "geomkit-seal/1 ", sha256 of
                            everything before it in hex, LF

It is never changed: what is made from run.h5 goes beside it, as run.analysis.json,
run.analysis.csv and run.report.html. An analysis beside it goes before the one inside.

The writer is deterministic: equal rows give equal bytes (object times are off, the format bound is
fixed to v1.14 rather than to "latest", whose meaning moves with the library).

Reading without geomkit

    import h5py
    h5py.File("run/base/shard-00000.h5")["states/last"][:, -1, :]
    h5py.File("run.h5")["checkpoints/base/states/last"][:, -1, :]
"""

from __future__ import annotations

from geomkit.store.folder import check_place, check_run, create_run, latest_run, open_run
from geomkit.store.overview import CheckpointOverview, Overview, overview
from geomkit.store.pack import pack_run
from geomkit.store.run import Run
from geomkit.store.shard import FORMAT, VERSION, ShardRows
from geomkit.store.tokens import TokenRows
from geomkit.store.verify import verify_run

__all__ = [
    "FORMAT",
    "VERSION",
    "CheckpointOverview",
    "Overview",
    "Run",
    "ShardRows",
    "TokenRows",
    "check_place",
    "check_run",
    "create_run",
    "latest_run",
    "open_run",
    "overview",
    "pack_run",
    "verify_run",
]
