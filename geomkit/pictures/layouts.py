"""UMAP of a few sites: seeded, pooled over checkpoints, and kept in the run.

One fit takes the rows of every checkpoint, so that before and after share one space. Neighbours
are exact and given to UMAP, which begins at the principal axes; with one seed and one thread the
same states give the same layout in every process. What was made is kept beside the run's records,
under a key of everything it depends on, so that it is made once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.pictures.closeness import nearest
from geomkit.pictures.records import Floats, Layout
from geomkit.projection import SiteMap
from geomkit.store import files
from geomkit.store.run import Run

SCHEMA = "geomkit-umap/1"
NEIGHBOURS = 15
MIN_DIST = 0.1
SEED = 0
MOST_SITES = 3
LEAST_ROWS = 4 * NEIGHBOURS
MAX_BYTES = 64 << 20

Units = NDArray[np.float64]


def sites_of(maps: Sequence[SiteMap]) -> tuple[str, ...]:
    """The sites that get a layout: the deepest that can be drawn, and some evenly before it."""
    drawn = [m.site for m in maps if m.coordinates is not None]
    at = np.linspace(len(drawn) - 1, 0, MOST_SITES + 1).round().astype(int)[:MOST_SITES]
    return tuple(drawn[i] for i in sorted(set(at.tolist()))) if drawn else ()


def parameters(rows: int) -> dict[str, int | float | str]:
    """What a layout depends on besides its states."""
    return {
        "n_neighbors": NEIGHBOURS, "min_dist": MIN_DIST, "metric": "cosine", "seed": SEED,
        "rows": rows, "umap": version("umap-learn"), "numba": version("numba"),
    }  # fmt: skip


def layout(
    run: Run, pca: SiteMap, spaces: NDArray[np.float64], say: Callable[[], None]
) -> Layout | None:
    """The layout of unit rows `(checkpoints, rows, dim)`: kept, or made and kept now.

    `say` is called before it is made. None where there are too few rows for neighbourhoods.
    """
    checkpoints, rows, _ = spaces.shape
    if pca.coordinates is None or checkpoints * rows < LEAST_ROWS:
        return None
    given = parameters(checkpoints * rows)
    key = key_of(spaces, pca.site, given)
    path = run.beside(f"umap-{key[:16]}.json")
    kept = read(path, key, (checkpoints, rows, 2)) if files.exists(path) else None
    if kept is None:
        say()
        start = pca.coordinates.reshape(-1, 2)
        kept = fit(spaces.reshape(checkpoints * rows, -1), start).reshape(checkpoints, rows, 2)
        files.write_atomic(path, written(key, pca.site, given, kept))
    return Layout(pca.site, kept, given)


def key_of(spaces: Units, site: str, given: Mapping[str, int | float | str]) -> str:
    """sha256 of the states, the site and the parameters."""
    told = {"schema": SCHEMA, "site": site, "shape": spaces.shape, **given}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(spaces, np.float32).tobytes())
    return digest.hexdigest()


def fit(units: Units, start: Floats) -> Floats:
    """Two coordinates a row, centred, the farthest at distance 1 on its axis."""
    near, far = neighbours(units)
    with warnings.catch_warnings():
        # Said at import, and of new rows, which are never laid out: neither is of use here.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        warnings.filterwarnings("ignore", "n_jobs value", UserWarning)
        from umap import UMAP

        model = UMAP(
            n_neighbors=NEIGHBOURS, min_dist=MIN_DIST, metric="cosine", random_state=SEED,
            n_jobs=1, init=start.astype(np.float32), precomputed_knn=(near, far, None),
        )  # fmt: skip
        found = np.asarray(model.fit_transform(units.astype(np.float32)), np.float64)
    found -= (found.max(axis=0) + found.min(axis=0)) / 2
    return (found / (np.abs(found).max() or 1.0)).astype(np.float32)


def neighbours(units: Units) -> tuple[NDArray[np.int32], Floats]:
    """The nearest rows of each and their cosine distances, itself first, as UMAP wants them."""
    rows = np.arange(len(units))
    near = np.column_stack([rows, nearest(units, rows, rows, NEIGHBOURS - 1)]).astype(np.int32)
    cosine = [np.einsum("ij,ij->i", units, units[column]) for column in near.T]
    far = (1 - np.column_stack(cosine)).round(9).clip(0)
    far[:, 0] = 0
    return near, far.astype(np.float32)


def written(key: str, site: str, given: Mapping[str, int | float | str], found: Floats) -> bytes:
    """A layout as JSON."""
    content = {
        "schema": SCHEMA, "key": key, "site": site, "parameters": dict(given),
        "shape": list(found.shape),
        "coordinates": base64.b64encode(found.astype("<f4").tobytes()).decode(),
    }  # fmt: skip
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()


def read(path: Path, key: str, shape: tuple[int, int, int]) -> Floats | None:
    """A kept layout; None when the file is of something else or damaged, and is to be made anew."""
    try:
        content = json.loads(files.read_regular(path, MAX_BYTES))
        if content["schema"] != SCHEMA or content["key"] != key:
            return None
        found = np.frombuffer(base64.b64decode(content["coordinates"]), "<f4").reshape(shape)
    except (ValueError, KeyError, TypeError):
        return None
    return found.astype(np.float32) if np.isfinite(found).all() else None
