"""What the map's script reads: arrays that survive packing, samples once, media on request."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geomkit.pictures.records import NONE, OWN_SHOWN, Album
from reports import arrays, mapping, media, payload
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build
from tests.reports.fixture import KINDS


@pytest.fixture(scope="module")
def album() -> Album:
    return pictures.album(fixture.rows())


def data(built: Built) -> dict[str, Any]:
    """What the script reads as JSON."""
    return json.loads(unpacked(built, "data"))


def unpacked(built: Built, name: str) -> bytes:
    """A data script as the browser unpacks it."""
    text = built.tree.xpath(f"//script[@id='{name}']")[0].text
    return payload.unpacked(text)


def array(built: Built, name: str) -> NDArray[Any]:
    """An array as the page's script reads it."""
    entry = data(built)["map"]["arrays"][name]
    raw = np.frombuffer(unpacked(built, "marks"), np.uint8)[entry["at"] :]
    count = int(np.prod(entry["shape"]))
    planes = [raw[i * count : (i + 1) * count].astype(np.uint16) for i in range(entry["bytes"])]
    return sum((p << (8 * i) for i, p in enumerate(planes)), np.zeros(count, np.uint16)).reshape(
        entry["shape"]
    )


def test_coordinates_survive_packing(built: Built, album: Album) -> None:
    site = album.projection.sites[-1].coordinates
    assert site is not None
    sites = data(built)["map"]["sites"]
    assert [s["pca"] for s in sites] == [None, *range(len(sites) - 1)]
    read = array(built, "pca")[sites[-1]["pca"]] / arrays.COORDINATE_LEVELS * 2 - 1
    expected = mapping.framed(site)
    assert np.abs(expected).max() == pytest.approx(1)
    np.testing.assert_allclose(read.transpose(0, 2, 1), expected, atol=1 / 1000)


def test_one_scale_for_axes_and_checkpoints(album: Album) -> None:
    site = album.projection.sites[-1].coordinates
    assert site is not None
    scale = np.diff(mapping.framed(site), axis=1) / np.diff(site.astype(float), axis=1)
    np.testing.assert_allclose(scale, scale[0, 0, 0], rtol=1e-3)


def test_cosines_and_neighbours_survive_packing(built: Built, album: Album) -> None:
    sites = data(built)["map"]["sites"]
    steps = array(built, "cosine")[sites[-1]["pca"]]
    low, high = sites[-1]["cosine"]
    read = low + (steps.astype(float) - 1) / arrays.COSINE_LEVELS * (high - low)
    told = arrays.firsts(album.partner)
    np.testing.assert_allclose(read, album.cosine[-1][:, told], atol=(high - low) / 500)
    near = album.closeness[-1]
    at = sites[-1]["near"]
    assert at == len(album.closeness) - 1
    rows = fixture.rows()
    of_kind = {kind: [i for i, r in enumerate(rows) if r.modality == kind] for kind in KINDS}
    for i, row in enumerate(rows):
        own = [[of_kind[row.modality][j] for j in side] for side in array(built, "own")[at][:, i]]
        np.testing.assert_array_equal(own, near.own[:, i, :OWN_SHOWN])
        other = of_kind[rows[album.partner[i]].modality]
        across = [[other[j] for j in side] for side in array(built, "across")[at][:, i]]
        np.testing.assert_array_equal(across, near.across[:, i])
    np.testing.assert_array_equal(array(built, "rank")[at], near.rank)
    np.testing.assert_array_equal(array(built, "partner"), album.partner)


def test_two_views_of_one_sample_have_one_cosine() -> None:
    assert arrays.firsts(np.array([1, 0, NONE, 0, 5, 4], np.int32)).tolist() == [0, 2, 3, 4]
    kinds = np.array([0, 1, 0, 1, 0])
    assert arrays.within(np.array([[4, 3], [NONE, 0]], np.int32), kinds).tolist() == [
        [2, 1],
        [NONE, 0],
    ]


def test_what_is_not_there_has_its_own_number() -> None:
    low, high, steps = arrays.cosine_steps(np.array([np.nan, -0.5, 1.0], np.float32))
    assert (low, high) == (-0.5, 1.0)
    assert steps.tolist() == [0, 1, 255]
    assert arrays.cosine_steps(np.full(3, np.nan, np.float32))[2].tolist() == [0, 0, 0]
    assert arrays.cosine_steps(np.full(3, 0.25, np.float32))[2].tolist() == [1, 1, 1]
    places = arrays.places(np.array([NONE, 0, 70_000], np.int32))
    assert places.tolist() == [arrays.NOWHERE, 0, arrays.NOWHERE]


