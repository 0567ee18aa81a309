"""Caption suites in their authors' layouts, made small; nothing is downloaded."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from geomkit.data.samples import DataConfig, load_samples
from geomkit.data.suites import SUITES
from geomkit.errors import SampleError
from geomkit.types import Sample, Stored


def table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def facts(samples: Sequence[Sample]) -> list[tuple[str, str | None, str]]:
    return [(s.id, s.text, s.group) for s in samples]


def coco(folder: Path) -> Path:
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 4, "height": 4} for n in (139, 285)]
    said = [(139, 1, "a room"), (285, 2, "a bear"), (139, 3, "a living room")]
    annotations = [{"image_id": i, "id": n, "caption": c} for i, n, c in said]
    touch(folder, *(f"val2017/{image['file_name']}" for image in images))
    path = folder / "annotations" / "captions_val2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return path


def test_coco_captions(tmp_path: Path) -> None:
    path = coco(tmp_path)
    name, samples = load_samples(f"coco:{tmp_path}")
    assert name == "coco:val2017"
    assert facts(samples) == [("139", "a room", "139"), ("285", "a bear", "285")]
    assert samples[0].image == tmp_path / "val2017/000000000139.jpg"
    _, again = load_samples(f"coco:{path}")  # the file alone will do
    assert [(s.id, s.image) for s in again] == [(s.id, s.image) for s in samples]
    _, more = load_samples(f"coco:{path}", DataConfig(captions=5))
    assert facts(more) == [
        ("139", "a room", "139"), ("139#2", "a living room", "139"), ("285", "a bear", "285"),
    ]  # fmt: skip
    assert [s.image is None for s in more] == [False, True, False]


def test_coco_in_karpathy_splits(tmp_path: Path) -> None:
    images = [
        {"filepath": "val2014", "filename": f"COCO_val2014_{n:012d}.jpg", "imgid": n, "cocoid": n,
         "sentids": [n], "split": split, "sentences": [{"raw": f"picture {n}", "imgid": n}]}
        for n, split in ((1, "train"), (2, "test"), (3, "val"))
    ]  # fmt: skip
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    touch(tmp_path, "val2014/COCO_val2014_000000000002.jpg")
    _, samples = load_samples(f"coco:{tmp_path}")
    assert facts(samples) == [("2", "picture 2", "2")]
    assert samples[0].image == tmp_path / "val2014/COCO_val2014_000000000002.jpg"
    _, samples = load_samples(f"coco:{tmp_path}", DataConfig(split="val"))
    assert facts(samples) == [("3", "picture 3", "3")]


def test_a_hub_copy_of_coco_names_urls(tmp_path: Path) -> None:
    columns = {
        "filepath": ["val2014"], "sentids": [[1, 2]], "filename": ["a.jpg"], "imgid": [0],
        "split": ["test"], "sentences": [["a man", "a rider"]], "cocoid": [391895],
        "url": ["http://images.cocodataset.org/val2014/a.jpg"],
    }  # fmt: skip
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "karpathy"))
    with pytest.raises(SampleError, match="--allow-url"):
        load_samples(f"coco:hf:{tmp_path / 'karpathy'}")
    name, samples = load_samples(f"coco:hf:{tmp_path / 'karpathy'}", DataConfig(allow_url=True))
    assert name == "coco:hf:karpathy"
    assert facts(samples) == [("391895", "a man", "391895")]
    assert isinstance(samples[0].image, Stored)  # and nothing was fetched


def test_audiocaps(tmp_path: Path) -> None:
    rows = [(1, "r1nicOVtvkQ", 130, "a woman talks"), (2, "r1nicOVtvkQ", 130, "a lady speaks"),
            (3, "-0_abc", 20, "rain, and wind")]  # fmt: skip
    table(tmp_path / "test.csv", "audiocap_id,youtube_id,start_time,caption", rows)
    touch(tmp_path, "audio/test/r1nicOVtvkQ_130.wav", "audio/test/Y-0_abc.flac")
    name, samples = load_samples(f"audiocaps:{tmp_path}", DataConfig(captions=5))
    assert name == "audiocaps:test"
    assert facts(samples) == [
        ("r1nicOVtvkQ_130", "a woman talks", "r1nicOVtvkQ_130"),
        ("r1nicOVtvkQ_130#2", "a lady speaks", "r1nicOVtvkQ_130"),
        ("-0_abc_20", "rain, and wind", "-0_abc_20"),
    ]
    assert samples[0].audio == tmp_path / "audio/test/r1nicOVtvkQ_130.wav"
    assert samples[2].audio == tmp_path / "audio/test/Y-0_abc.flac"


def test_clotho(tmp_path: Path) -> None:
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    rows = [("Santa Motor.wav", "one", "two", "three", "four", "five")]
    table(tmp_path / "clotho_captions_evaluation.csv", header, rows)
    touch(tmp_path, "evaluation/Santa Motor.wav")
    _, samples = load_samples(f"clotho:{tmp_path}", DataConfig(captions=2))
    assert facts(samples) == [
        ("Santa Motor", "one", "Santa Motor"), ("Santa Motor#2", "two", "Santa Motor"),
    ]  # fmt: skip
    assert samples[0].audio == tmp_path / "evaluation/Santa Motor.wav"


def test_msrvtt_in_both_forms(tmp_path: Path) -> None:
    whole = {
        "info": {},
        "videos": [
            {"video_id": "video7010", "split": "test", "url": "https://example.org", "id": 7010},
            {"video_id": "video1", "split": "train", "url": "https://example.org", "id": 1},
        ],
        "sentences": [
            {"sen_id": 0, "video_id": "video7010", "caption": "a man sings"},
            {"sen_id": 1, "video_id": "video7010", "caption": "a song"},
            {"sen_id": 2, "video_id": "video1", "caption": "a car"},
        ],
    }
    (tmp_path / "test_videodatainfo.json").write_text(json.dumps(whole))
    touch(tmp_path, "TestVideo/video7010.mp4")
    _, samples = load_samples(f"msr-vtt:{tmp_path}")
    assert facts(samples) == [("video7010", "a man sings", "video7010")]
    assert samples[0].video == tmp_path / "TestVideo/video7010.mp4"
    rows = [("ret0", "msr7010", "video7010", "a person sings")]
    table(tmp_path / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence", rows)
    _, samples = load_samples(f"msr-vtt:{tmp_path}")  # the usual thousand come first
    assert facts(samples) == [("video7010", "a person sings", "video7010")]


def test_pixmo_cap_from_files_or_urls(tmp_path: Path) -> None:
    rows = [("https://example.org/1.jpg", "a long caption", "[]")]
    table(tmp_path / "train.csv", "image_url,caption,transcripts", rows)
    with pytest.raises(SampleError, match="--allow-url"):
        load_samples(f"pixmo-cap:{tmp_path}")
    _, samples = load_samples(f"pixmo-cap:{tmp_path}", DataConfig(allow_url=True))
    assert facts(samples) == [("0", "a long caption", "0")]
    assert isinstance(samples[0].image, Stored)
    table(tmp_path / "train.csv", "image,caption", [("1.jpg", "a long caption")])
    touch(tmp_path, "pictures/1.jpg")
    _, samples = load_samples(f"pixmo-cap:{tmp_path}")
    assert samples[0].image == tmp_path / "pictures/1.jpg"


@pytest.mark.parametrize("name", SUITES)
def test_annotations_that_are_not_the_suites_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SampleError, match=r"Expected .* found none: name the folder"):
        load_samples(f"{name}:{tmp_path}")
    with pytest.raises(SampleError, match=r"Expected .* found none"):
        load_samples(f"{name}:{tmp_path / 'absent'}")
    suffix = ".json" if name in {"coco", "msr-vtt"} else ".csv"
    (tmp_path / f"x{suffix}").write_text("[]" if suffix == ".json" else "a,b\n1,2\n")
    with pytest.raises(SampleError, match=r"the suite's own layout|'list'"):
        load_samples(f"{name}:{tmp_path / f'x{suffix}'}")
    none = json.dumps({"images": [], "annotations": [], "videos": [], "sentences": []})
    (tmp_path / f"x{suffix}").write_text(none if suffix == ".json" else "a,b\n")
    with pytest.raises(SampleError, match=r"items of that split .* found none"):
        load_samples(f"{name}:{tmp_path / f'x{suffix}'}")


def test_a_missing_sound_is_a_row(tmp_path: Path) -> None:
    rows = [(1, "abc", 0, "nothing there")]
    table(tmp_path / "test.csv", "audiocap_id,youtube_id,start_time,caption", rows)
    _, (sample,) = load_samples(f"audiocaps:{tmp_path}")
    assert sample.audio == tmp_path / "abc_0"  # capture records that there is no such file


def test_annotations_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    rows = [("../../secret.wav", "a", "b", "c", "d", "e")]
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    table(tmp_path / "clotho_captions_evaluation.csv", header, rows)
    with pytest.raises(SampleError, match="path inside"):
        load_samples(f"clotho:{tmp_path}")
