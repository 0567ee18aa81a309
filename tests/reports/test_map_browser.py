"""The map in a real browser: pointer, keyboard, loops, layers, sound, and without WebGL.

State is read from the document and the panels, not from pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geomkit.pictures.records import Album
from reports import mapping
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build
from tests.reports.test_map import data
from tests.reports.visiting import Visit, another, needs_browser, visiting

pytestmark = needs_browser


@pytest.fixture(scope="module")
def album() -> Album:
    return pictures.album(fixture.rows())


def panel(side: int) -> str:
    """The script's own panel."""
    return f"document.getElementById('map-{side}').scatter"


def frame(own: Visit, side: int, name: str) -> Any:
    """A list of the frame that a panel shows, one entry a row."""
    return own.page.evaluate(f"[...{panel(side)}.frame().{name}]")


def site(own: Visit, side: int = 0) -> str:
    """The site that a panel shows."""
    return str(own.page.locator(f"#map-{side} .scatter").get_attribute("data-site"))


def seen(own: Visit) -> None:
    """Scroll the panels into view."""
    own.ready()
    own.page.evaluate(
        "document.getElementById('map-0').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    own.until(f"{panel(0)}.frame() !== null && {panel(0)}.where(0)[0] > 0")


def where(own: Visit, side: int, row: int) -> tuple[float, float]:
    """Where a row's mark is on the screen."""
    x, y = own.page.evaluate(f"{panel(side)}.where({row})")
    return x, y


def alone(own: Visit, side: int, kind: int = 0) -> int:
    """A row of that modality whose mark no other covers."""
    return int(
        own.page.evaluate(
            f"""(() => {{
                const {{ xs, ys, kinds }} = {panel(side)}.frame();
                let best = 0, most = -1;
                for (let i = 0; i < xs.length; i += 1) {{
                    if (kinds[i] !== {kind}) continue;
                    let near = Infinity;
                    for (let j = 0; j < xs.length; j += 1) {{
                        const far = Math.hypot(xs[i] - xs[j], ys[i] - ys[j]);
                        if (j !== i) near = Math.min(near, far);
                    }}
                    if (near > most) [best, most] = [i, near];
                }}
                return best;
            }})()"""
        )
    )


def said(own: Visit) -> str:
    """What a screen reader is told, once it is told."""
    own.page.wait_for_timeout(120)
    return own.text("#said")


def drag(own: Visit, path: list[tuple[float, float]]) -> None:
    """Press, follow the path, let go."""
    own.page.mouse.move(*path[0])
    own.page.mouse.down()
    for x, y in path[1:]:
        own.page.mouse.move(x, y, steps=4)
    own.page.mouse.up()


# ------------------------------------------------------------------------------------ layers


def test_arrow_keys_change_the_layer(visit: Any) -> None:
    own = visit()
    seen(own)
    before = frame(own, 0, "xs")
    assert own.text("#layer-name") == "final norm"
    own.page.locator("#layer").focus()
    own.page.keyboard.press("ArrowLeft")
    assert own.text("#layer-name") == "block 5"
    assert site(own) == site(own, 1) == "block_05"
    assert frame(own, 0, "xs") != before
    assert "block 5, axes carry" in own.page.locator("#layer").get_attribute("aria-valuetext")
    own.page.keyboard.press("Home")
    assert site(own) == ""
    assert "all states are equal" in own.text("#layer-note")


def test_play_goes_through_the_layers_and_stops(visit: Any) -> None:
    own = visit(reduced_motion="reduce")
    seen(own)
    own.page.evaluate(
        "window.passed = [];"
        "document.addEventListener('geomkit:site', e => passed.push(e.detail.site))"
    )
    own.page.locator("#play").click()
    assert own.page.locator("#play").get_attribute("aria-label") == "Pause"
    own.until("document.getElementById('play').dataset.playing === 'false'")
    assert own.page.evaluate("passed") == [1, 2, 3, 4, 5, 6, 7]
    assert own.text("#layer-name") == "final norm"


def test_marks_glide_while_it_plays(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.locator("#layer").evaluate(
        "s => { s.value = 5; s.dispatchEvent(new Event('input')); }"
    )
    start = frame(own, 1, "xs")[0]
    own.page.locator("#play").click()
    own.until(f"{panel(1)}.frame().xs[0] !== {start}")
    own.page.locator("#play").click()
    assert own.page.locator("#play").get_attribute("data-playing") == "false"


def test_another_part_of_the_page_may_move_the_layer(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.evaluate(
        "() => { const s = document.getElementById('layer');"
        " s.value = 3; s.dispatchEvent(new Event('input')); }"
    )
    assert site(own) == "block_02"


# ----------------------------------------------------------------------------------- samples


def test_pointing_shows_and_clicking_keeps(visit: Any) -> None:
    own = visit()
    seen(own)
    row = alone(own, 1, kind=1)
    own.page.mouse.move(*where(own, 1, row))
    own.until("!document.getElementById('card-body').hidden")
    assert own.page.locator("#near").is_hidden()
    own.page.mouse.move(5, 5)
    own.until("document.getElementById('card-body').hidden")
    own.page.mouse.click(*where(own, 1, row))
    assert "on a plain ground" in own.text("#card-body .caption")
    assert own.page.locator("#card-body .thumb").is_visible()
    own.until("document.getElementById('said').textContent.startsWith('Kept image: ')")
    own.page.mouse.move(5, 5)
    assert own.page.locator("#card-body .thumb").is_visible()
    kept = own.page.evaluate(f"{panel(0)}.frame().marked.kept")
    assert kept == row


def test_neighbours_are_those_of_the_album(visit: Any, album: Album) -> None:
    own = visit()
    seen(own)
    row = alone(own, 1, kind=1)
    own.page.mouse.click(*where(own, 1, row))
    near, rows = album.closeness[-1], fixture.rows()
    columns = own.page.locator("#near section").first.locator(".twocol > div").all()
    for side, column in enumerate(columns):
        expected = [rows[i].text for i in near.own[side, row, :5]]
        assert column.locator(".words").all_text_contents() == expected
    both = set(near.own[0, row, :5]) & set(near.own[1, row, :5])
    assert own.page.locator("#near section").first.locator(".tag").count() == 2 * len(both)
    ranks = near.rank[:, row] + 1
    told = own.text("#card-body .partner")
    assert told.startswith("Its text: cosine ")
    assert f"{ranks[0]}" in told.split("\u2192")[0]
    assert f"{ranks[1]}" in told.split("\u2192")[1]
    assert "among the 240 text, 120 image, 120 audio shown" in own.text("#near")
    own.page.locator("#near button.near").first.click()
    assert own.page.evaluate(f"{panel(0)}.frame().marked.kept") == near.own[0, row, 0]


def test_keyboard_walks_keeps_and_lets_go(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.locator("#map-1 .scatter").focus()
    own.page.keyboard.press("ArrowRight")
    first = said(own)
    own.page.keyboard.press("ArrowRight")
    second = said(own)
    assert first.split(":")[0] in ("text", "image", "audio")
    assert second != first
    own.page.keyboard.press("Enter")
    assert said(own).startswith(f"Kept {second}")
    kept = own.page.evaluate(f"{panel(1)}.frame().marked.kept")
    own.page.keyboard.press("ArrowLeft")
    own.page.keyboard.press("ArrowUp")
    own.page.keyboard.press("Enter")
    assert own.page.evaluate(f"{panel(1)}.frame().marked.kept") != kept
    own.page.keyboard.press("Escape")
    assert own.page.evaluate(f"{panel(1)}.frame().marked.kept") is None


def test_every_sample_can_be_reached_by_arrow_keys(visit: Any) -> None:
    own = visit()
    seen(own)
    xs, ys = frame(own, 1, "xs"), frame(own, 1, "ys")
    own.page.locator("#map-1 .scatter").focus()
    edge = []
    for key, of, worst in (("ArrowLeft", xs, min), ("ArrowUp", ys, max)):
        for _ in range(120):
            own.page.keyboard.press(key)
        own.page.keyboard.press("Enter")
        row = own.page.evaluate(f"{panel(1)}.frame().marked.kept")
        edge.append(abs(of[row] - worst(of)))
    assert max(edge) < 0.5


def heard(built: Built) -> str:
    """The id of a sample whose sound is in the page."""
    index = int(next(iter(data(built)["media"]["sounds"])))
    return fixture.rows()[index].id


def test_the_table_reaches_a_sound_by_keyboard(visit: Any, built: Built) -> None:
    own = visit()
    own.ready()
    own.page.locator("#points summary").focus()
    own.page.keyboard.press("Enter")
    own.page.locator("#find").fill(heard(built))
    own.page.locator("#point-rows th button").nth(1).focus()
    own.page.keyboard.press("Enter")
    own.page.wait_for_selector("#card-body audio")
    own.until("document.querySelector('#card-body audio').readyState > 0")
    assert own.page.evaluate(
        "document.querySelector('#card-body audio').duration"
    ) == pytest.approx(1.28, abs=0.01)


def test_a_play_button_plays(visit: Any, built: Built) -> None:
    own = visit()
    own.ready()
    own.page.locator("#points summary").click()
    own.page.locator("#find").fill(heard(built))
    button = own.page.locator("#point-rows button.play").first
    assert button.get_attribute("aria-label").startswith("Play: a ")
    button.click()
    own.until("playing.src.startsWith('blob:') && playing.readyState > 0 && !playing.error")


# ------------------------------------------------------------------------------------- loops


@pytest.mark.parametrize("tool", ["lasso", "box"])
def test_a_loop_selects_the_same_samples_in_both_panels(visit: Any, tool: str) -> None:
    own = visit()
    seen(own)
    own.page.locator(f"input[name=tool][value={tool}]").check()
    seen(own)
    x, y = where(own, 0, alone(own, 0))
    corners = [(x - 40, y - 40), (x + 40, y - 40), (x + 40, y + 40), (x - 40, y + 40)]
    drag(own, corners if tool == "lasso" else [corners[0], corners[2]])
    own.until("document.getElementById('said').textContent.includes('samples selected')")
    first, second = frame(own, 0, "faded"), frame(own, 1, "faded")
    assert first == second
    chosen = [i for i, faded in enumerate(first) if not faded]
    expected = [
        i
        for i in range(len(first))
        if max(abs(a - b) for a, b in zip(where(own, 0, i), (x, y), strict=True)) < 40
    ]
    assert 0 < len(chosen) < len(fixture.rows())
    assert set(chosen) == set(expected)
    assert own.text("#found").startswith(f"{len(chosen)} samples")
    own.page.locator("#clear").click()
    assert said(own) == "Selection cleared."
    assert not any(frame(own, 1, "faded"))


def test_shift_adds_to_the_selection(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.locator("input[name=tool][value=box]").check()
    seen(own)
    x, y = where(own, 0, alone(own, 0))
    drag(own, [(x - 20, y - 20), (x + 20, y + 20)])
    own.until("document.getElementById('said').textContent.includes('selected')")
    few = sum(not f for f in frame(own, 0, "faded"))
    x, y = where(own, 0, alone(own, 0, kind=2))
    own.page.keyboard.down("Shift")
    drag(own, [(x - 20, y - 20), (x + 20, y + 20)])
    own.page.keyboard.up("Shift")
    own.until(f"{panel(0)}.frame().faded.filter(f => !f).length > {few}")


def test_moving_and_zooming_are_shared_by_the_panels(visit: Any) -> None:
    own = visit()
    seen(own)
    row = alone(own, 0)
    before = [where(own, side, row) for side in (0, 1)]
    own.page.locator("#closer").click()
    own.page.locator("input[name=tool][value=move]").check()
    seen(own)
    start = [where(own, side, row) for side in (0, 1)]
    box = own.page.locator("#map-0 .scatter").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag(own, [(x, y), (x + 30, y + 10)])
    for side, (left, top) in enumerate(start):
        assert where(own, side, row) == pytest.approx((left + 30, top + 10), abs=1)
    assert not any(frame(own, 0, "faded"))
    own.page.locator("#whole").click()
    own.page.evaluate(
        "document.getElementById('map-0').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    after = [where(own, side, row) for side in (0, 1)]
    for a, b in zip(before, after, strict=True):
        assert a == pytest.approx(b, abs=1)


# ----------------------------------------------------------------------------------- colours


def test_toggles_hide_a_modality_everywhere(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.locator("#kinds input[value='text']").uncheck()
    hidden, kinds = frame(own, 1, "hidden"), frame(own, 1, "kinds")
    assert [bool(h) for h in hidden] == [kind == 0 for kind in kinds]
    own.page.locator("#points summary").click()
    assert own.text("#found").startswith("240 samples")


def test_a_label_that_names_a_colour_wears_it(visit: Any) -> None:
    own = visit(color_scheme="light")
    seen(own)
    own.page.locator("#colour").select_option("labels:colour")
    names = own.page.locator("#map-legend button").all_text_contents()
    assert sorted(names) == ["blue", "green", "red", "yellow"]
    inks = frame(own, 1, "inks")
    rows = fixture.rows()
    worn = {
        rows[i].labels["colour"]: ink for i, ink in enumerate(inks) if "colour" in rows[i].labels
    }
    red, green, blue = (
        [int(worn[name][at : at + 2], 16) for at in (1, 3, 5)] for name in ("red", "green", "blue")
    )
    assert red[0] > 2 * max(red[1:])
    assert green[1] > 1.5 * max(green[0], green[2])
    assert blue[2] > 2 * max(blue[:2])


def test_labels_that_are_not_colours_avoid_those_that_are(visit: Any) -> None:
    own = visit()
    own.ready()
    worn = own.page.evaluate(
        "[...labelPalette(['red', 'striped', 'blue', 'dotted'])].map(([n, c]) => [n, c.light])"
    )
    found = dict(worn)
    assert found["striped"] == "#009e73"  # not the hues that look red or blue
    many = own.page.evaluate(
        "[...labelPalette(Array.from({length: 12}, (_, i) => 'v' + i)).values()]"
        ".filter(c => c === OTHER).length"
    )
    assert many == 5


def test_the_legend_singles_out_a_value(visit: Any) -> None:
    own = visit()
    seen(own)
    own.page.locator("#colour").select_option("labels:colour")
    own.page.locator("#map-legend button", has_text="red").click()
    rows, faded = fixture.rows(), frame(own, 0, "faded")
    assert [not f for f in faded] == [row.labels.get("colour") == "red" for row in rows]
    assert own.page.evaluate("document.activeElement.textContent") == "red"
    own.page.locator("#map-legend button", has_text="red").click()
    assert not any(frame(own, 0, "faded"))


def test_similarity_has_one_scale_for_both_panels(visit: Any, album: Album) -> None:
    own = visit()
    seen(own)
    own.page.locator("#colour").select_option("cosine")
    low, high = album.cosine[-1].min(), album.cosine[-1].max()
    told = own.text("#map-legend")
    assert f"{abs(low):.2f}" in told
    assert f"{high:.2f}" in told
    inks = [frame(own, side, "inks") for side in (0, 1)]
    brightest = [len({*side}) for side in inks]
    assert min(brightest) > 5


def test_theme_recolours_the_marks(visit: Any) -> None:
    own = visit(color_scheme="light")
    seen(own)
    light = frame(own, 0, "inks")[0]
    own.page.locator("#theme").click()
    own.until(f"{panel(0)}.frame().inks[0] !== '{light}'")
    assert light == "rgb(0, 114, 178)"


# ------------------------------------------------------------------------- more than default


def test_umap_is_drawn_where_it_was_made(visit: Any, tmp_path: Path, album: Album) -> None:
    built = build(tmp_path, album=pictures.with_layouts(album))
    own = visit(built.path)
    seen(own)
    before = frame(own, 1, "xs")
    own.page.locator("#method").select_option("umap")
    assert site(own) == "final_norm"
    assert frame(own, 1, "xs") != before
    own.page.locator("#layer").focus()
    own.page.keyboard.press("ArrowLeft")
    assert "UMAP was made for block 3, final norm only" in own.text("#layer-note")
    own.page.locator("#method").select_option("pca")
    assert site(own) == "block_05"


def test_of_three_checkpoints_any_two_are_shown(visit: Any, tmp_path: Path) -> None:
    three = pictures.album(fixture.rows(), ("base", "half", "lco"))
    own = visit(build(tmp_path, album=three).path)
    seen(own)
    last = frame(own, 1, "xs")
    own.page.locator("#side-0").select_option(label="half")
    own.page.locator("#side-1").select_option(label="base")
    site = three.projection.sites[-1].coordinates
    assert site is not None
    for side, checkpoint in ((0, 1), (1, 0)):
        expected = mapping.framed(site)[checkpoint, :, 1]
        assert frame(own, side, "ys") == pytest.approx(expected, abs=1e-3)
    assert own.page.locator("#map-0 .scatter").get_attribute("data-checkpoint") == "half"
    assert own.page.locator("#map-1 .scatter").get_attribute("data-checkpoint") == "base"
    assert frame(own, 1, "xs") != last
    own.page.locator("#side-0").select_option(label="lco")
    assert frame(own, 0, "xs") == last


@pytest.mark.parametrize(("flags", "painter"), [((), "webgl"), (("--disable-3d-apis",), "canvas")])
def test_webgl_when_asked_and_canvas_without_it(
    browser: Any, tmp_path: Path, album: Album, flags: tuple[str, ...], painter: str
) -> None:
    built = build(tmp_path, album=album, webgl=True)
    with (
        another(browser, "--enable-unsafe-swiftshader", *flags) as other,
        visiting(other, built.path) as visit,
    ):
        own = visit()
        seen(own)
        for side in (0, 1):
            got = own.page.locator(f"#map-{side} .scatter").get_attribute("data-painter")
            assert got == painter
        own.page.locator("#layer").focus()
        own.page.keyboard.press("ArrowLeft")
        assert site(own) == "block_05"
        if painter == "webgl":
            own.page.evaluate(
                "document.querySelector('#map-0 canvas').getContext('webgl')"
                ".getExtension('WEBGL_lose_context').loseContext()"
            )
            own.until("document.querySelector('#map-0 .scatter').dataset.painter === 'canvas'")


def test_canvas_is_the_default(visit: Any) -> None:
    own = visit()
    seen(own)
    assert own.page.locator("#map-0 .scatter").get_attribute("data-painter") == "canvas"


@pytest.mark.parametrize("samples", [1, 3])
def test_hardly_any_samples_can_be_looked_at(visit: Any, tmp_path: Path, samples: int) -> None:
    rows = fixture.rows(samples)
    own = visit(build(tmp_path, rows=rows, album=pictures.album(rows)).path)
    seen(own)
    own.page.locator("#map-0 .scatter").focus()
    own.page.keyboard.press("ArrowRight")
    own.page.keyboard.press("Enter")
    assert own.page.locator("#card-body").is_visible()


def test_the_map_is_saved_as_a_drawing(visit: Any) -> None:
    own = visit(accept_downloads=True)
    seen(own)
    with own.page.expect_download() as download:
        own.page.locator("#save-map").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text.count("<g ") == 2
    marks = text.count("<circle") + text.count("<path")
    assert marks == 2 * len(fixture.rows())


def test_on_a_narrow_touch_screen_the_page_still_scrolls(visit: Any) -> None:
    own = visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    seen(own)
    assert own.page.locator("input[name=tool][value=point]").is_checked()
    assert "pan-y" in own.page.locator("#map-0 .scatter").evaluate(
        "e => getComputedStyle(e).touchAction"
    )
    own.page.touchscreen.tap(*where(own, 0, alone(own, 0)))
    own.until("!document.getElementById('card-body').hidden")
    assert own.page.evaluate("document.documentElement.scrollWidth") == 390
