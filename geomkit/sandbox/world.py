"""The procedural world: scenes, the sentences about them, and how combinations are split.

A scene is an image of one shape or a short sound. Its *spoken* attributes are what captions,
questions and answers are about. Its *unspoken* attributes are drawn or played but no sentence
ever names them: they are the negative control, since training on text cannot have taught them.

Combinations of spoken attributes are split once, by hash: no combination of `test` occurs in
`train` or `validation`, in pretraining or in the text pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

Kind = Literal["image", "audio"]
Split = Literal["train", "validation", "test"]

SPLIT_SHARES: Mapping[Split, float] = {"train": 0.70, "validation": 0.06, "test": 0.24}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One way in which scenes differ. `words` maps each value to the words a caption may use."""

    name: str
    words: Mapping[str, tuple[str, ...]]
    question: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """The values, in a fixed order; the value itself is the canonical answer."""
        return tuple(self.words)


def _plain(*values: str) -> dict[str, tuple[str, ...]]:
    return {value: (value,) for value in values}


SPOKEN: Mapping[Kind, tuple[Attribute, ...]] = {
    "image": (
        Attribute(
            "shape",
            {
                "circle": ("circle", "disc"),
                "square": ("square", "box"),
                "triangle": ("triangle",),
                "cross": ("cross", "plus"),
                "ring": ("ring", "hoop"),
                "star": ("star",),
            },
            "what shape is it",
        ),
        Attribute(
            "colour",
            {
                **_plain("red", "orange", "yellow", "green"),
                "cyan": ("cyan", "turquoise"),
                "blue": ("blue",),
                "purple": ("purple", "violet"),
                "pink": ("pink",),
            },
            "what colour is the shape",
        ),
        Attribute(
            "size",
            {
                "small": ("small", "little", "tiny"),
                "medium": ("medium", "average"),
                "large": ("large", "big", "huge"),
            },
            "how large is the shape",
        ),
        Attribute(
            "position",
            {
                f"{row}-{column}": (f"{row} {column}", f"{alias} {column}")
                for row, alias in (("top", "upper"), ("middle", "central"), ("bottom", "lower"))
                for column in ("left", "centre", "right")
            },
            "where is the shape",
        ),
        Attribute(
            "background",
            {
                "white": ("white", "pale"),
                "black": ("black", "dark"),
                "grey": ("grey",),
                "brown": ("brown",),
            },
            "what colour is the background",
        ),
    ),
    "audio": (
        Attribute(
            "pitch",
            {
                "deep": ("deep",),
                "low": ("low",),
                "moderate": ("moderate", "middling"),
                "high": ("high",),
                "sharp": ("sharp", "piercing"),
                "shrill": ("shrill",),
            },
            "how high is the tone",
        ),
        Attribute(
            "timbre",
            {
                "flute": ("flute",),
                "clarinet": ("clarinet",),
                "violin": ("violin", "fiddle"),
                "harp": ("harp",),
                "organ": ("organ",),
                "whistle": ("whistle",),
            },
            "what instrument is it",
        ),
        Attribute(
            "count",
            {
                "one": ("one", "single"),
                "two": ("two", "double"),
                "three": ("three", "triple"),
                "four": ("four", "quadruple"),
            },
            "how many notes are there",
        ),
        Attribute(
            "contour",
            {
                "rising": ("rising", "climbing"),
                "falling": ("falling", "sinking"),
                "steady": ("steady", "level"),
                "wavering": ("wavering", "trembling"),
            },
            "how does the tone move",
        ),
        Attribute(
            "length",
            {"short": ("short", "brief"), "long": ("long", "sustained")},
            "how long is every note",
        ),
    ),
}

UNSPOKEN: Mapping[Kind, tuple[Attribute, ...]] = {
    "image": (
        Attribute("tilt", _plain("anticlockwise", "upright", "clockwise")),
        Attribute("texture", _plain("smooth", "grainy", "striped")),
    ),
    "audio": (
        Attribute("loudness", _plain("soft", "normal", "loud")),
        Attribute("reverberation", _plain("dry", "hall")),
    ),
}

