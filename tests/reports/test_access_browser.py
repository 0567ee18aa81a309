"""Keyboard, screen reader and paper: what is said, where focus is seen, what a print shows.

State is read from the document, not from pixels.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.reports.test_map_browser import alone, drag, panel, seen, where
from tests.reports.visiting import Visit, needs_browser

pytestmark = needs_browser

LIVE = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], output"
HEAR = """() => {
    window.heard = [];
    const place = document.getElementById('said');
    const hear = () => { if (place.textContent) heard.push(place.textContent); };
    new MutationObserver(hear).observe(place, { childList: true, characterData: true });
}"""
CONTRAST = """() => {
    const light = ([r, g, b]) => {
        const own = [r, g, b].map(c => c / 255)
            .map(c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * own[0] + 0.7152 * own[1] + 0.0722 * own[2];
    };
    const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const style = getComputedStyle(document.activeElement);
    const edge = light(channels(style.outlineColor));
    const ground = light(channels(getComputedStyle(document.body).backgroundColor));
    const ratio = (Math.max(edge, ground) + 0.05) / (Math.min(edge, ground) + 0.05);
    return [style.outlineStyle, parseFloat(style.outlineWidth), ratio];
}"""


def heard(own: Visit) -> Any:
    """What was said since the last time, once there is nothing more to say."""
    own.page.wait_for_timeout(600)
    return own.page.evaluate("heard.splice(0)")


def test_one_region_speaks_and_each_act_is_told_once(visit: Any) -> None:
    own = visit(reduced_motion="reduce")
    own.ready()
    ids = own.page.evaluate(f"[...document.querySelectorAll('{LIVE}')].map(e => e.id)")
    assert ids == ["said", "trouble"]
    own.page.evaluate(HEAR)
    own.page.locator("#heat-live td:nth-child(4) button").first.click()
    assert heard(own) == [
        f"The map is at {own.page.locator('#layer').get_attribute('aria-valuetext')}."
    ]
    own.page.locator("#layer").focus()
    own.page.keyboard.press("ArrowRight")
    assert heard(own) == []  # a slider tells its own value
    seen(own)
    x, y = where(own, 0, alone(own, 0))
    drag(own, [(x - 40, y - 40), (x + 40, y - 40), (x + 40, y + 40), (x - 40, y + 40)])
    (said,) = heard(own)
    faded = own.page.evaluate(f"[...{panel(1)}.frame().faded]")
    assert said.startswith(f"{sum(not f for f in faded)} samples selected: text ")
    own.page.locator("#clear-map").click()
    assert heard(own) == ["Selection cleared."]
    own.page.locator("#find").fill("blue")
    assert heard(own) == [own.text("#found")]
    own.page.locator("#point-rows th button").first.click()
    (said,) = heard(own)
    assert said.startswith("Kept ")


def test_a_site_without_a_map_says_why(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.locator("#layer").focus()
    own.page.keyboard.press("Home")
    told = own.page.locator("#layer").get_attribute("aria-valuetext")
    assert told.startswith("embed, no map: all states are equal")


def test_play_speaks_when_it_stops_and_not_at_every_step(visit: Any) -> None:
    own = visit(reduced_motion="reduce")
    own.ready()
    own.page.locator("#layer").evaluate(
        "s => { s.value = 5; s.dispatchEvent(new Event('input')); }"
    )
    own.page.evaluate(HEAR)
    own.page.locator("#play").click()
    own.until("document.getElementById('play').dataset.playing === 'false'")
    assert heard(own) == ["Stopped at final norm."]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_focus_is_seen_in_both_themes(visit: Any, scheme: str) -> None:
    own = visit(color_scheme=scheme)
    own.ready()
    for _ in range(40):
        own.page.keyboard.press("Tab")
        style, width, ratio = own.page.evaluate(CONTRAST)
        assert (style, width >= 2, ratio >= 3) == ("solid", True, True)


def test_only_what_scrolls_is_a_stop(visit: Any) -> None:
    own = visit()
    own.ready()
    own.page.wait_for_timeout(200)
    stops = own.page.evaluate(
        "[...document.querySelectorAll('.scroll[tabindex]')]"
        ".filter(e => e.tabIndex >= 0 && e.checkVisibility())"
        ".filter(e => e.scrollWidth <= e.clientWidth).length"
    )
    assert stops == 0


def test_a_print_opens_what_is_folded_and_folds_it_again(visit: Any) -> None:
    own = visit()
    own.ready()
    folded = "document.querySelectorAll('main details:not(.saves):not(.live):not([open])').length"
    before = own.page.evaluate(folded)
    assert before > 10
    own.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    own.page.emulate_media(media="print")
    assert own.page.evaluate(folded) == 0
    assert own.page.locator("#family-drift .static svg").first.is_visible()
    assert own.page.locator("#family-drift .made td").first.is_visible()
    assert not own.page.locator("details.saves").first.is_visible()
    own.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert own.page.evaluate(folded) == before


def test_a_print_without_scripts_shows_what_is_folded(visit: Any) -> None:
    own = visit(java_script_enabled=False)
    assert not own.page.locator("#verdict .sentences li").first.is_visible()
    own.page.emulate_media(media="print")
    for place in ("#verdict .sentences li", "#family-drift .static svg", "#probes tbody td"):
        assert own.page.locator(place).last.is_visible()


def test_no_table_is_wider_than_a_printed_page(visit: Any) -> None:
    """A browser shrinks the whole print to its widest table."""
    own = visit(viewport={"width": 718, "height": 1000}, java_script_enabled=False)
    own.page.emulate_media(media="print")
    assert own.page.evaluate("document.documentElement.scrollWidth") == 718


def test_without_scripts_every_curve_is_drawn(visit: Any) -> None:
    own = visit(java_script_enabled=False)
    own.page.locator("#family-drift > summary").click()
    drawings = own.page.locator("#family-drift .static svg")
    assert drawings.count() >= 3
    assert drawings.last.is_visible()
    assert own.page.locator("#family-drift .unmade").is_visible()
    assert not own.page.locator("#family-drift .made").first.is_visible()


def test_a_finger_scrolls_past_a_figure(visit: Any) -> None:
    own = visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    own.ready()
    own.page.locator("#transfer-0").scroll_into_view_if_needed()
    own.page.wait_for_selector("#transfer-0.drawn")
    assert own.page.evaluate("document.querySelector('#transfer-0 .draw').layout.dragmode") is False
