"""Planted worlds: what carried over is known, so every verdict and every ratio is."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit import statistics
from geomkit.carried import (
    CARRIED,
    FULL,
    INCOMPARABLE,
    MORE,
    NEARLY,
    NONE,
    NOTHING,
    OPEN,
    OPPOSITE,
    PART,
    SOME,
    STATUSES,
    UNMEASURED,
)
from geomkit.claims import claim
from geomkit.errors import DegenerateInput
from geomkit.outcome import outcomes, reached, sentences, share
from geomkit.statistics import Estimate
from geomkit.transfer import transfers
from geomkit.types import Difference
from geomkit.ways import Change, closed

BETTER = {"mean_cosine": "lower", "uniformity": "lower", "effective_rank": "higher"}
REFERENCE = {"mean_cosine": 0.0, "uniformity": -4.0, "effective_rank": 100.0}


def estimate(value, error=0.005, groups=100, seed=0, chance=0.0, names=None, n=None):
    """An estimate whose standard error is exactly `error`."""
    shares = np.random.default_rng(seed).standard_normal(groups)
    shares -= shares.mean()
    shares *= error / np.sqrt(groups / (groups - 1) * np.sum(shares**2))
    named = tuple(f"g{i:04d}" for i in range(groups)) if names is None else names
    return Estimate(value, shares, n or groups, "row means", chance, named)


def changed(before, after, modality="image", metric="mean_cosine", better=None):
    """The change between two results, recorded as an analysis records it."""
    flaws = [r for r in (before, after) if isinstance(r, DegenerateInput)]
    value = interval = None
    note = str(flaws[0]) if flaws else ""
    if not flaws:
        moved = statistics.difference(before, after)
        value = moved.value
        try:
            interval = statistics.interval(moved)
        except DegenerateInput as flaw:
            note = str(flaw)
    record = Difference(
        metric,
        "base",
        "lco",
        "final_norm",
        modality,
        value,
        interval,
        better or BETTER[metric],
        0 if flaws else before.n,
        note,
    )
    return Change(record, before, after)


def change(modality, before, after, *, metric="mean_cosine", seed=0, better=None, **how):
    """A change with independent errors of both checkpoints."""
    how = {"chance": REFERENCE.get(metric, 0.0)} | how
    ends = [estimate(v, seed=(seed, i), **how) for i, v in enumerate((before, after))]
    return changed(*ends, modality, metric, better)


def judged(*changes, trained=("text",)):
    return {(t.metric, t.untrained): t for t in transfers(changes, trained)}


TEXT = change("text", 0.8, 0.2, seed=1)


@pytest.mark.parametrize(
    ("before", "after", "error", "verdict"),
    [
        (0.8, 0.2, 0.005, FULL),
        (0.8, 0.23, 0.001, NEARLY),
        (0.8, 0.25, 0.005, PART),  # 0.90 is not excluded
        (0.8, 0.5, 0.005, PART),
        (0.8, 0.01, 0.005, MORE),
        (0.8, 0.8, 0.005, NONE),
        (0.8, 0.9, 0.005, OPPOSITE),
        (0.8, 0.4, 0.13, SOME),  # clear, but the interval holds 0.2 as well as 1
        (0.8, 0.7, 0.3, OPEN),
    ],
)
def test_a_verdict_follows_what_was_planted(before, after, error, verdict):
    found = judged(TEXT, change("image", before, after, error=error))
    assert found["mean_cosine", "image"].verdict == verdict


def test_both_ratios_are_those_of_a_calculation_by_hand():
    """Text goes 0.8 -> 0.2: -0.6, three quarters of its way. Images 0.9 -> 0.45: -0.45, half."""
    t = judged(TEXT, change("image", 0.9, 0.45))["mean_cosine", "image"]
    assert (t.trained, t.untrained, t.before, t.after) == ("text", "image", "base", "lco")
    assert (t.change_trained, t.change_untrained) == pytest.approx((-0.6, -0.45))
    assert t.ratio == pytest.approx(0.75)
    assert (t.closed_trained, t.closed_untrained) == pytest.approx((0.75, 0.5))
    assert t.closed_ratio == pytest.approx(2 / 3)
    assert t.interval.low < 0.75 < t.interval.high < 1
    assert t.closed_interval.low < 2 / 3 < t.closed_interval.high < t.interval.high
    assert t.p < 1e-6


def test_the_error_of_the_way_is_that_of_the_delta_method():
    """d share = (d after - (1 - share) d before) / way, with equal errors of both ends."""
    ends = estimate(0.8, 0.01, seed=1), estimate(0.2, 0.01, seed=2)
    found = closed(changed(*ends))
    by_hand = (ends[1].shares - 0.25 * ends[0].shares) / -0.8
    np.testing.assert_allclose(found.shares, by_hand, rtol=1e-12)
    assert found.value == pytest.approx(0.75)
    assert found.names == ends[0].names


def test_a_modality_that_starts_elsewhere_is_measured_by_its_way():
    """Both end isotropic: the plain ratios say "more" and "in part", the way says all of it."""
    text = change("text", 0.706, 0.0)
    for start, plain in ((0.9999, 1.42), (0.30, 0.42)):
        t = judged(text, change("image", start, 0.0, seed=2))["mean_cosine", "image"]
        assert t.ratio == pytest.approx(plain, abs=0.01)
        assert t.closed_ratio == pytest.approx(1)
        assert t.verdict == FULL
        assert "text went 100% of its way, image 100%" in t.note
        word = MORE if plain > 1 else PART
        assert f"by the change itself it is '{word}'; they start at 0.706 (text)" in t.note


def test_higher_is_better_works_the_same_way():
    text = change("text", 10, 55, metric="effective_rank", error=0.5)
    for after, verdict in ((55, FULL), (30, PART), (10, NONE), (5, OPPOSITE)):
        image = change("image", 10, after, metric="effective_rank", error=0.5, seed=3)
        assert judged(text, image)["effective_rank", "image"].verdict == verdict


@pytest.mark.parametrize(("after", "word"), [(0.8, "no clear change"), (0.95, "clearly worse")])
def test_a_trained_modality_that_did_not_improve_has_nothing_to_give(after, word):
    text = change("text", 0.8, after, seed=1)
    t = judged(text, change("image", 0.8, 0.2))["mean_cosine", "image"]
    assert t.verdict == NOTHING
    assert (t.ratio, t.interval, t.closed_ratio) == (None, None, None)
    assert t.note == f"text: {word}"


def test_a_change_that_rounding_can_make_is_nothing_to_transfer():
    text = change("text", 0.8, 0.7995, error=1e-6)
    assert judged(text, change("image", 0.8, 0.2))["mean_cosine", "image"].verdict == NOTHING


def test_a_change_in_the_untrained_that_rounding_can_make_is_no_transfer():
    t = judged(TEXT, change("image", 0.8, 0.7995, error=1e-6))["mean_cosine", "image"]
    assert t.verdict == NONE


@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("end", [0, 1])
def test_a_degenerate_end_is_not_measured_and_says_whose(modality, end):
    ends = {"text": [estimate(0.8, seed=1), estimate(0.2, seed=2)]}
    ends["image"] = [estimate(0.8, seed=3), estimate(0.2, seed=4)]
    ends[modality][end] = DegenerateInput("all rows are equal")
    t = judged(*(changed(*e, m) for m, e in ends.items()))["mean_cosine", "image"]
    assert (t.verdict, t.note) == (UNMEASURED, f"{modality}: all rows are equal")
    assert (t.change_untrained is None) is (modality == "image")


def test_too_few_groups_are_not_measured():
    few = change("image", 0.8, 0.2, groups=4)
    t = judged(TEXT, few)["mean_cosine", "image"]
    assert t.verdict == UNMEASURED
    assert "at least 5 groups" in t.note


def test_few_samples_leave_the_amount_open():
    """Half of it carried over, and ten samples cannot tell that from all of it."""
    found = [
        judged(change("text", 0.8, 0.2, seed=1, groups=g, error=1.0 / g**0.5),
               change("image", 0.8, 0.5, seed=2, groups=g, error=1.0 / g**0.5))
        for g in (10, 40, 4000)
    ]  # fmt: skip
    verdicts = [f["mean_cosine", "image"].verdict for f in found]
    assert verdicts == [NOTHING, OPEN, PART]


def test_a_modality_that_was_there_before_has_nothing_to_gain():
    t = judged(TEXT, change("image", 0.004, 0.003))["mean_cosine", "image"]
    assert t.verdict == INCOMPARABLE
    assert "image started at 0.004, where its reference 0 leaves nothing to gain" in t.note
    near = judged(TEXT, change("image", 0.0005, 0.0001, error=1e-6))["mean_cosine", "image"]
    assert near.verdict == INCOMPARABLE  # clearly not at 0, and nearer than rounding can tell
    worse = judged(TEXT, change("image", 0.004, 0.4))["mean_cosine", "image"]
    assert worse.verdict == OPPOSITE


def test_without_a_reference_the_verdict_is_of_the_change_itself():
    text, image = (
        change(m, 0.8, a, chance=None, seed=s) for m, a, s in (("text", 0.2, 1), ("image", 0.5, 2))
    )
    t = judged(text, image)["mean_cosine", "image"]
    assert (t.verdict, t.closed_ratio) == (PART, None)
    assert t.ratio == pytest.approx(0.5)
    assert t.note == "by the change itself: image has no reference better than its start"


def test_a_reference_on_the_worse_side_is_no_reference():
    text, image = (
        change(m, 0.2, a, chance=0.0, seed=s, better="higher", metric="mean_cosine")
        for m, a, s in (("text", 0.8, 1), ("image", 0.8, 2))
    )
    t = judged(text, image)["mean_cosine", "image"]
    assert (t.verdict, t.closed_ratio) == (FULL, None)


@pytest.mark.parametrize(("after", "verdict"), [(40, SOME), (10, INCOMPARABLE), (2, OPPOSITE)])
@pytest.mark.parametrize(
    ("text", "image", "why"),
    [
        ({"chance": 999.0}, {"chance": 499.0}, "references differ: 999 (text) and 499 (image)"),
        ({"n": 1000}, {"n": 500}, "depends on the number of rows, and they differ: 1000 (text)"),
    ],
)
def test_changes_without_a_common_measure_have_no_ratio(after, verdict, text, image, why):
    metric = "effective_rank"
    t = judged(
        change("text", 10, 40, metric=metric, **text),
        change("image", 10, after, metric=metric, seed=2, **image),
    )[metric, "image"]
    assert t.verdict == verdict
    assert (t.ratio, t.closed_ratio) == (None, None)
    assert why in t.note


def test_references_that_differ_by_little_of_the_way_are_the_same():
    """The share of the mean in the energy has 1/n as its reference."""
    metric = "mean_norm_share"
    ends = [
        change(m, 0.8, 0.2, metric=metric, better="lower", chance=1 / n, n=n, seed=n)
        for m, n in (("text", 1000), ("image", 300))
    ]
    assert judged(*ends)[metric, "image"].verdict == FULL


def test_a_metric_that_does_not_depend_on_the_count_has_a_ratio_at_any():
    t = judged(change("text", 0.8, 0.2, n=1000), change("image", 0.8, 0.2, seed=2, n=300))
    assert t["mean_cosine", "image"].verdict == FULL


def test_shared_samples_make_the_ratio_surer_and_other_samples_do_not():
    """Errors that images share with their captions cancel in the ratio; those of others add up."""
    own, other = (tuple(f"{kind}{i:03d}" for i in range(100)) for kind in ("scene", "sound"))
    base = estimate(0.8, 1e-4, names=own)
    text, image = (
        changed(base, estimate(0.2, 0.02, seed=5, names=own), m) for m in ("text", "image")
    )
    audio_ends = estimate(0.8, 1e-4, names=other), estimate(0.2, 0.02, seed=5, names=other)
    found = judged(text, image, changed(*audio_ends, "audio"))
    widths = [
        (span.high - span.low)
        for m in ("image", "audio")
        for span in [found["mean_cosine", m].interval]
    ]
    assert widths[0] < 1e-3
    assert widths[1] == pytest.approx(2 * 1.98 * 0.02 / 0.6 * 2**0.5, rel=0.02)


def test_the_family_is_all_that_training_did_not_see():
    """A change of p = 0.03 alone does not survive eleven others."""
    lucky = change("image", 0.80, 0.7845, error=0.005, seed=3)
    assert lucky.record.improved
    assert judged(TEXT, lucky)["mean_cosine", "image"].verdict == PART
    alone = judged(TEXT, lucky)["mean_cosine", "image"].p
    others = [change(f"image-text{i}", 0.8, 0.8, seed=10 + i) for i in range(10)]
    t = judged(TEXT, lucky, *others)["mean_cosine", "image"]
    assert t.verdict == NONE
    assert t.p == pytest.approx(11 * alone)
    aside = [change(f"image-text{i}", 0.8, 0.8, metric="rsa", better="higher") for i in range(10)]
    t = judged(TEXT, lucky, *aside)["mean_cosine", "image"]
    assert (t.verdict, t.p) == (PART, pytest.approx(alone))


def test_pairs_and_directions_are_listed_without_a_ratio():
    pair = change("image-text", 0.1, 0.8, metric="alignment", better="lower")
    found = judged(
        TEXT,
        pair,
        change("image->text", 0.1, 0.8, metric="retrieval_r1", better="higher"),
        change("text->image", 0.1, 0.1, metric="retrieval_r1", better="higher"),
    )
    told = {name: (t.trained, t.ratio, t.verdict) for name, t in found.items()}
    assert told == {
        ("alignment", "image-text"): ("", None, "no claim without uniformity"),
        ("retrieval_r1", "image->text"): ("", None, "clearly better"),
        ("retrieval_r1", "text->image"): ("", None, "no clear change"),
    }
    assert found["retrieval_r1", "image->text"].change_untrained == pytest.approx(0.7)
    assert "read with uniformity" in found["alignment", "image-text"].note


@pytest.mark.parametrize(
    ("metric", "distance", "uniformity", "told"),
    [
        (metric, *case)
        for metric in ("alignment", "modality_gap", "modality_gap_plug_in")
        for case in (
            ((0.1, 0.8), (-0.5, -3.0), "grew as states spread"),
            ((0.8, 0.1), (-3.0, -0.5), "shrank as states collapsed"),
            ((0.8, 0.1), (-0.5, -3.0), "clearly better"),
            ((0.1, 0.8), (-3.0, -0.5), "clearly worse"),
            ((0.1, 0.1), (-0.5, -3.0), "no clear change"),
        )
    ],
)
def test_a_distance_is_read_with_the_spread_of_its_medium(metric, distance, uniformity, told):
    """The published gap, the unbiased one and alignment alike; the verdict table says the same."""
    pair = change("image-text", *distance, metric=metric, better="lower")
    spread = change("image", *uniformity, metric="uniformity", better="lower", seed=3)
    found = judged(TEXT, pair, spread)
    assert found[metric, "image-text"].verdict == told
    assert STATUSES[told] == claim(pair.record, None, claim(spread.record))


def test_what_has_no_better_direction_and_what_training_saw_is_left_out():
    aimless = change("image", 0.8, 0.2, metric="curvature", better="neither")
    assert judged(TEXT, aimless) == {}
    assert judged(TEXT, change("image", 0.8, 0.2), trained=()) == {}
    both = judged(TEXT, change("image", 0.8, 0.2), trained=("text", "image"))
    assert both == {}


def test_each_trained_modality_has_its_own_ratio():
    found = transfers(
        [TEXT, change("image", 0.8, 0.5, seed=2), change("audio", 0.8, 0.5, seed=3)],
        ("text", "image"),
    )
    assert [(t.trained, t.untrained, t.verdict) for t in found] == [
        ("text", "audio", PART),
        ("image", "audio", FULL),
    ]


def test_a_modality_is_set_against_the_same_samples_where_these_have_both():
    """Captions of images go half as far as text does as a whole: images followed their captions."""
    captions = change("text@image", 0.8, 0.5, seed=4)
    changes = [TEXT, captions, change("image", 0.8, 0.5, seed=2), change("audio", 0.8, 0.5, seed=3)]
    found = judged(*changes)
    told = {m: (t.trained, t.change_trained, t.verdict) for (_, m), t in found.items()}
    assert told == {
        "image": ("text", pytest.approx(-0.3), FULL),
        "audio": ("text", pytest.approx(-0.6), PART),
    }
    assert found["mean_cosine", "image"].note.startswith("in the same samples; text went 38% of")
    assert "same samples" not in found["mean_cosine", "audio"].note


def test_a_few_captions_do_not_stand_for_the_whole():
    captions = change("text@image", 0.8, 0.5, seed=4, n=20)
    t = judged(TEXT, captions, change("image", 0.8, 0.5, seed=2))["mean_cosine", "image"]
    assert (t.change_trained, t.verdict) == (pytest.approx(-0.6), PART)


def test_the_same_samples_give_metrics_that_grow_with_their_number_a_ratio():
    metric = "effective_rank"
    found = judged(
        change("text", 10, 55, metric=metric, n=1000),
        change("text@image", 10, 40, metric=metric, n=500, seed=2),
        change("image", 10, 40, metric=metric, n=500, seed=3),
    )
    assert found[metric, "image"].verdict == FULL


def test_a_trained_modality_that_was_not_captured_leaves_the_change_alone():
    (t,) = transfers([change("image", 0.8, 0.5)], ("text",))
    assert (t.trained, t.verdict) == ("", "clearly better")


def world(rng, groups, share_of_text):
    """Rows of a shared scene: text falls from 0.8 to 0.3, images by a known share of that way."""
    scene = rng.standard_normal(groups)
    names = tuple(f"s{i:04d}" for i in range(groups))
    ends = {"text": (0.8, 0.3), "image": (0.9, 0.9 * (1 - share_of_text * 0.625))}
    for modality, (before, after) in ends.items():
        rows = []
        for value in (before, after):
            x = value + 0.4 * (scene + rng.standard_normal(groups))
            shares = (x - x.mean()) / groups
            rows.append(Estimate(float(x.mean()), shares, groups, "row means", 0.0, names))
        yield changed(*rows, modality)


@pytest.mark.parametrize("share_of_text", [1.0, 0.5, -0.5])
def test_the_intervals_of_both_ratios_cover(share_of_text):
    rng = np.random.default_rng(7)
    truth = share_of_text, share_of_text * 0.9 * 0.625 / 0.5
    hits = np.zeros(2)
    made = 0
    for _ in range(600):
        (t,) = transfers(tuple(world(rng, 60, share_of_text)), ("text",))
        spans = (t.closed_interval, t.interval)
        made += all(spans)
        hits += [s is not None and s.low <= v <= s.high for s, v in zip(spans, truth, strict=True)]
    assert made > 590
    assert ((hits / made > 0.925) & (hits / made < 0.975)).all(), hits / made


def test_nothing_planted_is_hardly_ever_called_transfer():
    """A/A in images while text improves: at most the family's five in a hundred are claimed."""
    rng = np.random.default_rng(8)
    found = [transfers(tuple(world(rng, 40, 0.0)), ("text",))[0].verdict for _ in range(600)]
    claims = sum(verdict in (*CARRIED, OPPOSITE) for verdict in found)
    assert claims <= 0.05 * 600 + 2 * (0.05 * 0.95 * 600) ** 0.5


