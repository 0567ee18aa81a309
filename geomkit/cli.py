"""The command line: parse, call, print, exit code.

stdout carries the result, stderr progress and errors. Exit codes: 0 ok, 1 a check failed, 2 usage,
3 bad data or store, 4 a missing extra, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from geomkit import __version__
from geomkit.data.entries import DataConfig
from geomkit.engines import EngineConfig
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import GeomkitError, UsageError
from geomkit.options import options
from geomkit.plans import CaptureConfig
from geomkit.progress import progress
from geomkit.training.config import PRESETS, TrainConfig

if TYPE_CHECKING:
    from geomkit.config import Settings
    from geomkit.store import Run

RUN = Path("geomkit-run")
SANDBOX = "sandbox"

app = typer.Typer(
    help="See what training did to the geometry of a multimodal LLM, and whether it transferred.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
INTERRUPTED, TERMINATED = 130, 143  # what a shell says of Ctrl-C, and of `kill`
# What typer raises for a wrong call: the UsageError of click, or of the copy that newer ones bring.
MISUSE: type[Exception] = typer.BadParameter.__mro__[1]
WIDE = 120  # columns of a table that no terminal limits
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="GEOMKIT_CONFIG",
        help="TOML file with names and defaults; by default the project's geomkit.toml, if any.",
    ),
]
RunPath = Annotated[
    Path | None, typer.Argument(help="Run folder or packed run; by default the latest folder here.")
]
RunPaths = Annotated[
    list[Path] | None,
    typer.Argument(help="Run, or several of one plan; by default the latest folder here."),
]


def main() -> None:
    """Run a command; a user's mistake is one sentence and an exit code, never a traceback."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' own bars, one for each loading
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        code = app(prog_name="geomkit", standalone_mode=False) or 0  # Ctrl-C is a code too
    except GeomkitError as mistake:
        _mistake(str(mistake))
        code = mistake.exit_code
    except MISUSE as mistake:
        _mistake(_usage(mistake))
        code = UsageError.exit_code
    except (SystemExit, KeyboardInterrupt) as end:
        code = getattr(end, "code", INTERRUPTED)
    if code in (INTERRUPTED, TERMINATED):
        err.print("interrupted: what was finished is kept; the same command goes on from there")
    sys.exit(code)


def _mistake(sentence: str) -> None:
    if sentence:  # none where the help was printed, as without any command
        err.print(f"error: {sentence}", style="bold red", markup=False)


