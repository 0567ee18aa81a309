"""Records as tables for a terminal: the verdict table, the sandbox's mastery, a run at a glance.

Every function takes records and gives back something rich can print; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from geomkit import compare
from geomkit.bindings import judged
from geomkit.drifts import drift_sentences
from geomkit.sites import described
from geomkit.types import Analysis, Difference, Measurement, Plan, Status
from geomkit.words import counted, lacking

if TYPE_CHECKING:
    from geomkit.capture import Preflight
    from geomkit.training import MergeRecord, TrainingRecord
    from geomkit.training.soup import Soup

SITE = "final_norm"
HEADLINES = ("mean_cosine", "uniformity", "effective_rank", "retrieval_r1", "generative_loss")
MARK: Mapping[Status, tuple[str, str]] = {
    "PASS": ("✓ PASS", "green"),
    "FAIL": ("✗ FAIL", "red"),
    "WARN": ("~ WARN", "yellow"),
    "NOT RUN": ("- NOT RUN", "dim"),
    "info": ("i info", "dim"),
}


def verdict_table(analysis: Analysis) -> Table:
    """Metric x modality: before, after, difference with interval, chance, status."""
    ends = " -> ".join(dict.fromkeys((analysis.checkpoints[0], analysis.checkpoints[-1])))
    pooling = analysis.provenance.get("pooling", "")
    title = f"{ends} at {SITE}" + f", pooling {pooling}" * bool(pooling)
    table = Table(header_style="bold", pad_edge=False, box=None, title=title, title_justify="left")
    for name in ("metric", "modality", "role"):
        table.add_column(name, no_wrap=True)
    for name in ("before", "after", "difference [95 %]", "chance or bound"):
        table.add_column(name, justify="right", no_wrap=name != "difference [95 %]")
    table.add_column("status", no_wrap=True)
    for verdict in analysis.verdicts:
        if verdict.metric == "probe":
            continue  # several attributes in one verdict: `probe_lines` has the words
        mark, colour = MARK[verdict.status]
        numbers = _numbers(analysis, verdict.metric, verdict.modality)
        known = analysis.trained or verdict.role == "control"
        cells = (verdict.metric, verdict.modality, verdict.role if known else "", *numbers)
        table.add_row(*(Text(cell) for cell in cells), Text(mark, colour))
    return table


def probe_lines(analysis: Analysis) -> Iterator[str]:
    """What became readable, one line a direction: the probes' verdicts in words."""
    for verdict in analysis.verdicts:
        if verdict.metric == "probe":
            yield f"{MARK[verdict.status][0]}  {verdict.sentence}"


def findings(analysis: Analysis) -> Iterator[str]:
    """What the table has no room for: probes, the binding test and drift, a line each."""
    yield from probe_lines(analysis)
    yield from binding_lines(analysis)


def binding_lines(analysis: Analysis) -> Iterator[str]:
    """Does text foretell what media underwent, and how far did all move: of the last checkpoint."""
    last = analysis.checkpoints[-1:]
    yield from (j.sentence for j in judged(b for b in analysis.bindings if b.after in last))
    yield from drift_sentences(d for d in analysis.drifts if d.after in last)


def _numbers(analysis: Analysis, metric: str, modality: str) -> tuple[str, str, str, str]:
    if metric.startswith("probe:"):
        return _probe_numbers(analysis, metric.removeprefix("probe:"), modality)
    first, *later = analysis.checkpoints
    before = _measured(analysis, metric, modality, first)
    after = _measured(analysis, metric, modality, later[-1]) if later else None
    change = _changed(analysis.differences, metric, modality)
    shown = after or before
    chance = shown.chance if shown else None
    return (
        number(before.value if before else None),
        number(after.value if after else None),
        difference(change),
        number(chance),
    )


def _probe_numbers(analysis: Analysis, attribute: str, direction: str) -> tuple[str, str, str, str]:
    source, target = direction.split("->")
    seen = {
        p.checkpoint: p
        for p in analysis.probes
        if (p.attribute, p.train_on, p.test_on, p.site) == (attribute, source, target, SITE)
    }
    before, after = (seen.get(c) for c in (analysis.checkpoints[0], analysis.checkpoints[-1]))
    change = _changed(analysis.probe_differences, f"probe:{attribute}", direction)
    return (
        number(before.accuracy if before else None),
        number(after.accuracy if after else None),
        difference(change),
        number(after.guess if after else None),
    )


