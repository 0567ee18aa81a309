"""Encoded media to what a processor takes: an RGB picture, a mono sound.

One rule for each kind of pixel, so that the same file is the same picture everywhere:

    EXIF orientation          applied
    several frames or pages   the first, with a note
    palette, grey, CMYK       Pillow's conversion to RGB; colour profiles are not applied
    alpha                     laid over white, as the Qwen families' own loaders do
    16-bit grey               divided by 257, so that 65535 is white; never clipped
    32-bit grey, float        refused: such a file does not say which value is white
"""

from __future__ import annotations

import errno
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from geomkit.data.sources import readable
from geomkit.errors import SampleError
from geomkit.types import Stored, Waveform

MAX_PIXELS = 50_000_000
"""Pixels of the largest picture that is decoded: 150 MB as RGB. Pillow warns at 89 million."""
MAX_SOUND = 2**28
"""Values of the longest sound that is decoded: 1 GiB, 4.6 hours of 16 kHz mono."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is decoded. Pillow knows more: EPS, for one, would start a PostScript interpreter."""
Image.init()  # else a format in that list is unknown until Pillow has met it

_BROKEN = (  # what Pillow's decoders raise on damaged files
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def load_image(source: Any, pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB image, upright, of a path, of stored bytes, or of an image in memory.

    Raises:
        SampleError: missing, not an image, truncated, or of more than `pixels` pixels.
    """
    return image_and_note(source, pixels)[0]


def image_and_note(source: Any, pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """`load_image`, and what was left out of it: the other frames of an animation.

    Raises:
        SampleError: as `load_image`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block is not the picture
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                return _upright_rgb(source, pixels), ""
            with Image.open(readable(source), formats=FORMATS) as image:
                return _upright_rgb(image, pixels), _frames_note(image)
    except UnidentifiedImageError as cause:
        raise SampleError(f"image cannot be decoded: {_what_it_is(source)}") from cause
    except Image.DecompressionBombWarning as cause:
        raise SampleError(f"image is too large: {one_line(cause, source)}") from cause
    except _BROKEN as cause:
        raise SampleError(f"image cannot be decoded: {one_line(cause, source)}") from cause


def _frames_note(image: Image.Image) -> str:
    frames = getattr(image, "n_frames", 1)
    # The second frame of an MPO is a phone's depth map or preview, and nobody's content.
    return f"first of {frames} frames shown" if frames > 1 and image.format != "MPO" else ""


def _what_it_is(source: Path | Stored) -> str:
    """Why no decoder took it; a drawing is told from damage."""
    found = readable(source)
    if isinstance(found, Path):
        with found.open("rb") as file:
            head = file.read(4096)
    else:
        head = found.read(4096)
    if b"<svg" in head:
        return "it is an SVG drawing, which has no pixels: export it as PNG"
    return f"{Path(source.name).name} is of no format that is read here ({', '.join(FORMATS)})"


def _upright_rgb(image: Image.Image, pixels: int) -> Image.Image:
    width, height = image.size
    if width * height == 0:
        raise SampleError(f"image has no pixels: it is {width} x {height}")
    if width * height > pixels:
        raise SampleError(
            f"image is too large: {width} x {height} is more than {pixels:,} pixels, see"
            " --max-pixels"
        )
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        kind = "32-bit" if image.mode == "I" else "float"
        raise SampleError(
            f"image has {kind} pixels and does not say which value is white: convert it to 8 bits"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def load_audio(source: Path | Stored | Waveform, rate: int) -> NDArray[np.float32]:
    """Mono float32 samples at `rate` hertz: channels averaged, resampled where the rate differs.

    Raises:
        SampleError: missing, not a sound, empty, too long, or with samples that are not finite.
    """
    if isinstance(source, Waveform):
        sound, own_rate = np.asarray(source.samples, dtype=np.float32), source.rate
    else:
        sound, own_rate = _decoded(source)
    if sound.ndim != 1 or sound.size == 0:
        raise SampleError(f"audio has no samples: expected a mono sound, got shape {sound.shape}")
    if not np.isfinite(sound).all():
        raise SampleError("audio has samples that are not finite")
    return resample(sound, own_rate, rate)


def _decoded(source: Path | Stored) -> tuple[NDArray[np.float32], int]:
    try:
        with soundfile.SoundFile(readable(source)) as file:
            # A header can promise more than the file holds, and memory is taken by the promise.
            if file.frames * file.channels > MAX_SOUND:
                raise SampleError(
                    f"audio is too long: {file.frames} samples of {file.channels} channels are"
                    f" more than {MAX_SOUND}"
                )
            return file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate
    except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as cause:
        raise SampleError(f"audio cannot be decoded: {one_line(cause, source)}") from cause


def resample(sound: NDArray[np.float32], own_rate: int, rate: int) -> NDArray[np.float32]:
    """The same sound at `rate` hertz."""
    if own_rate == rate:
        return sound
    resampled: NDArray[np.float32] = soxr.resample(sound, own_rate, rate, quality="HQ")
    return resampled


def one_line(cause: BaseException, source: Any) -> str:
    """The cause in one line, without the folder: a run's record must not depend on where it ran.

    Nor on where in memory: a library's text may name an object by its address.
    """
    if isinstance(cause, OSError) and cause.errno == errno.ENOENT:
        return f"no such file as {source.name}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "it", text)
    return text.replace(str(source), source.name) if isinstance(source, Path) else text