def cone(rng, scenes, length):
    """Directions in a cone about one axis, around what the scenes are."""
    states = scenes + 0.7 * rng.standard_normal(scenes.shape)
    states[:, 0] += length
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def mean_cosine(unit, names):
    """Mean cosine of distinct rows with the influence of each, from the sum of all."""
    n, total = len(unit), unit.sum(axis=0)
    value = (total @ total - n) / (n * (n - 1))
    influence = 2 * ((unit @ total - 1) / (n - 1) - value)
    return statistics.from_rows(value, influence, np.arange(n), chance=0.0, names=names)


def test_the_intervals_cover_when_states_make_the_metric():
    """Text opens from a cone of 3 to 1, images from 4 to 2: the truth is of very many rows."""
    rng = np.random.default_rng(3)
    lengths = {"text": (3.0, 1.0), "image": (4.0, 2.0)}
    many = rng.standard_normal((200_000, 8))
    far = {m: [cone(rng, many, c).mean(axis=0) for c in ends] for m, ends in lengths.items()}
    at = {m: [float(mean @ mean) for mean in means] for m, means in far.items()}
    moved = {m: after - before for m, (before, after) in at.items()}
    truth = moved["image"] / moved["text"]
    truth_of_way = truth * at["text"][0] / at["image"][0]
    names, hits = tuple(f"s{i:03d}" for i in range(60)), np.zeros(2)
    for _ in range(400):
        scenes = rng.standard_normal((60, 8))  # shared by both modalities, before and after
        (t,) = transfers(
            [
                changed(*(mean_cosine(cone(rng, scenes, c), names) for c in ends), m)
                for m, ends in lengths.items()
            ],
            ("text",),
        )
        hits += [
            span.low <= value <= span.high
            for span, value in ((t.interval, truth), (t.closed_interval, truth_of_way))
        ]
    assert (abs(hits / 400 - 0.95) < 0.03).all(), hits / 400


