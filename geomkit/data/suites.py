"""The paper's caption suites, as their authors distribute them: files on disk to items.

    pixmo-cap   a table (Parquet, JSONL, CSV) with image_url or image, and caption
    audiocaps   test.csv (audiocap_id, youtube_id, start_time, caption) and a folder of sounds
    clotho      clotho_captions_evaluation.csv (file_name, caption_1 .. caption_5) and its sounds
    msr-vtt     *.json (videos, sentences) or MSRVTT_JSFUSION_test.csv, and a folder of videos
    coco        captions_val2017.json (images, annotations) or dataset_coco.json (Karpathy)

`--data SUITE:PATH` takes the folder or the annotation file; `--data SUITE:hf:NAME` a copy that is a
Hugging Face dataset. Media are found by name anywhere under the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomkit.data.captions import Item, caption_rows
from geomkit.data.entries import DataConfig, Row, Rows, renamed
from geomkit.data.folders import SUFFIXES
from geomkit.data.manifests import document, table
from geomkit.errors import SampleError
from geomkit.types import Sample

Samples = Callable[[str, Rows, Path, DataConfig], tuple[Sample, ...]]
Files = Mapping[str, str]
"""File name, and name without suffix -> path under the suite's folder."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: where its annotations are, how they read, and how a hub copy names its columns."""

    kind: str  # the modality of its media
    annotations: tuple[str, ...]  # file names to look for, {split} filled in
    split: str  # the one that the suite is usually evaluated on
    items: Callable[[Path, str, Files, DataConfig], Iterable[Item]]
    columns: Mapping[str, Sequence[str]]  # of a hub copy: ours -> theirs, the first that is there


def load(
    name: str, place: str, data: DataConfig, samples: Samples
) -> tuple[str, tuple[Sample, ...]]:
    """Dataset name and samples of one suite at `place`.

    Raises:
        SampleError: the annotations are missing or are not what the suite's are.
    """
    suite = SUITES[name]
    if place.startswith("hf:"):
        from geomkit.data import hosted  # it brings the datasets library

        found, items = hosted.load(place.removeprefix("hf:"), data, samples, suite.columns)
        return f"{name}:{found}", items
    split = data.split or suite.split
    path = _annotations(suite, Path(place), split)
    root = Path(data.media_root) if data.media_root else _root(Path(place))
    files = _files(root, suite.kind)
    rows = caption_rows(_complete(suite.items(path, split, files, data), path), data.captions)
    return f"{name}:{split}", samples(str(path), rows, root, data)


def _root(place: Path) -> Path:
    """Where media are looked for: a file's folder, or the one above `annotations/`."""
    if place.is_dir():
        return place
    return place.parent.parent if place.parent.name == "annotations" else place.parent


def _annotations(suite: Suite, place: Path, split: str) -> Path:
    if place.is_file():
        return place
    names = [pattern.format(split=split) for pattern in suite.annotations]
    for name in names:
        for folder in (place, place / "annotations"):
            found = sorted(folder.glob(name)) if folder.is_dir() else []
            if found:
                return found[0]
    raise SampleError(
        f"Expected {' or '.join(names)} in {place}, found none: name the folder or the file, and"
        " the split with --split."
    )


def _files(root: Path, kind: str) -> Files:
    found: dict[str, str] = {}
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES[kind]:
                inside = path.relative_to(root).as_posix()
                found.setdefault(path.stem, inside)
                found.setdefault(name, inside)
    return found


def _complete(items: Iterable[Item], path: Path) -> Iterator[Item]:
    """The items, once there is one; annotations of another layout have none."""
    empty = True
    try:
        for item in items:
            empty = False
            yield item
    except (KeyError, TypeError, AttributeError) as cause:
        raise SampleError(
            f"Expected the suite's own layout in {path}, got another one: {cause!r} is missing."
        ) from cause
    if empty:
        raise SampleError(f"Expected items of that split in {path}, found none: see --split.")


def _media(kind: str, files: Files, *names: str) -> dict[str, str]:
    """The first of `names` that is there; else the first, which capture will record as missing."""
    return {kind: next((files[name] for name in names if name in files), names[0])}


def _pixmo(path: Path, _: str, files: Files, data: DataConfig) -> Iterator[Item]:
    for number, (where, row) in enumerate(renamed(table(path), data)):
        given = row.get("image")
        image = row["image_url"] if given is None else given
        local = _media("image", files, image) if given is not None else {"image": image}
        yield Item(str(row.get("id", number)), where, [str(row["caption"])], local)


