"""Hugging Face datasets: columns, splits, lazy media. All are made here; none is fetched."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from PIL import Image
from pyarrow import parquet

from geomkit.data import hosted
from geomkit.data.media import load_audio, load_image
from geomkit.data.samples import DataConfig, load_samples
from geomkit.errors import SampleError, UsageError
from geomkit.plans import CaptureConfig, build_plan, content_sha
from geomkit.types import Stored

pytestmark = pytest.mark.filterwarnings(
    # the reference count of a table's memory map; pyarrow closes it when the table goes
    "ignore:unclosed file:ResourceWarning"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def wav(level: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(800, level, np.float32), 16_000, format="WAV")
    return file.getvalue()


def shard(path: Path, columns: dict[str, Any], features: datasets.Features) -> None:
    """A Parquet shard as the hub has them: the features stand in its schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features.arrow_schema
    parquet.write_table(pa.table(columns, schema=schema), path)


FEATURES = datasets.Features(
    {
        "img": datasets.Image(),
        "snd": datasets.Audio(),
        "caption": datasets.Value("string"),
        "kind": datasets.ClassLabel(names=["cat", "dog"]),
    }
)
COLOURS = ("red", "green", "blue")


def cells(*contents: bytes) -> list[dict[str, Any]]:
    return [{"bytes": content, "path": f"{i}.bin"} for i, content in enumerate(contents)]


def pets(folder: Path, split: str = "test") -> Path:
    columns = {
        "img": cells(*map(png, COLOURS)),
        "snd": cells(wav(0.25), wav(0.5), b"no sound"),
        "caption": ["one", "two", ""],
        "kind": [0, 1, -1],
    }
    shard(folder / "data" / f"{split}-00000.parquet", columns, FEATURES)
    return folder


MAPPED = DataConfig(columns=("image=img,audio=snd", "text=caption"))


def test_a_local_dataset_becomes_samples(tmp_path: Path) -> None:
    name, (a, b, c) = load_samples(f"hf:{pets(tmp_path / 'pets')}", MAPPED)
    assert name == "hf:pets:test"
    assert [s.id for s in (a, b, c)] == ["0", "1", "2"]
    assert [s.text for s in (a, b, c)] == ["one", "two", None]  # nothing was said of the third
    assert [s.labels for s in (a, b, c)] == [{"kind": "cat"}, {"kind": "dog"}, {}]
    for sample, colour in zip((a, b, c), COLOURS, strict=True):
        assert isinstance(sample.image, Stored)
        np.testing.assert_array_equal(load_image(sample.image), Image.new("RGB", (4, 4), colour))
    assert b.audio is not None
    np.testing.assert_allclose(load_audio(b.audio, 16_000), 0.5, atol=1e-4)
    with pytest.raises(SampleError, match="audio cannot be decoded"):
        load_audio(c.audio, 16_000)  # type: ignore[arg-type]  # it is there


def test_a_saved_dataset_is_the_same_samples(tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(pets(tmp_path / "pets")), split="test")
    loaded.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"test": loaded}).save_to_disk(str(tmp_path / "both"))
    _, first = load_samples(f"hf:{tmp_path / 'pets'}", MAPPED)
    for folder in ("saved", "both"):
        name, again = load_samples(f"hf:{tmp_path / folder}", MAPPED)
        assert name == f"hf:{folder}:test"
        assert [content_sha(s.image) for s in again] == [content_sha(s.image) for s in first]
        assert [(s.id, s.text, s.labels) for s in again] == [
            (s.id, s.text, s.labels) for s in first
        ]


def test_media_are_neither_decoded_nor_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    own = hosted._cell
    monkeypatch.setattr(hosted, "_cell", lambda *a: (read.append(a[1]), own(*a))[1])
    rows = 10_000
    features = datasets.Features({"image": datasets.Image()})
    shard(tmp_path / "many/data/test-0.parquet", {"image": cells(*[b"x" * 50] * rows)}, features)
    monkeypatch.setattr(datasets.Image, "decode_example", None)  # to decode would be a TypeError
    _, samples = load_samples(f"hf:{tmp_path / 'many'}")
    assert (len(samples), read) == (rows, [])
    assert content_sha(samples[7].image) != ""
    assert read == [7]


def test_splits_and_columns_are_asked_for_by_name(tmp_path: Path) -> None:
    folder = pets(pets(tmp_path / "pets"), "train")
    with pytest.raises(UsageError, match=r"--split, one of train, test.*got none"):
        load_samples(f"hf:{folder}", MAPPED)
    with pytest.raises(UsageError, match="got 'dev'"):
        load_samples(f"hf:{folder}", DataConfig(split="dev"))
    said = DataConfig(split="train", columns=("text=caption",))
    name, samples = load_samples(f"hf:{folder}", said)
    assert name == "hf:pets:train"
    assert [s.text for s in samples] == ["one", "two", ""]  # a row that capture will record
    with pytest.raises(SampleError, match=r"column text, image.*--columns image=img"):
        load_samples(f"hf:{folder}", DataConfig(split="train"))
    with pytest.raises(SampleError, match=r"column 'picture'.*got img"):
        load_samples(f"hf:{folder}", DataConfig(split="train", columns=("image=picture",)))


@pytest.mark.parametrize("columns", ["image", "image=", "=img", "imge=img"])
def test_a_mapping_that_is_none_is_a_usage_error(columns: str) -> None:
    with pytest.raises(UsageError, match=r"columns as OURS=THEIRS|Expected a column"):
        DataConfig(columns=(columns,))


