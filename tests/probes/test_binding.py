from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from geomkit.bindings import judged
from geomkit.errors import DegenerateInput
from geomkit.statistics import Estimate, interval
from geomkit.types import Activations, Row
from probes.binding import QUANTITIES, binding, bindings
from probes.config import ProbeConfig
from probes.foretold import Moved, errors, foretell, map_of, r2
from probes.fractions import fraction
from probes.suite import probe_run
from tests.synthetic_run import NARROW, WIDE, write_run

DIM = 16
RNG = np.random.default_rng(0)
LAW = RNG.standard_normal((DIM, DIM)) / 3
OTHER = RNG.standard_normal((DIM, DIM)) / 3
SHIFT = RNG.standard_normal(DIM)
CONE = 6 * np.eye(DIM)[0]
SCALES = np.linspace(1.5, 0.5, DIM)


def side(modality, before, change, copies=1):
    """Rows whose ids and groups are scenes; the second half of the scenes is held out."""
    scenes = np.arange(len(before)) // copies
    rows = tuple(
        Row(i, f"scene-{s}", modality, "", f"scene-{s}") for i, s in enumerate(scenes.tolist())
    )
    held_out = scenes >= (scenes[-1] + 1) // 2
    return Moved(modality, before, before + change, rows, held_out)


def world(law=LAW, *, scenes=160, noise=0.02, seed=1, apart=0.0):
    """Captions move by LAW, and images, which lie elsewhere, by `law` and `apart` further on."""
    rng = np.random.default_rng(seed)
    scene = rng.standard_normal((scenes, DIM)) * SCALES
    sides = {}
    for modality, place, map_ in (("text", CONE, LAW), ("image", CONE + SHIFT, law)):
        before = place + scene + 0.3 * rng.standard_normal(scene.shape)
        change = (before - CONE) @ map_ - 0.7 * CONE + noise * rng.standard_normal(scene.shape)
        sides[modality] = side(modality, before, change + apart * (modality != "text"))
    return sides


def records(sides):
    """The test of a world as a run has it: states in float32, before and after."""
    ends = [
        {
            m: Activations(name, "final_norm", "last", m, getattr(s, end).astype("f4"), s.rows)
            for m, s in sides.items()
        }
        for name, end in (("base", "before"), ("lco", "after"))
    ]
    held_out = {row.group for s in sides.values() for row in s.part(s.held_out).rows}
    return bindings(*ends, held_out)


def word(sides):
    [found] = judged(records(sides))
    return found.word, found.sentence


def values(cells):
    return {k: v if isinstance(v, DegenerateInput) else v[0] for k, v in cells.items()}


def test_media_that_obey_the_law_of_text_are_foretold_by_it():
    found = values(binding(world())["image"])
    assert found["r2", "text"] > 0.99
    assert found["r2", "own"] > 0.99
    assert abs(found["r2", "text-own"]) < 0.01
    assert found["r2", "shift"] < 0.1
    assert found["r2", "turned"] < -0.8
    assert found["r2", "shuffled"] < 0
    assert found["r2_centred", "text"] > 0.99
    for metric in ("mean_cosine", "uniformity", "recall@1"):
        assert found[metric, "text"] == pytest.approx(1, abs=0.05)
    assert found["uniformity", "shift"] < 0.8


def test_media_that_obey_another_law_are_not():
    found = values(binding(world(OTHER))["image"])
    assert found["r2", "own"] > 0.99
    assert found["r2", "text"] < 0
    assert found["r2_centred", "text"] < 0.3
    assert found["r2", "text-own"] < -0.9


def test_a_shift_of_their_own_costs_the_map_its_r2_but_not_its_linear_part():
    found = values(binding(world(apart=2.0))["image"])
    assert found["r2", "text"] < 0.5
    assert found["r2_centred", "text"] > 0.99


def test_text_foretells_itself_and_has_no_other_ceiling():
    cells = binding(world())["text"]
    assert values(cells)["r2", "text"] > 0.99
    assert not any("own" in predictor for _, predictor in cells)
    assert not any(quantity == "recall@1" for quantity, _ in cells)


def test_one_shift_of_all_rows_has_no_linear_part_and_is_all_reproduced():
    sides = world()
    shifted = {
        m: side(m, s.before, np.tile(-0.9 * CONE, (len(s.rows), 1))) for m, s in sides.items()
    }
    found = values(binding(shifted)["image"])
    for quantity in ("r2", "r2_centred"):
        assert "no linear part" in str(found[quantity, "text"])
    for predictor in ("text", "own", "shift"):
        assert found["mean_cosine", predictor] == pytest.approx(1)


