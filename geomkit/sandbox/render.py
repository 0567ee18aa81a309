"""Scenes to pixels and to sound: Pillow draws, NumPy plays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geomkit.sandbox.world import SPOKEN, Scene
from geomkit.types import Waveform

SIDE = 84  # pixels; three cells of 28, which is one merged vision token
RATE = 16_000  # hertz
SECONDS = 1.28

_SCALE = 4  # drawn larger and reduced, for smooth edges
_CELL = SIDE // 3
_RADIUS = {"small": 8.0, "medium": 12.0, "large": 17.0}
_COLOUR = {
    "red": (214, 39, 40),
    "orange": (255, 137, 20),
    "yellow": (245, 225, 45),
    "green": (40, 160, 60),
    "cyan": (30, 200, 210),
    "blue": (40, 80, 225),
    "purple": (130, 50, 175),
    "pink": (250, 130, 190),
}
_BACKGROUND = {
    "white": (236, 236, 236),
    "black": (24, 24, 26),
    "grey": (128, 130, 132),
    "brown": (112, 72, 40),
}
_TILT = {"anticlockwise": -18.0, "upright": 0.0, "clockwise": 18.0}

Point = tuple[float, float]


def image(scene: Scene) -> Image.Image:
    """The picture of an image scene, RGB, `SIDE` x `SIDE` pixels."""
    rng = np.random.default_rng(scene.seed)
    canvas = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE))
    _draw_ground(canvas, _BACKGROUND[scene.spoken["background"]], _TILT[scene.unspoken["tilt"]])
    _draw_shape(canvas, scene, rng)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    pixels = pixels + _texture(scene.unspoken["texture"], rng)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_ground(canvas: Image.Image, colour: tuple[int, int, int], tilt: float) -> None:
    """Two shades of the background colour that meet at a horizon of the given tilt."""
    side = SIDE * _SCALE
    upper = tuple(min(255, c + 14) for c in colour)
    lower = tuple(max(0, c - 14) for c in colour)
    rise = math.tan(math.radians(tilt)) * side / 2
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, side, side), fill=upper)
    draw.polygon(
        [(0, side / 2 - rise), (side, side / 2 + rise), (side, side), (0, side)], fill=lower
    )


def _draw_shape(canvas: Image.Image, scene: Scene, rng: np.random.Generator) -> None:
    row, column = scene.spoken["position"].split("-")
    cell = (("left", "centre", "right").index(column), ("top", "middle", "bottom").index(row))
    jitter = rng.uniform(-2.5, 2.5, 2)
    x, y = ((c * _CELL + _CELL / 2 + j) * _SCALE for c, j in zip(cell, jitter, strict=True))
    radius = _RADIUS[scene.spoken["size"]] * rng.uniform(0.93, 1.07) * _SCALE
    shade = rng.uniform(0.9, 1.08)
    colour = tuple(min(255, int(c * shade)) for c in _COLOUR[scene.spoken["colour"]])
    draw = ImageDraw.Draw(canvas)
    name = scene.spoken["shape"]
    if name == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif name == "ring":
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, outline=colour, width=max(2, round(radius * 0.42)))
    else:
        outline = _OUTLINES[name]
        draw.polygon([(x + radius * u, y + radius * v) for u, v in outline()], fill=colour)


def _regular(corners: int, start: float) -> list[Point]:
    angles = [start + 2 * math.pi * k / corners for k in range(corners)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def _square() -> list[Point]:
    return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]


def _triangle() -> list[Point]:
    return [(u * 1.12, v * 1.12 + 0.2) for u, v in _regular(3, -math.pi / 2)]


def _cross() -> list[Point]:
    a, b = 0.34, 1.0
    return [
        *((-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)),
        *((a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)),
    ]


def _star() -> list[Point]:
    outer, inner = _regular(5, -math.pi / 2), _regular(5, -math.pi / 2 + math.pi / 5)
    pairs = zip(outer, inner, strict=True)
    return [
        p for (ox, oy), (ix, iy) in pairs for p in ((ox * 1.1, oy * 1.1), (ix * 0.44, iy * 0.44))
    ]


_OUTLINES: dict[str, Callable[[], list[Point]]] = {
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}


def _texture(name: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Additive brightness, `(SIDE, SIDE)`: a little sensor noise, grain or diagonal stripes."""
    noise = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    if name == "grainy":
        return 14 * noise
    if name == "striped":
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        stripes: NDArray[np.float32] = np.sin((x + y) * np.float32(2 * np.pi / 7))
        return 13 * stripes + 2 * noise
    return 2 * noise