@pytest.mark.parametrize(
    ("images", "outcome", "told"),
    [
        (
            (0.2, -3.0),
            "reached",
            "it transferred to image (1.00 of the way of what was trained)",
        ),
        ((0.2, -0.5), "mixed", "the metrics disagree on image"),
        ((0.9, -0.5), "opposite", "the opposite happened in image"),
        ((0.8, -1.0), "not reached", "there is no clear transfer to image"),
        ((None, None), "untold", "whether it transferred to image cannot be told"),
    ],
)
def test_the_outcome_of_several_metrics(images, outcome, told):
    changes = [TEXT, change("text", -1.0, -3.0, metric="uniformity", seed=2)]
    for metric, start, after in zip(
        ("mean_cosine", "uniformity"), (0.8, -1.0), images, strict=True
    ):
        if after is None:
            ends = estimate(start), DegenerateInput("all rows are equal")
            changes.append(changed(*ends, "image", metric))
        else:
            changes.append(change("image", start, after, metric=metric, seed=4))
    found = transfers(changes, ("text",))
    assert outcomes(found) == {"image": outcome}
    assert reached(found) is (outcome == "reached")
    assert next(sentences(found)) == f"Trained on text: {told}."


def test_a_metric_outside_the_headline_does_not_make_an_outcome():
    better = [change(m, 0.2, 0.6, metric="rank_me", better="higher", chance=1.0, seed=i)
              for i, m in enumerate(("text", "image"))]  # fmt: skip
    found = transfers([TEXT, change("image", 0.8, 0.8, seed=4), *better], ("text",))
    assert {t.metric: t.verdict for t in found} == {"mean_cosine": NONE, "rank_me": FULL}
    assert outcomes(found) == {"image": "not reached"}
    assert list(sentences(found))[1].endswith("; of 1 other metric: 1 transferred in full.")
    assert outcomes(transfers(better, ("text",))) == {"image": "reached"}