def test_no_change_is_undefined_everywhere():
    sides = {m: side(m, s.before, np.zeros_like(s.before)) for m, s in world().items()}
    for cells in binding(sides).values():
        assert cells
        assert all(isinstance(value, DegenerateInput) for value in cells.values())
        # A traceback would hold the frames of the test, and with them every array in it.
        assert not any(v.__traceback__ or v.__context__ or v.__cause__ for v in cells.values())


def test_rounding_of_the_states_is_no_change():
    """The same states in float32: every row moves, none means anything."""
    sides = {}
    for m, s in world().items():
        rounded = (s.before * (1 + 2.0**-23)).astype(np.float32).astype(np.float64)
        sides[m] = side(m, s.before, rounded - s.before)
    found = values(binding(sides)["image"])
    assert "no linear part" in str(found["r2", "text"])


def test_equal_states_that_change_differently_are_refused():
    sides = world()
    same = {m: side(m, np.full_like(s.before, 0.25), s.change) for m, s in sides.items()}
    found = values(binding(same)["image"])
    assert "equal to float32 resolution" in str(found["r2", "text"])
    assert "equal to float32 resolution" in str(found["mean_cosine", "text"])


def test_captions_dealt_to_other_rows_foretell_nothing():
    sides = world()
    order = np.random.default_rng(3).permutation(len(sides["text"].rows))
    dealt = sides | {"text": side("text", sides["text"].before, sides["text"].change[order])}
    found = values(binding(dealt)["image"])
    assert found["r2", "text"] < 0.1
    assert found["r2", "own"] > 0.99


def test_a_scene_on_both_sides_of_the_split_is_remembered():
    """Changes are noise that copies share: only a map that saw a copy could foretell them."""
    rng = np.random.default_rng(0)
    before = np.repeat(rng.standard_normal((40, 64)), 4, axis=0)
    noise = np.repeat(rng.standard_normal((40, 64)), 4, axis=0)
    by_group = {m: side(m, before, noise, copies=4) for m in ("text", "image")}
    rows = tuple(Row(i, f"row-{i}", "image", "", "") for i in range(160))
    by_row = {
        m: dataclasses.replace(s, rows=rows, held_out=np.arange(160) % 2 == 0)
        for m, s in by_group.items()
    }
    assert values(binding(by_group)["image"])["r2", "own"] < 0.05
    assert values(binding(by_row)["image"])["r2", "own"] > 0.5


def test_the_map_under_test_sees_neither_media_nor_held_out_rows():
    sides = world()
    expected = map_of(sides["text"].part(~sides["text"].held_out))
    wild = sides["text"].after.copy()
    wild[sides["text"].held_out] = 1e3
    blind = dataclasses.replace(sides["text"], after=wild)
    found = values(binding(sides | {"text": blind})["image"])
    assert found["r2", "text"] == values(binding(sides)["image"])["r2", "text"]
    assert map_of(blind.part(~blind.held_out)).penalty == expected.penalty


def test_r2_is_what_it_says():
    """A plain transcription: sklearn's ridge, sums of squares, the training mean as the unit."""
    sides = world(OTHER, noise=0.5)
    text, image = sides["text"], sides["image"]
    fitted = map_of(text.part(~text.held_out))
    total = np.sum((text.before[~text.held_out] - fitted.mean) ** 2)
    ridge = Ridge(alpha=fitted.penalty * total)
    ridge.fit(text.before[~text.held_out], text.change[~text.held_out])
    asked, truth = image.before[image.held_out], image.change[image.held_out]
    unit = np.sum((truth - image.change[~image.held_out].mean(axis=0)) ** 2)
    found = values(binding(sides)["image"])
    expected = 1 - np.sum((truth - ridge.predict(asked)) ** 2) / unit
    assert found["r2", "text"] == pytest.approx(expected)
    moved = asked - image.before[~image.held_out].mean(axis=0)
    centred = moved @ ridge.coef_.T + image.change[~image.held_out].mean(axis=0)
    expected = 1 - np.sum((truth - centred) ** 2) / unit
    assert found["r2_centred", "text"] == pytest.approx(expected)


