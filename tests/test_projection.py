"""PCA coordinates: shared axes, stable signs, honest gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.projection import choose, flip_to_match, project, site_map
from geomkit.types import Row


@dataclass
class FakeRun:
    """The part of a run that a projection reads."""

    rows: tuple[Row, ...]
    values: dict[tuple[str, str], NDArray[np.float32]]
    ok: NDArray[np.bool_]
    sites: tuple[str, ...] = ("embed", "block_00", "final_norm")
    incomplete: tuple[str, ...] = field(default=())

    @property
    def plan(self) -> Any:
        return SimpleNamespace(rows=self.rows)

    def captured(self) -> Any:
        names = dict.fromkeys(name for name, _ in self.values if name not in self.incomplete)
        return tuple(SimpleNamespace(name=name, sites=self.sites) for name in names)

    def states(self, checkpoint: str, site: str, pooling: str = "last") -> Any:
        assert pooling == "last"
        return self.values[checkpoint, site], self.ok


def plan(count: int) -> tuple[Row, ...]:
    kinds = ("text", "image")
    return tuple(Row(i, f"s{i // 2}", kinds[i % 2], "", "g") for i in range(count))  # type: ignore[arg-type]  # a Literal


@pytest.fixture
def run() -> FakeRun:
    rng = np.random.default_rng(0)
    rows = plan(40)
    values = {}
    for name in ("base", "lco"):
        values[name, "embed"] = np.ones((40, 12), dtype=np.float32)
        for site in ("block_00", "final_norm"):
            values[name, site] = (rng.normal(size=(40, 12)) * np.arange(12, 0, -1)).astype(
                np.float32
            )
    return FakeRun(rows, values, np.ones(40, dtype=bool))


def projected(run: FakeRun, **options: Any) -> Any:
    return project(cast("Any", run), **options)


def test_shapes_and_names(run: FakeRun) -> None:
    p = projected(run)
    assert p.checkpoints == ("base", "lco")
    assert [s.site for s in p.sites] == list(run.sites)
    assert p.sites[1].coordinates.shape == (2, 40, 2)
    assert p.sites[1].coordinates.dtype == np.float32


def test_equal_states_are_a_gap_with_a_reason(run: FakeRun) -> None:
    embed = projected(run).sites[0]
    assert embed.coordinates is None
    assert "all states are equal" in embed.note


def test_axes_are_the_pooled_principal_axes(run: FakeRun) -> None:
    both = np.concatenate(
        [run.values["base", "final_norm"], run.values["lco", "final_norm"]]
    ).astype(np.float64)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    both -= both.mean(axis=0)
    _, sizes, axes = np.linalg.svd(both, full_matrices=False)
    site = projected(run).sites[2]
    np.testing.assert_allclose(
        np.abs(site.coordinates.reshape(-1, 2)), np.abs(both @ axes[:2].T), atol=1e-5
    )
    np.testing.assert_allclose(site.explained, sizes[:2] ** 2 / (sizes**2).sum(), rtol=1e-6)


def test_scale_of_rows_does_not_matter_but_direction_does(run: FakeRun) -> None:
    states = np.stack([run.values["base", "block_00"], run.values["lco", "block_00"]])
    lengths = np.random.default_rng(1).uniform(0.1, 50, (2, 40, 1)).astype(np.float32)
    same = site_map("s", states * lengths).coordinates
    np.testing.assert_allclose(same, site_map("s", states).coordinates, atol=1e-4)
    moved = site_map("s", states + np.float32(3)).coordinates
    assert not np.allclose(moved, site_map("s", states).coordinates, atol=1e-2)


def test_a_wide_space_gives_the_same_map_twice() -> None:
    states = np.random.default_rng(2).normal(size=(2, 30, 1500)).astype(np.float32)
    first, second = site_map("s", states), site_map("s", states)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


def test_axes_do_not_flip_between_sites(run: FakeRun) -> None:
    states = np.stack([run.values["base", "block_00"], run.values["lco", "block_00"]])
    first = site_map("a", states)
    turned = site_map("b", -states)
    flipped = flip_to_match(turned, [first])
    np.testing.assert_allclose(flipped.coordinates, first.coordinates, atol=1e-5)


def test_rows_are_chosen_by_id_in_every_modality(run: FakeRun) -> None:
    chosen = choose(run.rows, run.ok, 5)
    assert len(chosen) == 10
    ids = [run.rows[i].id for i in chosen]
    assert len(set(ids)) == 5
    fewer = choose(run.rows, run.ok, 3)
    assert set(fewer) < set(chosen)


def test_unread_rows_are_not_shown(run: FakeRun) -> None:
    run.ok[3] = False
    p = projected(run)
    assert 3 not in p.rows
    assert p.available == 39


def test_zero_and_broken_states_are_a_gap(run: FakeRun) -> None:
    states = np.stack([run.values["base", "block_00"], run.values["lco", "block_00"]])
    states[0, 4] = 0
    assert site_map("s", states).note == "a state is zero or not finite"
    states[0, 4] = np.inf
    assert site_map("s", states).note == "a state is zero or not finite"


def test_one_row_and_one_dimension() -> None:
    one = site_map("s", np.array([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=np.float32))
    assert one.coordinates is not None
    assert one.coordinates.shape == (2, 1, 2)
    line = site_map("s", np.array([[[1.0], [-1.0]]], dtype=np.float32))
    assert line.coordinates is not None
    assert not line.coordinates[..., 1].any()


def test_nothing_to_project(run: FakeRun) -> None:
    run.incomplete = ("base", "lco")
    with pytest.raises(DegenerateInput, match="expected a complete checkpoint"):
        projected(run)
    run.incomplete = ()
    run.ok[:] = False
    with pytest.raises(DegenerateInput, match="expected a row read in every checkpoint"):
        projected(run)
