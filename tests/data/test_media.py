"""Media to pixels and samples: one rule for each kind of file, a reason where there is none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from geomkit.data.media import image_and_note, load_audio, load_image
from geomkit.errors import SampleError
from geomkit.plans import content_sha
from geomkit.types import Stored, Waveform


def encoded(image: Image.Image, kind: str = "PNG", **given: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **given)
    return file.getvalue()


def stored(content: bytes) -> Stored:
    return Stored("cell", lambda: content)


def test_an_image_is_turned_upright_and_made_rgb(tmp_path: Path) -> None:
    picture = Image.new("L", (8, 4), 0)
    picture.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 270 degrees
    picture.save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png")
    assert (loaded.mode, loaded.size) == ("RGB", (4, 8))
    assert loaded.getpixel((3, 0)) == (255, 255, 255)


def test_images_that_cannot_be_used_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SampleError, match=r"no such file as absent\.png"):
        load_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SampleError, match="image cannot be decoded"):
        load_image(tmp_path / "text.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(
        tmp_path / "whole.png"
    )
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    with pytest.raises(SampleError, match="image cannot be decoded"):
        load_image(tmp_path / "half.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SampleError, match="decompression bomb"):
        load_image(tmp_path / "whole.png")


def test_a_sound_is_mixed_to_mono_and_resampled(tmp_path: Path) -> None:
    time = np.arange(32_000) / 32_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, np.zeros_like(tone)], 1), 32_000)
    sound = load_audio(tmp_path / "a.wav", 16_000)
    assert (sound.dtype, sound.shape) == (np.float32, (16_000,))
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(sound[200:-200], expected[200:-200], atol=2e-3)


def test_sounds_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="audio cannot be decoded"):
        load_audio(tmp_path / "absent.wav", 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(SampleError, match="audio cannot be decoded"):
        load_audio(tmp_path / "text.wav", 16_000)
    with pytest.raises(SampleError, match=r"opening 'text\.wav'"):  # and not where it lies
        load_audio(tmp_path / "text.wav", 16_000)
    with pytest.raises(SampleError, match="no samples"):
        load_audio(Waveform(np.zeros(0, np.float32), 16_000), 16_000)
    with pytest.raises(SampleError, match="not finite"):
        load_audio(Waveform(np.array([0, np.nan], np.float32), 16_000), 16_000)


def test_stored_bytes_are_the_picture_that_the_file_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels))
    (tmp_path / "a.png").write_bytes(content)
    again = load_image(stored(content))
    np.testing.assert_array_equal(again, load_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(again, pixels)
    assert content_sha(stored(content)) == content_sha(tmp_path / "a.png")
    tone = np.sin(np.arange(4000) / 9).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    sound = stored((tmp_path / "a.wav").read_bytes())
    np.testing.assert_array_equal(load_audio(sound, 8_000), load_audio(tmp_path / "a.wav", 8_000))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 128, 129, 257, 32_768, 65_535]], dtype=np.uint16)
    shown = np.asarray(load_image(stored(encoded(Image.fromarray(grey)))))
    expected = np.round(grey / 65_535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(shown, np.stack([expected] * 3, axis=-1))


def test_alpha_lies_over_white() -> None:
    colours = np.array([[[9, 8, 7, 255], [9, 8, 7, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    shown = np.asarray(load_image(stored(encoded(Image.fromarray(colours)))))
    np.testing.assert_array_equal(shown[0], [[9, 8, 7], [255, 255, 255], [127, 127, 127]])
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    shown = np.asarray(load_image(stored(encoded(palette, transparency=0))))
    np.testing.assert_array_equal(shown[0], [[255, 255, 255], [40, 50, 60]])


def test_every_other_mode_has_its_colours() -> None:
    inks = Image.new("CMYK", (1, 1), (0, 255, 255, 0))  # magenta and yellow: red
    np.testing.assert_array_equal(load_image(stored(encoded(inks, "TIFF"))), [[[255, 0, 0]]])
    bits = Image.new("1", (1, 1), 1)
    np.testing.assert_array_equal(load_image(stored(encoded(bits))), [[[255, 255, 255]]])
    assert load_image(Image.new("RGB", (1, 1), "red")).size == (1, 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_shown_with_a_note(kind: str) -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    moving = encoded(red, kind, save_all=True, append_images=[blue])
    image, note = image_and_note(stored(moving))
    assert note == "first of 2 frames shown"
    red_, _, blue_ = image.getpixel((0, 0))  # type: ignore[misc]  # an RGB pixel is a triple
    assert red_ > 200 > blue_
    assert image_and_note(stored(encoded(red, kind)))[1] == ""


def test_what_does_not_say_where_white_is_is_refused() -> None:
    for mode, match in (("F", "float pixels"), ("I", "32-bit pixels")):
        with pytest.raises(SampleError, match=match):
            load_image(stored(encoded(Image.new(mode, (2, 2)), "TIFF")))


def test_the_cap_on_pixels_is_an_option() -> None:
    content = stored(encoded(Image.new("L", (100, 100))))
    assert load_image(content, 10_000).size == (100, 100)
    with pytest.raises(SampleError, match=r"100 x 100 is more than 9,999 pixels.*--max-pixels"):
        load_image(content, 9_999)
    with pytest.raises(SampleError, match="more than 9,999 pixels"):
        load_image(Image.new("L", (100, 100)), 9_999)
