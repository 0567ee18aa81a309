"""What two plans differ in, in words: the reason why states under one are none under the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from geomkit.types import Plan, Row

FEW = 3


def unlike(held: Plan, asked: Plan) -> str:
    """In what `asked` differs from `held`, the most telling first."""
    return "; ".join(_parts(held, asked)) or "another version of the plan's format"


def _parts(held: Plan, asked: Plan) -> Iterator[str]:
    if held.dataset != asked.dataset:
        yield f"data {asked.dataset} instead of {held.dataset}"
    yield from _rows(held.rows, asked.rows)
    for modality in sorted(set(held.prompts) & set(asked.prompts)):
        if held.prompts[modality] != asked.prompts[modality]:
            yield (
                f"the prompt of {modality} is {asked.prompts[modality]!r} instead of"
                f" {held.prompts[modality]!r}"
            )
    for name in ("poolings", "sites", "store_dtype", "shard_batches"):
        before, after = getattr(held, name), getattr(asked, name)
        if before != after:
            yield f"{name} {_shown(after)} instead of {_shown(before)}"
    if dict(held.options) != dict(asked.options):
        yield f"options {_options(asked)} instead of {_options(held)}"
    elif held.rows == asked.rows and held.batches != asked.batches:
        yield "other batches of the same rows"


def _rows(held: Sequence[Row], asked: Sequence[Row]) -> Iterator[str]:
    before = {(row.id, row.modality): row for row in held}
    after = {(row.id, row.modality): row for row in asked}
    yield from _named("new", [key for key in after if key not in before])
    yield from _named("missing", [key for key in before if key not in after])
    both = [key for key in after if key in before]
    contents = [k for k in both if after[k].content_sha != before[k].content_sha]
    yield from _named("of other content", contents)
    rest = set(both) - set(contents)
    if any(_facts(after[k]) != _facts(before[k]) for k in rest):
        yield "other labels, captions or groups"


def _facts(row: Row) -> tuple[str, str, Mapping[str, str], Mapping[str, str]]:
    return row.group, row.text, row.labels, row.controls


def _named(what: str, keys: Sequence[tuple[str, str]]) -> Iterator[str]:
    if keys:
        some = ", ".join(f"the {modality} of '{id_}'" for id_, modality in keys[:FEW])
        more = ", ..." if len(keys) > FEW else ""
        yield f"{len(keys)} {'row is' if len(keys) == 1 else 'rows are'} {what} ({some}{more})"


def _options(plan: Plan) -> str:
    return " ".join(f"{name} {value}".strip() for name, value in plan.options) or "by default"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "all" if isinstance(value, tuple) else str(value)
