"""Manifests to samples, and media files to pixels and waveforms.

A manifest is JSONL, CSV or Parquet with the columns

    id, text, image, audio, video, labels, controls, group

Media are paths relative to the manifest. `labels` and `controls` are objects (in CSV: JSON, or
columns `label.colour`, `control.voice`). Reading a manifest opens no media: a file that cannot be
decoded becomes a recorded row at capture, never a missing one.
"""

from __future__ import annotations

import csv
import difflib
import errno
import io
import json
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps

from geomkit.errors import MissingExtra, SampleError, UsageError
from geomkit.types import Sample, Waveform

MEDIA = ("image", "audio", "video")
COLUMNS = ("id", "text", *MEDIA, "labels", "controls", "group")
SPLIT_COLUMNS = {"label.": "labels", "control.": "controls"}
URL_SCHEMES = ("http:", "https:", "ftp:", "s3:", "gs:", "hf:", "file:", "data:")


def load_samples(spec: str | Path) -> tuple[str, tuple[Sample, ...]]:
    """Dataset name and samples of "sandbox", "sandbox:<split>" or a manifest path.

    Raises:
        SampleError: the manifest is missing, malformed, empty, or names a URL or an id twice.
    """
    text = str(spec)
    if text == "sandbox" or text.startswith("sandbox:"):
        from geomkit import sandbox  # the sandbox draws its scenes on import

        split = text.partition(":")[2] or "test"
        return f"sandbox:{split}", sandbox.samples(split)
    if text.lower().startswith(URL_SCHEMES):
        raise SampleError(f"Expected a manifest on disk, got the URL {text}: download it first.")
    path = Path(text)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise UsageError(f"Expected 'sandbox' or a manifest ({known}), got '{text}'.")
    if not _is_file(path):
        raise SampleError(f"Expected a manifest at {path}, found none: check the path.")
    samples = tuple(_sample(where, row, path.parent) for where, row in reader(path))
    _check(samples, path)
    return path.name, samples


def _is_file(path: Path) -> bool:
    """True for a regular file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a NUL in it
        return False


def _check(samples: Sequence[Sample], path: Path) -> None:
    if not samples:
        raise SampleError(f"Expected at least one row in {path}, got none.")
    seen: dict[str, int] = {}
    for number, sample in enumerate(samples, 1):
        if sample.id in seen:
            raise SampleError(
                f"Expected one row an id in {path}, got '{sample.id}' in rows {seen[sample.id]}"
                f" and {number}: put the modalities of one sample into one row."
            )
        seen[sample.id] = number


Rows = Iterable[tuple[str, Mapping[str, Any]]]


def _jsonl(path: Path) -> Rows:
    for number, line in enumerate(_read(path).split("\n"), 1):  # splitlines cuts inside strings
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as cause:
            raise SampleError(f"Expected one JSON object a line in {where}: {cause}.") from cause
        if not isinstance(row, dict):
            raise SampleError(f"Expected a JSON object in {where}, got {type(row).__name__}.")
        yield where, row


def _refuse_constant(name: str) -> Any:
    """JSON has no NaN; Python's reader takes it, and a label would become the class "nan"."""
    raise ValueError(f"{name} is no JSON value, leave the field out")


def _csv(path: Path) -> Rows:
    try:
        table = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
        names, rows = table.fieldnames or (), list(table)
    except csv.Error as cause:
        raise SampleError(f"Expected a CSV table in {path}: {cause}.") from cause
    if len(set(names)) < len(names):
        raise SampleError(f"Expected each column once in {path}, got {', '.join(names)}.")
    for number, row in enumerate(rows, 2):
        where = f"{path}, row {number}"
        if None in row or None in row.values():
            raise SampleError(f"Expected as many cells as columns in {where}.")
        yield where, {name: _cell(name, cell, where) for name, cell in row.items() if cell != ""}


