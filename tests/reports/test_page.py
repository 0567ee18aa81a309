"""The page without a browser: offline, safe, accessible in structure, equal to its numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects
import pytest

from geomkit.errors import GeomkitError, UsageError
from geomkit.types import Analysis, Verdict
from reports import payload, write_report
from reports.columns import unpacked_columns
from tests.reports import fixture, pictures
from tests.reports.conftest import Built, build

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"'><svg onload=window.hacked=1>",
    "line\u2028separator\u2029paragraph",
    "\u202eright to left\u202c \u05d0\u05d1",
    "{{ 7 * 7 }} {% raw %} @ink",
    "x" * 10_000,
    "=HYPERLINK(1)",
)


def unpacked(built: Built, name: str = "data") -> bytes:
    """A data script, unpacked as the page does it."""
    script = built.tree.find(f".//script[@id='{name}']")
    assert script is not None
    return payload.unpacked(script.text or "")


# --------------------------------------------------------------------------------- offline


def test_no_attribute_leads_to_the_network(built: Built) -> None:
    for element in built.tree.iter():
        for name, value in element.attrib.items():
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                assert value.startswith("#"), (element.tag, name, value)
    assert "url(" not in (built.tree.findtext(".//style") or "")
    assert "@import" not in (built.tree.findtext(".//style") or "")


def test_policy_names_the_one_script_that_runs(built: Built) -> None:
    head = built.tree.find(".//head")
    assert head is not None
    policy = head.find("meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    content = policy.get("content") or ""
    scripts = [s for s in built.tree.iter("script") if not s.get("type")]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256((scripts[0].text or "").encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' blob:;" in content
    assert content.startswith("default-src 'none'")
    assert "connect-src 'none'" in content
    assert "eval" not in content
    # The policy rules only what follows it.
    assert [e.tag for e in head][:2] == ["meta", "meta"]


def test_script_never_reads_markup_from_data(built: Built) -> None:
    boot = next(s.text or "" for s in built.tree.iter("script") if not s.get("type"))
    script = boot + unpacked(built, "code").decode()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
    ):
        assert word not in script
    assert "showSendToCloud: false" in script
    assert 'plotlyServerURL: ""' in script


# ------------------------------------------------------------------------------- structure


def test_structure_for_readers_and_screen_readers(built: Built) -> None:
    tree = built.tree
    assert tree.get("lang") == "en"
    assert len(tree.findall(".//h1")) == 1
    for landmark in ("header", "nav", "main", "footer"):
        assert len(tree.findall(f".//{landmark}")) == 1
    ids = Counter(e.get("id") for e in tree.iter() if e.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    for element in tree.iter():
        for name in ("aria-labelledby", "for"):
            assert element.get(name) is None or element.get(name) in ids
        href = element.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids
    levels = [int(e.tag[1]) for e in tree.iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_table_has_caption_and_scopes(built: Built) -> None:
    tables = list(built.tree.iter("table"))
    assert len(tables) > 15
    for table in tables:
        assert table.find("caption") is not None
        for th in table.iter("th"):
            assert th.get("scope") in {"col", "row", "rowgroup"}


def test_every_figure_has_a_still_drawing_with_a_name(built: Built) -> None:
    data = json.loads(unpacked(built))
    places = built.tree.xpath(".//*[@data-figure]")
    assert {p.get("data-figure") for p in places} == set(data["figures"])
    curves = built.tree.xpath(".//*[@data-curve]")
    panels = [panel for group in data["curves"]["groups"] for panel in group["panels"]]
    assert [p.get("id") for p in curves] == [panel["key"] for panel in panels]
    assert built.tree.xpath("//details[contains(@class, 'family')]//*[@data-curve]")
    for place in (*places, *curves, *built.tree.xpath("//*[@data-pair or @data-spectrum]")):
        drawing = next(iter(place.xpath(".//*[local-name() = 'svg']")), None)
        assert drawing is not None
        assert drawing.get("role") == "img"
        assert drawing.get("aria-label")


def test_every_shape_of_a_drawing_is_closed_and_every_reference_is_there(built: Built) -> None:
    ids = {e.get("id") for e in built.tree.iter()}
    for drawing in built.tree.xpath("//*[local-name() = 'svg']"):
        for shape in drawing.xpath(".//*[local-name() = 'path' or local-name() = 'use']"):
            assert len(shape) == 0, shape.attrib
            assert shape.get("d") is None or re.fullmatch(r"M[-\d .a-zA-Z]+", shape.get("d"))
            assert (shape.get("href") or "#").removeprefix("#") in {"", *ids}
    cells = built.tree.xpath("//*[@id='heat']//*[local-name() = 'path'][@style]")
    assert len(cells) > 4
    assert all(re.fullmatch(r"--d:\d+%", cell.get("style")) for cell in cells)


def test_figures_are_valid_plotly(built: Built) -> None:
    def coloured(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: coloured(v) for k, v in value.items()}
        if isinstance(value, list):
            return [coloured(v) for v in value]
        known = isinstance(value, str) and re.fullmatch(r"@[a-z]+(/[\d.]+)?", value)
        return "#123456" if known else value

    for name, figure in json.loads(unpacked(built))["figures"].items():
        drawn = plotly.graph_objects.Figure(coloured(figure))
        assert len(drawn.data) > 0, name


def test_verdict_status_is_a_word_and_a_symbol(built: Built) -> None:
    table = built.tree.find(".//table[@class='verdicts']")
    assert table is not None
    chips = ["".join(c.itertext()) for c in table.xpath(".//*[contains(@class, 'chip')]")]
    assert len(chips) == len(built.numbers["analysis"]["verdicts"])
    assert set(chips) == {"✓ PASS", "✕ FAIL", "! WARN", "\u2013 NOT RUN", "i info"}
    assert fixture.analysis().headline in built.words()


def test_degenerate_site_is_named_with_its_reason(built: Built) -> None:
    assert f"embed has no values: {fixture.EMBED_NOTE}" in built.words()


# --------------------------------------------------------------------------------- numbers


def leaves(value: Any) -> Iterator[float]:
    """Every number in a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def shown_number(text: str) -> float:
    """The number that a text on the page states."""
    mantissa, _, exponent = text.replace("\u2212", "-").replace(",", "").partition("\u00d710")
    digits = str.maketrans(
        "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789"
    )
    return float(f"{mantissa}e{exponent.translate(digits) or 0}")


