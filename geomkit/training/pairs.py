"""Text pairs: what the text-only recipe is allowed to see, and a count of what it was not given.

A source is `sandbox[:count]`, a named recipe (`geomkit.training.recipes`), a dataset
`hf:NAME[@REVISION][:SUBSET[:SPLIT]]` of the hub or in a folder, or a JSONL, CSV or Parquet file,
with the columns `anchor`, `positive` and, for hard negatives, `negative` (and `group`, when equal
things should not be each other's negatives). The SimCSE names `sent0`, `sent1`, `hard_neg` are
understood too.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from geomkit.errors import MissingExtra, TrainingError, UsageError
from geomkit.types import Sample

SANDBOX_PAIRS = 12_000
ALIASES: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "sent0"),
    "positive": ("positive", "sent1"),
    "negative": ("negative", "hard_neg"),
    "group": ("group",),
}
_MEDIA = ("image", "audio", "video", "pixel", "wav", "frames")


@dataclass(frozen=True, slots=True)
class TextPair:
    """An anchor, a text that means the same, and maybe one that almost does.

    Pairs of equal non-empty `group` mean the same thing: they are never each other's negatives.
    """

    anchor: str
    positive: str
    negative: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class PairSet(Sequence[TextPair]):
    """The usable pairs of a source, and how many rows of it were left out and why.

    `media` are samples with a medium and a text, to be mixed in: batches of their own kind.
    """

    source: str
    pairs: tuple[TextPair, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    media: tuple[Sample, ...] = ()

    @overload
    def __getitem__(self, index: int) -> TextPair: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TextPair, ...]: ...
    def __getitem__(self, index: int | slice) -> TextPair | tuple[TextPair, ...]:
        """The pair at `index`."""
        return self.pairs[index]

    def __len__(self) -> int:
        """How many pairs are usable."""
        return len(self.pairs)

    def report(self) -> str:
        """One line for people: kept, dropped, reasons."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{len(self.pairs)} pairs from {self.source}" + (
            f"; left out: {reasons}" * bool(reasons)
        )


def load_pairs(spec: str | Path, *, seed: int = 0) -> PairSet:
    """Pairs of a file or the sandbox; empty, duplicate and incomplete rows are only counted.

    Raises:
        TrainingError: no such file, not a table of text, a media column, or no usable pair.
        SampleError: a dataset that cannot be found or read.
        UsageError: `sandbox:<count>` without a positive whole number, or a dataset of several
            splits and none named.
    """
    text = str(spec)
    from geomkit.training import recipes  # they are made of what stands here

    if recipes.named(text) is not None:
        return recipes.load_recipe(text, seed=seed)
    if text == "sandbox" or text.startswith("sandbox:"):
        return _sandbox(text, seed)
    if text.startswith("hf:"):
        return _hosted(text)
    path = Path(spec)
    if not path.is_file():
        raise TrainingError(
            f"Expected text pairs in a file, hf:NAME or 'sandbox[:count]', found no file {path}: "
            "check the path."
        )
    return select(read_rows(path), source=path.name)


def select(rows: Iterable[Mapping[str, Any]], *, source: str) -> PairSet:
    """Keep complete, distinct rows of text; count the others by reason.

    Raises:
        TrainingError: a media column, missing columns in every row, or nothing usable.
    """
    kept: dict[TextPair, None] = {}
    dropped: Counter[str] = Counter()
    for row in rows:
        refuse_media(row, source)
        pair, reason = _pair(row)
        if pair is None:
            dropped[reason] += 1
        elif pair in kept:
            dropped["duplicate"] += 1
        else:
            kept[pair] = None
    if not kept:
        raise TrainingError(_nothing(source, dropped))
    negatives = sum(pair.negative is not None for pair in kept)
    if 0 < negatives < len(kept):
        # The loss needs the same columns in every row, so the minority without one is left out.
        dropped["without a negative"] += len(kept) - negatives
        kept = {pair: None for pair in kept if pair.negative is not None}
    return PairSet(source, tuple(kept), dict(dropped))


def refuse_media(row: Mapping[str, Any], source: str) -> None:
    """Raise when a row carries an image, a sound or a video: this recipe promises text only.

    Raises:
        TrainingError: naming the column.
    """
    nested = [f"{k}.{inner}" for k, v in row.items() if isinstance(v, Mapping) for inner in v]
    for column in (*row, *nested):
        if any(word in str(column).rsplit(".", 1)[-1].lower() for word in _MEDIA):
            raise TrainingError(
                f"Expected text only, but {source} has the media column {column!r}: the text-only "
                "recipe never reads media; remove the column (its texts alone are fine)."
            )