def test_the_floors_are_means_over_draws():
    sides = world(noise=0.5, scenes=60)
    text = map_of(sides["text"].part(~sides["text"].held_out))
    seen = sides["text"].part(~sides["text"].held_out)
    asked = sides["image"].part(sides["image"].held_out)
    own = map_of(sides["image"].part(~sides["image"].held_out))
    error = errors(foretell(asked, text, own))
    rng = np.random.default_rng(0)
    linear, left = text.linear(text.coordinates(asked.before)), asked.change - text.shift
    turns = ortho_group.rvs(DIM, size=3000, random_state=1)
    turned = np.mean([np.sum((left - linear @ q) ** 2) for q in turns])
    assert error["turned"].sum() == pytest.approx(turned, rel=0.01)
    total = np.sum((seen.before - text.mean) ** 2)
    dealt = []
    for _ in range(3000):
        order = rng.permutation(len(seen.rows))
        x = seen.before - text.mean
        gram = x.T @ x + text.penalty * total * np.eye(DIM)
        weights = np.linalg.solve(gram, x.T @ (seen.change[order] - text.shift))
        dealt.append(np.sum((left - (asked.before - text.mean) @ weights) ** 2))
    assert error["shuffled"].sum() == pytest.approx(np.mean(dealt), rel=0.01)


def test_r2_intervals_hold_the_truth_as_often_as_they_say():
    """Maps fitted once, 300 test sets of 60 scenes: the truth is their R2 on 20 000."""
    sides = world(OTHER * 0.5 + LAW * 0.5, noise=0.3)
    text, own = (map_of(s.part(~s.held_out)) for s in (sides["text"], sides["image"]))

    def score(scenes, seed):
        image = world(OTHER * 0.5 + LAW * 0.5, noise=0.3, scenes=scenes, seed=seed)["image"]
        error = errors(foretell(image, text, own))
        return r2(image, error["text"], error["own mean"])

    truth = score(20_000, 10).value
    spans = [interval(score(60, seed)) for seed in range(100, 400)]
    held = np.mean([span.low < truth < span.high for span in spans])
    assert 0.91 <= held <= 0.985


def test_intervals_count_groups_and_not_copies():
    one = world(noise=0.3)
    copied = {
        m: side(m, np.repeat(s.before, 3, axis=0), np.repeat(s.change, 3, axis=0), copies=3)
        for m, s in one.items()
    }
    width = {}
    for name, sides in (("one", one), ("copied", copied)):
        span = binding(sides)["image"]["r2", "text"][1]
        width[name] = span.high - span.low
    assert width["copied"] == pytest.approx(width["one"], rel=0.05)


def test_few_groups_have_a_reason_and_no_number():
    found = values(binding(world(scenes=12))["image"])
    assert all("10 groups to fit a map on, got 6" in str(value) for value in found.values())


def test_reach_is_the_share_of_media_in_the_axes_of_text():
    """Text varies in four columns; of the media, three quarters of the variance are there too."""
    rng = np.random.default_rng(0)
    law = rng.standard_normal((DIM, DIM)) / 3
    columns = {"text": np.arange(DIM) < 4, "image": (np.arange(DIM) < 3) | (np.arange(DIM) == 9)}
    sides = {}
    for modality, own in columns.items():
        before = CONE + rng.standard_normal((400, DIM)) * np.where(own, 1.0, 1e-3)
        sides[modality] = side(modality, before, before @ law)
    cells = binding(sides)
    found = values(cells["image"])
    assert found["reach", "text"] == pytest.approx(0.75, abs=0.04)
    assert found["reach", "own"] > 0.999
    assert found["reach", "turned"] == pytest.approx(4 / DIM)
    assert values(cells["text"])["reach", "text"] > 0.999
    span = cells["image"]["reach", "text"][1]
    assert span.low < 0.75 < span.high


# ------------------------------------------------------------------------------------ in words --


def test_where_media_obey_the_law_of_text_it_says_so():
    found, sentence = word(world())
    assert found == "holds"
    assert sentence.startswith("Binding of image to text holds at final_norm: R2 of its change is ")
    for part in ("by the map fitted on text", "by one of its own", "mean change alone", "n 80"):
        assert part in sentence


def test_where_media_obey_another_law_it_says_that_it_does_not_hold():
    found, sentence = word(world(OTHER))
    assert found == "does not hold"
    assert "does not hold at final_norm" in sentence
    assert "1.00 [1.00, 1.00] by one of its own" in sentence


def test_one_linear_law_and_another_shift_is_binding_in_part():
    found, sentence = word(world(apart=2.0))
    assert found == "holds in part"
    assert "1.00 [1.00, 1.00] by the map once the means are given" in sentence


def test_half_a_law_is_binding_in_part():
    mixed = world(0.8 * LAW + 0.5 * OTHER)
    found = {(b.quantity, b.predictor): b for b in records(mixed) if b.modality == "image"}
    assert 0 < found["r2", "text"].value < 0.5 * found["r2", "own"].value
    assert word(mixed)[0] == "holds in part"