def test_every_number_on_the_page_is_in_the_json(built: Built) -> None:
    known = {float(v) for v in leaves(built.numbers)}
    cells = list(built.tree.iter("data"))
    assert len(cells) > 500
    for cell in cells:
        value = float(cell.get("value") or "nan")
        text = "".join(cell.itertext()).strip()
        assert value in known, text
        _, _, decimals = text.partition("\u00d7")[0].partition(".")
        exponent = 10.0 ** np.floor(np.log10(abs(value))) if "\u00d7" in text else 1.0
        assert abs(shown_number(text) - value) <= 0.5001 * exponent * 10.0 ** -len(decimals), text


def test_table_digits_are_all_marked_as_numbers(built: Built) -> None:
    for table in built.tree.xpath(".//section[@id='verdict']//table"):
        for cell in table.xpath(".//td[not(contains(@class, 'wordy'))]"):
            marked = "".join("".join(d.itertext()) for d in cell.iter("data"))
            assert Counter(filter(str.isdigit, "".join(cell.itertext()))) == Counter(
                filter(str.isdigit, marked)
            )


def test_json_holds_the_analysis_unchanged(built: Built) -> None:
    analysis = fixture.complete()
    own = built.numbers["analysis"]
    assert own["headline"] == analysis.headline
    for told, exact in zip(own["measurements"], analysis.measurements, strict=True):
        assert told["value"] == (exact.value and pytest.approx(exact.value, rel=5e-6))
    assert len(own["probe_differences"]) == len(analysis.probe_differences)


def test_nan_is_refused(tmp_path: Path) -> None:
    analysis = fixture.analysis()
    bad = replace(analysis.measurements[5], value=float("nan"))
    with pytest.raises(GeomkitError, match="NaN or infinity: run analyze again"):
        build(tmp_path, replace(analysis, measurements=(bad,)))
    assert list(tmp_path.iterdir()) == []


def test_the_page_carries_its_json(built: Built) -> None:
    data = json.loads(unpacked(built))
    for outer, name in data["packed"]:
        data["report"][outer][name] = unpacked_columns(data["report"][outer][name])
    assert data["report"] == built.numbers


def test_numbers_keep_as_many_digits_as_states_can_tell(tmp_path: Path) -> None:
    analysis = fixture.analysis()
    long = replace(analysis.measurements[4], value=0.12345678901234567)
    own = build(tmp_path, replace(analysis, measurements=(long,))).numbers["analysis"]
    assert own["measurements"][0]["value"] == 0.123457


# --------------------------------------------------------------------------------- hostile


