"""Tasks of mteb from samples on this disk: both directions between text and each medium.

    local:DATA      any data that `--data` takes, or a table of text pairs: anchor and positive
    seadoc:DATA     English questions, pages of Thai, Vietnamese, Malay and Lao books: nDCG@10

Items without a partner stay in the corpus. A tie with a wrong answer is a miss, as everywhere here:
mteb itself lets the ids of documents decide. Media are stored as encoded bytes in the columns that
the datasets library knows, so any model that mteb can run can run these tasks too.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from geomkit.data.samples import USUAL, DataConfig, load_samples
from geomkit.errors import MissingExtra, SampleError, UsageError
from geomkit.evaluation.retrieval import things
from geomkit.plans import content_sha
from geomkit.types import MODALITIES, Modality, Row, Sample, Stored, Waveform

try:
    import datasets
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import SearchProtocol
    from mteb.models.search_wrappers import SearchEncoderWrapper
except ImportError as cause:
    raise MissingExtra(
        f"Benchmarks need mteb: pip install 'geomkit[eval]' ({cause}); --data needs no package."
    ) from cause

LETTER: Mapping[Modality, str] = {"text": "t", "image": "i", "audio": "a", "video": "v"}
HIT = "hit_rate_at_1"
TIE = 2.0**-22
"""Cosines that are nearer are equal: mteb takes them in float32, and scores them in it."""
RULE = b"a tie is a miss"  # of how results are scored; those of another rule are not these
FEATURES = {"image": datasets.Image, "audio": datasets.Audio, "video": datasets.Video}
STORED = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}

Item = tuple[str, Any]
"""Id and content of a row."""


def local_tasks(spec: str, chosen: DataConfig = USUAL) -> tuple[Any, ...]:
    """The tasks of `local:DATA` or `seadoc:DATA`.

    Raises:
        UsageError: no data is named.
        SampleError: they cannot be read, or hold no text with a partner.
    """
    kind, _, data = spec.partition(":")
    if not data:
        raise UsageError(f"Expected {kind}:DATA, got no data: name a manifest, a folder or pairs.")
    if kind == "seadoc":
        return (_between("SeaDoc", load_samples(data, chosen)[1], "text", "image", "ndcg_at_10"),)
    if (pairs := _text_pairs(data)) is not None:
        return (pairs,)
    name, samples = load_samples(data, chosen)
    stem = f"local-{Path(name).stem.replace(':', '-')}"
    media = [m for m in MODALITIES if m != "text" and any(_both(s, m) for s in samples)]
    if not media:
        raise SampleError(f"Expected samples with a text and a medium in {data}, got none.")
    ways: list[tuple[Modality, Modality]] = []
    for medium in media:
        ways += [(medium, "text"), ("text", medium)]
    return tuple(_between(f"{stem}-{a}-{b}", samples, a, b, HIT) for a, b in ways)


def _both(sample: Sample, medium: Modality) -> bool:
    return sample.text is not None and getattr(sample, medium) is not None


def _text_pairs(data: str) -> Any:
    """The task of a table with the columns anchor and positive, or None for any other data."""
    from geomkit.data.manifests import READERS, table

    path = Path(data)
    if path.suffix.lower() not in READERS or not path.is_file():
        return None
    rows = [row for _, row in table(path)]
    if not all({"anchor", "positive"} <= set(row) for row in rows) or not rows:
        return None
    queries = _once((str(row["anchor"]) for row in rows), "q")
    answers = _once((str(row["positive"]) for row in rows), "d")
    right: dict[str, dict[str, int]] = {}
    for row in rows:
        right.setdefault(queries[str(row["anchor"])], {})[answers[str(row["positive"])]] = 1
    tables = [[(name, text) for text, name in side.items()] for side in (queries, answers)]
    return _task(f"local-{path.stem}-text-text", ("text", "text"), tables[0], tables[1], right, HIT)


def _once(texts: Iterator[str], letter: str) -> dict[str, str]:
    """Text -> id, each text once."""
    return {text: f"{letter}{number}" for number, text in enumerate(dict.fromkeys(texts))}


def _between(
    name: str, samples: Sequence[Sample], asked: Modality, found: Modality, score: str
) -> Any:
    """The task of finding `found` by `asked`; each item once, any of the same thing is right."""
    medium = found if asked == "text" else asked
    rows = [_row(number, sample, medium) for number, sample in enumerate(samples)]
    thing = things(rows)
    both = {s.id for s in samples if _both(s, medium)}
    if not both:
        raise SampleError(f"Expected samples with {asked} and {found}, got none.")
    queries = _items([s for s in samples if s.id in both], asked, thing)
    corpus = _items(samples, found, thing)
    answers: dict[str, list[str]] = {}
    for id_ in corpus:
        answers.setdefault(thing[id_], []).append(f"d-{id_}")
    right = {f"q-{id_}": dict.fromkeys(answers[thing[id_]], 1) for id_ in queries}
    return _task(
        name,
        (asked, found),
        [(f"q-{id_}", content) for id_, content in queries.items()],
        [(f"d-{id_}", content) for id_, content in corpus.items()],
        right,
        score,
    )


def _row(number: int, sample: Sample, medium: Modality) -> Row:
    content = getattr(sample, medium)
    sha = "" if content is None else content_sha(content)
    return Row(number, sample.id, medium, sha, sample.group or sample.id)


def _items(samples: Sequence[Sample], kind: Modality, thing: Mapping[str, str]) -> dict[str, Any]:
    """Id -> content of the samples that have one, the same of one thing once."""
    once: dict[tuple[str, str], Sample] = {}
    for sample in samples:
        if (content := getattr(sample, kind)) is not None:
            once.setdefault((thing[sample.id], content_sha(content) or sample.id), sample)
    return {sample.id: getattr(sample, kind) for sample in once.values()}


class Strict(SearchEncoderWrapper):  # type: ignore[misc]  # untyped
    """A search in which right answers come after wrong ones that are as near."""

    def __init__(self, model: Any, right: Mapping[str, Mapping[str, int]]) -> None:
        """`right` are the right answers of each query."""
        super().__init__(model)
        self.right = right

    def search(self, queries: Any, **asked: Any) -> Any:
        """Query -> document -> cosine; that of a right answer is less by what is a tie."""
        found = super().search(queries, **asked)
        return {
            query: {d: s - TIE * (d in self.right.get(query, ())) for d, s in near.items()}
            for query, near in found.items()
        }


class Task(AbsTaskRetrieval):  # type: ignore[misc]  # untyped
    """A retrieval task whose data are here already, and in which a tie is a miss."""

    def _evaluate_subset(self, model: Any, data_split: Any, **asked: Any) -> Any:
        if not isinstance(model, SearchProtocol):  # a model that only encodes, as ours
            model = Strict(model, data_split["relevant_docs"])
        return super()._evaluate_subset(model, data_split, **asked)

    def load_data(self, *_: Any, **__: Any) -> None:
        """Nothing is fetched."""
        self.data_loaded = True

    def unload_data(self) -> None:
        """Nothing is given up: the next checkpoint is shown the same rows."""


def _task(
    name: str,
    way: tuple[Modality, Modality],
    queries: Sequence[Item],
    corpus: Sequence[Item],
    right: Mapping[str, Mapping[str, int]],
    score: str,
) -> Any:
    asked, found = way
    if len(corpus) < 2:
        raise SampleError(
            f"Expected two or more different {found} items to search in {name}, got {len(corpus)}:"
            " there, all is found."
        )
    tables = {"queries": _table(queries, asked), "corpus": _table(corpus, found)}
    kind = "Retrieval" if way == ("text", "text") else "Any2AnyRetrieval"
    said = TaskMetadata(
        name=name,
        description=f"{asked} to {found}, from local data",
        dataset={"path": "local", "revision": _sha(queries, corpus, right)},
        type=kind,
        category=f"{LETTER[asked]}2{LETTER[found]}",
        modalities=sorted(set(way)),
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
    )
    own = type(name, (Task,), {"metadata": said})()
    own.dataset = {
        "default": {
            "test": {**tables, "relevant_docs": {q: dict(r) for q, r in right.items()}}
            | {"top_ranked": None}
        }
    }
    own.data_loaded = True
    return own


def _table(items: Sequence[Item], kind: Modality) -> Any:
    """A table with the columns id and the modality's."""
    ids = [name for name, _ in items]
    if kind == "text":
        return datasets.Dataset.from_dict({"id": ids, "text": [str(text) for _, text in items]})
    cells = [{"bytes": encoded(content), "path": None} for _, content in items]
    features = datasets.Features({"id": datasets.Value("string"), kind: STORED})
    made = datasets.Dataset.from_dict({"id": ids, kind: cells}, features=features)
    return made.cast_column(kind, FEATURES[kind](decode=False))