def _measured(
    analysis: Analysis, metric: str, modality: str, checkpoint: str
) -> Measurement | None:
    wanted = (metric, modality, checkpoint)
    found = [
        m
        for m in analysis.measurements
        if (m.metric, m.modality, m.checkpoint) == wanted and m.site in {SITE, "lm_head"}
    ]
    return found[0] if found else None


def _changed(differences: Sequence[Difference], metric: str, modality: str) -> Difference | None:
    found = [
        d
        for d in differences
        if (d.metric, d.modality) == (metric, modality) and d.site in {SITE, "lm_head"}
    ]
    return found[-1] if found else None


def number(value: float | None) -> str:
    """Three significant digits with a real minus sign; a dash when there is none."""
    return "–" if value is None else compare.number(value).replace("-", "−")


def difference(change: Difference | None) -> str:
    """`+0.12 [+0.10, +0.14]`, or a dash."""
    if change is None or change.value is None:
        return "–"
    text = f"{change.value:+.3g}"
    if change.interval is not None:
        text += f" [{change.interval.low:+.3g}, {change.interval.high:+.3g}]"
    return text.replace("-", "−")


def mastery_table(mastery: Mapping[str, Any]) -> Table:
    """How well the base answers about its world, per modality and attribute, in percent."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("what the base answers right (held-out combinations)")
    table.add_column("per attribute")
    for modality, accuracies in mastery["accuracy"].items():
        parts = [f"{name} {100 * share:.0f} %" for name, share in accuracies.items()]
        table.add_row(modality, ", ".join(parts))
    return table


def missing_lines(missing: Mapping[str, Sequence[int]], shards: int) -> Iterator[str]:
    """What a run still lacks after one slice of it, and how to have it; nothing when complete."""
    for name, numbers in missing.items():
        if numbers:
            yield lacking(name, numbers, shards)
    if any(missing.values()):
        yield (
            "not complete yet: run the other slices, or the same command without --shard, which"
            " captures what is missing"
        )


def training_lines(record: TrainingRecord) -> Iterator[str]:
    """What was trained, on what, and the proof that nothing else changed."""
    first, last = record.steps[0], record.steps[-1]
    media = sum(record.media.values())
    kind = "text" if record.trained == ("text",) else "media-text"
    same = sum(record.frozen_before[r] == record.frozen_after[r] for r in record.frozen_before)
    yield (
        f"{record.pairs} {kind} pairs, {media} media; {len(record.steps)} steps in "
        f"{record.seconds:.0f} s; loss {first.loss:.2f} -> {last.loss:.2f}"
    )
    inside, outside = record.trainable_inside, record.trainable_outside
    trains = f"{inside} parameters inside the decoder, {outside} outside"
    if record.config.method == "linear":
        trains = record.targets
    yield (
        f"trainable: {trains}; frozen parts unchanged: "
        f"{same}/{len(record.frozen_before)} ({', '.join(record.frozen_before)})"
    )
    if record.null:
        yield f"null arm: {record.null}"
    if record.dropped or record.cut:
        reasons = [f"{count} {reason}" for reason, count in sorted(record.dropped.items())]
        cut = [f"{record.cut} texts cut to {record.config.max_tokens} tokens"] * (record.cut > 0)
        yield f"of the pairs: {'; '.join([*(f'left out: {r}' for r in reasons), *cut])}"
    if record.epochs:
        most = max(record.epochs, key=lambda one: one.left_out)
        yield (
            f"{counted(len(record.epochs), 'whole epoch')}; rows that one left out: at most "
            f"{most.left_out} of {most.rows}"
        )
    for notice in record.notices:
        yield f"warning: {notice.message}"
    for change in record.generation:
        yield (
            f"generative loss, {change.modality}: {change.before:.3f} -> {change.after:.3f} "
            f"nats a token on {change.n} held-out captions"
        )


def result_of(record: TrainingRecord) -> str:
    """What a training wrote, in a word."""
    whole = record.config.method == "full" or record.config.train_towers
    return "checkpoint" if whole else "adapter"


def soup_lines(record: Soup) -> Iterator[str]:
    """What was averaged."""
    rank = f"; rank {record.rank}, the sum of theirs" if record.rank else ""
    yield (
        f"the mean of {len(record.parts)} {record.kind}: {', '.join(record.parts)}; "
        f"{record.averaged} of {record.tensors} tensors averaged{rank}"
    )
    same = sum(record.frozen_after.get(r) == sha for r, sha in record.frozen_before.items())
    yield (
        f"one base, as measured; regions that the soup has as they were: "
        f"{same}/{len(record.frozen_before)} ({', '.join(record.frozen_before)})"
    )
    for notice in record.notices:
        yield f"warning: {notice}"
    for said in record.losses:
        yield (
            f"generative loss, {said.modality}, {said.name}: {said.loss:.3f} nats a token on "
            f"{said.n} captions"
        )


def merge_lines(record: MergeRecord) -> Iterator[str]:
    """What was merged and how well the merged model agrees with base plus adapter."""
    for agreement in record.agreement:
        yield (
            f"merged equals adapter, {agreement.modality}: largest relative difference "
            f"{agreement.relative:.1e} (accepted below {agreement.tolerance:.0e}), n {agreement.n}"
        )
        if agreement.moved is not None and agreement.relative > agreement.moved / 2:
            yield (
                f"warning: {agreement.modality} states are {agreement.moved:.1e} from those of the "
                f"base, and half of that or more was lost when {record.dtype} weights were rounded:"
                " merge into a base in float32 to keep it"
            )
    for change in record.generation:
        yield (
            f"generative loss, {change.modality}: {change.before:.3f} -> {change.after:.3f} "
            f"nats a token on {change.n} captions"
        )
    for said in record.spoken:
        yield f"said to {said.modality} {said.id}: {said.before!r} -> {said.after!r}"


def preflight_facts(ahead: Preflight) -> dict[str, Any]:
    """What a capture would do, for `--dry-run --json`."""
    plan = ahead.plan
    return {
        "dataset": plan.dataset,
        "plan_hash": plan.hash,
        "rows": _row_counts(plan),
        "prompts": dict(plan.prompts),
        "batches": len(plan.batches),
        "shards": -(-len(plan.batches) // plan.shard_batches),
        "longest_row_tokens": max(ahead.tokens),
        "largest_batch_tokens": max(
            len(b) * t for b, t in zip(plan.batches, ahead.tokens, strict=True)
        ),
        "padded_tokens": ahead.padded_tokens,
        "checkpoints": {
            name: {
                "parameters": ahead.parameters[name],
                "sites": list(sites),
                "dim": ahead.dims[name],
                "pooled_bytes": ahead.pooled_bytes(name),
                "token_bytes": ahead.token_bytes(name),
            }
            for name, sites in ahead.sites.items()
        },
    }


def preflight_lines(ahead: Preflight) -> Iterator[str]:
    """What a capture would do, in words."""
    facts = preflight_facts(ahead)
    rows = ", ".join(f"{n} {modality}" for modality, n in facts["rows"].items())
    yield f"data       {facts['dataset']}: {rows}"
    made = f"{counted(facts['batches'], 'batch', 'batches')}, {counted(facts['shards'], 'shard')}"
    yield f"plan       {facts['plan_hash'][:12]}: {made}"
    yield (
        f"tokens     {facts['padded_tokens']:,} with padding; longest row"
        f" {facts['longest_row_tokens']:,}, largest batch {facts['largest_batch_tokens']:,}"
    )
    for modality, prompt in facts["prompts"].items():
        yield f"prompt     {modality}: {prompt!r}"
    for name, one in facts["checkpoints"].items():
        yield (
            f"{name:<10} {one['parameters']:,} parameters, {counted(len(one['sites']), 'site')}"
            f" ({described(one['sites'])}) of {one['dim']}, {size(one['pooled_bytes'])} pooled"
            f" ({size(one['token_bytes'])} at most with --tokens)"
        )
    yield "nothing was loaded or written (--dry-run)"


def token_warning(ahead: Preflight) -> str:
    """What `--tokens` would store, and how to have it."""
    whole = sum(ahead.token_bytes(name) for name in ahead.sites)
    pooled = sum(ahead.pooled_bytes(name) for name in ahead.sites)
    each = whole // len(ahead.plan.rows) // len(ahead.sites)
    return (
        f"Expected --yes with --tokens: it stores up to {size(whole)} ({size(each)} a row and"
        f" checkpoint; the pooled states are {size(pooled)}). Choose --sites or add --yes."
    )


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least one."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _row_counts(plan: Plan) -> dict[str, int]:
    modalities = [row.modality for row in plan.rows]
    return {modality: modalities.count(modality) for modality in dict.fromkeys(modalities)}
