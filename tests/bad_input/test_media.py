"""Hostile manifests and media: a typed error when a table is wrong, a reason when a row is.

A manifest that cannot be read stops the run with one sentence. A picture, sound or text that cannot
be shown is a recorded row: its neighbours are captured, and its reason says what is wrong with it.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from geomkit.batches import Reader
from geomkit.data.media import load_audio, load_image
from geomkit.data.samples import DataConfig, load_samples
from geomkit.errors import GeomkitError, SampleError
from geomkit.plans import CaptureConfig, build_plan, by_id
from geomkit.processing import load_processor
from geomkit.store import open_run
from geomkit.types import Stored
from tests.tiny_models import saved


def png_header(width: int, height: int) -> bytes:
    """A whole PNG of that size but for its pixels: 74 bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        sum_ = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", sum_)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def picture(kind: str = "PNG", **given: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **given)
    return file.getvalue()


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to a thousand times its size."""
    packed = zlib.compress(bytes(16 * 2**20), 9)
    body = b"c\0\0" + packed
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return picture()[:33] + chunk + picture()[33:]


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n"
IMAGES: dict[str, tuple[bytes, str]] = {
    "bomb12000": (png_header(12_000, 12_000), "too large"),
    "bomb20000": (png_header(20_000, 20_000), "bomb"),
    "just-over": (png_header(50_000, 1001), r"50000 x 1001 is more than 50,000,000 pixels"),
    "no-pixels": (png_header(8, 8), "image cannot be decoded"),
    "width-zero": (png_header(0, 8), "image (cannot be decoded|has no pixels)"),
    "truncated": (picture("JPEG")[:600], "Truncated File Read"),
    "half-png": (picture()[:2000], "image cannot be decoded"),
    "half-webp": (picture("WEBP")[:500], "image cannot be decoded"),
    "svg": (SVG, "SVG drawing, which has no pixels"),
    "eps": (EPS, "no format that is read here"),
    "html": (b"<!doctype html><title>404</title>", "no format that is read here"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "no format"),
    "empty": (b"", "no format that is read here"),
    "zip": (b"PK\x03\x04" + bytes(100), "no format that is read here"),
    "text-bomb": (text_bomb(), "image cannot be decoded"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_has_its_reason(tmp_path: Path, name: str) -> None:
    content, match = IMAGES[name]
    path = tmp_path / f"{name}.png"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=match) as found:
        load_image(path)
    assert "\n" not in str(found.value)
    assert "0x" not in str(found.value)  # no address of this process
    assert str(tmp_path) not in str(found.value)


def flac_that_promises(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100, np.float32), 16_000, format="FLAC")
    content = bytearray(file.getvalue())
    content[21] = (content[21] & 0xF0) | (samples >> 32)
    content[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(content)


SOUNDS: dict[str, tuple[bytes, str]] = {
    "promises": (flac_that_promises(2**36 - 1), "audio is too long"),
    "html": (b"<!doctype html>", "audio cannot be decoded"),
    "empty": (b"", "audio cannot be decoded"),
    "header": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio cannot be decoded"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_hostile_sound_has_its_reason(tmp_path: Path, name: str) -> None:
    content, match = SOUNDS[name]
    path = tmp_path / f"{name}.wav"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=match) as found:
        load_audio(path, 16_000)
    assert str(tmp_path) not in str(found.value)


@pytest.mark.parametrize("load", [load_image, lambda source: load_audio(source, 16_000)])
def test_a_reason_holds_no_address_of_this_process(load: Callable[[Stored], object]) -> None:
    with pytest.raises(SampleError, match="cannot be decoded") as found:
        load(Stored("cell", lambda: b"neither"))
    assert "0x" not in str(found.value)


def test_an_empty_text_is_a_recorded_row(tmp_path: Path) -> None:
    lines = (
        '{"id": "a", "text": " \\n"}',
        '{"id": "b", "text": "words"}',
        '{"id": "c", "text": ""}',
    )
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    _, samples = load_samples(tmp_path / "set.jsonl")
    plan = build_plan("texts", samples, CaptureConfig())
    batch = Reader(plan, by_id(samples), load_processor(saved("text_only")), 300).read((0, 1, 2))
    assert batch.notes == {0: "text is empty", 2: "text is empty"}
    assert list(batch.shown) == [1]


def test_hostile_media_take_no_memory(tmp_path: Path) -> None:
    for kind, files in (("image", IMAGES), ("audio", SOUNDS)):
        for name, (content, _) in files.items():
            (tmp_path / f"{kind}-{name}").write_bytes(content)
    code = """
import resource, sys
from pathlib import Path
from geomkit.errors import SampleError
from geomkit.data.media import load_audio, load_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
for path in Path(sys.argv[1]).iterdir():
    try:
        load_image(path) if path.name.startswith("image") else load_audio(path, 16_000)
    except SampleError:
        continue
    sys.exit(f"{path} was read")
print((peak() - before) * (1 if sys.platform == "darwin" else 1024))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False,
        timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 2**20


