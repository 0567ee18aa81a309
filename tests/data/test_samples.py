from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from geomkit.data.media import load_audio, load_image
from geomkit.data.samples import DataConfig, load_samples
from geomkit.errors import SampleError, UsageError
from geomkit.plans import content_sha


def manifest(folder: Path, *rows: Any, name: str = "set.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_jsonl_rows_become_samples_with_paths_beside_the_manifest(tmp_path: Path) -> None:
    row = {
        "id": "a",
        "text": "two\u2028lines",
        "image": "pics/a.png",
        "labels": {"colour": "red", "count": 2},
        "controls": {"frame": "thin"},
        "group": "g",
        "comment": "other columns are welcome",
    }
    name, (sample, other) = load_samples(manifest(tmp_path, row, {"id": 7, "audio": "a.wav"}))
    assert name == "set.jsonl"
    assert (sample.id, sample.text, sample.group) == ("a", "two\u2028lines", "g")
    assert sample.image == tmp_path / "pics/a.png"
    assert sample.labels == {"colour": "red", "count": "2"}
    assert sample.controls == {"frame": "thin"}
    assert sample.modalities() == ("text", "image")
    assert (other.id, other.modalities()) == ("7", ("audio",))


def test_csv_and_parquet_hold_the_same_samples(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(
        'id,text,image,label.colour,control.frame,labels\na,"one, two",a.png,red,thin,\n'
        'b,"three\nfour",,,,"{""colour"": ""blue""}"\n'
    )
    name, (a, b) = load_samples(tmp_path / "set.csv")
    assert name == "set.csv"
    assert (a.text, a.labels, a.controls) == ("one, two", {"colour": "red"}, {"frame": "thin"})
    assert (b.text, b.image, b.labels) == ("three\nfour", None, {"colour": "blue"})

    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = [
        {"id": "a", "text": "one, two", "image": "a.png", "labels": {"colour": "red"}},
        {"id": "b", "text": "three\nfour", "image": None, "labels": {"colour": "blue"}},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "set.parquet")
    _, again = load_samples(tmp_path / "set.parquet")
    assert [(s.id, s.text, s.image, s.labels) for s in again] == [
        (s.id, s.text, s.image, s.labels) for s in (a, b)
    ]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"text": "no id"}, r"column 'id' in .*line 1, got text: add one, .*--columns id=NAME"),
        ({"id": "", "text": "x"}, r"non-empty string in 'id'.*line 1"),
        ({"id": None, "text": "x"}, r"non-empty string in 'id'.*got None"),
        ({}, "column 'id' in .*got no column"),
        ({"id": "a"}, "column text, image, audio or video in .*line 1, got id: say"),
        (
            {"id": "a", "caption": "x", "img": "a.png"},
            r"got id, caption, img: say which is which, --columns image=img,text=caption",
        ),
        ({"id": "a", "image": None}, "Expected text, image, audio or video in .*got none of them"),
        ({"id": "a", "text": ["list"]}, "non-empty string in 'text'"),
        ({"id": "a", "image": "https://example.org/a.png"}, r"got the URL.*downloads\s+nothing"),
        ({"id": "a", "audio": "S3://bucket/a.wav"}, "got the URL"),
        ({"id": "a", "text": "x", "labels": "red"}, "object in 'labels'"),
        ({"id": "a", "text": "x", "lables": {}}, "column 'labels'.*got 'lables'"),
        ([1], "Expected a JSON object"),
        ({"id": "a", "text": "x", "labels": {"c": float("nan")}}, "NaN is no JSON value"),
        ({"id": "a", "text": "x", "group": float("inf")}, "Infinity is no JSON value"),
        ({"id": "a", "text": "x", "labels": {"\x1b[2Jc": "red"}}, "no control characters"),
        ({"id": "a", "text": "x", "controls": {"c": "\x07"}}, "no control characters"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path: Path, row: Any, match: str) -> None:
    with pytest.raises(SampleError, match=match):
        load_samples(manifest(tmp_path, row))


