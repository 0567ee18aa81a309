"""Text pairs: what the text-only recipe is allowed to see, and a count of what it was not given.

A source is `sandbox[:count]`, a named recipe (`geomkit.training.recipes`), a dataset
`hf:NAME[@REVISION][:SUBSET[:SPLIT]]` of the hub or in a folder, or a JSONL, CSV, TSV or Parquet
file, with the columns `anchor`, `positive` and, for hard negatives, `negative` (and `group`, when
equal things should not be each other's negatives). The SimCSE names `sent0`, `sent1`, `hard_neg`
are understood too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from geomkit.errors import TrainingError, UsageError
from geomkit.training.tables import Row, read_rows
from geomkit.types import Sample

SANDBOX_PAIRS = 12_000
ALIASES: Mapping[str, tuple[str, ...]] = {
    "anchor": ("anchor", "sent0"),
    "positive": ("positive", "sent1"),
    "negative": ("negative", "hard_neg"),
    "group": ("group",),
}
_MEDIA = ("image", "audio", "video", "pixel", "wav", "frames")
_NEARLY = re.compile(r"(anchor|positive|negative)s?[ _-]?\d*", re.IGNORECASE)


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
    if not _is_file(path):
        raise TrainingError(
            f"Expected text pairs in a file, hf:NAME or 'sandbox[:count]', found no file {path}: "
            "check the path."
        )
    return select(read_rows(path), source=path.name)


def _is_file(path: Path) -> bool:
    """True for a file; a name that nothing can have is none."""
    try:
        return path.is_file()
    except OSError:  # too long a name
        return False


def select(rows: Iterable[Row], *, source: str) -> PairSet:
    """Keep complete, distinct rows of text; count the others by reason.

    Raises:
        TrainingError: a media column, two columns for one thing, missing columns in every row, or
            nothing usable.
    """
    kept: dict[TextPair, None] = {}
    dropped: Counter[str] = Counter()
    looked: dict[tuple[str, ...], None] = {}
    for row in rows:
        if (columns := _columns(row)) not in looked:
            refuse_media(columns, source)
            _refuse_unread(columns, source)
            looked[columns] = None
        pair, reason = _pair(row)
        if pair is None:
            dropped[reason] += 1
        elif pair in kept:
            dropped["duplicate"] += 1
        else:
            kept[pair] = None
    if not kept:
        raise TrainingError(_nothing(source, dropped, next(iter(looked), ())))
    pairs = _alike(kept, dropped)
    return PairSet(source, pairs, {reason: n for reason, n in dropped.items() if n})


def _alike(kept: Collection[TextPair], dropped: Counter[str]) -> tuple[TextPair, ...]:
    """The loss needs the same columns in every row: what is left out is what fewer rows have."""
    having = [pair for pair in kept if pair.negative is not None]
    if 2 * len(having) >= len(kept):
        dropped["without a negative"] += len(kept) - len(having)
        return tuple(having)
    dropped["negative, which most pairs lack"] += len(having)
    bare = dict.fromkeys(replace(pair, negative=None) for pair in kept)
    dropped["duplicate"] += len(kept) - len(bare)
    return tuple(bare)


def _columns(row: Row) -> tuple[str, ...]:
    nested = [f"{k}.{inner}" for k, v in row.items() if isinstance(v, Mapping) for inner in v]
    return (*map(str, row), *nested)


def refuse_media(columns: Iterable[str], source: str) -> None:
    """Raise when there is an image, a sound or a video: this recipe promises text only.

    Raises:
        TrainingError: naming the column.
    """
    for column in columns:
        if any(word in column.rsplit(".", 1)[-1].lower() for word in _MEDIA):
            raise TrainingError(
                f"Expected text only, but {source} has the media column {column!r}: the text-only "
                "recipe never reads media; remove the column (its texts alone are fine)."
            )


def _refuse_unread(columns: Sequence[str], source: str) -> None:
    """Raise where a column that was meant would not be read."""
    for name, names in ALIASES.items():
        if len(both := [n for n in names if n in columns]) > 1:
            raise TrainingError(
                f"Expected one column for the {name}, {source} has {' and '.join(both)}: keep one."
            )
    known = {n for names in ALIASES.values() for n in names}
    odd = [c for c in columns if c not in known and _NEARLY.fullmatch(c)]
    if odd:
        raise TrainingError(
            f"Expected columns anchor, positive and maybe one negative, {source} has {odd[0]!r}, "
            "which would not be read: rename it, or remove it."
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
    """Every anchor, or medium, with the text of another one, by lot; groups then mean nothing.

    A hard negative is that of a third row: beside its own anchor, or its own positive, it would say
    what is near what.

    Raises:
        TrainingError: there are fewer rows than that takes.
    """
    least = 3 if any(isinstance(pair, TextPair) and pair.negative for pair in pairs) else 2
    if len(pairs) < least:
        raise TrainingError(f"Expected {least} or more pairs to shuffle, got {len(pairs)}.")
    order = np.random.default_rng(seed).permutation(len(pairs))
    second, third = (  # one cycle of all: its next, and the next but one
        dict(zip(order.tolist(), np.roll(order, by).tolist(), strict=True)) for by in (1, 2)
    )
    if all(isinstance(pair, TextPair) for pair in pairs):
        texts = cast("Sequence[TextPair]", pairs)
        mixed = tuple(
            TextPair(pair.anchor, texts[second[row]].positive, texts[third[row]].negative)
            for row, pair in enumerate(texts)
        )
        return replace(pairs, pairs=mixed) if isinstance(pairs, PairSet) else mixed
    samples = cast("Sequence[Sample]", pairs)
    return tuple(
        replace(sample, text=samples[second[row]].text, group="")
        for row, sample in enumerate(samples)
    )


def _pair(row: Row) -> tuple[TextPair | None, str]:
    """The pair of a row, or the reason there is none."""
    found = {name: _value(row, names) for name, names in ALIASES.items()}
    group = _group(found.pop("group"))
    if found["anchor"] is None or found["positive"] is None:
        return None, "missing column"
    texts = {n: v.strip() if isinstance(v, str) else v for n, v in found.items()}
    if not all(isinstance(text, str) for text in texts.values() if text is not None):
        return None, "not text"
    written = [text for text in texts.values() if text is not None]
    if reason := next(filter(None, map(_unwritable, (*written, group))), ""):
        return None, reason
    if not all(written):
        return None, "empty"
    if texts["negative"] in (texts["anchor"], texts["positive"]):
        return None, "negative equal to its pair"
    return TextPair(texts["anchor"], texts["positive"], texts["negative"], group), ""


def _group(value: Any) -> str:
    """The name of a group; none where a table of numbers has NaN for an empty cell."""
    if value is None or value != value:  # noqa: PLR0124  # only NaN differs from itself
        return ""
    whole = isinstance(value, float) and value.is_integer()  # one that stood in such a table
    return str(int(value) if whole else value).strip()


def _unwritable(text: str) -> str:
    """Why no file of text can hold a text."""
    if "\0" in text:
        return "with a NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a character"  # a lone surrogate, as JSON can write one
    return ""


def _value(row: Row, names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _nothing(source: str, dropped: Mapping[str, int], columns: Sequence[str]) -> str:
    if not dropped:
        return f"Expected text pairs, {source} is empty: write at least two rows."
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    first = ", ".join(repr(name[:40]) for name in columns[:6]) or "none"
    return (
        f"Expected columns anchor and positive (and maybe negative) with text, {source} has no "
        f"usable row ({reasons}); its columns are {first}: rename the columns or fill them."
    )


def _hosted(spec: str) -> PairSet:
    """The pairs of a dataset; its columns are looked at before any cell is decoded."""
    from geomkit.data import hosted  # it brings the datasets library
    from geomkit.data.entries import DataConfig

    name, subset, split = [*spec.removeprefix("hf:").split(":", 2), "", ""][:3]
    found, table = hosted.opened(name, DataConfig(subset=subset, split=split))
    refuse_media(table.column_names, found)
    return select(table, source=f"hf:{found}")


def _sandbox(spec: str, seed: int) -> PairSet:
    count = spec.partition(":")[2] or str(SANDBOX_PAIRS)
    if not count.isdecimal() or int(count) < 2:
        raise UsageError(f"Expected sandbox:<count> with a count of 2 or more, got {spec!r}.")
    from geomkit import sandbox

    return PairSet(spec, tuple(TextPair(*row) for row in sandbox.text_pairs(int(count), seed)))
