"""What is drawn and played is what the scene says, measured on the pixels and the samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geomkit import sandbox
from geomkit.sandbox import render, world


def _pixels(scene: world.Scene) -> np.ndarray:
    return np.asarray(render.image(scene), dtype=np.float64)


def _image_scene(**spoken: str) -> world.Scene:
    chosen = {
        "shape": "circle",
        "colour": "red",
        "size": "medium",
        "position": "middle-centre",
        "background": "white",
        **spoken,
    }
    return world.Scene("image", chosen, {"tilt": "upright", "texture": "smooth"}, seed=5)


def _audio_scene(**spoken: str) -> world.Scene:
    chosen = {
        "pitch": "moderate",
        "timbre": "flute",
        "count": "two",
        "contour": "steady",
        "length": "long",
        **spoken,
    }
    return world.Scene("audio", chosen, {"loudness": "normal", "reverberation": "dry"}, seed=5)


@pytest.mark.parametrize("position", world.SPOKEN["image"][3].values)
def test_the_shape_stands_where_the_scene_says(position: str) -> None:
    pixels = _pixels(_image_scene(position=position, colour="red"))
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 120)
    y, x = (c.mean() for c in np.nonzero(red))
    row = ("top", "middle", "bottom")[int(y // 28)]
    column = ("left", "centre", "right")[int(x // 28)]
    assert f"{row}-{column}" == position


def test_sizes_are_ordered() -> None:
    areas = [
        ((_pixels(_image_scene(size=s))[..., 1] < 120).sum()) for s in ("small", "medium", "large")
    ]
    assert areas[0] * 1.5 < areas[1]
    assert areas[1] * 1.5 < areas[2]


@pytest.mark.parametrize("control", ["tilt", "texture"])
def test_an_unspoken_image_attribute_changes_the_pixels(control: str) -> None:
    scene = _image_scene()
    values = next(a.values for a in world.UNSPOKEN["image"] if a.name == control)
    seen = {
        _pixels(replace(scene, unspoken={**scene.unspoken, control: v})).tobytes() for v in values
    }
    assert len(seen) == len(values)


def test_pitches_are_ordered_in_the_spectrum() -> None:
    peaks = []
    for pitch in world.SPOKEN["audio"][0].values:
        sound = render.waveform(_audio_scene(pitch=pitch)).samples
        peaks.append(np.argmax(np.abs(np.fft.rfft(sound))))
    assert peaks == sorted(set(peaks))


@pytest.mark.parametrize(("count", "notes"), [("one", 1), ("two", 2), ("three", 3), ("four", 4)])
def test_notes_can_be_counted(count: str, notes: int) -> None:
    sound = np.abs(render.waveform(_audio_scene(count=count, length="short")).samples)
    envelope = np.convolve(sound, np.ones(800) / 800, mode="same") > 0.02
    assert (np.diff(envelope.astype(int)) == 1).sum() == notes


def test_loudness_is_ordered_and_reverberation_lingers() -> None:
    scene = _audio_scene(count="one", length="short")
    loud = [
        np.abs(
            render.waveform(replace(scene, unspoken={**scene.unspoken, "loudness": v})).samples
        ).max()
        for v in ("soft", "normal", "loud")
    ]
    assert loud[0] < loud[1] < loud[2]
    tails = [
        np.square(
            render.waveform(
                replace(scene, unspoken={**scene.unspoken, "reverberation": v})
            ).samples[3200:6000]
        ).sum()
        for v in ("dry", "hall")
    ]
    assert tails[1] > 5 * tails[0]


def test_every_waveform_is_finite_and_in_range() -> None:
    for scene in sandbox.scenes("test", "audio", 40):
        sound = render.waveform(scene)
        assert (sound.rate, len(sound.samples)) == (render.RATE, int(render.RATE * render.SECONDS))
        assert np.abs(sound.samples).max() <= 1  # also false for a NaN
