"""Every way of training on the sandbox, beside its base: retrieval, geometry, generative loss.

train    each arm and seed by `geomkit train`, then `merge` (a soup by `geomkit soup` before it)
capture  all of them in one run, of held-out combinations of the sandbox
analyze  the final norm; the tables come from analysis.json
say      what each model does with held-out captions: the mean loss of a caption's token

python benchmarks/methods.py --out work     # what is there already is not made again
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from geomkit import sandbox, stages
from geomkit.store import open_run
from geomkit.training.config import TrainConfig
from geomkit.training.generation import (
    GenerationChange,
    Losses,
    generative_change,
    generative_losses,
)
from geomkit.training.trainer import load_base
from geomkit.types import Analysis, Difference, Measurement

SITE = "final_norm"
ARMS = {
    "linear": ("--method", "linear"),
    "full": ("--method", "full"),
    "lora": ("--method", "lora"),
    "joint": ("--method", "joint"),
    "clip": ("--method", "clip"),
    "null": ("--method", "lora", "--shuffle-pairs"),
}
FINISHED = ("linear", "full")  # nothing to merge: its base's weights, and a checkpoint already
RETRIEVAL = ("image->text", "text->image", "audio->text", "text->audio")
GEOMETRY = {
    "mean_cosine": ("text", "image", "audio"),
    "uniformity": ("text", "image", "audio"),
    "effective_rank": ("text", "image", "audio"),
    "alignment": ("image-text", "audio-text"),
    "modality_gap": ("image-text", "audio-text"),
}


def main() -> None:
    """Train, capture, analyze, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and run")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each of --repeat")
    parser.add_argument("--repeat", nargs="*", choices=ARMS, default=["linear", "full", "lora"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--steps", type=int, default=0, help="0: those of the recipe")
    parser.add_argument("--limit", type=int, default=0, help="samples that are shown; 0: all")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    steps = ("--steps", str(asked.steps)) if asked.steps else ()
    made = {"base": "base"}
    for arm in asked.arms:
        for seed in range(asked.seeds if arm in asked.repeat else 1):
            made[f"{arm}-{seed}"] = trained(asked.out, arm, seed, steps)
    if len(parts := [name for name in made if name.startswith("lora-")]) > 1:
        made["soup"] = souped(asked.out, parts)
    analysis = analyzed(asked.out, made, asked.limit)
    spoken = losses(made)
    for line in tables(analysis, spoken, asked.arms):
        print(line)


def geomkit(*words: str) -> None:
    """One command, as it is typed; what it says goes to stderr."""
    print("geomkit", *words, file=sys.stderr)
    command = [sys.executable, "-c", "from geomkit.cli import main; main()", *words]
    subprocess.run(command, check=True, stdout=sys.stderr)


def trained(out: Path, arm: str, seed: int, steps: Sequence[str]) -> str:
    """The checkpoint of one training, in the form that is captured."""
    folder = out / f"{arm}-{seed}"
    if not (folder / "training.json").is_file():
        where = ("--out", str(folder), "--seed", str(seed))
        geomkit("train", "--ckpt", "base", "--pairs", "sandbox", *ARMS[arm], *where, *steps)
    return str(folder) if arm in FINISHED else merged(folder)


def souped(out: Path, parts: Sequence[str]) -> str:
    """The mean of trainings that differ in their seeds."""
    folder = out / "soup"
    if not (folder / "training.json").is_file():
        geomkit("soup", *(str(out / part) for part in parts), "--out", str(folder))
    return merged(folder)


def merged(adapter: Path) -> str:
    """The full checkpoint with the adapter in it, proven equal to both."""
    folder = adapter.with_name(f"{adapter.name}-merged")
    if not (folder / "merge.json").is_file():
        geomkit("merge", str(adapter), "--out", str(folder))
    return str(folder)


def analyzed(out: Path, made: dict[str, str], limit: int) -> Analysis:
    """All checkpoints in one run, measured at the final norm."""
    run = out / "run"
    names = [word for name, at in made.items() for word in ("--ckpt", f"{name}={at}")]
    geomkit("capture", *names, "--sites", SITE, "--limit", str(limit), "--out", str(run))
    geomkit("analyze", str(run), "--probes", "none")
    return open_run(run).read_analysis()


def losses(made: dict[str, str]) -> dict[str, dict[str, GenerationChange]]:
    """Loss of held-out captions, of the same scenes for every checkpoint, beside the base's.

    A linear arm changes no weight that speaks: its losses are those of the base.
    """
    scenes = sandbox.samples("test", images=stages.CAPTIONS, sounds=stages.CAPTIONS)
    answers = sandbox.paraphrases(scenes)

    def spoken(at: str) -> tuple[Losses, ...]:
        path = str(sandbox.checkpoint_path("base")) if at == "base" else at
        checkpoint, processor = load_base(TrainConfig.of("sandbox"), path)
        told = sandbox.INSTRUCTIONS
        return generative_losses(
            checkpoint.model, processor, scenes, instructions=told, answers=answers
        )

    before = spoken("base")
    return {
        name: {
            change.modality: change
            for change in generative_change(
                before, before if name.startswith(("base", "linear")) else spoken(at)
            )
        }
        for name, at in made.items()
    }


def tables(
    analysis: Analysis, spoken: dict[str, dict[str, GenerationChange]], arms: Sequence[str]
) -> Iterator[str]:
    """Markdown: one table a family, then how far the seeds lie apart."""
    several = "soup" in analysis.checkpoints
    first = ["base", *(f"{arm}-0" for arm in arms), *(["soup"] if several else [])]
    yield from table(analysis, first, "retrieval_r1", RETRIEVAL, scale=100)
    for metric, where in GEOMETRY.items():
        yield from table(analysis, first, metric, where)
    yield from ("", "generative loss", "")
    yield from header(("text", "image", "audio"))
    for name in first:
        yield row(name, [heard(spoken[name][m]) for m in ("text", "image", "audio")])
    if several:
        yield from ("", "over the seeds: mean (least to most)", "")
        yield from header((*RETRIEVAL, "mean cosine of images", "of sounds", "loss of images"))
        for arm in arms:
            if f"{arm}-1" in analysis.checkpoints:
                yield row(arm, list(over_seeds(analysis, spoken, arm)))


def table(
    analysis: Analysis, names: Sequence[str], metric: str, where: Sequence[str], scale: float = 1
) -> Iterator[str]:
    """One metric: value [interval], and whether the paired change from the base is clear."""
    yield from ("", metric.replace("_", " "), "")
    yield from header(where)
    for name in names:
        yield row(name, [cell(analysis, metric, name, m, scale) for m in where])


def cell(analysis: Analysis, metric: str, name: str, modality: str, scale: float) -> str:
    """`value [low, high]`; `~` where the change from the base is not clear."""
    found = analysis.find(metric, SITE, modality, name)
    if found.value is None:
        return found.note
    bounds = f" [{shown(found, 'low', scale)}, {shown(found, 'high', scale)}]"
    same = name != "base" and not change(analysis, metric, name, modality).clear
    return f"{found.value * scale:.3g}{bounds if found.interval else ''}{' ~' if same else ''}"


def shown(found: Measurement, end: str, scale: float) -> str:
    """One end of its interval."""
    return f"{getattr(found.interval, end) * scale:.3g}" if found.interval else ""


def change(analysis: Analysis, metric: str, name: str, modality: str) -> Difference:
    """The paired difference from the base."""
    wanted = (metric, name, SITE, modality)
    return next(
        d for d in analysis.differences if (d.metric, d.after, d.site, d.modality) == wanted
    )


def heard(told: GenerationChange) -> str:
    """A loss and the paired interval of its change."""
    if told.interval is None or told.difference == 0:
        return f"{told.after:.3f}"
    low, high = told.interval.low, told.interval.high
    return f"{told.after:.3f} ({told.difference:+.3f} [{low:+.3f}, {high:+.3f}])"


def over_seeds(
    analysis: Analysis, spoken: dict[str, dict[str, GenerationChange]], arm: str
) -> Iterator[str]:
    """Mean and range over the trainings of one arm."""
    names = [name for name in analysis.checkpoints if name.rpartition("-")[0] == arm]
    for direction in RETRIEVAL:
        yield spread([100 * value(analysis, "retrieval_r1", n, direction) for n in names], 1)
    for modality in ("image", "audio"):
        yield spread([value(analysis, "mean_cosine", n, modality) for n in names], 3)
    yield spread([spoken[n]["image"].after for n in names], 3)


def value(analysis: Analysis, metric: str, name: str, modality: str) -> float:
    """A measured value; NaN where the metric has none."""
    found = analysis.find(metric, SITE, modality, name).value
    return float("nan") if found is None else found


def spread(values: Sequence[float], digits: int) -> str:
    """`mean (least to most)`."""
    told = [statistics.fmean(values), min(values), max(values)]
    mean, least, most = (f"{one:.{digits}f}" for one in told)
    return f"{mean} ({least} to {most})"


def header(columns: Sequence[str]) -> Iterator[str]:
    """The two lines above a table."""
    yield row("", list(columns))
    yield row("---", ["---"] * len(columns))


def row(name: str, cells: Sequence[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join((name, *cells)) + " |"


if __name__ == "__main__":
    main()