def test_several_captions_are_one_item(tmp_path: Path) -> None:
    features = datasets.Features(
        {"id": datasets.Value("int64"), "text": datasets.List(datasets.Value("string"))}
    )
    rows = {"id": [4, 5], "text": [["a", " ", "b", "c"], ["d"]]}
    shard(tmp_path / "said/data/test-0.parquet", rows, features)
    _, samples = load_samples(f"hf:{tmp_path / 'said'}")
    assert [(s.id, s.text, s.group) for s in samples] == [("4", "a", "4"), ("5", "d", "5")]
    _, samples = load_samples(f"hf:{tmp_path / 'said'}", DataConfig(captions=3))
    assert [(s.id, s.text, s.group) for s in samples] == [
        ("4", "a", "4"), ("4#2", "b", "4"), ("4#3", "c", "4"), ("5", "d", "5"),
    ]  # fmt: skip


def test_a_row_without_an_image_has_none(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    columns = {"image": [*cells(png("red")), None], "text": ["one", "two"]}
    shard(tmp_path / "some/data/test-0.parquet", columns, features)
    _, samples = load_samples(f"hf:{tmp_path / 'some'}")
    assert [s.modalities() for s in samples] == [("text", "image"), ("text",)]


def test_a_cell_that_is_not_one_medium_is_a_row(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.List(datasets.Image())})
    columns = {"image": [cells(png("red"), png("blue"))]}
    shard(tmp_path / "lists/data/test-0.parquet", columns, features)
    _, (sample,) = load_samples(f"hf:{tmp_path / 'lists'}")
    with pytest.raises(SampleError, match="holds a list, not one medium"):
        load_image(sample.image)


def test_samples_travel_to_other_processes(tmp_path: Path) -> None:
    _, samples = load_samples(f"hf:{pets(tmp_path / 'pets')}", MAPPED)
    again = pickle.loads(pickle.dumps(samples))
    assert [content_sha(s.image) for s in again] == [content_sha(s.image) for s in samples]


def test_columns_of_paths_start_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "paths").mkdir()
    rows = [{"id": "a", "image": "pictures/a.png", "text": "one"}, {"id": "b", "text": "two"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "paths" / "test.jsonl").write_text(lines)
    _, (a, b) = load_samples(f"hf:{tmp_path / 'paths'}")
    assert (a.image, b.image) == (tmp_path / "paths" / "pictures/a.png", None)


def test_a_cell_cannot_name_a_file_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png("red"))
    features = datasets.Features({"image": datasets.Image()})
    outside = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}]}
    shard(tmp_path / "evil/data/test-0.parquet", outside, features)
    _, (sample,) = load_samples(f"hf:{tmp_path / 'evil'}")
    assert content_sha(sample.image) == ""
    with pytest.raises(SampleError, match="names a file outside the dataset"):
        load_image(sample.image)


def test_a_hub_dataset_is_pinned_to_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c" * 40
    asked: list[tuple[Any, ...]] = []
    local = datasets.load_dataset(str(pets(tmp_path / "pets")))

    def load_dataset(name: str, subset: str | None, **rest: Any) -> Any:
        asked.append((name, subset, rest))
        return local

    class Api:
        def dataset_info(self, name: str, revision: str | None) -> Any:
            asked.append((name, revision))
            return type("Info", (), {"sha": commit})

    monkeypatch.setattr(hosted.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hosted.huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(hosted.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    name, samples = load_samples("hf:org/pets@main", MAPPED)
    assert name == f"hf:org/pets@{commit}:test"
    assert build_plan(name, samples, CaptureConfig(modalities=("text",))).dataset == name
    # and nothing that would run the dataset's code
    assert asked == [("org/pets", "main"), ("org/pets", None, {"revision": commit})]


def test_what_is_no_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'hf:' alone"):
        load_samples("hf:")
    with pytest.raises(SampleError, match=r"dataset folder at .*absent, found none"):
        load_samples(f"hf:{tmp_path / 'absent'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError, match="Expected a dataset at"):
        load_samples(f"hf:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "dataset_info.json").write_text("{}")
    with pytest.raises(SampleError, match="Expected a dataset at"):
        load_samples(f"hf:{tmp_path / 'empty'}")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(SampleError, match="Expected a dataset at"):
        load_samples(f"hf:{tmp_path / 'code'}")
    monkeypatch.setattr(hosted.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SampleError, match="Expected a dataset at org/absent"):
        load_samples("hf:org/absent@main")


@pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is not None, reason="with torchcodec it can be built"
)
def test_a_folder_of_sounds_is_read_without_the_library(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(wav(0.5))
    with pytest.raises(SampleError, match="read as --data FOLDER, without hf:"):
        load_samples(f"hf:{tmp_path / 'sounds'}")
    _, (sample,) = load_samples(tmp_path / "sounds")
    assert sample.modalities() == ("audio",)


def test_a_folder_of_images_is_read_through_the_library_too(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        (tmp_path / "pictures" / name).write_bytes(png("red"))
    _, samples = load_samples(f"hf:{tmp_path / 'pictures'}")
    assert [s.labels for s in samples] == [{"label": "cat"}, {"label": "dog"}]
    assert load_image(samples[0].image).size == (4, 4)


def test_a_dataset_of_json_lines_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    rows = [{"id": f"r{i}", "text": f"text {i}"} for i in range(3)]
    (tmp_path / "lines" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    _, samples = load_samples(f"hf:{tmp_path / 'lines'}")
    assert [(s.id, s.text) for s in samples] == [(r["id"], r["text"]) for r in rows]