TEMPLATES: Mapping[Kind, tuple[str, ...]] = {
    "image": (
        "a {size} {colour} {shape} in the {position} on a {background} background .",
        "on a {background} background there is a {size} {colour} {shape} in the {position} .",
        (
            "the {position} holds a {colour} {shape} of {size} size , "
            "and the background is {background} ."
        ),
        "a {shape} , {size} and {colour} , sits at the {position} of a {background} picture .",
        (
            "this picture has a {background} background "
            "with a {colour} {size} {shape} at the {position} ."
        ),
        "at the {position} you see one {size} {shape} painted {colour} over {background} .",
    ),
    "audio": (
        "{count} {length} {contour} notes of a {pitch} {timbre} .",
        "a {pitch} {timbre} plays {count} {length} notes , each {contour} .",
        "you hear {count} {contour} {timbre} notes , {pitch} and {length} .",
        "the {timbre} sounds {pitch} , with {count} notes that are {length} and {contour} .",
        "this recording has {count} {pitch} notes from a {timbre} , {contour} and {length} .",
        "there is a {contour} {timbre} , {pitch} in tone , heard as {count} {length} notes .",
    ),
}

DESCRIBE: Mapping[str, tuple[str, ...]] = {
    "image": (
        "Describe the above image in one sentence:",
        "What do you see in the above image? Describe it:",
    ),
    "audio": (
        "Describe the above audio in one sentence:",
        "What do you hear in the above audio? Describe it:",
    ),
    "text": (
        "Rewrite the above text in one sentence:",
        "Summarize the above text in one sentence:",
    ),
}
ASK = ("{question}? Answer in one word:", "{question}?", "{question} in the above {modality}?")


@dataclass(frozen=True, slots=True)
class Scene:
    """One image or sound: what is said of it, what is not, and the seed of its small jitter."""

    kind: Kind
    spoken: Mapping[str, str]
    unspoken: Mapping[str, str]
    seed: int

    @property
    def group(self) -> str:
        """The combination of spoken attributes: scenes of one group have the same captions."""
        return f"{self.kind}:" + "-".join(self.spoken[a.name] for a in SPOKEN[self.kind])

    @property
    def split(self) -> Split:
        """The split that the combination belongs to, by hash: the same on every machine."""
        return split_of(self.group)


def split_of(group: str) -> Split:
    """The split of a combination, from the first eight bytes of its sha256."""
    position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    for split, share in SPLIT_SHARES.items():
        position -= share
        if position < 0:
            return split
    return "test"


def combinations(kind: Kind, split: Split) -> Iterator[dict[str, str]]:
    """Every combination of spoken attributes of a split, in a fixed order."""
    for values in product(*(a.values for a in SPOKEN[kind])):
        if split_of(f"{kind}:" + "-".join(values)) == split:
            yield dict(zip((a.name for a in SPOKEN[kind]), values, strict=True))


def scene(kind: Kind, spoken: Mapping[str, str], rng: np.random.Generator) -> Scene:
    """A scene of the given combination with unspoken attributes and jitter drawn from `rng`."""
    unspoken = {a.name: str(rng.choice(a.values)) for a in UNSPOKEN[kind]}
    return Scene(kind, spoken, unspoken, int(rng.integers(2**31)))


def caption(scene: Scene, rng: np.random.Generator, template: int | None = None) -> str:
    """A sentence that names every spoken attribute once; template and synonyms from `rng`."""
    templates = TEMPLATES[scene.kind]
    chosen = templates[int(rng.integers(len(templates))) if template is None else template]
    return chosen.format(
        **{a.name: str(rng.choice(a.words[scene.spoken[a.name]])) for a in SPOKEN[scene.kind]}
    )


def neighbour(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs in exactly one spoken attribute: the hard negative."""
    attribute = SPOKEN[scene.kind][int(rng.integers(len(SPOKEN[scene.kind])))]
    others = [v for v in attribute.values if v != scene.spoken[attribute.name]]
    changed = {**scene.spoken, attribute.name: str(rng.choice(others))}
    return Scene(scene.kind, changed, scene.unspoken, scene.seed)


def answer(scene: Scene, attribute: Attribute) -> str:
    """The canonical words for an attribute of the scene ("top left", "red")."""
    return attribute.words[scene.spoken[attribute.name]][0]


def vocabulary() -> tuple[str, ...]:
    """Every word the world can say or be asked, sorted."""
    sentences = [
        *(t for ts in TEMPLATES.values() for t in ts),
        *(d for ds in DESCRIBE.values() for d in ds),
        *(a.question for kind in SPOKEN.values() for a in kind),
        *(w for kind in SPOKEN.values() for a in kind for ws in a.words.values() for w in ws),
        *ASK,
        "summarize the above text image audio video in one word sentence",
    ]
    words = " ".join(sentences).lower()
    for mark in "{}.,?:":
        words = words.replace(mark, " ")
    return tuple(sorted({*words.split(), ".", ",", "?", ":"}))
