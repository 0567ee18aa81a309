"""The training log that the checkpoint records carry -> curves over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.lines import Line, LinesPanel, ordered
from reports.provenance import is_list, records
from reports.words import direction_title, family, metric_title, modality_title

CURVES = {
    "loss": ("Contrastive loss", "lower is better"),
    "accuracy": ("In-batch accuracy", "higher is better"),
    "grad_norm": ("Gradient norm", ""),
    "learning_rate": ("Learning rate", ""),
}
BETTER = {"mean_cosine": "lower", "uniformity": "lower", "alignment": "lower"}


def training_panels(provenance: Mapping[str, Any]) -> tuple[LinesPanel, ...]:
    """Loss and its company, of the last checkpoint that was trained; empty without a log."""
    logs = [steps for t in trainings(provenance) if (steps := entries(t.get("steps")))]
    panels = []
    for key, (title, hint) in CURVES.items():
        logged = [s for s in (logs[-1] if logs else []) if is_number(s.get(key))]
        if len(logged) > 1:
            places = tuple(float(s["step"]) for s in logged)
            one = Line(title, "text", places, tuple(float(s[key]) for s in logged))
            panels.append(LinesPanel(f"training-{key}", title, hint, (one,)))
    return tuple(panels)


def geometry_panels(provenance: Mapping[str, Any]) -> tuple[LinesPanel, ...]:
    """Geometry while the model trained: one panel a metric, a line a modality."""
    logs = [log for t in trainings(provenance) if (log := entries(t.get("geometry")))]
    log = [e for e in (logs[-1] if logs else []) if {"metric", "modality"} <= set(e)]
    panels = []
    for i, metric in enumerate(dict.fromkeys(str(e["metric"]) for e in log)):
        own = [e for e in log if str(e["metric"]) == metric]
        kinds = dict.fromkeys(str(e["modality"]) for e in own)
        lines = ordered([geometry_line(own, kind) for kind in kinds])
        if lines:
            hint = direction_title("lower") if metric in BETTER else ""
            panels.append(LinesPanel(f"geometry-{i}", metric_title(metric), hint, lines))
    return tuple(panels)


def geometry_line(log: Sequence[Mapping[str, Any]], modality: str) -> Line:
    """One metric of one modality over the steps; a step without a value breaks the line."""
    own = [e for e in log if str(e["modality"]) == modality]
    return Line(
        modality_title(modality),
        family(modality),
        tuple(float(e["step"]) for e in own),
        tuple(float(e["value"]) if is_number(e.get("value")) else None for e in own),
    )


def trainings(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The training record of every checkpoint that has one."""
    return [t for r in records(provenance) if isinstance(t := r.get("training"), Mapping)]


def entries(log: Any) -> list[Mapping[str, Any]]:
    """The entries of a log that name their step."""
    if not is_list(log):
        return []
    return [e for e in log if isinstance(e, Mapping) and is_number(e.get("step"))]


def is_number(value: Any) -> bool:
    """A number, and no yes or no."""
    return isinstance(value, int | float) and not isinstance(value, bool)
