"""The states of a run for tools that people already use, one site at a time.

    csv              samples.csv, and states-CHECKPOINT.csv with a column a dimension
    tensorboard      projector_config.pbtxt, samples.tsv and a tensor per checkpoint: a log folder
                     for TensorBoard's projector, written without it
    embedding-atlas  atlas.parquet: a row a sample and modality, with coordinates per checkpoint,
                     vectors and nearest neighbours after training

Rows are those that were read in every checkpoint, in the plan's order; the same rows everywhere.
Coordinates are the report's: one PCA of unit-length states over all checkpoints together.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import UsageError
from geomkit.projection import frame, site_map
from geomkit.store import Run
from geomkit.store.tables import require_parquet
from geomkit.types import Row

States = NDArray[np.float32]

NEIGHBOURS = 10
PRECISION = "%.7g"
"""As many digits as a float32 holds."""


def export_csv(run: Run, to: Path, site: str) -> tuple[Path, ...]:
    """Write samples and states as CSV; one line a row, in the same order in every file.

    Raises:
        UsageError: the run has no such site.
        DegenerateInput: no checkpoint is complete, or no row was read in all of them.
    """
    rows, states = shown(run, site)
    to.mkdir(parents=True, exist_ok=True)
    written = [to / "samples.csv"]
    with written[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(table(rows))
    for name, own in states.items():
        path = to / f"states-{name}.csv"
        head = ",".join(["index", "id", "modality", *(f"d{i}" for i in range(own.shape[1]))])
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(head + "\n")
            for row, line in zip(rows, own, strict=True):
                csv.writer(file, lineterminator="\n").writerow(
                    [row.index, row.id, row.modality, *(PRECISION % value for value in line)]
                )
        written.append(path)
    return tuple(written)


def export_tensorboard(run: Run, to: Path, site: str) -> tuple[Path, ...]:
    """Write a log folder for the projector: `tensorboard --logdir FOLDER`.

    Raises:
        UsageError: the run has no such site.
        DegenerateInput: no checkpoint is complete, or no row was read in all of them.
    """
    rows, states = shown(run, site)
    to.mkdir(parents=True, exist_ok=True)
    metadata = to / "samples.tsv"
    lines = ("\t".join(map(one_line, line)) for line in table(rows))
    metadata.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    written, config = [metadata], []
    for name, own in states.items():
        path = to / f"{name}.tsv"
        np.savetxt(path, own, fmt=PRECISION, delimiter="\t", newline="\n")
        fields = {
            "tensor_name": f"{name}: {site}",
            "tensor_path": path.name,
            "metadata_path": metadata.name,
        }
        told = "".join(f"  {key}: {quoted(value)}\n" for key, value in fields.items())
        config.append(f"embeddings {{\n{told}}}\n")
        written.append(path)
    written.append(to / "projector_config.pbtxt")
    written[-1].write_text("".join(config), encoding="utf-8", newline="\n")
    return tuple(written)


def export_atlas(run: Run, to: Path, site: str) -> tuple[Path, ...]:
    """Write one Parquet file for embedding-atlas.

    Raises:
        UsageError: the run has no such site.
        DegenerateInput: no checkpoint is complete, or no row was read in all of them.
        MissingExtra: pyarrow is not installed.
    """
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, states = shown(run, site)
    head, *lines = table(rows)
    columns: dict[str, Any] = {name: [line[i] for line in lines] for i, name in enumerate(head)}
    drawn = site_map(site, np.stack(list(states.values())))
    for at, (name, own) in enumerate(states.items()):
        if drawn.coordinates is not None:
            columns[f"{name}_x"], columns[f"{name}_y"] = drawn.coordinates[at].T
        columns[f"{name}_state"] = list(own)
    columns["neighbors"] = neighbours(list(states.values())[-1])
    to.mkdir(parents=True, exist_ok=True)
    path = to / "atlas.parquet"
    pq.write_table(pa.table(columns), path)
    return (path,)


def shown(run: Run, site: str) -> tuple[tuple[Row, ...], dict[str, States]]:
    """Rows read in every complete checkpoint, and their states at a site, by checkpoint."""
    whole = frame(run, pooling=run.plan.poolings[0], limit=len(run.plan.rows))
    if site not in whole.sites:
        raise UsageError(f"Expected a site of the run ({', '.join(whole.sites)}), got {site!r}.")
    read = [run.states(name, site, whole.pooling) for name in whole.checkpoints]
    kept = np.flatnonzero(np.logical_and.reduce([ok for _, ok in read]))
    rows = tuple(run.plan.rows[i] for i in kept)
    own = zip(whole.checkpoints, (states[kept] for states, _ in read), strict=True)
    return rows, dict(own)


def table(rows: Sequence[Row]) -> list[list[str]]:
    """A head and a line a row; labels and controls are columns, empty where a row has none."""
    labels = sorted({name for row in rows for name in row.labels})
    controls = sorted({name for row in rows for name in row.controls})
    head = ["index", "id", "modality", "group", "text"]
    head += [f"label_{name}" for name in labels] + [f"control_{name}" for name in controls]
    lines = [
        [
            *(str(row.index), row.id, row.modality, row.group, row.text),
            *cells(row.labels, labels),
            *cells(row.controls, controls),
        ]
        for row in rows
    ]
    return [head, *([safe(text) for text in line] for line in lines)]


def cells(values: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """The values under these names; empty where there is none."""
    return [values.get(name, "") for name in names]


def safe(text: str) -> str:
    """Text that a spreadsheet would run as a formula gets a leading quote."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def one_line(text: str) -> str:
    """Text without what separates cells and lines."""
    return " ".join(text.split())


def quoted(text: str) -> str:
    """Text as a string of a protocol buffer in text form."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def neighbours(states: States) -> list[dict[str, list[float]]]:
    """Nearest other rows by cosine, as embedding-atlas reads them: positions and distances."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    unit = np.divide(states, lengths, out=np.zeros_like(states), where=lengths > 0)
    count = min(NEIGHBOURS, len(unit) - 1)
    if count < 1:
        return [{"ids": [], "distances": []} for _ in unit]
    found = []
    for i, row in enumerate(unit):
        cosines = unit @ row
        cosines[i] = -np.inf
        near = np.argsort(-cosines, kind="stable")[:count]
        found.append({"ids": near.tolist(), "distances": (1 - cosines[near]).tolist()})
    return found