def test_planes_are_read_back_whole() -> None:
    wide = np.arange(0, 60_000, 8, np.uint16).reshape(2, -1, 3)
    index, text = arrays.packed_arrays({"a": np.arange(5, dtype=np.uint8), "b": wide})
    raw = np.frombuffer(payload.unpacked(text), np.uint8)
    at, count = index["b"]["at"], wide.size
    read = raw[at : at + count] + 256 * raw[at + count : at + 2 * count].astype(int)
    np.testing.assert_array_equal(read.reshape(wide.shape), wide)


def test_a_sample_is_written_once_for_all_its_views(built: Built) -> None:
    own = data(built)["map"]
    rows = fixture.rows()
    assert len(own["samples"]) == len({row.id for row in rows})
    samples, indexes = (list(accumulate(own["rows"][name])) for name in ("sample", "index"))
    for i in (0, 1, 17, len(rows) - 1):
        assert own["samples"][samples[i]]["id"] == rows[i].id
        assert indexes[i] == rows[i].index


def test_without_an_album_there_are_points_only(tmp_path: Path) -> None:
    built = build(tmp_path)
    own = data(built)["map"]
    assert set(own["arrays"]) == {"pca"}
    assert "near" not in own["sites"][-1]
    assert "Nearest samples" not in built.words()


def test_layouts_are_a_choice_of_axes(tmp_path: Path, album: Album) -> None:
    built = build(tmp_path, album=pictures.with_layouts(album))
    options = built.tree.xpath("//select[@id='method']/option/@value")
    assert options == ["pca", "umap"]
    own = data(built)["map"]
    assert [s["umap"] for s in own["sites"] if s["umap"] is not None] == [0, 1]
    assert array(built, "umap").shape == (2, 2, 2, len(fixture.rows()))


def test_more_checkpoints_can_be_chosen(tmp_path: Path) -> None:
    three = pictures.album(fixture.rows(), ("base", "half", "lco"))
    built = build(tmp_path, album=three)
    own = data(built)["map"]
    assert own["checkpoints"] == ["base", "half", "lco"]
    assert (own["left"], own["right"]) == (0, 2)
    assert len(built.tree.xpath("//select[starts-with(@id, 'side-')]")) == 2


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_hardly_any_samples(tmp_path: Path, samples: int) -> None:
    rows = fixture.rows(samples)
    built = build(tmp_path, rows=rows, album=pictures.album(rows))
    assert built.numbers["map"]["shown"] == len(rows)


# ------------------------------------------------------------------------------------- media


def test_media_are_left_out_unless_asked(tmp_path: Path) -> None:
    rows = fixture.rows(8)
    previews = fixture.previews(tmp_path, rows)
    built = build(tmp_path, rows=rows, album=pictures.album(rows), media=previews)
    own = data(built)["media"]
    assert (own["thumbnails"], own["sounds"]) == ({}, {})
    assert "image/webp" not in built.text
    assert "not embedded in this file" in built.words()


def test_the_sheet_is_one_picture_that_needs_no_script(built: Built) -> None:
    assert built.text.count("data:image/webp;base64,") == 1
    style = [s.text for s in built.tree.iter("style") if "image/webp" in s.text]
    assert style[0].startswith(".thumb {")


def test_media_budget_counts_what_is_left_out(built: Built, tmp_path: Path) -> None:
    counts = built.numbers["media"]
    assert counts["thumbnails"] == 120
    assert 0 < counts["sounds"] < 120
    assert counts["sounds"] + counts["left_out"] == 120
    rows = fixture.rows(4)
    (tmp_path / "x.webp").write_bytes(b"not a picture")
    (tmp_path / "x.wav").write_bytes(b"not a sound")
    fake = {
        (r.id, r.modality): tmp_path / ("x.wav" if r.modality == "audio" else "x.webp")
        for r in rows
    }
    assert media.embed(rows, fake) == media.Media("", {}, {}, len(rows))


def test_the_gallery_is_first_in_the_budget(built: Built, album: Album) -> None:
    sounds = data(built)["media"]["sounds"]
    rows = fixture.rows()
    heard = [rows[c.place].index for c in album.changes if rows[c.place].modality == "audio"]
    assert len(heard) == 6
    assert all(str(index) in sounds for index in heard)


# -------------------------------------------------------------------------------------- size


def test_a_large_run_stays_small() -> None:
    """29 sites, two checkpoints, three modalities, 1000 samples each: what the map takes."""
    rng = np.random.default_rng(0)
    sites, rows = 28, 3000
    near = rng.integers(0, 1000, (2, 2, rows, 9)).astype(np.int32)
    parts = {
        "pca": arrays.coordinates(rng.uniform(-1, 1, (sites * 2, rows, 2)).clip(-1, 1)),
        "cosine": rng.integers(1, 255, (sites, 2, rows)).astype(np.uint8),
        "near": arrays.places(near),
    }
    _, text = arrays.packed_arrays(parts)
    assert len(text) < 1.25 * payload.MEGABYTE  # of noise, which packs worst