MANIFESTS: dict[str, tuple[str, str]] = {
    "out": ('{"id": "a", "image": "../../x.png"}', r"path inside .*--media-root"),
    "out-later": ('{"id": "a", "image": "a/../../x.png"}', "path inside"),
    "absolute": ('{"id": "a", "image": "/etc/passwd"}', "path inside"),
    "file-url": ('{"id": "a", "image": "file:///etc/passwd"}', "http.* URL in 'image'"),
    "metadata": ('{"id": "a", "image": "http://169.254.169.254/"}', "--allow-url"),
    "data-url": (
        '{"id": "a", "image": "data:image/png;base64,' + "A" * 10**7 + '"}', "http.* URL in 'image'"
    ),
    "cut": ('{"id": "a", "text": "x"}\n{"id": "b", "te', "line 2"),
    "keys": ('{"id": "a", "text": "x", "text": "y"}', "the key 'text' is there twice"),
    "deep-keys": ('{"id": "a", "text": "x", "labels": {"c": 1, "c": 2}}', "'c' is there twice"),
    "nan": ('{"id": "a", "text": "x", "labels": {"c": NaN}}', "NaN is no JSON value"),
    "looks": (
        '{"id": "\u00e9", "text": "x"}\n{"id": "e\u0301", "text": "y"}', "one row an id"
    ),
    "bytes-id": ('{"id": ["' + "x" * 10**6 + '"], "text": "x"}', "non-empty string in 'id'"),
    "surrogate": ('{"id": "a", "text": "half \\ud83d"}', "whole characters"),
    "no-id": ('{"id": "", "text": "x"}', "non-empty string in 'id'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, match = MANIFESTS[name]
    (tmp_path / "set.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(GeomkitError, match=match) as found:
        load_samples(tmp_path / "set.jsonl")
    assert found.value.exit_code == 3
    assert len(str(found.value)) < 1000  # and not ten megabytes of what was found


HTTP: dict[str, str] = {
    "backslash": "http://a\\\\@127.0.0.1/x.png",
    "user": "http://user:secret@example.org/x.png",
    "newline": "http://example.org/\\r\\nHost: 127.0.0.1/x.png",
}


@pytest.mark.parametrize("name", HTTP)
def test_a_hostile_url_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / "set.jsonl").write_text(f'{{"id": "a", "image": "{HTTP[name]}"}}')
    with pytest.raises(SampleError, match=r"plain http\(s\) URL"):
        load_samples(tmp_path / "set.jsonl", DataConfig(allow_url=True))


def test_names_that_differ_by_case_are_two(tmp_path: Path) -> None:
    rows = ('{"id": "CON", "text": "x"}', '{"id": "con", "text": "y"}', '{"id": "a.", "text": "z"}')
    (tmp_path / "set.jsonl").write_text("\n".join(rows))
    _, samples = load_samples(tmp_path / "set.jsonl")
    assert [s.id for s in samples] == ["CON", "con", "a."]  # ids are no file names anywhere


TEXTS = {
    "rtl": "\u202eevil\u202c \u05d0\u05d1\u05d2",
    "blank": " \n\t ",
    "long": "word " * 200_000,
    "emoji": "\U0001f600" * 50,
}


def hostile_rows(folder: Path) -> list[dict[str, Any]]:
    """One row for each hostile file and text, and a good one of each kind."""
    rows: list[dict[str, Any]] = [{"id": f"text-{n}", "text": t} for n, t in TEXTS.items()]
    for kind, files in (("image", IMAGES), ("audio", SOUNDS)):
        for name, (content, _) in files.items():
            (folder / f"{kind}-{name}").write_bytes(content)
            rows.append({"id": f"{kind}-{name}", kind: f"{kind}-{name}"})
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    names = ("pipe", "folder", "loop", "absent", "nul\0l", "CON.png", "x" * 300)
    rows += [{"id": f"path-{name[:8]!r}", "image": name} for name in names]
    rows.append({"id": "loopback", "image": "http://127.0.0.1:9/x.png"})
    rows.append({"id": "metadata", "image": "http://169.254.169.254/latest"})
    (folder / "good.png").write_bytes(picture())
    (folder / "dot.png").write_bytes(picture_of(1, 1))
    other = Image.new("RGB", (64, 64))
    (folder / "moving.gif").write_bytes(picture("GIF", save_all=True, append_images=[other]))
    soundfile.write(folder / "good.wav", np.zeros(16_000, np.float32), 16_000)
    rows += [{"id": n, "image": n} for n in ("good.png", "dot.png", "moving.gif")]
    return [*rows, {"id": "good.wav", "audio": "good.wav"}]


def picture_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


GOOD = {"good.png", "dot.png", "moving.gif", "good.wav", "text-rtl", "text-long", "text-emoji"}


def test_every_hostile_row_is_recorded_and_every_good_one_is_captured(tmp_path: Path) -> None:
    rows = hostile_rows(tmp_path)
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("geomkit"), "capture", "--ckpt", "base",
            "--data", tmp_path / "set.jsonl", "--allow-url", "--url-cache", tmp_path / "cache",
            "--out", tmp_path / "run", "--sites", "final_norm",
        ],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = open_run(tmp_path / "run")
    notes = {row["id"]: row["reason"] for row in run.skipped()}
    assert {row["id"] for row in rows} - notes.keys() == GOOD
    assert "SVG" in notes["image-svg"]
    assert "text is empty" in notes["text-blank"]
    assert "only public addresses" in notes["loopback"]
    assert "only public addresses" in notes["metadata"]
