"""The stages as one call each, with the sandbox filled in: what the command line runs.

Each stage reads what the one before wrote, so each can be run alone.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import CheckpointError, UsageError
from geomkit.store import Run, check_place, latest_run, open_run
from geomkit.types import Analysis, Sample

if TYPE_CHECKING:
    from geomkit.analyze import Probes
    from geomkit.capture import Preflight
    from geomkit.comparison import Comparison
    from geomkit.engines import Engine
    from geomkit.enquiry import AnalyzeConfig
    from geomkit.evaluation import Retrieved
    from geomkit.evaluation.benchmark import Benchmarked
    from geomkit.pictures.records import Album
    from geomkit.places import CheckpointSpec
    from geomkit.plans import CaptureConfig
    from geomkit.progress import Progress
    from geomkit.training import MergeRecord, PairSet, TrainingRecord
    from geomkit.training.media import MediaSet
    from geomkit.training.soup import Soup

SANDBOX = "sandbox"
REPORT = "report.html"
DATA_ALONE = ("limit", "batch_tokens", "gate", "strict", "force", "one_by_one")
"""Options of `evaluate` that do nothing for benchmarks, where every row of a task is shown."""
WATCHED = 24  # scenes of each kind whose geometry is followed while training
CAPTIONS = 120  # held-out scenes of each kind that the generative loss is measured on


def train(
    base: str, pairs: str, out: Path, report: Progress, *, preset: str | None, **given: Any
) -> TrainingRecord:
    """Train `base` by a method; sandbox pairs bring the sandbox recipe and its check.

    With sandbox pairs the generative loss is measured on held-out scenes before and after, and the
    geometry of some of them is followed; `probe_set` names samples to follow instead.
    """
    from geomkit import sandbox
    from geomkit.training import TrainConfig, load_pairs
    from geomkit.training import train as train_adapter
    from geomkit.training.generation import NO_CAPTIONS, Captions
    from geomkit.training.media import load_media

    own = pairs.partition(":")[0] == SANDBOX
    followed, mixture = given.pop("probe_set", ""), given.pop("mix", "")
    config = TrainConfig.of(preset or (SANDBOX if own else "lco-text"), **given)
    captions, watched = NO_CAPTIONS, _samples(followed) if followed else ()
    if own:
        scenes = sandbox.samples("test", images=CAPTIONS, sounds=CAPTIONS)
        captions = Captions(scenes, sandbox.INSTRUCTIONS, sandbox.paraphrases(scenes))
        watched = watched or sandbox.samples("validation", images=WATCHED, sounds=WATCHED)
    rows = load_media(pairs) if config.method == "clip" else load_pairs(pairs)
    if mixture:
        rows = _mixed(rows, load_media(mixture))
    return train_adapter(
        config,
        _path(base),
        rows,
        out,
        source=_source(base),
        captions=captions,
        watched=watched,
        progress=report,
    )


def _mixed(rows: PairSet | MediaSet, more: MediaSet) -> PairSet | MediaSet:
    """Samples beside pairs of texts, or beside samples."""
    from geomkit.training.media import MediaSet

    if isinstance(rows, MediaSet):
        return rows + more
    left = {f"{reason} in {more.source}": count for reason, count in more.dropped.items()}
    return replace(rows, media=more.samples, dropped={**rows.dropped, **left})


def _samples(data: str) -> tuple[Sample, ...]:
    from geomkit.data.samples import load_samples

    return load_samples(data)[1]


def merge(adapter: Path, base: str, out: Path, captions: str = "") -> MergeRecord:
    """Merge an adapter into its base (by default the one it names) and prove that they agree.

    `captions` names samples whose texts the generative loss is measured on, before and after.
    """
    from geomkit import sandbox
    from geomkit.training import merge as merge_adapter
    from geomkit.training.generation import Captions

    adapter = _adapter(adapter)
    named = base or _base_of(adapter)
    own = _is_sandbox(named)
    shown = sandbox.samples("validation", images=12, sounds=12) if own else ()
    told = _samples(captions) if captions else shown
    given = Captions(told)
    if own and not captions:
        given = Captions(told, sandbox.INSTRUCTIONS, sandbox.paraphrases(told))
    return merge_adapter(
        adapter,
        _path(base) if base else _path(str(adapter), of_base=True),
        out,
        samples=shown,
        captions=given,
        names=(adapter.name, _source(named)),
    )


def soup(parts: Sequence[str], out: Path, captions: str = "") -> Soup:
    """Average adapters of one base, or checkpoints that were trained from one.

    `captions` names samples whose texts the generative loss is measured on.
    """
    from geomkit.training.generation import Captions
    from geomkit.training.soup import soup as average

    told = _samples(captions) if captions else ()
    last = [part.rstrip("/").rpartition("/")[2] for part in parts]
    names = last if len(set(last)) == len(last) else parts  # steps of several trainings
    return average([_folder(part) for part in parts], out, names=names, captions=Captions(told))


def _folder(part: str) -> Path:
    """Where a part of a soup is: of a checkpoint of the hub all files, which are copied."""
    from geomkit.places import locate as place
    from geomkit.training.merging import base_folder

    found = place(part)
    return base_folder(part) if found.repo and found.base is None else Path(found.where)


def capture(
    checkpoints: Sequence[str], data: str, out: Path, report: Progress, **given: Any
) -> Run:
    """Capture checkpoints over samples; previews are kept for the sandbox, whose media are made."""
    engine = _engine(given)
    check_place(out)
    specs, samples, config, dataset = _asked(checkpoints, data, given)
    from geomkit.capture import capture_run  # torch, only once nothing cheap is wrong

    return capture_run(specs, samples, out, config, dataset=dataset, progress=report, engine=engine)


def retrieve(
    checkpoints: Sequence[str], data: str, out: Path, report: Progress, **given: Any
) -> Retrieved:
    """Capture what retrieval needs of checkpoints over samples, and how well they find."""
    from geomkit.evaluation import measure
    from geomkit.evaluation.retrieval import CAPTURED
    from geomkit.places import CheckpointSpec

    named = re.sub(r"[^A-Za-z0-9._-]+", "-", data).strip("-.")[-48:] or "samples"
    run = capture(checkpoints, data, out / f"retrieval-{named}", report, **{**given, **CAPTURED})
    return measure(run, [CheckpointSpec.parse(text).name for text in checkpoints])


def benchmark(
    checkpoints: Sequence[str], names: Sequence[str], out: Path, report: Progress, **given: Any
) -> Benchmarked:
    """Checkpoints through tasks of mteb; what is in `out` already is not run again."""
    from geomkit.data.entries import DataConfig
    from geomkit.evaluation.benchmark import benchmark as run
    from geomkit.places import CheckpointSpec
    from geomkit.plans import CaptureConfig

    _engine(given)  # it has no part in this
    chosen = DataConfig(**_taken(DataConfig, given))
    specs = tuple(CheckpointSpec.parse(name) for name in checkpoints)
    return run(specs, names, out, CaptureConfig(**given), data=chosen, progress=report)


def preflight(checkpoints: Sequence[str], data: str, report: Progress, **given: Any) -> Preflight:
    """What `capture` would do: its plan and its sizes, without loading weights."""
    _engine(given)  # a wrong name is told now
    specs, samples, config, dataset = _asked(checkpoints, data, given)
    from geomkit.capture import preflight as look_ahead

    return look_ahead(specs, samples, config, dataset=dataset, progress=report)


def _asked(
    checkpoints: Sequence[str], data: str, given: dict[str, Any]
) -> tuple[tuple[CheckpointSpec, ...], tuple[Sample, ...], CaptureConfig, str]:
    """Everything that was asked for; options before data, and nothing here needs torch."""
    from geomkit.data.samples import DataConfig, load_samples
    from geomkit.places import CheckpointSpec
    from geomkit.plans import CaptureConfig

    chosen = DataConfig(**_taken(DataConfig, given))
    given.setdefault("previews", data.partition(":")[0] == SANDBOX)
    config = CaptureConfig(**given)
    specs = tuple(CheckpointSpec.parse(name) for name in checkpoints)
    dataset, samples = load_samples(data, chosen)
    return specs, samples, config, dataset


def _engine(given: dict[str, Any]) -> Engine:
    from geomkit.engines import EngineConfig

    taken = _taken(EngineConfig, given)
    return EngineConfig(**taken).engine_itself(force=bool(given.get("force")))


def _taken(config: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options in `given` that are this config's, taken out of it."""
    return {f.name: given.pop(f.name) for f in fields(config) if f.name in given}