def _cell(name: str, cell: str, where: str) -> Any:
    if name not in SPLIT_COLUMNS.values():
        return cell
    try:
        return json.loads(cell, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as cause:
        raise SampleError(
            f"Expected a JSON object in column '{name}' of {where}: {cause}."
        ) from cause


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as cause:
        raise MissingExtra(
            "A Parquet manifest needs pyarrow: pip install 'geomkit[parquet]', or use JSONL."
        ) from cause
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as cause:
        raise SampleError(f"Expected a Parquet table in {path}: {cause}.") from cause
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise SampleError(f"Expected UTF-8 text in {path}: {cause}.") from cause
    except OSError as cause:
        raise SampleError(f"Expected a readable manifest at {path}: {cause.strerror}.") from cause


def _sample(where: str, row: Mapping[str, Any], folder: Path) -> Sample:
    found = {name: value for name, value in row.items() if value is not None}
    _refuse_typos(found, where)
    media = {kind: _media(found.get(kind), kind, where, folder) for kind in MEDIA}
    sample = Sample(
        id=_string(found.get("id"), "id", where),
        text=_string(found["text"], "text", where) if "text" in found else None,
        **media,
        labels=_names(found, "label.", where),
        controls=_names(found, "control.", where),
        group=_writable(str(found.get("group", "")), "group", where),
    )
    if not sample.modalities():
        raise SampleError(f"Expected text, image, audio or video in {where}, got none of them.")
    return sample


def _refuse_typos(row: Mapping[str, Any], where: str) -> None:
    """Other columns are welcome, but one that is nearly ours is a typing error."""
    for name in row:
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)
        if near and name not in COLUMNS:
            raise SampleError(f"Expected column '{near[0]}' in {where}, got '{name}': rename it.")


def _string(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise SampleError(f"Expected a non-empty string in '{column}' of {where}, got {value!r}.")
    return _writable(str(value), column, where)


def _writable(text: str, column: str, where: str) -> str:
    r"""`text`, when it can be written down again: JSON's `\ud800` alone is half a character."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise SampleError(
            f"Expected whole characters in '{column}' of {where}: {cause}."
        ) from cause
    return text


def _printable(text: str, column: str, where: str) -> str:
    """`text`, when a terminal prints it as it is: a control character would be obeyed there."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise SampleError(
            f"Expected no control characters in '{column}' of {where}, got {text!r}: remove them."
        )
    return _writable(text, column, where)


def _media(value: Any, column: str, where: str, folder: Path) -> Path | None:
    if value is None:
        return None
    text = _string(value, column, where)
    if text.lower().startswith(URL_SCHEMES):
        raise SampleError(
            f"Expected a file path in '{column}' of {where}, got the URL {text}: geomkit downloads"
            " nothing, put the file beside the manifest."
        )
    return folder / text


def regular(path: Path) -> Path:
    """`path` itself, when it is a regular file: reading a pipe or a device may never end.

    Raises:
        OSError: it is missing or something else; also for a name that no file can have.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as cause:  # a NUL in the name
        raise OSError(errno.ENOENT, "no such file") from cause
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file")
    return path


def _names(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, str]:
    column = SPLIT_COLUMNS[prefix]
    given = row.get(column, {})
    if not isinstance(given, Mapping):
        raise SampleError(f"Expected an object in '{column}' of {where}, got {given!r}.")
    split = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    return {
        _printable(str(k), column, where): _printable(str(v), column, where)
        for k, v in {**given, **split}.items()
        if v is not None
    }


def load_image(source: Any) -> Image.Image:
    """An RGB image, upright: EXIF orientation applied, alpha dropped.

    Raises:
        SampleError: missing, not an image, truncated, or large enough to be a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                return ImageOps.exif_transpose(source).convert("RGB")
            with Image.open(regular(source)) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as cause:
        raise SampleError(f"image cannot be decoded: {_one_line(cause, source)}") from cause
    except Image.DecompressionBombWarning as cause:
        raise SampleError(f"image is too large: {_one_line(cause, source)}") from cause


def load_audio(source: Path | Waveform, rate: int) -> NDArray[np.float32]:
    """Mono float32 samples at `rate` hertz: channels averaged, resampled where the rate differs.

    Raises:
        SampleError: missing, not a sound, empty, or with samples that are not finite.
    """
    if isinstance(source, Waveform):
        sound, own_rate = np.asarray(source.samples, dtype=np.float32), source.rate
    else:
        try:
            sound, own_rate = soundfile.read(regular(source), dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as cause:
            raise SampleError(f"audio cannot be decoded: {_one_line(cause, source)}") from cause
        sound = sound.mean(axis=1)
    if sound.ndim != 1 or sound.size == 0:
        raise SampleError(f"audio has no samples: expected a mono sound, got shape {sound.shape}")
    if not np.isfinite(sound).all():
        raise SampleError("audio has samples that are not finite")
    return resample(sound, own_rate, rate)


def resample(sound: NDArray[np.float32], own_rate: int, rate: int) -> NDArray[np.float32]:
    """The same sound at `rate` hertz."""
    if own_rate == rate:
        return sound
    resampled: NDArray[np.float32] = soxr.resample(sound, own_rate, rate, quality="HQ")
    return resampled


def _one_line(cause: BaseException, source: Any) -> str:
    """The cause in one line, without the folder: a run's record must not depend on where it ran."""
    if isinstance(cause, OSError) and cause.errno == errno.ENOENT:
        return f"no such file as {source.name}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    return text.replace(str(source), source.name) if isinstance(source, Path) else text