def fingerprint(pairs: Iterable[TextPair | Sample]) -> str:
    """sha256 of the pairs in order: two trainings saw the same text when it is equal."""
    digest = hashlib.sha256()
    for pair in pairs:
        if isinstance(pair, TextPair):
            fields: list[Any] = [pair.anchor, pair.positive, pair.negative, pair.group]
        else:
            fields = [pair.id, pair.text, pair.modalities(), pair.group]
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
    return digest.hexdigest()


def shuffled(
    pairs: Sequence[TextPair] | Sequence[Sample], seed: int
) -> Sequence[TextPair] | Sequence[Sample]:
    """Every anchor, or medium, with the text of another one, by lot; groups then mean nothing."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))  # one cycle of all
    if all(isinstance(pair, TextPair) for pair in pairs):
        texts = cast("Sequence[TextPair]", pairs)
        mixed = tuple(
            replace(pair, positive=texts[other[row]].positive, group="")
            for row, pair in enumerate(texts)
        )
        return replace(pairs, pairs=mixed) if isinstance(pairs, PairSet) else mixed
    samples = cast("Sequence[Sample]", pairs)
    return tuple(
        replace(sample, text=samples[other[row]].text, group="")
        for row, sample in enumerate(samples)
    )


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a JSONL, CSV or Parquet file.

    Raises:
        TrainingError: another extension, or a file that is not what its extension says.
    """
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise TrainingError(
            f"Expected .jsonl, .csv or .parquet, got {path.name}: convert the pairs to one of "
            "these."
        )
    return readers[path.suffix.lower()](path)


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as cause:
                raise TrainingError(
                    f"Expected one JSON object a line, {path.name} line {number} is not JSON: "
                    f"{cause}."
                ) from cause
            if not isinstance(row, dict):
                raise TrainingError(
                    f"Expected one JSON object a line, {path.name} line {number} is a "
                    f"{type(row).__name__}: write {{'anchor': ..., 'positive': ...}}."
                )
            yield row


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                yield {key: value for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as cause:
        raise TrainingError(f"Expected UTF-8 CSV, {path.name} cannot be read: {cause}.") from cause


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as cause:
        raise MissingExtra(
            "Pairs in Parquet need pyarrow: pip install 'geomkit[parquet]', or use JSONL."
        ) from cause
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as cause:
        raise TrainingError(f"Expected a Parquet file, {path.name} is not one: {cause}.") from cause


def _pair(row: Mapping[str, Any]) -> tuple[TextPair | None, str]:
    """The pair of a row, or the reason there is none."""
    found = {name: _value(row, names) for name, names in ALIASES.items()}
    if found["anchor"] is None or found["positive"] is None:
        return None, "missing column"
    texts = {
        name: value.strip() if isinstance(value, str) else value for name, value in found.items()
    }
    if not all(
        isinstance(v, str) for name, v in texts.items() if v is not None and name != "group"
    ):
        return None, "not text"
    if not texts["anchor"] or not texts["positive"] or texts["negative"] == "":
        return None, "empty"
    if not all(_whole(v) for v in texts.values() if isinstance(v, str)):
        return None, "half a character"  # a lone surrogate, as JSON can write one
    if texts["negative"] is not None and texts["negative"] in (texts["anchor"], texts["positive"]):
        return None, "negative equal to its pair"
    group = "" if texts["group"] is None else str(texts["group"])
    return TextPair(texts["anchor"], texts["positive"], texts["negative"], group), ""


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _nothing(source: str, dropped: Mapping[str, int]) -> str:
    if not dropped:
        return f"Expected text pairs, {source} is empty: write at least two rows."
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return (
        f"Expected columns anchor and positive (and maybe negative) with text, {source} has no "
        f"usable row ({reasons}): rename the columns or fill them."
    )


def _hosted(spec: str) -> PairSet:
    """The pairs of a dataset; its columns are looked at before any cell is decoded."""
    from geomkit.data import hosted  # it brings the datasets library
    from geomkit.data.entries import DataConfig

    name, subset, split = [*spec.removeprefix("hf:").split(":", 2), "", ""][:3]
    found, table = hosted.opened(name, DataConfig(subset=subset, split=split))
    refuse_media(dict.fromkeys(table.column_names), found)
    return select(table, source=f"hf:{found}")


def _sandbox(spec: str, seed: int) -> PairSet:
    count = spec.partition(":")[2] or str(SANDBOX_PAIRS)
    if not count.isdecimal() or int(count) < 2:
        raise UsageError(f"Expected sandbox:<count> with a count of 2 or more, got {spec!r}.")
    from geomkit import sandbox

    return PairSet(spec, tuple(TextPair(*row) for row in sandbox.text_pairs(int(count), seed)))
