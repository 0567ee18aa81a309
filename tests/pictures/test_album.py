"""A run -> everything the page draws: what is in it, and that it comes out the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from geomkit.pictures import album as module
from geomkit.pictures.album import make_album, near_sites
from geomkit.pictures.changes import MOST, NEAR
from geomkit.pictures.records import NONE, Album
from geomkit.projection import Frame, project
from tests.pictures.worlds import SITES, FakeRun, world


def made(run: FakeRun, **options: Any) -> Album:
    return make_album(cast("Any", run), **options)


def test_the_whole() -> None:
    run = world()
    album = made(run)
    rows = len(run.rows)
    assert album.cosine.shape == (3, 2, rows)
    assert np.isnan(album.cosine[0]).all()  # the embed site has no geometry
    assert {c.site for c in album.closeness} == set(SITES[1:])
    assert {p.site for p in album.pairs} == set(SITES[1:])
    assert {s.site for s in album.spectra} == set(SITES[1:])
    assert album.gallery_site == "final_norm"
    assert not album.layouts
    mine, theirs = album.projection.sites, project(cast("Any", run)).sites
    for a, b in zip(mine, theirs, strict=True):
        assert a.note == b.note
        if a.coordinates is not None:
            np.testing.assert_array_equal(a.coordinates, b.coordinates)


def test_twice_the_same() -> None:
    first, second = made(world()), made(world())
    assert first.pairs == second.pairs
    assert first.spectra == second.spectra
    assert first.changes == second.changes
    np.testing.assert_array_equal(first.cosine, second.cosine)
    for a, b in zip(first.closeness, second.closeness, strict=True):
        np.testing.assert_array_equal(a.own, b.own)
        np.testing.assert_array_equal(a.rank, b.rank)


def test_changes_are_those_that_kept_fewest() -> None:
    run = world(40)
    album = made(run)
    near = album.closeness[-1]
    own = near.own[:, [i for i, row in enumerate(run.rows) if row.modality == "text"]]
    shared = [len(set(a) & set(b)) for a, b in zip(*own.tolist(), strict=True)]
    texts = [c for c in album.changes if run.rows[c.place].modality == "text"]
    assert [c.kept for c in texts] == sorted(shared)[:MOST]
    for c in album.changes:
        assert c.before == tuple(near.own[0, c.place, :NEAR].tolist())
        assert c.rank_after == near.rank[1, c.place] != NONE


def test_one_checkpoint_has_no_gallery() -> None:
    run = world()
    run.values = {key: value for key, value in run.values.items() if key[0] == "base"}
    album = made(run)
    assert album.changes == ()
    assert album.gallery_site == ""
    assert album.closeness


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_hardly_any_samples(samples: int) -> None:
    album = made(world(samples), umap=True)
    assert len(album.projection.rows) in (3, 5, 7)
    assert not album.layouts


def test_no_site_with_geometry() -> None:
    run = world()
    run.sites = ("embed",)
    album = made(run)
    assert (album.closeness, album.pairs, album.spectra, album.changes) == ((), (), (), ())


def test_neighbours_of_a_long_model_are_kept_where_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites = (*(f"block_{i:02d}" for i in range(28)), "final_norm")
    frame = Frame("last", ("a", "b"), sites, tuple(range(3000)), 3000)
    found = near_sites(frame)
    assert 2 <= len(found) <= 4
    assert "final_norm" in found
    monkeypatch.setattr(module, "NEIGHBOUR_BYTES", 10)
    assert near_sites(frame) == {"final_norm"}
    monkeypatch.setattr(module, "NEIGHBOUR_BYTES", 10**9)
    assert near_sites(frame) == set(sites)


def test_more_checkpoints_show_fewer_rows() -> None:
    run = world(30)
    for site in SITES:
        run.values["more", site] = run.values["lco", site]
        run.values["most", site] = run.values["lco", site]
    album = made(run, limit=20)
    kinds = [run.rows[i].modality for i in album.projection.rows]
    assert kinds.count("text") == 10


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    made(world(3, tmp_path), progress=lambda *told: said.append(told))
    assert said[0] == ("pictures", 0, 3)
    assert said[-1] == ("pictures", 3, 3)
