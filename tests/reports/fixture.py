"""A made-up analysis in the shape of a real one: every number here is invented for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.projection import Projection, SiteMap
from geomkit.types import (
    Analysis,
    Better,
    Binding,
    Difference,
    Drift,
    Interval,
    Measurement,
    Modality,
    ProbeResult,
    Row,
    Status,
    Transfer,
    Verdict,
)

SITES = ("embed", *(f"block_{i:02d}" for i in range(6)), "final_norm")
BEFORE, AFTER = "base", "lco"
SAMPLES = 240
KINDS = ("text", "image", "audio")
SPOKEN: dict[str, Modality] = {
    "shape": "image", "colour": "image", "pitch": "audio", "timbre": "audio",
}  # fmt: skip
SILENT: dict[str, Modality] = {
    "tilt": "image", "texture": "image", "loudness": "audio", "reverberation": "audio",
}  # fmt: skip

# metric -> better, chance, {modality: (before, change) at the final norm}
GEOMETRY: dict[str, tuple[Better, float | None, dict[str, tuple[float, float]]]] = {
    "mean_cosine": (
        "lower", 0.0,
        {"text": (0.912, -0.571), "image": (0.948, -0.402), "audio": (0.961, -0.288)},
    ),
    "uniformity": (
        "lower", -3.87,
        {"text": (-0.331, -1.62), "image": (-0.204, -1.13), "audio": (-0.151, -0.74)},
    ),
    "effective_rank": (
        "higher", 128.0,
        {"text": (11.4, 18.9), "image": (8.21, 9.72), "audio": (6.93, 4.07)},
    ),
    "alignment": ("lower", None, {"image-text": (1.21, -0.342), "audio-text": (1.38, 0.122)}),
    "modality_gap": ("lower", 0.0, {"image-text": (0.884, -0.271), "audio-text": (0.971, -0.043)}),
    "mutual_knn": ("higher", 0.0418, {"image-text": (0.092, 0.141), "audio-text": (0.071, 0.012)}),
    "retrieval_r1": (
        "higher", 1 / SAMPLES,
        {
            "image->text": (0.0417, 0.312), "text->image": (0.0375, 0.274),
            "audio->text": (0.0208, 0.087), "text->audio": (0.0250, 0.021),
        },
    ),
}  # fmt: skip
UNCLEAR = {
    "modality_gap": ("audio-text",),
    "mutual_knn": ("audio-text",),
    "retrieval_r1": ("text->audio",),
}
EMBED_NOTE = "all last-token states are equal here: the prompt ends with the same token"


def around(value: float, half: float) -> Interval:
    """An interval of that half width."""
    return Interval(
        value - half,
        value + half if value > 1 else min(value + half, max(value, 1.0)),
        0.95,
        "row means",
    )


def geometry() -> Iterator[tuple[Measurement, Measurement, Difference]]:
    """Before, after and difference of every metric at every site."""
    rng = np.random.default_rng(0)
    for metric, (better, chance, kinds) in GEOMETRY.items():
        for kind, (start, change) in kinds.items():
            for depth, site in enumerate(SITES):
                if site == "embed":
                    blank = Measurement(
                        metric,
                        BEFORE,
                        site,
                        kind,
                        None,
                        None,
                        chance,
                        better,
                        SAMPLES,
                        "",
                        EMBED_NOTE,
                    )
                    gone = Difference(
                        metric, BEFORE, AFTER, site, kind, None, None, better, SAMPLES, EMBED_NOTE
                    )
                    yield blank, replace(blank, checkpoint=AFTER), gone
                    continue
                share = depth / (len(SITES) - 1)
                noise = 0.04 * abs(start) * rng.standard_normal()
                early = start * (0.82 + 0.18 * share) + (noise if site != "final_norm" else 0.0)
                moved = change * share**2.2
                half = (
                    0.045 * abs(change)
                    + 0.02 * abs(start)
                    + (0.06 if kind in UNCLEAR.get(metric, ()) else 0.0)
                )
                before = Measurement(
                    metric,
                    BEFORE,
                    site,
                    kind,
                    early,
                    around(early, half),
                    chance,
                    better,
                    SAMPLES,
                    "see the manual",
                )
                late = early + moved
                after = replace(before, checkpoint=AFTER, value=late, interval=around(late, half))
                yield (
                    before,
                    after,
                    Difference(
                        metric,
                        BEFORE,
                        AFTER,
                        site,
                        kind,
                        moved,
                        around(moved, half),
                        better,
                        SAMPLES,
                    ),
                )


def losses() -> Iterator[tuple[Measurement, Measurement, Difference]]:
    """Generative loss at the head: a little worse after contrastive training."""
    for kind, start, change in (
        ("text", 1.83, 0.412),
        ("image", 2.31, 0.288),
        ("audio", 2.74, 0.131),
    ):
        before = Measurement(
            "generative_loss",
            BEFORE,
            "lm_head",
            kind,
            start,
            around(start, 0.06),
            5.42,
            "lower",
            SAMPLES,
        )
        after = replace(
            before, checkpoint=AFTER, value=start + change, interval=around(start + change, 0.07)
        )
        yield (
            before,
            after,
            Difference(
                "generative_loss",
                BEFORE,
                AFTER,
                "lm_head",
                kind,
                change,
                around(change, 0.05),
                "lower",
                SAMPLES,
            ),
        )


def probes() -> Iterator[tuple[ProbeResult, ProbeResult, Difference]]:
    """Spoken attributes improve across modalities, silent ones do not."""
    rng = np.random.default_rng(1)
    for spoken, attributes in ((True, SPOKEN), (False, SILENT)):
        for name, other in attributes.items():
            chance = 0.25 if spoken else 0.5
            cells: list[tuple[Modality, Modality]] = [
                ("text", "text"),
                ("text", other),
                (other, "text"),
                (other, other),
            ]
            for train, test in cells if spoken else cells[-1:] + cells[1:2]:
                if spoken:
                    start, change = (
                        (0.93, 0.03)
                        if train == test
                        else (0.31, 0.38 if other == "image" else 0.09)
                    )
                else:
                    start, change = (0.71, -0.01) if train == test else (0.5, 0.0)
                start += 0.01 * rng.standard_normal()
                change += 0.012 * rng.standard_normal()
                after_value = min(start + change, 0.99)
                before = ProbeResult(
                    name, spoken, train, test, BEFORE, "final_norm", start, around(start, 0.04),
                    chance + 0.021, chance, chance + 0.008, start - chance - 0.008, 160, 80,
                )  # fmt: skip
                after = replace(
                    before,
                    checkpoint=AFTER,
                    accuracy=after_value,
                    interval=around(after_value, 0.04),
                    selectivity=after_value - chance - 0.008,
                )
                moved = after_value - start
                yield (
                    before,
                    after,
                    Difference(
                        f"probe:{name}",
                        BEFORE,
                        AFTER,
                        "final_norm",
                        f"{train}->{test}",
                        moved,
                        around(moved, 0.05),
                        "higher",
                        80,
                    ),
                )


def verdicts(differences: tuple[Difference, ...], trained: tuple[str, ...]) -> Iterator[Verdict]:
    """A verdict per difference at the final norm or the head; probes are judged together."""
    said = {
        "PASS": "improved clearly",
        "FAIL": "became worse",
        "WARN": "did not change clearly",
        "info": "is reported only",
    }
    directions: dict[str, None] = {}
    for d in differences:
        if d.site not in ("final_norm", "lm_head"):
            continue
        if d.metric.startswith("probe:"):
            if d.metric.removeprefix("probe:") in SILENT:
                sentence = f"{d.metric} ({d.modality}), which no caption names: no clear change."
                yield Verdict(d.metric, d.modality, "control", "info", sentence)
            else:
                directions[d.modality] = None
            continue
        status: Status = "PASS" if d.improved else "FAIL" if d.improved is False else "WARN"
        status = "info" if d.metric == "generative_loss" else status
        seen = set(d.modality.replace("->", "-").split("-")) <= set(trained)
        sentence = f"{d.metric} of {d.modality} {said[status]}."
        yield Verdict(d.metric, d.modality, "trained" if seen else "untrained", status, sentence)
    for direction in directions:
        sentence = f"probes {direction}: clearly better for some attributes."
        seen = set(direction.split("->")) <= set(trained)
        yield Verdict("probe", direction, "trained" if seen else "untrained", "PASS", sentence)
    rare = "Needs 1000 samples or more, the run has 240."
    yield Verdict("intrinsic_dimension", "audio", "untrained", "NOT RUN", rare)


def live_geometry() -> Iterator[dict[str, Any]]:
    """A fixed probe set while the model trained; sounds are not defined at first."""
    for step in range(0, 121, 20):
        share = step / 120
        for kind, change in (("text", -0.57), ("image", -0.4), ("audio", -0.29)):
            value = None if kind == "audio" and not step else 0.95 + change * share
            yield {"step": step, "metric": "mean_cosine", "modality": kind, "value": value}
        yield {
            "step": step, "metric": "paired_cosine", "modality": "image-text",
            "value": 0.3 + 0.3 * share,
        }  # fmt: skip


def trajectory() -> Analysis:
    """Five checkpoints in a row: two on the way, and one of another recipe."""
    base = complete()
    own = (BEFORE, "step-40", "step-80", "soup", AFTER)
    shares = dict(zip(own[1:-1], (0.35, 0.7, 1.15), strict=True))
    starts = {
        (m.metric, m.site, m.modality): m for m in base.measurements if m.checkpoint == BEFORE
    }
    middle, changes = [], []
    for d in base.differences:
        start = starts[d.metric, d.site, d.modality]
        for name, share in shares.items():
            moved = None if d.value is None else d.value * share
            value = None if start.value is None or moved is None else start.value + moved
            span = None if value is None else around(value, 0.03 * abs(value))
            middle.append(replace(start, checkpoint=name, value=value, interval=span))
            wide = None if moved is None else around(moved, 0.05 * abs(moved))
            changes.append(replace(d, after=name, value=moved, interval=wide, band=None))
    return replace(
        base,
        checkpoints=own,
        measurements=(*base.measurements, *middle),
        differences=(*changes, *base.differences),
    )


def provenance() -> dict[str, Any]:
    """What a run says about itself."""
    rng = np.random.default_rng(2)
    record = {
        "source": "sandbox/base", "revision": "0f3a1c9",
        "architecture": "Qwen2_5OmniThinkerForConditionalGeneration",
        "weights_sha": "9d1f" * 16, "decoder_sha": "17ce" * 16, "towers_sha": "aa02" * 16,
        "adapter_sha": "",
        "merged": False, "template_sha": "5b77" * 16, "dtype": "float32", "attention": "sdpa",
        "sites": list(SITES), "dim": 128, "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "gate": {
            "hook_equals_hidden_state": {"passed": True, "value": 0.0, "tolerance": 1e-6},
            "row_alone_equals_row_in_batch": {"passed": True, "value": 3.1e-7, "tolerance": 1e-4},
            "left_equals_right_padding": {"passed": True, "value": 4.4e-7, "tolerance": 1e-4},
            "all_finite": {"passed": True, "value": None, "tolerance": None},
        },
        "training": {},
    }  # fmt: skip
    steps = [
        {
            "step": i + 1,
            "loss": float(0.35 + 4.1 * np.exp(-i / 28) + 0.05 * rng.standard_normal()),
            "accuracy": float(1 - 0.95 * np.exp(-i / 30)),
            "learning_rate": 1e-3 * min(1, (i + 1) / 10) * (1 - i / 125),
        }
        for i in range(120)
    ]  # fmt: skip
    tuned = record | {
        "name": AFTER, "source": "sandbox/lco", "weights_sha": "c3e8" * 16,
        "decoder_sha": "70b1" * 16,
        "merged": True,
        "training": {
            "preset": "sandbox", "pairs": 11520, "trained": ["text"], "steps": steps,
            "geometry": list(live_geometry()),
        },
    }  # fmt: skip
    return {
        "checkpoints": [{"name": BEFORE, **record}, tuned],
        "prompts": {m: f"\nSummarize the above {m} in one word:" for m in KINDS},
        "commands": [
            "geomkit train --preset sandbox --out lco/",
            "geomkit capture base lco=lco/merged --data sandbox:test",
            "geomkit report geomkit-run/",
        ],
        "versions": {"geomkit": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"},
        "seed": 0,
    }  # fmt: skip


def analysis() -> Analysis:
    """The whole made-up analysis."""
    numbers = [*geometry(), *losses()]
    read = list(probes())
    measurements = tuple(m for b, a, _ in numbers for m in (b, a))
    differences = tuple(d for _, _, d in numbers)
    probe_differences = tuple(d for _, _, d in read)
    return Analysis(
        schema="geomkit-analysis/1",
        plan_hash="4be1c07f" * 8,
        dataset="sandbox:test",
        checkpoints=(BEFORE, AFTER),
        sites=SITES,
        modalities=("text", "image", "audio"),
        pairs=("image-text", "audio-text"),
        trained=("text",),
        headline="Text-only training spread out image and audio too; pairing with text improved "
        "clearly for image, and only in part for audio.",
        verdicts=tuple(verdicts((*differences, *probe_differences), ("text",))),
        measurements=measurements,
        differences=differences,
        probes=tuple(p for b, a, _ in read for p in (b, a)),
        probe_differences=probe_differences,
        skipped=(
            {
                "id": "scene-0199",
                "modality": "audio",
                "reason": "the file ends before its header says",
            },
        ),
        provenance=provenance(),
    )


def transfers() -> Iterator[Transfer]:
    """Image follows text in part, audio is hard to tell; pairs have no counterpart in text."""
    for metric, (_, _, kinds) in GEOMETRY.items():
        for kind, (_, change) in kinds.items():
            if kind == "text":
                continue
            taught = kinds["text"][1] if "text" in kinds else None
            share = None if taught is None else change / taught
            half = 0.12 if kind == "image" else 0.4
            interval = None if share is None else Interval(share - half, share + half)
            yield Transfer(
                metric, BEFORE, AFTER, "final_norm", "" if taught is None else "text", kind,
                taught, change, share, interval,
                "clearly better" if taught is None else
                "transferred in part" if kind == "image" else "transferred, amount open",
                "" if taught is None else "the share is of the changes as they are",
            )  # fmt: skip


def bindings() -> Iterator[Binding]:
    """A map from text foretells images well and sounds hardly."""
    told = {
        "text": {"text": 0.84, "own": 0.84, "shift": 0.31, "turned": 0.05, "shuffled": 0.02},
        "image": {"text": 0.61, "own": 0.78, "shift": 0.22, "turned": 0.04, "shuffled": -0.03},
        "audio": {"text": 0.12, "own": 0.74, "shift": 0.10, "turned": 0.03, "shuffled": -0.05},
    }
    for site in ("block_05", "final_norm"):
        for kind, values in told.items():
            for predictor, value in values.items():
                for quantity in ("r2", "mean_cosine"):
                    yield Binding(
                        BEFORE, AFTER, site, kind,  # type: ignore[arg-type]  # a Literal
                        quantity, predictor, value, Interval(value - 0.05, value + 0.05), 160, 80,
                    )  # fmt: skip


def complete() -> Analysis:
    """The made-up analysis with what transferred, how it is bound, bands and drift."""
    base = analysis()
    wide = tuple(
        replace(d, band=Interval(d.interval.low - 0.4 * half, d.interval.high + 0.4 * half))
        if d.interval and (half := d.interval.high - d.interval.low)
        else d
        for d in base.differences
    )
    drifts = tuple(
        Drift(
            "drift_angle",
            BEFORE,
            AFTER,
            site,
            kind,
            9.0 * depth if depth else None,
            None,
            79.0,
            SAMPLES,
            "" if depth else EMBED_NOTE,
        )
        for kind in ("text", "image", "audio")
        for depth, site in enumerate(SITES)
    )
    return replace(
        base,
        differences=wide,
        transfers=tuple(transfers()),
        bindings=tuple(bindings()),
        drifts=drifts,
    )


def rows(count: int = SAMPLES) -> tuple[Row, ...]:
    """Scenes as (text, image) or (text, audio) in turn."""
    shapes, colours = ("circle", "square", "star", "triangle"), ("red", "green", "blue", "yellow")
    pitches, timbres = ("low", "middle", "high", "rising"), ("flute", "buzz", "bell", "hum")
    found: list[Row] = []
    for i in range(count):
        seen: Modality = "image" if i % 2 == 0 else "audio"
        one, two = (
            (colours[i // 2 % 4], shapes[i // 8 % 4])
            if seen == "image"
            else (pitches[i // 2 % 4], timbres[i // 8 % 4])
        )
        text = (
            f"a {one} {two} on a plain ground"
            if seen == "image"
            else f"a {one} note played by a {two}"
        )
        labels = {"colour": one, "shape": two} if seen == "image" else {"pitch": one, "timbre": two}
        controls = (
            {"tilt": "left" if i % 3 else "right"}
            if seen == "image"
            else {"loudness": "soft" if i % 3 else "loud"}
        )
        for modality in ("text", seen):
            found.append(
                Row(
                    len(found),
                    f"scene-{i:04d}",
                    modality,
                    "00" * 32,
                    f"group-{i // 8}",
                    text,
                    labels,
                    controls,
                )
            )  # type: ignore[arg-type]  # a Literal
    return tuple(found)


def projection(plan: tuple[Row, ...] | None = None) -> Projection:
    """Clusters that come together with depth and training."""
    plan = rows() if plan is None else plan
    rng = np.random.default_rng(3)
    centres = {"text": (-1.0, 0.4), "image": (0.8, 0.7), "audio": (0.5, -1.0)}
    hues = {
        value: rng.normal(0, 1, 2) for value in sorted({v for r in plan for v in r.labels.values()})
    }
    noise = rng.standard_normal((len(plan), 2)) * 0.28
    sites = [SiteMap("embed", None, (0.0, 0.0), "all states are equal, so there is nothing to map")]
    for depth, site in enumerate(SITES[1:], start=1):
        share = depth / 7
        panels = []
        for late in (0.0, 1.0):
            pull = 1 - 0.75 * share * late
            meaning = (
                np.array([sum(hues[v] for v in r.labels.values()) for r in plan])
                * 0.45
                * share
                * (0.4 + late)
            )
            modality = np.array([centres[r.modality] for r in plan])
            panels.append(modality * pull + meaning + noise * (0.5 + share))
        sites.append(
            SiteMap(
                site,
                np.asarray(panels, dtype=np.float32),
                (0.41 - 0.2 * share, 0.17 - 0.06 * share),
            )
        )
    return Projection(
        "pca", "last", (BEFORE, AFTER), tuple(r.index for r in plan), len(plan), tuple(sites)
    )


def previews(folder: Path, plan: tuple[Row, ...]) -> dict[tuple[str, str], Path]:
    """Small pictures and sounds on disk."""
    import soundfile
    from PIL import Image, ImageDraw

    found: dict[tuple[str, str], Path] = {}
    for row in plan:
        path = folder / f"{row.id}.{'webp' if row.modality == 'image' else 'wav'}"
        if row.modality == "image":
            picture = Image.new("RGB", (84, 84), "#f2efe8")
            ImageDraw.Draw(picture).ellipse((18, 18, 66, 66), fill=row.labels.get("colour", "grey"))
            picture.save(path)
        elif row.modality == "audio":
            pitch = {"low": 220, "middle": 330, "high": 660}.get(row.labels.get("pitch", ""), 440)
            soundfile.write(
                path,
                0.3 * np.sin(2 * np.pi * pitch * np.arange(10240) / 8000),
                8000,
                subtype="PCM_16",
            )
        else:
            continue
        found[row.id, row.modality] = path
    return found