def hostile_analysis(text: str) -> Analysis:
    """The made-up analysis with one text in every place that data can name."""
    base = fixture.analysis()
    renamed = {fixture.BEFORE: f"a{text}", fixture.AFTER: f"b{text}"}
    record = {
        "name": f"b{text}",
        text: text,
        "gate": {text: {"passed": False, text: text}},
        "versions": {text: text},
    }
    return replace(
        base,
        headline=text,
        dataset=text,
        checkpoints=tuple(renamed.values()),
        verdicts=(*base.verdicts, Verdict(text, text, "untrained", "FAIL", text)),
        measurements=tuple(
            replace(
                m, checkpoint=renamed[m.checkpoint], note=text, metric=m.metric if i % 5 else text
            )
            for i, m in enumerate(base.measurements)
        ),
        differences=tuple(
            replace(d, before=f"a{text}", after=f"b{text}", note=text) for d in base.differences
        ),
        probes=tuple(
            replace(
                p,
                checkpoint=renamed[p.checkpoint],
                attribute=text,
                accuracy=None,
                interval=None,
                note=text,
            )
            for p in base.probes
        ),
        probe_differences=tuple(
            replace(d, before=f"a{text}", after=f"b{text}", metric=f"probe:{text}")
            for d in base.probe_differences
        ),
        skipped=({"id": text, "modality": text, "reason": text},),
        provenance={
            text: {text: [text, {text: text}]},
            "checkpoints": [record],
            "prompts": {text: text},
            "commands": [text],
        },
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(tmp_path: Path, text: str) -> None:
    rows = tuple(
        replace(r, text=text, id=text + r.id, labels={text: text}) for r in fixture.rows(6)
    )
    built = build(tmp_path, hostile_analysis(text), rows=rows, projection=fixture.projection(rows))
    assert len(list(built.tree.iter("script"))) == 5
    assert list(built.tree.iter("img")) == []
    for element in built.tree.iter():
        assert not [name for name in element.attrib if str(name).startswith("on")]
    visible = " ".join("".join(built.tree.itertext()).split())
    assert " ".join(text[:150].split()) in visible
    assert len(built.text) < 4 * payload.MEGABYTE
    assert "49 {%" not in visible
    first = json.loads(unpacked(built))["map"]["samples"][0]
    assert first["caption"] == text[:200] or len(text) > 200


def test_plotly_text_from_data_is_escaped(tmp_path: Path) -> None:
    built = build(tmp_path, hostile_analysis(HOSTILE[1]))
    figures = json.dumps(json.loads(unpacked(built))["figures"])
    assert "<img" not in figures
    assert "&lt;img" in figures


# ------------------------------------------------------------------------ size, same bytes


def test_default_page_is_small(built: Built) -> None:
    assert len(built.text.encode()) < 4 * payload.MEGABYTE


def test_size_budget_warns_then_refuses() -> None:
    payload.check_size({"plotly": 2_000_000})
    with pytest.warns(UserWarning, match=r"12\.0 MB: media 10\.0 MB, plotly 2\.0 MB"):
        payload.check_size({"plotly": 2_000_000, "media": 10_000_000})
    with pytest.raises(GeomkitError, match=r"at most 25 MB, got 32\.0 MB \(media 30\.0 MB"):
        payload.check_size({"plotly": 2_000_000, "media": 30_000_000})


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 1000])
def test_what_is_packed_is_harmless_and_comes_back(length: int) -> None:
    content = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    text = payload.packed(content)
    assert payload.unpacked(text) == content
    assert not set(text) & set("<>&`\"' \n\\")


def test_same_analysis_same_bytes(tmp_path: Path, built: Built) -> None:
    payload.packed_plotly.cache_clear()
    folder = tmp_path / "again"
    folder.mkdir()
    rows = fixture.rows()
    previews, album = fixture.previews(folder, rows), pictures.album(rows)
    again = build(folder, rows=rows, media=previews, embed_media=True, album=album)
    assert again.text == built.text
    assert again.numbers == built.numbers


def test_a_changed_number_changes_the_bytes(tmp_path: Path, built: Built) -> None:
    analysis = fixture.analysis()
    first = replace(analysis.measurements[4], value=0.5)
    changed = build(tmp_path, replace(analysis, measurements=(first, *analysis.measurements[1:])))
    assert changed.text != built.text


# ------------------------------------------------------------------------------- thin runs


def only(analysis: Analysis, **keep: tuple[str, ...]) -> Analysis:
    """The records whose fields are among those kept."""

    def kept(record: Any) -> bool:
        return all(getattr(record, name, values[0]) in values for name, values in keep.items())

    return replace(
        analysis,
        measurements=tuple(filter(kept, analysis.measurements)),
        differences=tuple(filter(kept, analysis.differences)),
    )