def test_an_empty_text_is_kept_for_capture_to_record(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": ""},
        {"id": "b", "text": "", "image": "b.png"},
        {"id": "c", "text": None},
        {"id": "d", "text": None, "image": "d.png"},
    ]
    _, samples = load_samples(manifest(tmp_path, *rows))
    assert [s.text for s in samples] == ["", "", "", None]
    assert [" ".join(s.modalities()) for s in samples] == ["text", "text image", "text", "image"]
    (tmp_path / "set.csv").write_text("id,text,image\na,,\nb,,b.png\nc,words,\n")
    _, samples = load_samples(tmp_path / "set.csv")
    assert [s.text for s in samples] == ["", None, "words"]  # a CSV cannot tell "" from nothing


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "set.csv", b"id;text;image\na;x, y;a.png\n",
            r"got the one column 'id;text;image': it is separated by semicolons, save it with comm",
        ),
        ("set.csv", b"id\ttext\na\tx\n", "separated by tabs, save it with commas"),
        ("set.csv", b"text,image\nx,a.png\n", r"column 'id' in .*row 2, got text, image: add"),
        ("set.csv", b"id,caption,img\na,x,a.png\n", r"got id, caption, img: say which is which"),
        ("set.csv", "id,text\na,x\nb,caf\xe9\n".encode("latin-1"),
         r"UTF-8 text in .*set.csv, line 3, got the byte 0xe9: save it as UTF-8\.$"),
        ("set.csv", b"\xef\xbb\xbfid,text\na,\xe9\n", "line 2, got the byte 0xe9"),
        ("set.csv", "id,text\na,x\n".encode("utf-16"), "line 1, got the byte 0xff"),
        ("set.jsonl", b'{"id": "a", "text": "x"}\n{"id": "b", oops}\n',
         r"line 2: Expecting property name enclosed in double quotes at column 13\.$"),
        ("set.csv", b'id,text,labels\na,x,{oops}\n', r"'labels' of .*row 2: .* at column 2\.$"),
    ],
)  # fmt: skip
def test_a_mistake_of_the_table_says_what_to_do(
    tmp_path: Path, name: str, content: bytes, match: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=match) as found:
        load_samples(tmp_path / name)
    assert len(re.findall(r"line \d", str(found.value))) <= 1  # of two numbers one would be wrong


def test_a_json_array_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "array.json").write_text('[{"id": "a", "text": "x"}]')
    with pytest.raises(UsageError, match=r"array.json': write it as .jsonl, one object a line\.$"):
        load_samples(tmp_path / "array.json")


def test_bad_manifests_are_refused(tmp_path: Path) -> None:
    row = {"id": "a", "text": "x"}
    with pytest.raises(SampleError, match="'a' in rows 1 and 2"):
        load_samples(manifest(tmp_path, row, row))
    with pytest.raises(SampleError, match="at least one row"):
        load_samples(manifest(tmp_path))
    with pytest.raises(SampleError, match="found none"):
        load_samples(tmp_path / "absent.jsonl")
    with pytest.raises(SampleError, match="got the URL"):
        load_samples("https://example.org/set.jsonl")
    with pytest.raises(UsageError, match=r"'sandbox' or a manifest"):
        load_samples("sandboxes")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(SampleError, match="UTF-8"):
        load_samples(tmp_path / "bytes.jsonl")
    (tmp_path / "cut.jsonl").write_text('{"id": "a", "text"')
    with pytest.raises(SampleError, match="line 1"):
        load_samples(tmp_path / "cut.jsonl")
    (tmp_path / "wide.csv").write_text("id,text\na,b,c\n")
    with pytest.raises(SampleError, match="as many cells as columns"):
        load_samples(tmp_path / "wide.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(SampleError, match="Parquet table"):
        load_samples(tmp_path / "bad.parquet")


@pytest.mark.parametrize("column", ["text", "group", "labels", "controls"])
def test_half_a_character_is_refused(tmp_path: Path, column: str) -> None:
    half: Any = "half \ud800 of one"
    row = {"id": "a", "text": "x", column: {"c": half} if column.endswith("s") else half}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))  # as JSON escapes it
    with pytest.raises(SampleError, match=f"whole characters in '{column}'"):
        load_samples(tmp_path / "set.jsonl")