def _usage(mistake: Any) -> str:
    """What is wrong with how a command was called, in one line, and where its help is."""
    said = " ".join(mistake.format_message().split()).removesuffix(".")
    return f"{said}; see `{mistake.ctx.command_path} --help`." if said and mistake.ctx else said


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"geomkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """See what training did to the geometry of a multimodal LLM, and whether it transferred."""


@app.command()
@options(TrainConfig, skip=("preset",), panel="Recipe (overrides the preset)", presets=PRESETS)
def train(
    ckpt: Annotated[str, typer.Option(help="Base checkpoint: folder, hub id or `base`.")] = "base",
    pairs: Annotated[
        str,
        typer.Option(
            help="Text pairs: `sandbox[:count]`, a file, hf:NAME, all-nli[:PATH], scale-1m:PATH;"
            " for --method clip, samples."
        ),
    ] = SANDBOX,
    to: Annotated[Path, typer.Option("--out", help="Folder of the result.")] = Path("lco"),
    preset: Annotated[
        str | None, typer.Option(help=f"Recipe: {', '.join(PRESETS)}. By default fits --pairs.")
    ] = None,
    mix: Annotated[
        str, typer.Option(help="Samples with media and texts to mix in: data, multimodal-94k:PATH.")
    ] = "",
    probe_set: Annotated[
        str, typer.Option(help="Samples whose geometry is followed; by default some of the pairs.")
    ] = "",
    as_json: Json = False,
    config: ConfigPath = None,
    **given: Any,
) -> None:
    """Train inside the decoder, by default an adapter on text; prove that nothing else changed.

    Example: geomkit train --ckpt base --pairs sandbox --out lco
    """
    from geomkit import stages, summary
    from geomkit.training import processes

    settings = _settings(config)
    base, pairs = settings.source(ckpt), settings.named_data(pairs)
    with progress(err) as shown, processes.one_voice():
        record = stages.train(
            base,
            pairs,
            to,
            shown,
            preset=preset,
            mix=settings.named_data(mix),
            probe_set=settings.named_data(probe_set),
            **given,
        )
    if processes.follows():
        return
    if as_json:
        out.print_json(record.to_json())
    else:
        _lines(summary.training_lines(record))
        out.print(f"{summary.result_of(record)}: {to}")


@app.command()
def merge(
    adapter: Annotated[
        Path, typer.Argument(help="Adapter: a folder that `train` wrote, hub id or `lco`.")
    ],
    into: Annotated[
        str, typer.Option(help="Base checkpoint; by default the one that the adapter names.")
    ] = "",
    to: Annotated[Path, typer.Option("--out", help="Folder of the merged checkpoint.")] = Path(
        "lco-merged"
    ),
    captions: Annotated[
        str, typer.Option(help="Samples with texts: the generative loss on them, before and after.")
    ] = "",
    as_json: Json = False,
    config: ConfigPath = None,
) -> None:
    """Merge an adapter into its full generative checkpoint, and prove the two agree.

    Example: geomkit merge lco --out lco-merged
    """
    from geomkit import stages, summary

    settings = _settings(config)
    told = settings.named_data(captions)
    record = stages.merge(adapter, settings.source(into) if into else "", to, told)
    if as_json:
        out.print_json(record.to_json())
    else:
        _lines(summary.merge_lines(record))
        out.print(f"checkpoint: {to}")


@app.command()
def soup(
    parts: Annotated[
        list[str], typer.Argument(help="Two or more adapters of one base, or checkpoints.")
    ],
    to: Annotated[Path, typer.Option("--out", help="Folder of the soup.")] = Path("soup"),
    captions: Annotated[
        str, typer.Option(help="Samples with texts: the generative loss on them, of all and of it.")
    ] = "",
    as_json: Json = False,
    config: ConfigPath = None,
) -> None:
    """Average trainings of one base: exactly what the mean of their changes does.

    That they have one base is measured; others are refused.

    Example: geomkit soup lco-1 lco-2 lco-3 --out soup
    """
    from geomkit import stages, summary

    settings = _settings(config)
    named = [settings.source(part) for part in parts]
    record = stages.soup(named, to, settings.named_data(captions))
    if as_json:
        out.print_json(json.dumps(dataclasses.asdict(record)))
    else:
        _lines(summary.soup_lines(record))
        out.print(f"soup: {to}")


@app.command()
@options(EngineConfig, panel="Engine")
@options(DataConfig, panel="Data")
@options(CaptureConfig, panel="Capture", presets={SANDBOX: {"previews": True}})
def capture(
    ckpt: Annotated[
        list[str],
        typer.Option(help="NAME[=SOURCE], repeatable; the first is the reference (before)."),
    ],
    data: Annotated[
        str, typer.Option(help="`sandbox`, a manifest or media folder, hf:NAME, or SUITE:PATH.")
    ] = SANDBOX,
    to: Annotated[Path, typer.Option("--out", help="Run folder; resumed when it is there.")] = RUN,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan, batches and sizes; load no weights.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Store what --tokens is asked for.")] = False,
    as_json: Json = False,
    config: ConfigPath = None,
    **given: Any,
) -> None:
    """Capture hidden states of text, image and audio, for every checkpoint in one pass.

    Example: geomkit capture --ckpt base --ckpt lco
    """
    from geomkit import stages, summary

    settings = _settings(config)
    named, data = settings.named_checkpoints(ckpt), settings.named_data(data)
    asked = settings.captured(given)
    with progress(err) as shown:
        if dry_run or (asked.get("tokens") and not yes):
            ahead = stages.preflight(named, data, shown, **asked)
        else:
            run = stages.capture(named, data, to, shown, **asked)
    if dry_run:
        facts = summary.preflight_facts(ahead)
        out.print_json(json.dumps(facts)) if as_json else _lines(summary.preflight_lines(ahead))
    elif asked.get("tokens") and not yes:
        raise UsageError(summary.token_warning(ahead))
    else:
        _show_run(run, as_json=as_json)
        missing = {record.name: run.missing(record.name) for record in run.checkpoints()}
        for line in summary.missing_lines(missing, run.shard_count()):
            err.print(line, markup=False)


@app.command()
@options(DataConfig, panel="Data")
@options(
    CaptureConfig,
    skip=("sites", "poolings", "previews", "tokens", "store_dtype", "shard_batches", "modalities"),
    panel="Capture",
)
def evaluate(
    ckpt: Annotated[
        list[str],
        typer.Option(help="NAME[=SOURCE], repeatable; the first is the reference (before)."),
    ],
    data: Annotated[
        str, typer.Option(help="Samples with texts and media: R@k and MRR both ways, no network.")
    ] = "",
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="MIEB(lite), MAEB, a task of mteb, local:DATA, seadoc:DATA; repeatable."),
    ] = None,
    to: Annotated[
        Path, typer.Option("--out", help="Folder of results; what is there is not measured again.")
    ] = Path("geomkit-evaluation"),
    as_json: Json = False,
    config: ConfigPath = None,
    **given: Any,
) -> None:
    r"""Evaluate checkpoints: retrieval in your own samples, or benchmarks (needs geomkit\[eval]).

    Example: geomkit evaluate --ckpt base --ckpt lco --data sandbox
    """
    from geomkit import stages
    from geomkit.evaluation import tables

    if bool(data) == bool(benchmark):
        raise UsageError("Expected either --data or --benchmark, got both or none.")
    settings = _settings(config)
    named = settings.named_checkpoints(ckpt)
    asked = settings.captured(given)
    failed: tuple[str, ...] = ()
    if data:
        with progress(err) as shown:
            found = stages.retrieve(named, settings.named_data(data), to, shown, **asked)
        told, table, notes = found.to_json(), tables.retrieval_table(found), found.notes
    else:
        if odd := [name for name in stages.DATA_ALONE if name in given]:
            flag = odd[0].replace("_", "-")
            raise UsageError(f"Expected --{flag} with --data: with --benchmark it does nothing.")
        with progress(err) as shown:
            done = stages.benchmark(named, benchmark or (), to, shown, **asked)
        told, table, notes = done.to_json(), tables.benchmark_table(done), done.notes
        failed = done.failed
    out.print_json(told) if as_json else out.print(table)
    for line in (*notes, *(f"failed: {why}" for why in failed)):
        err.print(line, markup=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def info(run: RunPath = None, as_json: Json = False) -> None:
    """Show what a run holds, how far it is, what went wrong in it, and its size.

    Example: geomkit info geomkit-run
    """
    from geomkit import stages

    _show_run(stages.open_here(run), as_json=as_json)


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="Run folder; every checkpoint complete.")],
    to: Annotated[Path, typer.Argument(help="The one HDF5 file to write.")],
    force: Annotated[bool, typer.Option(help="Replace a packed run of that name.")] = False,
) -> None:
    """Pack a run into one HDF5 file, which every command reads in the place of the folder.

    Example: geomkit pack geomkit-run run.h5
    """
    from geomkit.store import open_run, pack_run
    from geomkit.summary import size

    path = pack_run(open_run(run), to, force=force)
    out.print(f"packed: {path} ({size(path.stat().st_size)})", markup=False)


@app.command()
def verify(run: RunPath = None, as_json: Json = False) -> None:
    """Recompute every hash of a run; exit code 1 when something is not what its receipt says.

    What is damaged or missing goes to stdout; a path without any run is a mistake (exit code 3).

    Example: geomkit verify geomkit-run
    """
    from geomkit import stages
    from geomkit.store import check_run, verify_run

    path = stages.locate(run)
    check_run(path)
    problems = verify_run(path)
    if as_json:
        out.print_json(json.dumps({"run": str(path), "problems": problems}))
    else:
        _lines(problems or (f"{path}: every byte is what its receipt or its seal says",))
    if problems:
        raise typer.Exit(1)


@app.command()
@options(AnalyzeConfig, panel="What is measured")
def analyze(
    run: RunPath = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write analysis.parquet too (needs pyarrow).")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Measure a run: geometry, probes and differences, each with an interval and its chance.

    What was measured is kept beside the run: an interrupted analysis goes on where it was.

    Example: geomkit analyze --metrics cone,spectrum
    """
    from geomkit import stages, summary

    opened = stages.open_here(run)
    with progress(err) as shown:
        analysis = stages.analyze(opened, shown, parquet=parquet, **given)
    for notice in stages.cautions(opened, analysis):
        err.print(notice, markup=False)
    written = opened.beside("analysis.json")
    if as_json:
        out.print_json(written.read_text(encoding="utf-8"))
        return
    out.print(summary.verdict_table(analysis))
    _lines((*summary.findings(analysis), "", analysis.headline, f"analysis: {written}"))