def test_one_modality(tmp_path: Path) -> None:
    analysis = replace(
        only(fixture.analysis(), modality=("text",)),
        modalities=("text",), pairs=(), probes=(), probe_differences=(),
    )  # fmt: skip
    rows = tuple(r for r in fixture.rows() if r.modality == "text")
    words = build(tmp_path, analysis, rows=rows, projection=fixture.projection(rows)).words()
    assert "No probe was run." in words


def test_one_site(tmp_path: Path) -> None:
    analysis = replace(only(fixture.analysis(), site=("final_norm",)), sites=("final_norm",))
    built = build(tmp_path, analysis)
    assert len(built.tree.xpath(".//*[starts-with(@id, 'layers-')]")) > 10
    assert "The generative loss was not measured." in built.words()


def test_one_checkpoint(tmp_path: Path) -> None:
    base = fixture.analysis()
    analysis = replace(
        only(base, checkpoint=(fixture.BEFORE,)),
        checkpoints=(fixture.BEFORE,), differences=(), probe_differences=(), verdicts=(),
        probes=tuple(p for p in base.probes if p.checkpoint == fixture.BEFORE), headline="",
    )  # fmt: skip
    projection = fixture.projection()
    alone = replace(
        projection,
        checkpoints=(fixture.BEFORE,),
        sites=tuple(
            replace(s, coordinates=None if s.coordinates is None else s.coordinates[:1])
            for s in projection.sites
        ),
    )
    built = build(tmp_path, analysis, projection=alone)
    words = built.words()
    assert "No verdict was made." in words
    assert "Nothing can be compared: the run holds one checkpoint." in words
    assert len(built.tree.xpath(".//*[@data-map]")) == 1
    assert "after" not in [th.text for th in built.tree.iter("th")]


def test_everything_not_run(tmp_path: Path) -> None:
    base = fixture.analysis()
    verdicts = tuple(replace(v, status="NOT RUN") for v in base.verdicts)
    analysis = replace(
        base, verdicts=verdicts, measurements=(), differences=(), probes=(), probe_differences=(),
        skipped=(), provenance={},
    )  # fmt: skip
    words = build(tmp_path, analysis, projection=None, rows=()).words()
    for sentence in (
        "not judged",
        "No difference was measured at the final norm.",
        "Nothing was measured at the decoder's sites.",
        "No projection was made, so there is no map.",
        "No probe was run.",
        "No training log is part of this run.",
        "None: every sample was read.",
    ):
        assert sentence in words


def test_three_samples(tmp_path: Path) -> None:
    rows = fixture.rows(3)
    built = build(tmp_path, rows=rows, projection=fixture.projection(rows))
    assert built.numbers["map"]["shown"] == len(rows) == 6


def test_no_site_can_be_mapped(tmp_path: Path) -> None:
    projection = fixture.projection()
    blank = replace(projection, sites=projection.sites[:1])
    assert (
        "No site can be mapped: all states are equal" in build(tmp_path, projection=blank).words()
    )


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    empty = Analysis("s", "h", "", (), (), (), (), (), "", (), (), (), (), (), (), {})
    assert "no checkpoint" in build(tmp_path, empty, projection=None, rows=()).words()


# ------------------------------------------------------------------------------- map, media


def test_rows_of_another_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="rows without index 6"):
        build(tmp_path, rows=fixture.rows(3), projection=fixture.projection())


# ----------------------------------------------------------------------------------- files


def test_another_json_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "analysis.json").write_text("{}")
    with pytest.raises(GeomkitError, match=r"Expected analysis\.json to be free"):
        write_report(fixture.analysis(), None, (), {}, tmp_path / "analysis.html")
    assert (tmp_path / "analysis.json").read_text() == "{}"


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Expected a file to write the report to, got the folder"):
        write_report(fixture.analysis(), None, (), {}, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_matrix_says_once_why_its_cells_are_empty(tmp_path: Path) -> None:
    analysis = fixture.analysis()
    empty = [replace(p, accuracy=None, interval=None, note="too few") for p in analysis.probes]
    out = tmp_path / "report.html"
    write_report(replace(analysis, probes=tuple(empty)), None, (), {}, out)
    page = out.read_text(encoding="utf-8")
    assert page.count('<p class="gaps">– too few</p>') == len({p.attribute for p in empty})


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    for _ in range(2):
        assert write_report(fixture.analysis(), None, (), {}, out) == out
    assert sorted(p.name for p in out.parent.iterdir()) == ["report.html", "report.json"]
