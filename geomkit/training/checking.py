"""What a training refuses before its first step, and what it counts of its texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers.integrations import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from geomkit.errors import MissingExtra, TrainingError, UsageError
from geomkit.processing import Processor
from geomkit.prompts import control_tokens, cut, prompts
from geomkit.training import processes
from geomkit.training.columns import MARK
from geomkit.training.config import TrainConfig
from geomkit.training.media import Pairs, shows
from geomkit.training.methods import writes_checkpoint
from geomkit.training.pairs import TextPair
from geomkit.types import Sample


def check(config: TrainConfig, pairs: Pairs, mixed: Sequence[Sample]) -> None:
    """Refuse what can be refused before the model is loaded.

    Raises:
        TrainingError: pairs that do not fit the method or the batch.
        UsageError: settings that do not go together.
        MissingExtra: a place to report to that is not installed.
    """
    if config.batch % processes.asked():
        raise UsageError(
            f"Expected a batch that {processes.asked()} processes share evenly, got "
            f"{config.batch}: take a multiple of their number."
        )
    if len(pairs) < config.batch:
        raise TrainingError(
            f"Expected at least {config.batch} pairs to fill one batch, got {len(pairs)}: lower "
            "batch or bring more pairs."
        )
    _check_kind(config, pairs)
    if writes_checkpoint(config) and config.dtype not in ("auto", "float32"):
        raise UsageError(
            f"Expected dtype float32 or auto where whole weights train, got {config.dtype}."
        )
    prompts(config.prompt)
    _check_reports(config.report_to)
    _check_mixed(config, mixed)


def _check_reports(name: str) -> None:
    """Refuse a place to report to that is not there; the library looks only when it begins."""
    if name in ("none", "all", "flyte"):  # of the last nobody can say from outside
        return
    try:
        get_reporting_integration_callbacks([name])
    except ValueError as cause:
        raise UsageError(f"Expected a place to report to, got {name!r}: {cause}") from cause
    if name not in get_available_reporting_integrations():
        raise MissingExtra(
            f"Expected {name} to report to, it is not installed: pip install {name}, or leave "
            "--report-to out."
        )


def _check_mixed(config: TrainConfig, mixed: Sequence[Sample]) -> None:
    if not mixed:
        return
    if config.method not in ("lora", "full") or config.speaks or config.shuffle_pairs:
        raise UsageError(
            f"Expected samples to be mixed in with plain method lora or full, got {config.method}"
            f"{' with kl' * (config.kl > 0)}{' and shuffled pairs' * config.shuffle_pairs}."
        )
    if odd := next((s for s in mixed if not (s.text and shows(s))), None):
        raise TrainingError(
            f"Expected a medium and a text in every sample that is mixed in, {odd.id} lacks one."
        )


def _check_kind(config: TrainConfig, pairs: Pairs) -> None:
    texts = [pair for pair in pairs if isinstance(pair, TextPair)]
    if config.method == "clip":
        usable = [s for s in pairs if isinstance(s, Sample) and s.text and shows(s)]
        if len(usable) == len(pairs):
            return
        raise TrainingError(
            f"Expected a medium and a text in every sample for method clip, got {len(usable)} of "
            f"{len(pairs)}: give a manifest of images or sounds with captions."
        )
    _check_groups(config, texts)
    negatives = sum(pair.negative is not None for pair in texts)
    if len(texts) < len(pairs):
        raise TrainingError(f"Expected text pairs for method {config.method}, got samples.")
    if 0 < negatives < len(pairs):
        raise TrainingError(
            f"Expected a hard negative in every pair or in none, got {negatives} of {len(pairs)}."
        )


def _check_groups(config: TrainConfig, pairs: Sequence[TextPair]) -> None:
    """Pairs of one group are no negatives of each other: of one group alone nothing is learned."""
    groups = {pair.group for pair in pairs}
    if config.mask_equal and len(groups) == 1 and any(groups) and not pairs[0].negative:
        raise TrainingError(
            f"Expected pairs of several groups, all are of the group {groups.pop()!r} and so none "
            "is another's negative: mend that column, or give --no-mask-equal."
        )


def how_many_are_cut(pairs: Sequence[TextPair | Sample], processor: Processor, limit: int) -> int:
    """How many texts are longer than what is read of them."""
    texts = (text for pair in pairs for text in texts_of(pair))
    long = (text for text in texts if len(text.encode()) > limit)  # a token has a byte or more
    return sum(cut(processor.tokenizer, text, limit)[1] for text in long)


def as_read(processor: Processor, text: str, limit: int) -> str:
    """What the model is shown of a text."""
    return text if len(text.encode()) <= limit else cut(processor.tokenizer, text, limit)[0]


def texts_of(pair: TextPair | Sample) -> tuple[str, ...]:
    """What is read of a pair."""
    if isinstance(pair, Sample):
        return (pair.text or "",)
    return (pair.anchor, pair.positive, pair.negative or "")


def refuse_control_tokens(pairs: Sequence[TextPair | Sample], processor: Processor) -> None:
    """Raise when a text holds a token that the model obeys: better now than at step 4,000.

    Raises:
        TrainingError: naming the pair and the token.
    """
    words = (MARK, *control_tokens(processor.tokenizer))
    tokens = re.compile("|".join(map(re.escape, words)))
    for number, pair in enumerate(pairs, 1):
        for text in texts_of(pair):
            if found := tokens.search(text):
                raise TrainingError(
                    f"Expected plain text, pair {number} holds the control token {found[0]}, which "
                    "would be obeyed and not read: remove the pair."
                )