def test_nothing_to_transfer_in_words():
    found = transfers([change("text", 0.8, 0.8), change("image", 0.8, 0.2)], ("text",))
    assert list(sentences(found)) == [
        "Trained on text: there was nothing to transfer to image, as text did not clearly improve.",
        "image: nothing to transfer: mean cosine.",
    ]
    assert not reached(found)


def test_one_sentence_a_modality_with_the_share_of_each_metric():
    found = transfers(
        [TEXT, change("image", 0.8, 0.5, seed=2), change("audio", 0.8, 0.8, seed=3)], ("text",)
    )
    first, image, audio = sentences(found)
    assert first == (
        "Trained on text: it transferred to image (0.50 of the way of what was trained); there is "
        "no clear transfer to audio."
    )
    assert image.startswith("image: transferred in part: mean cosine (0.50 of the way of text, 0.4")
    assert audio.startswith("audio: no clear transfer: mean cosine (0.00 of the way of text, -0.")
    assert not reached(found)


def test_a_share_of_the_change_says_so():
    text, image = (
        change(m, 0.8, 0.2, chance=None, seed=i) for i, m in enumerate(("text", "image"))
    )
    (t,) = transfers([text, image], ("text",))
    assert share(t).startswith("1.00 of the change of text, 0.9")
    assert share(transfers([change("image", 0.8, 0.5)], ("text",))[0]) == ""


def test_no_family_no_claim():
    assert not reached(())
    assert list(sentences(())) == [
        "Transfer: no metric here has both a trained and an untrained modality."
    ]