def test_what_text_itself_does_not_obey_cannot_be_told():
    sides = world()
    order = np.random.default_rng(3).permutation(len(sides["text"].rows))
    dealt = side("text", sides["text"].before, sides["text"].change[order])
    found, sentence = word(sides | {"text": dealt})
    assert found == "cannot be told"
    assert "the map does not foretell held-out text itself" in sentence


def test_media_without_a_law_of_their_own_cannot_be_told():
    sides = world()
    noise = np.random.default_rng(3).standard_normal(sides["image"].before.shape)
    found, sentence = word(sides | {"image": side("image", sides["image"].before, noise)})
    assert found == "cannot be told"
    assert "no affine map foretells image, not even its own" in sentence


def test_nothing_measured_cannot_be_told_and_the_reason_is_given():
    found, sentence = word(world(scenes=12))
    assert found == "cannot be told"
    assert "10 groups to fit a map on, got 6" in sentence
    shown = records({"image": world()["image"]})
    [alone] = judged(shown)
    assert alone.word == "cannot be told"
    assert "no text rows" in alone.sentence


def test_every_site_has_the_shares_of_metrics_with_their_intervals():
    found = {(b.quantity, b.predictor): b for b in records(world()) if b.modality == "image"}
    for quantity in ("mean_cosine", "uniformity", "recall@1"):
        for predictor in ("text", "own", "shift", "text-own", "text-shift"):
            assert found[quantity, predictor].interval is not None, (quantity, predictor)


def test_other_sites_are_judged_by_name():
    found = records(world())
    assert list(judged(found, site="block_00")) == []


# ---------------------------------------------------------------------------------- fractions --


def estimate(value, shares):
    return Estimate(value, shares, len(shares), "row means")


def test_a_fraction_of_a_change_holds_the_truth_as_often_as_it_says():
    """The change is barely clear (about three standard errors); the truth is 0.5."""
    rng = np.random.default_rng(0)
    held = clear = 0
    for _ in range(600):
        noise = rng.multivariate_normal([0, 0], [[1, 0.4], [0.4, 1]], size=40) / 40
        below = estimate(0.5 + noise[:, 1].sum(), noise[:, 1])
        above = estimate(0.25 + noise[:, 0].sum(), noise[:, 0])
        try:
            span = fraction(above, below)[1]
        except DegenerateInput:
            continue
        clear += 1
        held += span.low < 0.5 < span.high
    assert clear > 400
    assert 0.92 <= held / clear <= 0.99


def test_a_share_of_no_clear_change_is_refused():
    noise = np.random.default_rng(0).standard_normal(30) / 30
    with pytest.raises(DegenerateInput, match="a clear change to have a share of"):
        fraction(estimate(0.1, noise), estimate(0.01, noise))


def test_all_of_a_change_is_one_without_doubt():
    noise = np.random.default_rng(0).standard_normal(30) / 30
    value, span = fraction(estimate(5.0, noise), estimate(5.0, noise))
    assert (value, span.low, span.high) == pytest.approx((1, 1, 1))


# ---------------------------------------------------------------------------------------- runs --


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("binding") / "run"
    return write_run(path, {"base": NARROW, "lco": WIDE}, scenes=60)


def bound(run, sites=("final_norm",), seed=0):
    return probe_run(run, ProbeConfig(sites=sites, seed=seed, parts=("binding",))).bindings


def test_a_run_gives_one_record_for_every_number(run):
    found = bound(run, ("embed", "block_00", "final_norm"))
    keys = [(b.site, b.modality, b.quantity, b.predictor) for b in found]
    assert len(set(keys)) == len(keys)
    for site in ("embed", "block_00"):  # constant; and the same before and after
        assert {b.value for b in found if b.site == site} == {None}
        assert all(b.note for b in found if b.site == site)
    final = {b.predictor: b for b in found if (b.site, b.modality, b.quantity) == (
        "final_norm", "image", "mean_cosine",
    )}  # fmt: skip
    assert set(final) == {*QUANTITIES["mean_cosine"], "text-own", "text-shift"}
    # The cone is one vector that all rows lose: text's mean change takes it off the images too.
    assert final["shift"].value == pytest.approx(1, abs=0.05)
    assert final["text"].n_fit == 60  # half of the captions, of images and sounds
    assert final["own"].n_fit + final["own"].n == 60
    assert final["text"].interval.method == f"Fieller, {final['own'].n} groups"


def test_the_same_run_gives_the_same_records(run):
    twice = [bound(run) for _ in range(2)]
    assert twice[0] == twice[1]
    assert twice[0] != bound(run, seed=1)


def test_without_text_there_is_nothing_to_fit_on():
    found = values(binding({"image": world()["image"]})["image"])
    assert found
    assert all("text rows to fit the map on, got none" in str(value) for value in found.values())
