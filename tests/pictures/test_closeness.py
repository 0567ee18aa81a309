"""Nearest rows against the plainest loop, ties and missing neighbours included."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit.pictures import closeness as module
from geomkit.pictures.album import unit
from geomkit.pictures.closeness import K_ACROSS, K, closeness, partner_cosine
from geomkit.pictures.partners import pairings, partners
from geomkit.pictures.records import NONE
from tests.pictures.worlds import plan, world


def test_partners_are_views_of_one_sample() -> None:
    rows = plan(7)
    partner = partners(rows)
    for i, row in enumerate(rows):
        mate = rows[partner[i]]
        assert mate.id == row.id
        assert mate.modality == ("image" if row.modality == "text" else "text")
    found = pairings(rows)
    assert list(found) == ["image-text", "audio-text", "audio-image"]
    for pair, (left, right) in found.items():
        first, second = pair.split("-")
        assert {rows[i].modality for i in left} == {first}
        assert {rows[i].modality for i in right} == {second}
        assert [rows[i].id for i in left] == [rows[i].id for i in right]


def test_a_row_alone_has_no_partner() -> None:
    rows = plan(1)[:1]
    assert partners(rows).tolist() == [NONE]
    assert pairings(rows) == {}


@pytest.mark.parametrize("block", [1024, 7])
def test_against_a_loop(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    run = world(20)
    units = unit(run.values["lco", "final_norm"])
    rows, partner = run.rows, partners(run.rows)
    found = closeness("final_norm", [units], rows, partner)
    cosine = units @ units.T
    for i, row in enumerate(rows):
        others = [j for j, r in enumerate(rows) if r.modality == row.modality and j != i]
        expected = sorted(others, key=lambda j: -cosine[i, j])[:K]
        own = found.own[0, i].tolist()
        assert own == expected + [NONE] * (K - len(expected))
        mate = partner[i]
        there = [j for j, r in enumerate(rows) if r.modality == rows[mate].modality]
        assert found.across[0, i].tolist() == sorted(there, key=lambda j: -cosine[i, j])[:K_ACROSS]
        assert found.rank[0, i] == sum(cosine[i, j] > cosine[i, mate] for j in there)
    np.testing.assert_allclose(
        partner_cosine(units, partner), cosine[np.arange(len(rows)), partner], rtol=1e-6
    )


def test_ties_stand_in_the_plans_order_and_are_not_nearer() -> None:
    rows = plan(12)
    units = np.ones((len(rows), 3)) / np.sqrt(3)
    found = closeness("s", [units], rows, partners(rows))
    texts = [i for i, row in enumerate(rows) if row.modality == "text"]
    assert found.own[0, texts[3]].tolist() == [t for t in texts if t != texts[3]][:K]
    assert not found.rank[0].any()


def test_rows_without_a_partner_have_no_rank() -> None:
    rows = tuple(row for row in plan(12) if row.modality == "text")
    units = unit(np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32))
    partner = partners(rows)
    found = closeness("s", [units], rows, partner)
    assert (found.rank == NONE).all()
    assert (found.across == NONE).all()
    assert np.isnan(partner_cosine(units, partner)).all()