_FREQUENCY = dict(
    zip(SPOKEN["audio"][0].values, (150.0, 240.0, 380.0, 610.0, 980.0, 1560.0), strict=True)
)
_GAIN = {"soft": 0.12, "normal": 0.3, "loud": 0.75}
_NOTES = {"one": 1, "two": 2, "three": 3, "four": 4}


def waveform(scene: Scene) -> Waveform:
    """The sound of an audio scene: mono float32, `SECONDS` long at `RATE` hertz."""
    rng = np.random.default_rng(scene.seed)
    total = int(RATE * SECONDS)
    sound = np.zeros(total, dtype=np.float64)
    slot = 0.30
    length = 0.10 if scene.spoken["length"] == "short" else 0.24
    for k in range(_NOTES[scene.spoken["count"]]):
        start = int((0.03 + k * slot + rng.uniform(0, 0.02)) * RATE)
        note = _note(scene, length * rng.uniform(0.95, 1.05), rng)[: total - start]
        sound[start : start + len(note)] += note
    if scene.unspoken["reverberation"] == "hall":
        sound = _hall(sound, rng)
    sound *= _GAIN[scene.unspoken["loudness"]] / max(1e-9, np.abs(sound).max())
    sound += rng.standard_normal(total) * 5e-4  # a noise floor, as any microphone has
    return Waveform(np.clip(sound, -1, 1).astype(np.float32), RATE)


def _note(scene: Scene, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    u = t / seconds
    base = _FREQUENCY[scene.spoken["pitch"]] * rng.uniform(0.97, 1.03)
    bend = {
        "rising": 0.88 + 0.26 * u,
        "falling": 1.14 - 0.26 * u,
        "steady": np.ones(n),
        "wavering": 1 + 0.06 * np.sin(2 * np.pi * 18 * t),
    }[scene.spoken["contour"]]
    phase = 2 * np.pi * np.cumsum(base * bend) / RATE
    attack: NDArray[np.float64] = np.minimum(1, t / 0.012) * np.minimum(1, (seconds - t) / 0.012)
    return _timbre(scene.spoken["timbre"], phase, t, rng) * attack


def _timbre(
    name: str, phase: NDArray[np.float64], t: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    def partials(weights: dict[int, float]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.sum(
            [w * np.sin(k * phase) for k, w in weights.items()], axis=0
        )
        return total

    if name == "clarinet":
        return partials({1: 1.0, 3: 0.7, 5: 0.5, 7: 0.3})
    if name == "violin":
        return partials({k: 1.0 / k for k in (1, 2, 3, 4, 5, 6)})
    if name == "harp":
        return partials({1: 1.0, 2: 0.6, 3: 0.4}) * np.exp(-t / 0.045)
    if name == "organ":
        return partials({1: 1.0, 2: 0.9, 4: 0.8})
    if name == "whistle":
        return partials({1: 0.6}) + 0.35 * rng.standard_normal(len(t))
    return partials({1: 1.0})


def _hall(sound: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The sound in a hall: convolved with exponentially decaying noise."""
    tail = np.arange(int(0.25 * RATE)) / RATE
    response = rng.standard_normal(len(tail)) * np.exp(-tail / 0.07) * 0.06
    response[0] = 1.0
    size = 1 << (len(sound) + len(tail)).bit_length()
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: len(sound)]
