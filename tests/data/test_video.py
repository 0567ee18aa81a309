"""Video: decoding where PyAV is, processing where torchvision imports, a named extra elsewhere."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomkit.batches import Reader
from geomkit.data import video
from geomkit.data.video import load_video, torchvision_works, video_arguments, video_note
from geomkit.errors import MissingExtra, SampleError
from geomkit.plans import CaptureConfig, build_plan, by_id, content_sha
from geomkit.processing import Shown, load_processor
from geomkit.prompts import render
from geomkit.types import Clip, Sample, Stored
from tests.tiny_models import saved

needs_decoder = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="needs PyAV: pip install 'geomkit[video]'"
)
needs_torchvision = pytest.mark.skipif(
    not torchvision_works(), reason="needs a torchvision that imports with this torch"
)


def film(frames: int, height: int = 64, width: int = 96, seed: int = 0) -> Clip:
    """A plain ground that grows lighter frame by frame."""
    levels = np.linspace(0, 255, frames).astype(np.uint8)
    ground = np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3))
    noise = np.random.default_rng(seed).integers(0, 8, ground.shape, dtype=np.uint8)
    return Clip((ground // 2 + noise).astype(np.uint8), 10.0, frames)


def encoded(clip: Clip, kind: str = "mp4") -> bytes:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=round(clip.fps))
        stream.height, stream.width = clip.frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


# -------------------------------------------------------------------------------- decoding --


@needs_decoder
@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_frames_and_rate_come_back(tmp_path: Path, kind: str) -> None:
    clip = film(21)
    (tmp_path / "a.mp4").write_bytes(encoded(clip, kind))
    found = load_video(tmp_path / "a.mp4")
    assert (found.frames.shape, found.fps, found.seen) == (clip.frames.shape, 10.0, 21)
    assert np.abs(found.frames.astype(int) - clip.frames).mean() < 4  # the codec loses a little
    again = load_video(Stored("cell", (tmp_path / "a.mp4").read_bytes))
    np.testing.assert_array_equal(again.frames, found.frames)


@needs_decoder
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "cannot be decoded"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "cannot be decoded"),
        (b"<!doctype html>", "cannot be decoded"),
        (b"", "cannot be decoded"),
        ("cut", "cannot be decoded"),
        ("sound", "has no pictures"),
    ],
)
def test_what_is_no_video_has_its_reason(tmp_path: Path, content: bytes | str, match: str) -> None:
    if content == "cut":
        content = encoded(film(9))[:700]
    elif content == "sound":
        content = _sound()
    (tmp_path / "a.mp4").write_bytes(bytes(content))  # type: ignore[arg-type]  # bytes by now
    with pytest.raises(SampleError, match=match) as found:
        load_video(tmp_path / "a.mp4")
    assert str(tmp_path) not in str(found.value)


def _sound() -> bytes:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@needs_decoder
def test_a_film_of_a_phone_is_turned_upright(tmp_path: Path) -> None:
    clip = film(6)
    clip.frames[:, :16, :16] = 255  # a white corner, top left
    content = encoded(clip)
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)  # clockwise
    at = content.index(straight, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:at] + turned + content[at + len(turned) :])
    found = load_video(tmp_path / "a.mp4").frames
    assert found.shape == (6, 96, 64, 3)
    assert found[0, :12, -12:].min() > 230  # top right now
    assert found[0, -12:, :12].max() < 60


@needs_decoder
def test_a_frame_over_the_cap_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(encoded(film(3)))
    with pytest.raises(SampleError, match="96 x 64 is more than 6,000 pixels"):
        load_video(tmp_path / "a.mp4", 6_000)


# --------------------------------------------------------------- thinning, without a decoder --


def shown(count: int) -> Iterator[Any]:
    return (np.full((2, 2, 3), n % 251, np.uint8) for n in range(count))


@pytest.mark.parametrize(
    ("count", "stride"), [(1, 1), (512, 1), (513, 2), (1023, 2), (1025, 4), (5000, 16)]
)
def test_a_long_video_is_thinned_evenly(count: int, stride: int) -> None:
    clip = video._thinned(shown(count), 24.0)
    assert clip.frames[:, 0, 0, 0].tolist() == [n % 251 for n in range(0, count, stride)]
    assert (clip.fps, clip.seen) == (24.0 / stride, count)
    kept = len(clip.frames)
    assert video_note(clip) == ("" if stride == 1 else f"{kept} of {count} video frames kept")


def test_large_frames_are_kept_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_BYTES", 12 * 10)
    assert len(video._thinned(shown(100), 24.0).frames) == 7  # every sixteenth


@pytest.mark.parametrize(
    ("clip", "match"),
    [
        (Clip(np.zeros((0, 4, 4, 3), np.uint8), 1.0), "no frames"),
        (Clip(np.zeros((4, 4, 3), np.uint8), 1.0), "no frames"),
        (Clip(np.zeros((2, 4, 4, 3), np.float32), 1.0), "no frames"),
        (Clip(np.zeros((2, 4, 4, 3), np.uint8), 0.0), "no frame rate"),
        (Clip(np.zeros((2, 4, 4, 3), np.uint8), float("nan")), "no frame rate"),
    ],
)
def test_a_clip_that_is_none_is_refused(clip: Clip, match: str) -> None:
    with pytest.raises(SampleError, match=match):
        load_video(clip)


def test_clips_have_their_own_hash() -> None:
    clip = film(4)
    assert content_sha(clip) == content_sha(Clip(clip.frames.copy(), 10.0))
    assert content_sha(clip) != content_sha(Clip(clip.frames, 20.0))
    assert content_sha(clip) != content_sha(Clip(clip.frames[::-1], 10.0))


# --------------------------------------------------------------------------------- processors --


class Rule:
    """A video processor's own rule of sampling."""

    def __init__(self, **named: object) -> None:
        self.__dict__ |= named


