"""UMAP: made once, kept by its inputs, the same in every process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from geomkit.pictures import layouts
from geomkit.pictures.album import make_album, unit
from geomkit.pictures.layouts import fit, key_of, layout, neighbours, parameters, read, sites_of
from geomkit.projection import SiteMap, site_map
from tests.pictures.worlds import world

STATES = np.random.default_rng(0).standard_normal((2, 60, 12)).astype(np.float32)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for the fit that counts how often it is asked: compiling takes 20 s."""
    asked: list[int] = []

    def stand_in(units: Any, _start: Any) -> Any:
        asked.append(len(units))
        return units[:, :2].astype(np.float32)

    monkeypatch.setattr(layouts, "fit", stand_in)
    return asked


def test_neighbours_begin_with_the_row_itself_and_are_exact() -> None:
    units = unit(STATES).reshape(120, 12)
    units[5] = units[4]
    near, far = neighbours(units)
    assert near[:, 0].tolist() == list(range(120))
    distance = 1 - units @ units.T
    np.fill_diagonal(distance, -1)
    np.testing.assert_allclose(
        far[:, 1:], np.sort(distance, axis=1)[:, 1 : layouts.NEIGHBOURS], atol=1e-6
    )
    assert near[4, 1] == 5


def test_it_is_made_once(tmp_path: Path, quick: list[int]) -> None:
    run = cast("Any", world(30, tmp_path))
    said: list[str] = []
    first = make_album(run, umap=True, progress=lambda what, *_: said.append(what)).layouts
    assert [entry.site for entry in first] == ["block_00", "final_norm"]
    assert len(quick) == 2
    assert any("compiles" in what for what in said)
    said.clear()
    second = make_album(run, umap=True, progress=lambda what, *_: said.append(what)).layouts
    assert len(quick) == 2
    assert not any("compiles" in what for what in said)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.coordinates, b.coordinates)


def test_other_states_or_parameters_are_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    units = unit(STATES)
    given = parameters(120)
    key = key_of(units, "final_norm", given)
    moved = units.copy()
    moved[1, 3, 5] += 1e-6
    assert key == key_of(units.copy(), "final_norm", dict(given))
    assert key != key_of(moved, "final_norm", given)
    assert key != key_of(units, "block_00", given)
    assert key != key_of(units, "final_norm", {**given, "umap": "0.0"})
    monkeypatch.setattr(layouts, "NEIGHBOURS", 16)
    assert key != key_of(units, "final_norm", parameters(120))


@pytest.mark.parametrize("damage", ["cut", "other", "nan", "shape", "list"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, quick: list[int], damage: str) -> None:
    run = cast("Any", world(30, tmp_path))
    make_album(run, umap=True)
    for path in tmp_path.glob("umap-*.json"):
        content = json.loads(path.read_text())
        if damage == "other":
            content["key"] = "0" * 64
        if damage == "nan":
            content["coordinates"] = "AADAfw==" * 70  # not a number, in float32
        if damage == "shape":
            content["coordinates"] = content["coordinates"][:-8]
        text = {"cut": path.read_text()[:100], "list": "[]"}.get(damage, json.dumps(content))
        path.write_text(text)
    make_album(run, umap=True)
    assert len(quick) == 4


def test_what_is_kept_is_what_was_made(tmp_path: Path) -> None:
    found = np.random.default_rng(1).standard_normal((2, 5, 2)).astype(np.float32)
    path = tmp_path / "umap.json"
    path.write_bytes(layouts.written("k" * 64, "final_norm", {}, found))
    kept = read(path, "k" * 64, (2, 5, 2))
    assert kept is not None
    np.testing.assert_array_equal(kept, found)
    assert read(path, "j" * 64, (2, 5, 2)) is None


def test_sites_are_the_deepest_and_some_before() -> None:
    drawn = [site_map(f"block_{i:02d}", STATES) for i in range(9)]
    assert sites_of(drawn) == ("block_03", "block_05", "block_08")
    assert sites_of(drawn[:1]) == ("block_00",)
    assert sites_of([SiteMap("embed", None, (0.0, 0.0), "equal")]) == ()


def test_too_few_rows_have_no_layout(tmp_path: Path) -> None:
    run = cast("Any", world(3, tmp_path))
    few = STATES[:, :5]
    assert layout(run, site_map("s", few), unit(few), lambda: None) is None
    assert not list(tmp_path.iterdir())


SCRIPT = """
import hashlib, numpy as np
from geomkit.pictures.album import unit
from geomkit.pictures.layouts import fit
from geomkit.projection import site_map
states = np.random.default_rng(0).standard_normal((2, 60, 12)).astype(np.float32)
start = site_map("s", states).coordinates.reshape(-1, 2)
print(hashlib.sha256(fit(unit(states).reshape(120, -1), start).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_fits_and_two_processes_agree() -> None:
    pca = site_map("s", STATES).coordinates
    assert pca is not None
    units, start = unit(STATES).reshape(120, -1), pca.reshape(-1, 2)
    first, second = fit(units, start), fit(units, start)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() == 1
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == hashlib.sha256(first.tobytes()).hexdigest()