def locate(path: Path | None) -> Path:
    """`path`, or the latest run in the working folder."""
    return path if path is not None else latest_run(Path())


def open_here(path: Path | None) -> Run:
    """The run at `path`, or the latest one in the working folder."""
    return open_run(locate(path))


def analyze(run: Run, report: Progress, *, parquet: bool = False, **given: Any) -> Analysis:
    """Measure a run with probes, and write `analysis.json` and `analysis.csv` into it.

    With `parquet` also `analysis.parquet`, for which pyarrow must be there.
    """
    from geomkit.analyze import analyze_run
    from geomkit.enquiry import AnalyzeConfig
    from geomkit.store import tables

    if parquet:
        tables.require_parquet()
    config = AnalyzeConfig(**given)
    analysis = analyze_run(run, config, probes=_probes(run, config), progress=report)
    run.write_analysis(analysis)
    run.beside("analysis.parquet").unlink(missing_ok=True)  # of an analysis that is no more
    if parquet:
        tables.write_parquet(analysis, run.beside("analysis.parquet"))
    return run.read_analysis()  # as everyone reads it later: its mappings have the file's order


def _probes(run: Run, config: AnalyzeConfig) -> Probes | None:
    """What trains the probes that are asked for."""
    from geomkit.analyze import Probes
    from probes.config import ProbeConfig
    from probes.linear import probed_sites
    from probes.suite import probe_site

    if not config.probes:
        return None
    pooling = config.pooling or run.plan.poolings[0]
    asked = ProbeConfig(pooling=pooling, parts=config.probes, readout=config.readout)
    at = functools.partial(probe_site, config=asked)
    return Probes(at, probed_sites(run), repr(asked), asked.seed)


