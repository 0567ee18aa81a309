"""What is odd about a training that runs all the same: it is said, beside what the guards say."""

from __future__ import annotations

from collections.abc import Sequence

from geomkit.processing import Processor
from geomkit.training.checking import as_read, texts_of
from geomkit.training.config import TrainConfig
from geomkit.training.guards import Notice
from geomkit.training.pairs import TextPair
from geomkit.types import Sample

LOOKED = 256  # pairs whose tokens are looked at
FEW = 0.03  # share of pairs of which nothing is said


def doubts(
    config: TrainConfig,
    pairs: Sequence[TextPair | Sample],
    processor: Processor,
    absent: Sequence[str],
    steps: int,
) -> tuple[Notice, ...]:
    """Notices of what may have been meant otherwise."""
    found = {
        "targets": _absent(absent),
        "warmup": _cold(config, steps),
        "pairs": _own(pairs),
        "tokens": _alike(pairs, processor, config.max_tokens),
    }
    return tuple(Notice(0, kind, told) for kind, told in found.items() if told)


def _absent(names: Sequence[str]) -> str:
    """Some of the usual targets are not in this decoder: the recipe is then another one."""
    if not names:
        return ""
    return f"no linear layers {', '.join(names)} in the decoder's blocks: branches are on the rest"


def _cold(config: TrainConfig, steps: int) -> str:
    if config.warmup_steps < steps:
        return ""
    return (
        f"the warm-up of {config.warmup_steps} steps was not over after {steps}: the learning rate "
        "never reached its peak"
    )


def _own(pairs: Sequence[TextPair | Sample]) -> str:
    """A text is near itself without any training; dropout alone tells the two apart."""
    same = sum(isinstance(pair, TextPair) and pair.anchor == pair.positive for pair in pairs)
    if same <= FEW * len(pairs):
        return ""
    return (
        f"{same} of {len(pairs)} pairs have their anchor as the positive: they teach next to none"
    )


def _alike(pairs: Sequence[TextPair | Sample], processor: Processor, limit: int) -> str:
    """Texts that differ, and not to the model."""
    known = dict.fromkeys(t for pair in pairs[:LOOKED] for t in texts_of(pair) if t)
    read = (as_read(processor, text, limit) for text in known)
    rows = {tuple(processor.tokenizer(text)["input_ids"]) for text in read}
    if len(known) - len(rows) <= FEW * len(known):
        return ""
    return (
        f"of {len(known)} texts that were looked at only {len(rows)} differ in their tokens: the "
        f"tokenizer does not know their words, or they begin alike for {limit} tokens"
    )