def _audiocaps(path: Path, _: str, files: Files, data: DataConfig) -> Iterator[Item]:
    """Rows of one clip are one item: the test split says five captions of each."""
    clips: dict[str, list[tuple[str, Row]]] = {}
    for where, row in renamed(table(path), data):
        clips.setdefault(f"{row['youtube_id']}_{row['start_time']}", []).append((where, row))
    for clip, rows in clips.items():
        where, row = rows[0]
        youtube = str(row["youtube_id"])
        names = (clip, youtube, f"Y{youtube}", f"Y{clip}", str(row["audiocap_id"]))
        named = (str(row["file_name"]), *names) if row.get("file_name") else names
        captions = [str(r["caption"]) for _, r in rows if r["caption"]]
        yield Item(clip, where, captions, _media("audio", files, *named))


def _clotho(path: Path, _: str, files: Files, data: DataConfig) -> Iterator[Item]:
    for where, row in renamed(table(path), data):
        name = str(row["file_name"])
        captions = [str(row[f"caption_{n}"]) for n in range(1, 6) if row.get(f"caption_{n}")]
        yield Item(Path(name).stem, where, captions, _media("audio", files, name))


def _msrvtt(path: Path, split: str, files: Files, data: DataConfig) -> Iterator[Item]:
    if path.suffix.lower() != ".json":
        for where, row in renamed(table(path), data):
            video = str(row["video_id"])
            yield Item(video, where, [str(row["sentence"])], _media("video", files, video))
        return
    whole = document(path)
    said = _grouped(whole["sentences"], "video_id")
    for entry in whole["videos"]:
        if entry.get("split", split) == split:
            video = str(entry["video_id"])
            captions = [str(s["caption"]) for s in said.get(video, ())]
            yield Item(video, f"{path}, {video}", captions, _media("video", files, video))


def _coco(path: Path, split: str, files: Files, _: DataConfig) -> Iterator[Item]:
    whole = document(path)
    if "annotations" not in whole:
        yield from _karpathy(path, whole, split, files)
        return
    said = _grouped(whole["annotations"], "image_id")
    for entry in whole["images"]:
        captions = [str(a["caption"]) for a in said.get(str(entry["id"]), ())]
        image = _media("image", files, str(entry["file_name"]))
        yield Item(str(entry["id"]), f"{path}, image {entry['id']}", captions, image)


def _karpathy(path: Path, whole: Any, split: str, files: Files) -> Iterator[Item]:
    for entry in whole["images"]:
        if entry["split"] == ("test" if split == SUITES["coco"].split else split):
            captions = [str(s["raw"]) for s in entry["sentences"]]
            image = _media("image", files, str(entry["filename"]))
            name = str(entry.get("cocoid", entry["imgid"]))
            yield Item(name, f"{path}, image {name}", captions, image)


def _grouped(entries: Iterable[Row], key: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for entry in entries:
        found.setdefault(str(entry[key]), []).append(entry)
    return found


SUITES: Mapping[str, Suite] = {
    "pixmo-cap": Suite(
        "image",
        ("*.parquet", "data/*.parquet", "*.jsonl", "*.csv"),
        "train",
        _pixmo,
        {"image": ("image", "image_url"), "text": ("caption",)},
    ),
    "audiocaps": Suite(
        "audio",
        ("{split}.csv", "audiocaps_{split}.csv", "*{split}*.csv"),
        "test",
        _audiocaps,
        {"id": ("audiocap_id",), "text": ("caption",), "group": ("youtube_id",)},
    ),
    "clotho": Suite(
        "audio",
        ("clotho_captions_{split}.csv", "*{split}*.csv"),
        "evaluation",
        _clotho,
        {"text": ("text", "caption", "captions")},
    ),
    "msr-vtt": Suite(
        "video",
        ("MSRVTT_JSFUSION_{split}.csv", "{split}_videodatainfo.json", "MSRVTT*.json", "*.json"),
        "test",
        _msrvtt,
        {"id": ("video_id",), "text": ("caption", "sentence")},
    ),
    "coco": Suite(
        "image",
        ("captions_{split}.json", "dataset_coco.json"),
        "val2017",
        _coco,
        {
            "id": ("cocoid",),
            "image": ("image", "url"),
            "text": ("sentences", "caption", "captions", "answer"),
        },
    ),
}
