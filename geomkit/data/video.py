"""Encoded video to frames: decoded with PyAV (extra `video`), thinned so that it fits in memory.

The processor then samples from these frames as its checkpoint says (two a second, say). Frames are
kept at a regular stride: every one, every second, every fourth, whichever is the first that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from geomkit.data.media import MAX_PIXELS, one_line
from geomkit.data.sources import readable
from geomkit.errors import MissingExtra, SampleError
from geomkit.types import Clip, Stored

MAX_FRAMES = 512
MAX_BYTES = 2**29
"""What is kept of one video: 512 MiB of frames."""
FPS = 2.0
"""Frames a second that are shown of a video whose checkpoint does not say."""
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif"
"""Containers that hold their own frames. A playlist would make the decoder open other files."""
EXTRA = "Video needs torchvision and PyAV, and both to import: pip install 'geomkit[video]'"


def load_video(source: Path | Stored | Clip, pixels: int = MAX_PIXELS) -> Clip:
    """The frames of a video at a regular stride, upright, and how many of them make a second.

    Raises:
        MissingExtra: PyAV is not installed.
        SampleError: missing, no video, without frames, or with frames of more than `pixels`.
    """
    if isinstance(source, Clip):
        return _checked(source)
    try:
        import av
    except ImportError as cause:
        raise MissingExtra(f"{EXTRA} ({cause}).") from cause
    try:
        with _file(source) as file, av.open(file, options=_SAFE) as container:
            if not container.streams.video:
                raise SampleError("video cannot be decoded: it has no pictures")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            return _checked(_thinned(_frames(container, stream, pixels), rate))
    except av.FFmpegError as cause:
        raise SampleError(f"video cannot be decoded: {cause.strerror}") from cause
    except (OSError, ValueError) as cause:
        raise SampleError(f"video cannot be decoded: {one_line(cause, source)}") from cause


def _file(source: Path | Stored) -> BinaryIO:
    """Always a file object: the decoder itself then has no way to open anything."""
    found = readable(source)
    return found.open("rb") if isinstance(found, Path) else found


_SAFE = {"protocol_whitelist": "none", "format_whitelist": DEMUXERS}


def _frames(container: Any, stream: Any, pixels: int) -> Iterator[NDArray[np.uint8]]:
    for frame in container.decode(stream):
        if frame.width * frame.height > pixels:
            raise SampleError(
                f"video is too large: {frame.width} x {frame.height} is more than {pixels:,} pixels"
            )
        picture = frame.to_ndarray(format="rgb24")
        yield np.rot90(picture, round(frame.rotation / 90))


def _thinned(frames: Iterator[NDArray[np.uint8]], rate: float) -> Clip:
    """Every `stride`-th frame; the stride doubles whenever more would be kept than fits."""
    kept: list[NDArray[np.uint8]] = []
    stride, seen = 1, 0
    for frame in frames:
        if seen % stride == 0:
            kept.append(frame)
        seen += 1
        if len(kept) > min(MAX_FRAMES, max(2, MAX_BYTES // frame.nbytes)):
            kept, stride = kept[::2], stride * 2
    if not kept:
        raise SampleError("video cannot be decoded: it has no frames")
    if len({frame.shape for frame in kept}) > 1:
        raise SampleError("video changes its size on the way")
    return Clip(np.stack(kept), rate / stride, seen)


def _checked(clip: Clip) -> Clip:
    frames = clip.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise SampleError(
            "video has no frames: expected uint8 (frames, height, width, 3), got"
            f" {frames.dtype} {frames.shape}"
        )
    if not (np.isfinite(clip.fps) and clip.fps > 0):
        raise SampleError(f"video has no frame rate: got {clip.fps}")
    return clip


@cache
def torchvision_works() -> bool:
    """True when torchvision is installed and fits this torch; the processors of video need it."""
    try:
        import torchvision  # noqa: F401 - whether it imports is the question
    except (ImportError, RuntimeError, OSError):  # missing, or built for another torch
        return False
    return True


def video_arguments(clips: Sequence[Clip], processor: Any) -> dict[str, Any]:
    """What a transformers processor is called with to be shown these clips.

    The checkpoint's own rule says which frames it sees; where it has none, `FPS` a second, spread
    evenly, as the Qwen families' reference code does.
    """
    asked: dict[str, Any] = {"do_sample_frames": True}
    if getattr(processor, "fps", None) is None and getattr(processor, "num_frames", None) is None:
        asked["fps"] = FPS
    if getattr(processor, "cap_pixels_per_frame", True) is None:
        asked["cap_pixels_per_frame"] = True  # the reference's rule too
    pairs = [clip if len(clip.frames) > 1 else _doubled(clip) for clip in clips]
    asked["video_metadata"] = [_metadata(clip) for clip in pairs]
    return {"videos": [clip.frames for clip in pairs], "videos_kwargs": asked}


def _doubled(clip: Clip) -> Clip:
    """A still: frames are read in pairs, so that one alone would be none."""
    return Clip(np.repeat(clip.frames, 2, axis=0), clip.fps * 2, clip.seen)


def _metadata(clip: Clip) -> dict[str, Any]:
    count, height, width, _ = clip.frames.shape
    return {
        "total_num_frames": count,
        "fps": clip.fps,
        "duration": count / clip.fps,
        "width": width,
        "height": height,
    }


def video_note(clip: Clip) -> str:
    """What was left out, or ""."""
    kept = len(clip.frames)
    return f"{kept} of {clip.seen} video frames kept" if clip.seen > kept else ""