def analysis_of(run: Run, report: Progress) -> Analysis:
    """The analysis in the run folder, or a new one when it is missing or of something else."""
    from geomkit.analyze import stored_analysis

    return stored_analysis(run) or analyze(run, report)


def joint_analysis(runs: Sequence[Run], report: Progress) -> Analysis:
    """The analysis of a run, or of several runs of one plan side by side."""
    from geomkit.merged import merged

    if len(runs) == 1:
        return analysis_of(runs[0], report)
    names = [run.path.stem for run in runs]
    unlike = names if len(set(names)) == len(names) else [str(run.path) for run in runs]
    if len(set(unlike)) < len(runs):
        raise UsageError(f"Expected different runs to compare, got {unlike[0]} twice.")
    return merged({n: analysis_of(run, report) for n, run in zip(unlike, runs, strict=True)})


def report_path(runs: Sequence[Run]) -> Path:
    """Where the report goes by default: into the run, or here and named for several."""
    if len(runs) == 1:
        return runs[0].beside(REPORT)
    return Path(f"report-{'-'.join(run.path.stem for run in runs)}.html")


def compare(
    run: Run, before: str, after: str, site: str, trained: Sequence[str], **given: Any
) -> Comparison:
    """Any two checkpoints of a run at one site: differences, transfer, and the outcome in words."""
    from geomkit.comparison import compare_checkpoints, measured
    from geomkit.enquiry import AnalyzeConfig

    found = measured(run, AnalyzeConfig(**given))
    return compare_checkpoints(run, found, before, after, site=site, trained=trained)


def report(
    run: Run,
    analysis: Analysis,
    out: Path,
    *,
    embed_media: bool = False,
    max_size: float = 25.0,
    refresh: int = 0,
    album: Album | None = None,
    webgl: bool = False,
) -> Path:
    """Write a report with the map of `run`, of at most `max_size` MB.

    An `album` that was made before is shown as it is.
    """
    from geomkit.progress import silent
    from reports.page import Target, write_report

    target = Target(out, int(max_size * 1e6), refresh)
    shown = album or pictures(run, silent, webgl=webgl)
    with tempfile.TemporaryDirectory() as folder:
        media = run.previews(Path(folder)) if embed_media else {}
        return write_report(
            as_shown(run, analysis), shown.projection, run.plan.rows, media, target,
            embed_media=embed_media, album=shown, webgl=webgl,
        )  # fmt: skip


