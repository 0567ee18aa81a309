"""A folder of media is a dataset: ids from names, labels from folders, one order everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geomkit.data.samples import load_samples
from geomkit.errors import SampleError, UsageError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def test_media_of_one_name_are_one_sample(tmp_path: Path) -> None:
    names = (
        "b.png", "birds/robin.JPG", "birds/robin.wav", "birds/robin.txt", "birds/far/a.mp4",
        "notes.md", "alone.txt", ".hidden.png", ".git/x.png",
    )  # fmt: skip
    folder = files(tmp_path / "set", *names)
    name, samples = load_samples(folder)
    assert name == "set"
    assert [s.id for s in samples] == ["b", "birds/far/a", "birds/robin"]
    b, a, robin = samples
    assert (b.image, b.text, b.labels) == (folder / "b.png", None, {})
    assert (a.video, a.labels) == (folder / "birds/far/a.mp4", {"folder": "far"})
    assert (robin.image, robin.audio) == (folder / "birds/robin.JPG", folder / "birds/robin.wav")
    assert (robin.text, robin.labels) == ("content of birds/robin.txt", {"folder": "birds"})
    assert robin.modalities() == ("text", "image", "audio")


def test_the_order_is_not_that_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("3", "1", "1-a", "1 b", "1.x")  # by id "1" is first, by file "1 b.png" would be
    folder = files(tmp_path, *(f"{d}/{n}.png" for d in "cab" for n in names))
    _, first = load_samples(folder)
    own = os.walk

    def other_way_round(place: Path):  # type: ignore[no-untyped-def]  # as os.walk
        for root, folders, names in own(place):
            folders.sort(reverse=True)
            yield root, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", other_way_round)
    _, again = load_samples(folder)
    assert [s.id for s in again] == [s.id for s in first] == sorted(s.id for s in first)


def test_folders_that_are_no_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"images, sounds or videos in .*: \.png"):
        load_samples(files(tmp_path / "none", "a.md", "b.txt"))
    with pytest.raises(SampleError, match=r"one image of each name.*a\.jpg and a\.png"):
        load_samples(files(tmp_path / "two", "a.png", "a.jpg"))
    (tmp_path / "bytes").mkdir()
    files(tmp_path / "bytes", "a.png")
    (tmp_path / "bytes" / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SampleError, match="UTF-8 text"):
        load_samples(tmp_path / "bytes")
    with pytest.raises(UsageError, match="a folder of media"):
        load_samples(tmp_path / "absent")


def test_pipes_and_loops_do_not_hang(tmp_path: Path) -> None:
    folder = files(tmp_path / "set", "a.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "b.png")
    _, samples = load_samples(folder)
    assert [s.id for s in samples] == ["a", "b"]  # b is a row that capture will record
    os.mkfifo(folder / "a.txt")
    with pytest.raises(SampleError, match="no regular file"):
        load_samples(folder)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_text("x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(SampleError, match=r"whole characters in .*\\udcff") as found:
        load_samples(tmp_path)
    str(found.value).encode()  # the sentence itself can be printed