def test_a_manifest_that_would_break_the_reader_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").write_text('{"id": "a", "labels": ' + "[" * 200_000)
    with pytest.raises(SampleError, match=r"line 1: maximum recursion"):
        load_samples(tmp_path / "deep.jsonl")
    (tmp_path / "twice.csv").write_text("id,text,text\na,b,c\n")
    with pytest.raises(SampleError, match="each column once"):
        load_samples(tmp_path / "twice.csv")
    for name in ("x" * 300 + ".jsonl", "a\0b.jsonl"):
        with pytest.raises(SampleError, match="found none"):
            load_samples(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, ".", "pipe", "/dev/zero"])
def test_a_path_that_is_no_file_is_one_bad_row(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    rows = manifest(tmp_path, {"id": "a", "image": name, "audio": name})
    anywhere = DataConfig(media_root="/") if name.startswith("/") else DataConfig()
    _, (sample,) = load_samples(rows, anywhere)
    assert content_sha(sample.image) == ""  # and not the hash of something without an end
    with pytest.raises(SampleError, match=r"no such file|no regular file|name too long"):
        load_image(sample.image)
    assert isinstance(sample.audio, Path)
    with pytest.raises(SampleError, match=r"no such file|no regular file|name too long"):
        load_audio(sample.audio, 16_000)


def test_the_sandbox_is_a_dataset() -> None:
    name, samples = load_samples("sandbox:validation")
    assert name == "sandbox:validation"
    assert {"image", "audio", "text"} <= {m for s in samples for m in s.modalities()}
    with pytest.raises(UsageError, match="sandbox split"):
        load_samples("sandbox:tset")


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        ("sandbox", {"captions": 5}),
        ("sandbox", {"columns": ("text=caption",)}),
        ("set.jsonl", {"split": "test"}),
        ("set.jsonl", {"subset": "en"}),
        (".", {"columns": ("text=caption",)}),
        ("coco:.", {"subset": "en"}),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, given: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest(tmp_path, {"id": "a", "text": "x"})
    with pytest.raises(UsageError, match=f"no --{next(iter(given))} with"):
        load_samples(spec, DataConfig(**given))


def test_columns_of_other_names_are_read(tmp_path: Path) -> None:
    rows = ({"id": "a", "caption": "x", "img": "a.png", "colour": "red"}, {"id": "b"})
    path = manifest(tmp_path, *rows[:1])
    data = DataConfig(columns=("text=caption, image=img", "label.hue=colour"))
    _, (sample,) = load_samples(path, data)
    assert (sample.text, sample.image) == ("x", tmp_path / "a.png")
    assert sample.labels == {"hue": "red"}
    with pytest.raises(SampleError, match=r"column 'caption' in .*line 1, got id"):
        load_samples(manifest(tmp_path, rows[1]), data)


def test_media_root_is_where_paths_start(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = manifest(tmp_path / "lists", {"id": "a", "image": "a.png"})
    _, (sample,) = load_samples(path, DataConfig(media_root=str(tmp_path / "pictures")))
    assert sample.image == tmp_path / "pictures" / "a.png"
    inside = manifest(tmp_path, {"id": "a", "image": str(tmp_path / "x" / "a.png")})
    _, (sample,) = load_samples(inside)
    assert sample.image == tmp_path / "x" / "a.png"


def test_the_help_of_capture_shows_how_data_is_read() -> None:
    from typer.testing import CliRunner

    from geomkit.cli import app

    shown = CliRunner().invoke(app, ["capture", "--help"], terminal_width=160).stdout
    assert " Data " in shown
    for name in DataConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