def test_the_checkpoints_own_rule_comes_first() -> None:
    clips = [film(20), film(1)]
    asked = video_arguments(clips, Rule(fps=None, num_frames=None))["videos_kwargs"]
    assert asked["fps"] == 2.0
    assert "fps" not in video_arguments(clips, Rule(fps=1, num_frames=None))["videos_kwargs"]
    assert "fps" not in video_arguments(clips, Rule(fps=None, num_frames=8))["videos_kwargs"]
    first, still = asked["video_metadata"]
    assert (first["total_num_frames"], first["fps"], first["duration"]) == (20, 10.0, 2.0)
    assert (still["total_num_frames"], still["duration"]) == (2, 0.1)  # a pair of one frame


def test_without_torchvision_a_run_of_videos_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("geomkit.processing.torchvision_works", lambda: False)
    processor = load_processor(saved("qwen2_5_vl"))
    assert (processor.lacking, "video" in processor.modalities) == (("video",), False)
    samples = (Sample("a", text="words", video=film(4)),)
    plan = build_plan("clips", samples, CaptureConfig())
    with pytest.raises(MissingExtra, match=r"pip install 'geomkit\[video\]'.*--modalities"):
        Reader(plan, by_id(samples), processor, 300)
    words = build_plan("clips", samples, CaptureConfig(modalities=("text",)))
    assert Reader(words, by_id(samples), processor, 300).read((0,)).shown


def test_the_command_line_exits_with_four(tmp_path: Path) -> None:
    """Whichever half of the extra is missing; both halves are hidden from it here."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mp4").write_bytes(b"never opened")
    code = (
        "import sys; sys.modules.update(av=None, torchvision=None); import geomkit.cli as cli;"
        f"sys.argv = ['geomkit', 'capture', '--ckpt', 'x={saved('qwen2_5_vl')}', '--data',"
        f" {str(tmp_path / 'set')!r}, '--out', {str(tmp_path / 'run')!r}]; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 4, done.stderr
    assert "pip install 'geomkit[video]'" in done.stderr
    assert "Traceback" not in done.stderr


def sighted(family: str, folder: Path) -> Path:
    """The tiny checkpoint with what its hub folder has for video: its processor, its template."""
    shutil.copytree(saved(family), folder)
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 64 * 28 * 28}
    own = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 14, "size": size}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(own))
    template = (folder / "chat_template.jinja").read_text()
    image = re.search(r"== 'image' %}(.*?){%", template)
    assert image is not None
    as_video = image[1].replace("image_pad", "video_pad").replace("IMAGE", "VIDEO")
    branch = "{% elif part['type'] == 'video' %}" + as_video
    at = template.index("{% elif part['type'] == 'audio' %}")
    (folder / "chat_template.jinja").write_text(template[:at] + branch + template[at:])
    return folder


@needs_torchvision
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_5_omni"])
def test_a_processor_samples_frames_evenly(tmp_path: Path, family: str) -> None:
    processor = load_processor(sighted(family, tmp_path / "model"))
    assert "video" in processor.modalities
    assert processor.lacking == ()
    clips = [film(20), film(37, 80, 64, 1), film(1)]
    rows = [Shown(render(processor, "video", "", "Say."), "video", clip) for clip in clips]
    inputs = processor.encode(rows)
    # two a second, in pairs: 4 of 2 s, 6 of 3.7 s, one pair of a still
    assert inputs["video_grid_thw"][:, 0].tolist() == [2, 3, 1]
    (pad,) = processor.media_tokens["video"]
    tokens = (inputs["input_ids"] == pad).sum(dim=1)
    assert tokens.tolist() == (inputs["video_grid_thw"].prod(dim=1) // 4).tolist()
    # by hand: the same pictures at frames 0, 5, 10, 15 and nothing sampled
    picked = Clip(clips[0].frames[[0, 5, 10, 15]], 2.0)
    alone = processor.encode([Shown(rows[0].rendered, "video", picked)])
    first = inputs["pixel_values_videos"][: len(alone["pixel_values_videos"])]
    np.testing.assert_array_equal(first, alone["pixel_values_videos"])


@needs_torchvision
@needs_decoder
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_5_omni"])
def test_videos_are_captured_through_the_command_line(tmp_path: Path, family: str) -> None:
    from geomkit.store import open_run

    folder = sighted(family, tmp_path / "model")
    (tmp_path / "set").mkdir()
    for name, clip in (("a", film(20)), ("b", film(37, 80, 64, 1)), ("c", film(1))):
        (tmp_path / "set" / f"{name}.mp4").write_bytes(encoded(clip))
    (tmp_path / "set" / "d.mp4").write_bytes(b"<!doctype html>")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("geomkit"), "capture", "--ckpt", f"x={folder}",
            "--data", tmp_path / "set", "--out", tmp_path / "run",
        ],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert [row["id"] for row in run.skipped()] == ["d"]
    (record,) = run.checkpoints()
    assert all(check["passed"] for check in record.gate.values())
    assert any(name.startswith("video.") for name in record.gate)
