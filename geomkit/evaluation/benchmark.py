"""Checkpoints through tasks of mteb, one after the other, and what their scores mean together.

Every checkpoint sees the first one's processor, template and prompt, so a difference is one of
weights. Results are kept by weights and by how rows are shown: what is there is not run again.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geomkit.capture import shared_processor
from geomkit.checkpoints import load_checkpoints
from geomkit.data.samples import USUAL, DataConfig
from geomkit.errors import MissingExtra, UsageError
from geomkit.places import CheckpointSpec, check_distinct
from geomkit.plans import CaptureConfig
from geomkit.progress import Progress, silent
from geomkit.store.files import make_folder
from geomkit.worker import free

try:
    import datasets
    import mteb
    from datasets.utils import are_progress_bars_disabled

    from geomkit.evaluation.encoder import Encoder
    from geomkit.evaluation.local import local_tasks
except ImportError as cause:
    raise MissingExtra(
        f"Benchmarks need mteb: pip install 'geomkit[eval]' ({cause}); --data needs no package."
    ) from cause

LOCAL = ("local", "seadoc")
AS_PAPER = ("AudioCaps", "MSRVTT", "Clotho", "ActivityNet")
"""Tasks that the paper reads as R@1, whatever mteb's main score of them is."""
HITS = ("hit_rate_at_1", "cv_recall_at_1")


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The main score of a checkpoint in a task, and R@1 where the task is a search.

    `recall_1` is the share of queries whose first answer is right. mteb's `recall_at_1` divides by
    the number of right answers: with five captions a sound it cannot exceed 0.2.
    """

    checkpoint: str
    task: str
    category: str
    metric: str
    value: float
    recall_1: float | None
    as_paper: bool
    revision: str


@dataclass(frozen=True, slots=True)
class Mean:
    """Means of the main scores of a checkpoint over the tasks that every checkpoint has."""

    checkpoint: str
    tasks: int
    task_mean: float
    category_mean: float


@dataclass(frozen=True, slots=True)
class Benchmarked:
    """Scores and means, the tasks that failed and why, and what was done to rows."""

    benchmark: tuple[str, ...]
    prompt: str
    checkpoints: tuple[str, ...]
    scores: tuple[TaskScore, ...]
    means: tuple[Mean, ...]
    failed: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False)


def benchmark(
    checkpoints: Sequence[CheckpointSpec],
    names: Sequence[str],
    out: Path,
    config: CaptureConfig,
    *,
    data: DataConfig = USUAL,
    progress: Progress = silent,
) -> Benchmarked:
    """Run checkpoints through benchmarks, tasks and local suites; results are kept in `out`.

    Raises:
        UsageError: no task has such a name.
        StoreError: `out` is no folder, or cannot be made.
        CheckpointError: a checkpoint cannot be found or loaded.
        ProvenanceMismatch: checkpoints cannot be shown the same tokens.
    """
    check_distinct(checkpoints)
    tasks = tasks_of(names, data)
    make_folder(out)
    processor = shared_processor(checkpoints)[0]
    scores: list[TaskScore] = []
    failed: list[str] = []
    notes: list[str] = []
    for spec in checkpoints:
        (loaded,) = load_checkpoints(
            [spec], dtype=config.dtype, attn=config.attention, device=config.device,
            device_map=config.device_map,
        )  # fmt: skip
        encoder = Encoder(loaded, processor, config)
        for done, task in enumerate(tasks):
            progress(f"evaluate {spec.name}", done, len(tasks))
            results, failures = _run(encoder, task, out, config)
            for score in (_score(spec.name, task, one) for one in results):
                if math.isfinite(score.value):
                    scores.append(score)
                else:
                    failures.append(f"its {score.metric} is {score.value}")
            failed += [f"{spec.name}, {task.metadata.name}: {why}" for why in failures]
            notes += [
                f"{spec.name}, {task.metadata.name}: {line}" for line in _told(encoder, task, out)
            ]
        progress(f"evaluate {spec.name}", len(tasks), len(tasks))
        del loaded, encoder
        free()
    order = tuple(spec.name for spec in checkpoints)
    means = tuple(_means(scores, order))
    return Benchmarked(
        tuple(names), config.prompt, order, tuple(scores), means, tuple(failed), tuple(notes)
    )


def tasks_of(names: Sequence[str], data: DataConfig = USUAL) -> tuple[Any, ...]:
    """The tasks that names stand for, each once: benchmarks, tasks, `local:DATA`, `seadoc:DATA`.

    Raises:
        UsageError: nothing has such a name; near names are listed.
    """
    found: dict[str, Any] = {}
    for name in names:
        for task in _named(name, data):
            if task.metadata.name in found:
                raise UsageError(f"Expected each task once, got {task.metadata.name} twice.")
            found[task.metadata.name] = task
    return tuple(found.values())


def _named(name: str, data: DataConfig) -> Sequence[Any]:
    if name.partition(":")[0] in LOCAL:
        return local_tasks(name, data)
    known = {b.name for b in mteb.get_benchmarks()}
    if name in known:
        return tuple(mteb.get_benchmark(name).tasks)
    if name == "MAEB":
        return tuple(mteb.get_benchmark("MAEB(v1)").tasks)
    try:
        return (mteb.get_task(name),)
    except KeyError as cause:
        tasks = {t.metadata.name for t in mteb.get_tasks()}
        near = sorted(n for n in known | tasks if n.casefold().startswith(name.casefold()))[:5]
        near = near or difflib.get_close_matches(name, sorted(known | tasks), n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise UsageError(
            f"Expected a benchmark or task of mteb, local:DATA or seadoc:DATA, got '{name}'{hint}."
        ) from cause


def _run(
    encoder: Encoder, task: Any, out: Path, config: CaptureConfig
) -> tuple[Sequence[Any], list[str]]:
    """Results of one task, and why there are none."""
    if flaw := _unreadable(encoder, task, out):
        return (), [flaw]
    try:
        with _quiet():
            found = mteb.evaluate(
                encoder,
                task,
                cache=mteb.ResultCache(out.absolute()),
                raise_error=False,
                co2_tracker=False,
                show_progress_bar=False,
                encode_kwargs={"batch_size": config.batch_size, "show_progress_bar": False},
            )
    except (ValueError, OSError) as cause:  # modalities that it does not take; a full disk
        return (), [str(cause)]
    return found.task_results, [one.exception for one in found.exceptions or ()]


def _unreadable(encoder: Encoder, task: Any, out: Path) -> str:
    """What to do about a kept result that cannot be read, "" when there is none such."""
    cache, name = mteb.ResultCache(out.absolute()), task.metadata.name
    try:
        kept = cache.load_task_result(name, encoder.mteb_model_meta)
        if kept is not None and not kept.get_missing_evaluations(task):
            kept.get_score()
    except Exception as cause:  # noqa: BLE001  # of JSON, of a schema, of the disk: the file is bad
        path = cache.get_task_result_path(name, encoder.mteb_model_meta)
        said = " ".join(str(cause).split())[:200]
        return f"the kept result {path} cannot be read ({said}): remove it to have the task run"
    return ""


def _score(checkpoint: str, task: Any, result: Any) -> TaskScore:
    value = float(result.get_score())
    return TaskScore(
        checkpoint=checkpoint,
        task=task.metadata.name,
        category=str(task.metadata.type),
        metric=str(task.metadata.main_score),
        value=value,
        recall_1=_hits(result),
        as_paper=task.metadata.name.startswith(AS_PAPER),
        revision=str(result.dataset_revision),
    )


def _hits(result: Any) -> float | None:
    """R@1 over all splits and subsets, None where a task has no first answer."""
    rows = [row for split in result.scores.values() for row in split]
    values = [next((row[name] for name in HITS if name in row), None) for row in rows]
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _means(scores: Sequence[TaskScore], order: Sequence[str]) -> Iterator[Mean]:
    """Task mean and macro mean over categories, of the tasks that no checkpoint lacks."""
    of = {name: {s.task: s for s in scores if s.checkpoint == name} for name in order}
    shared = set.intersection(*(set(own) for own in of.values())) if of else set()
    for name in order if shared else ():
        own = [score for task, score in of[name].items() if task in shared]
        categories: dict[str, list[float]] = {}
        for score in own:
            categories.setdefault(score.category, []).append(score.value)
        each = [math.fsum(values) / len(values) for values in categories.values()]
        task_mean = math.fsum(score.value for score in own) / len(own)
        yield Mean(name, len(own), task_mean, math.fsum(each) / len(each))


def _told(encoder: Encoder, task: Any, out: Path) -> list[str]:
    """What was done to the rows of a task, now or when its result was made: kept beside it."""
    result = mteb.ResultCache(out.absolute()).get_task_result_path(
        task.metadata.name, encoder.mteb_model_meta
    )
    beside = Path(result).with_suffix(".notes")  # mteb takes every .json there for a result
    if encoder.notes:
        told = [f"{count} {what}" for what, count in sorted(encoder.notes.items())]
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text("\n".join(told), encoding="utf-8")
        encoder.notes.clear()
    if not beside.is_file():
        return []
    return beside.read_text(encoding="utf-8", errors="replace").splitlines()


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars of the datasets library: there is one progress, and it is ours."""
    hidden = are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