def encoded(content: Any) -> bytes:
    """The bytes of a medium: as they are stored, or without loss where it is in memory.

    Raises:
        SampleError: the file cannot be read, or it is a video in memory.
    """
    if isinstance(content, Path):
        try:
            return content.read_bytes()
        except OSError as cause:
            raise SampleError(f"Expected a file {content}, it cannot be read: {cause}.") from cause
    if isinstance(content, Stored):
        return content.read()
    stream = io.BytesIO()
    if isinstance(content, Image.Image):
        content.save(stream, "PNG")
    elif isinstance(content, Waveform):
        samples = np.asarray(content.samples, np.float32)
        soundfile.write(stream, samples, content.rate, format="WAV", subtype="FLOAT")
    else:
        raise SampleError(f"Expected media on disk, got a {type(content).__name__} in memory.")
    return stream.getvalue()


def _sha(queries: Sequence[Item], corpus: Sequence[Item], right: Mapping[str, Any]) -> str:
    """What a result is kept by: other data under one name are another revision."""
    digest = hashlib.sha256(RULE + json.dumps(right, sort_keys=True).encode())
    for name, content in (*queries, *corpus):
        digest.update(name.encode() + b"\0")
        digest.update(content.encode() if isinstance(content, str) else encoded(content))
    return digest.hexdigest()[:16]