@app.command()
@options(AnalyzeConfig, skip=("metrics", "sites", "probes", "readout", "workers"))
def compare(
    run: Annotated[Path, typer.Argument(help="Run folder or packed run.")],
    before: Annotated[str, typer.Argument(help="Checkpoint to compare with.")],
    after: Annotated[str, typer.Argument(help="Checkpoint that is judged.")],
    site: Annotated[str, typer.Option(help="Where the states were read.")] = "final_norm",
    trained: Annotated[
        list[str] | None,
        typer.Option(
            help="Modalities that training saw, as in text,image; by default as recorded."
        ),
    ] = None,
    must_transfer: Annotated[
        bool,
        typer.Option(
            "--fail-unless-transfer",
            help="Exit code 1 unless every modality that training did not see got clearly better.",
        ),
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Compare any two checkpoints of a run: differences, and what carried over to the untrained.

    Example: geomkit compare geomkit-run base lco
    """
    from geomkit import contrasts, stages
    from geomkit.store import open_run

    seen = [name for names in trained or () for name in names.split(",")]
    found = stages.compare(open_run(run), before, after, site, seen, **given)
    if as_json:
        out.print_json(contrasts.to_json(found))
    else:
        out.print(f"{after} against {before} at {site}", markup=False)
        for table in contrasts.tables(found):
            out.print(table, "")
        _lines(contrasts.comparison_lines(found))
    if must_transfer and found.reached is None:
        raise UsageError(
            "Expected --trained with --fail-unless-transfer: no record says what training saw."
        )
    if must_transfer and not found.reached:
        raise typer.Exit(1)


@app.command()
def report(
    runs: RunPaths = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="HTML file; by default RUN/report.html, or here for several runs."
        ),
    ] = None,
    embed_media: Annotated[
        bool, typer.Option(help="Put previews in the page; off by default, samples can be private.")
    ] = False,
    max_size: Annotated[
        float, typer.Option(min=1, help="Refuse a page above so many MB; it warns above 10.")
    ] = 25.0,
    umap: Annotated[
        bool,
        typer.Option(
            "--umap", help="UMAP beside PCA for a few sites; made once (20 s or more), then kept."
        ),
    ] = False,
    webgl: Annotated[
        bool, typer.Option("--webgl", help="5000 samples a modality on the map, not 1000.")
    ] = False,
) -> None:
    """Write one offline, interactive HTML file, with its numbers beside it as JSON.

    Several runs of one plan stand side by side; the map and the verdicts are the last one's.

    Example: geomkit report
    """
    from geomkit import stages, summary

    opened = [stages.open_here(path) for path in runs] if runs else [stages.open_here(None)]
    with progress(err) as shown:
        analysis = stages.joint_analysis(opened, shown)
        notices = stages.cautions(opened[-1], analysis)
        album = stages.pictures(opened[-1], shown, umap=umap, webgl=webgl)
    page = stages.report(
        opened[-1],
        analysis,
        to or stages.report_path(opened),
        embed_media=embed_media,
        max_size=max_size,
        album=album,
        webgl=webgl,
    )
    for notice in notices:
        err.print(notice, markup=False)
    out.print(summary.verdict_table(analysis))
    _lines((*summary.findings(analysis), "", analysis.headline, f"report: {page}"))


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Run folder; it need not be there yet.")] = RUN,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; RUN/report.html by default.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Seconds between two looks.")] = 10,
) -> None:
    """Write the report anew whenever a run has changed; the open page follows. Ctrl-C ends it.

    Example: geomkit watch geomkit-run
    """
    from geomkit import stages

    stages.watch(run, to, lambda line: out.print(line, markup=False), every=every)


@app.command()
def export(
    run: RunPath = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path("export"),
    csv: Annotated[bool, typer.Option("--csv", help="Samples and states as CSV.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="A log folder for TensorBoard's projector.")
    ] = False,
    atlas: Annotated[
        bool, typer.Option("--embedding-atlas", help="One Parquet file (needs pyarrow).")
    ] = False,
    site: Annotated[str, typer.Option(help="Site whose states are written.")] = "final_norm",
) -> None:
    """Hand the states of a run to tools for looking at embeddings.

    Example: geomkit export geomkit-run --tensorboard --out logs
    """
    from geomkit import stages

    asked = zip(stages.EXPORTS, (csv, tensorboard, atlas), strict=True)
    kinds = [kind for kind, wanted in asked if wanted]
    for path in stages.export(stages.open_here(run), to, kinds, site):
        out.print(f"written: {path}", markup=False)


@app.command()
def demo(
    to: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")] = Path(
        "geomkit-demo"
    ),
) -> None:
    """Train on text only, capture, measure and report, on the embedded sandbox: a few minutes.

    Example: geomkit demo
    """
    from geomkit.demo import demonstrate

    demonstrate(to, out, err)


def _settings(path: Path | None) -> Settings:
    """The project's settings; which file they are from is said, as it changes what is done."""
    from geomkit import config, project

    found = path if path is not None else project.find(Path())
    settings = config.load(found)
    if found is not None:
        err.print(f"settings: {found}", markup=False)
    return settings


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(line, markup=False)


def _show_run(run: Run, *, as_json: bool) -> None:
    from geomkit import glance
    from geomkit.store import overview

    if as_json:
        out.print_json(json.dumps(glance.run_facts(overview(run))))
    else:
        _lines((*glance.run_lines(overview(run)), f"run: {run.path}"))
