"""What `--data` may name, and the samples it stands for.

    sandbox[:split]              the embedded world
    set.jsonl, .csv, .parquet    a manifest
    folder                       a folder of images, sounds or videos
    hf:org/name[@revision]       a dataset of the Hugging Face hub; hf:./folder one on disk
    coco:PATH, audiocaps:PATH    a suite as its authors distribute it, see `geomkit.data.suites`

Nothing is decoded here: a file that cannot be decoded becomes a recorded row at capture, never a
missing one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from geomkit.data.entries import URL_SCHEMES, DataConfig, Rows, renamed, sample_of
from geomkit.data.manifests import READERS, table
from geomkit.errors import SampleError, UsageError
from geomkit.types import Sample

__all__ = ["DataConfig", "load_samples"]

USUAL = DataConfig()


def load_samples(spec: str | Path, data: DataConfig = USUAL) -> tuple[str, tuple[Sample, ...]]:
    """Dataset name and samples of whatever `spec` names.

    Raises:
        SampleError: it is missing, malformed or empty, or names a forbidden URL or an id twice.
        UsageError: nothing has such a name, or an option does not fit it.
    """
    text = str(spec)
    name, _, rest = text.partition(":")
    if name == "sandbox":
        from geomkit import sandbox  # the sandbox draws its scenes on import

        _refuse_unused(text, data, "split")
        split = rest or data.split or "test"
        return f"sandbox:{split}", sandbox.samples(split)
    if name == "hf":
        from geomkit.data import hosted  # it brings the datasets library

        return hosted.load(rest, data, _samples)
    from geomkit.data import suites

    if name in suites.SUITES and rest:
        if not rest.startswith("hf:"):
            _refuse_unused(text, data, "split", "captions", "columns")
        return suites.load(name, rest, data, _samples)
    if text.lower().startswith(URL_SCHEMES):
        raise SampleError(f"Expected data on disk, got the URL {text}: download it first.")
    return _from_disk(Path(text), data)


def _from_disk(path: Path, data: DataConfig) -> tuple[str, tuple[Sample, ...]]:
    if path.suffix.lower() in READERS:
        _refuse_unused(str(path), data, "columns")
        root = Path(data.media_root) if data.media_root else path.parent
        return path.name, _samples(str(path), renamed(table(path), data), root, data)
    if _is_folder(path):
        from geomkit.data import folders

        _refuse_unused(str(path), data)
        rows = folders.rows(path)
        return path.resolve().name, _samples(str(path), rows, path, data)
    known = ", ".join(READERS)
    hint = ": write it as .jsonl, one object a line" if path.suffix.lower() == ".json" else ""
    raise UsageError(
        f"Expected 'sandbox' or a manifest ({known}), a folder of media, hf:NAME or SUITE:PATH,"
        f" got '{path}'{hint}."
    )


def _refuse_unused(source: str, data: DataConfig, *used: str) -> None:
    """An option that would do nothing was meant for something else."""
    for name in ("split", "subset", "columns", "captions"):
        if name not in used and getattr(data, name) != getattr(USUAL, name):
            raise UsageError(f"Expected no --{name} with {source}: it has nothing of that kind.")


def _is_folder(path: Path) -> bool:
    """True for a folder; a name that nothing can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long a name, a NUL in it
        return False


def _samples(source: str, rows: Rows, root: Path, data: DataConfig) -> tuple[Sample, ...]:
    """The samples of rows whose media lie under `root`, each id once.

    Raises:
        SampleError: there is none, a row is no sample, or an id is there twice.
    """
    samples = tuple(sample_of(where, row, root, data) for where, row in rows)
    _check(samples, source)
    return samples


def _check(samples: Sequence[Sample], source: str) -> None:
    if not samples:
        raise SampleError(f"Expected at least one row in {source}, got none.")
    seen: dict[str, int] = {}
    for number, sample in enumerate(samples, 1):
        looks = unicodedata.normalize("NFC", sample.id)  # two spellings of one look are one id
        if looks in seen:
            raise SampleError(
                f"Expected one row an id in {source}, got '{sample.id}' in rows {seen[looks]}"
                f" and {number}: put the modalities of one sample into one row."
            )
        seen[looks] = number