def cautions(run: Run, analysis: Analysis) -> tuple[str, ...]:
    """What a reader must know before any verdict of an analysis of a run."""
    from geomkit.cautions import cautions as found

    return tuple(found(as_shown(run, analysis), Counter(row.modality for row in run.plan.rows)))


def as_shown(run: Run, analysis: Analysis) -> Analysis:
    """The analysis with what its run says: how samples were shown, which capture is not complete.

    The samples themselves are the map's.
    """
    from geomkit.words import lacking

    plan = run.plan
    missing = {record.name: run.missing(record.name) for record in run.checkpoints()}
    incomplete = {
        name: lacking(name, shards, run.shard_count()).removeprefix(f"{name} ")
        for name, shards in missing.items()
        if shards
    }
    told = {
        "schema": plan.schema,
        "rows": len(plan.rows),
        "samples": len({row.id for row in plan.rows}),
        "groups": len({row.group or row.id for row in plan.rows}),
        "batches": len(plan.batches),
        "shards": -(-len(plan.batches) // plan.shard_batches),
        "poolings": list(plan.poolings),
        "sites": list(plan.sites) or "every site of the decoder",
        "stored as": plan.store_dtype,
        "options": [" ".join(word for word in option if word) for option in plan.options],
    }
    found = {"plan": told, "incomplete": incomplete}
    return replace(analysis, provenance={**analysis.provenance, **found})


def pictures(run: Run, report: Progress, *, umap: bool = False, webgl: bool = False) -> Album:
    """What the report draws of states; with WebGL the map has five times as many samples."""
    from geomkit.pictures.album import make_album
    from geomkit.projection import LIMIT

    return make_album(run, limit=LIMIT * 5 if webgl else LIMIT, umap=umap, progress=report)


EXPORTS = ("csv", "tensorboard", "embedding-atlas")


def export(run: Run, to: Path, kinds: Sequence[str], site: str) -> tuple[Path, ...]:
    """Hand the states of one site to other tools; every kind asked for gets a folder of its own."""
    from geomkit import export as exporting

    if not kinds:
        raise UsageError(f"Expected what to export to (--{', --'.join(EXPORTS)}), got nothing.")
    writers = dict(
        zip(
            EXPORTS,
            (exporting.export_csv, exporting.export_tensorboard, exporting.export_atlas),
            strict=True,
        )
    )
    return tuple(path for kind in kinds for path in writers[kind](run, to / kind, site))


def watch(path: Path, out: Path | None, tell: Callable[[str], None], *, every: int) -> None:
    """Write the report of a run anew whenever the run has changed, until interrupted."""
    from geomkit.progress import silent
    from geomkit.watching import tried
    from geomkit.watching import watch as look

    def render(refresh: int = every) -> str:
        run = open_run(path)
        analysis = analysis_of(run, silent)
        page = report(run, analysis, out or report_path([run]), refresh=refresh)
        return f"{len(analysis.checkpoints)} checkpoints: {page}"

    try:
        look(path, render, tell, every=every)
    except KeyboardInterrupt:
        tell(f"no longer watched: {tried(lambda: render(refresh=0))}")


def _is_sandbox(source: str) -> bool:
    return source.startswith(f"{SANDBOX}:") or (source == "base" and not Path(source).exists())


def _source(base: str) -> str:
    """What a record says of a base: `sandbox:base`, never a path inside the installation."""
    return f"{SANDBOX}:base" if _is_sandbox(base) else base


def _path(named: str, *, of_base: bool = False) -> str:
    """Where a checkpoint is, or the model below it: a folder, or one commit of the hub."""
    from geomkit import places

    found = places.locate(named)
    found = found.model if of_base else found
    return f"{found.repo}@{found.revision}" if found.repo else found.where


def _adapter(named: Path) -> Path:
    """Where an adapter is: a folder, else built in or of the hub, as for every other command."""
    from geomkit import places

    return named if named.exists() else Path(places.locate(str(named)).where)


def _base_of(adapter: Path) -> str:
    """The base that an adapter names.

    Raises:
        CheckpointError: it is no adapter folder.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise CheckpointError(
            f"Expected an adapter folder with adapter_config.json, got {adapter}: name what "
            "`geomkit train` wrote; of method full that is whole, with nothing to merge."
        ) from cause
