from __future__ import annotations

import dataclasses

import pytest

from geomkit.carried import FULL, OPEN, PART
from geomkit.claims import LEAST
from geomkit.compare import WORDS, adjusted, joint, number, p_value, verdicts
from geomkit.estimates import METRICS
from geomkit.headline import headline
from geomkit.types import Binding, Difference, Interval, Measurement, ProbeResult, Transfer
from geomkit.words import listed

BETTER = {
    "mean_cosine": "lower",
    "uniformity": "lower",
    "effective_rank": "higher",
    "alignment": "lower",
    "modality_gap": "lower",
    "mutual_knn": "higher",
    "retrieval_r1": "higher",
    "generative_loss": "lower",
}


def change(metric, modality, value, half=0.01, site="final_norm", after="lco", better=None):
    interval = None if value is None else Interval(value - half, value + half)
    return Difference(
        metric=metric,
        before="base",
        after=after,
        site=site,
        modality=modality,
        value=value,
        interval=interval,
        better=better or BETTER[metric],
        n=100,
        note="all rows are equal" if value is None else "",
    )


def ends(d, before=0.5):
    """The two measurements that a difference is between."""
    values = (None, None) if d.value is None else (before, before + d.value)
    return [
        Measurement(d.metric, name, d.site, d.modality, value, None, 0.0, d.better, 100)
        for name, value in zip((d.before, d.after), values, strict=True)
    ]


def judge(*changes, probes=(), trained=("text",)):
    measured = [m for d in changes if not d.metric.startswith("probe:") for m in ends(d)]
    measured.sort(key=lambda m: m.checkpoint)  # capture order: base, lco
    found = verdicts(measured, changes, probes, trained)
    return {(v.metric, v.modality): v for v in found}, headline(found, measured)


def probed(attribute, accuracy, checkpoint, spoken=False, on=("image", "image"), interval=None):
    return ProbeResult(
        attribute=attribute,
        spoken=spoken,
        train_on=on[0],
        test_on=on[1],
        checkpoint=checkpoint,
        site="final_norm",
        accuracy=accuracy,
        interval=interval or Interval(accuracy - 0.05, accuracy + 0.05),
        majority=0.5,
        chance=0.5,
        control=0.5,
        selectivity=accuracy - 0.5,
        n_train=80,
        n_test=100,
    )


@pytest.mark.parametrize(
    ("metric", "value", "status"),
    [
        ("mean_cosine", -0.3, "PASS"),
        ("mean_cosine", +0.3, "FAIL"),
        ("mean_cosine", 0.005, "WARN"),
        ("mean_cosine", 0.0, "WARN"),
        ("mean_cosine", None, "NOT RUN"),
        ("effective_rank", +0.3, "PASS"),
        ("effective_rank", -0.3, "FAIL"),
    ],
)
def test_a_verdict_follows_sign_direction_and_interval(metric, value, status):
    found, _ = judge(change(metric, "image", value))
    assert found[metric, "image"].status == status


def test_a_verdict_says_the_numbers_with_their_company():
    found, _ = judge(change("mean_cosine", "image", -0.3))
    assert found["mean_cosine", "image"].sentence == (
        "mean cosine of image 0.5 -> 0.2, change -0.3 (95% -0.31 to -0.29, n 100): clearly better."
    )


def test_a_missing_number_keeps_its_reason():
    found, _ = judge(change("mean_cosine", "image", None))
    assert "not measured (all rows are equal)" in found["mean_cosine", "image"].sentence


def test_roles_follow_what_training_saw():
    changes = [change("mean_cosine", m, -0.3) for m in ("text", "image")]
    changes.append(change("mutual_knn", "image-text", 0.3))
    found, _ = judge(*changes)
    assert [v.role for v in found.values()] == ["trained", "untrained", "untrained"]
    found, _ = judge(*changes, trained=("text", "image"))
    assert {v.role for v in found.values()} == {"trained"}


def test_one_lucky_test_among_many_is_no_pass():
    lucky = change("mean_cosine", "image", -0.011)  # p = 0.03 alone
    assert lucky.improved
    alone, _ = judge(lucky)
    assert alone["mean_cosine", "image"].status == "PASS"
    family = [change("mutual_knn", f"image-text{i}", 0.0) for i in range(9)]
    found, _ = judge(lucky, *family)
    assert found["mean_cosine", "image"].status == "WARN"
    assert "after Holm's correction" in found["mean_cosine", "image"].sentence


def test_the_family_is_the_headline_metrics_at_the_final_norm():
    tests = [change("mean_cosine", "image", -0.3), change("uniformity", "image", -0.3)]
    outside = [
        change("mean_cosine", "image", -0.3, site="block_00"),
        change("generative_loss", "image", 0.3, site="lm_head"),
        change("probe:colour", "image->image", 0.3, better="higher"),
    ]
    assert len(adjusted([*tests, *outside])) == 2


@pytest.mark.parametrize(("value", "below"), [(0.0101, True), (0.0099, False), (-0.0101, True)])
def test_the_recovered_p_agrees_with_the_interval(value, below):
    assert (p_value(change("mean_cosine", "image", value)) < 0.05) is below


def test_the_recovered_p_at_the_edges():
    assert p_value(change("mean_cosine", "image", 0.0, half=0.0)) == 1.0
    assert p_value(change("mean_cosine", "image", 0.1, half=0.0)) == 0.0
    assert p_value(change("mean_cosine", "image", None)) is None


@pytest.mark.parametrize(("groups", "p"), [(0, 0.0033), (30, 0.0046), (5, 0.0142)])
def test_few_groups_make_a_change_less_sure(groups, p):
    d = change("mean_cosine", "image", -0.015)
    told = dataclasses.replace(d, interval=dataclasses.replace(d.interval, groups=groups))
    assert p_value(told) == pytest.approx(p, rel=0.02)  # 1.5 half-widths, in t of groups - 1


def test_every_least_change_is_of_a_metric_that_there_is():
    assert set(LEAST) <= {*METRICS, "generative_loss"}


@pytest.mark.parametrize(("metric", "least"), [(m, LEAST[m]) for m in WORDS if m in LEAST])
def test_a_change_that_rounding_can_make_is_none(metric, least):
    """Merging an adapter into float16 files moves a mean cosine by 4e-6, and 560 samples see it."""
    site = "lm_head" if metric == "generative_loss" else "final_norm"
    for size, statuses in ((0.9 * least, {"WARN"}), (1.1 * least, {"PASS", "FAIL"})):
        moved = change(metric, "image-text", -size, half=size / 10, site=site)
        found, _ = judge(moved, change("uniformity", "image", 0.0))  # distances are read with it
        verdict = found[metric, "image-text"]
        assert verdict.status in statuses
        assert ("can be rounding" in verdict.sentence) is (verdict.status == "WARN")


def test_losses_are_corrected_as_a_family_of_their_own():
    losses = [
        change("generative_loss", m, v, site="lm_head")
        for m, v in (("text", 0.0103), ("image", 0.0), ("audio", 0.02))
    ]
    found, told = judge(*losses)
    statuses = [found["generative_loss", m].status for m in ("text", "image", "audio")]
    assert statuses == ["WARN", "WARN", "FAIL"]  # alone, text would be clear
    assert told.endswith("Generation got worse in audio.")


@pytest.mark.parametrize("metric", ["alignment", "modality_gap"])
@pytest.mark.parametrize(
    ("distance", "uniformity", "status"),
    [
        (+0.3, -0.5, "info"),  # everything spread: distances had to grow
        (-0.3, +0.5, "info"),  # everything collapsed: distances had to shrink
        (-0.3, -0.5, "PASS"),
        (+0.3, +0.5, "FAIL"),
        (-0.3, 0.0, "PASS"),
        (-0.3, None, "info"),
        (+0.3, None, "info"),
        (0.0, None, "WARN"),
    ],
)
def test_a_distance_is_never_judged_without_uniformity(metric, distance, uniformity, status):
    found, _ = judge(
        change(metric, "image-text", distance), change("uniformity", "image", uniformity)
    )
    assert found[metric, "image-text"].status == status
    sentence = found[metric, "image-text"].sentence
    assert "Read with uniformity of image" in sentence
    assert ("no claim" in sentence) is (status == "info")
    assert ("clearly worse" in sentence.split(" Read with ")[0]) is (status == "FAIL")


def test_one_checkpoint_has_nothing_to_compare():
    measured = ends(change("mean_cosine", "image", -0.3))[:1]
    (found,) = verdicts(measured, [], [], ())
    assert found.status == "NOT RUN"
    assert headline([found], measured) == (
        "One checkpoint (base): there is nothing to compare it with. Its mean cosine is 0.5 in "
        "image."
    )
    assert headline([], []) == "Nothing was measured."
    assert verdicts([], [], [], ()) == ()


def test_only_the_last_checkpoint_is_judged():
    first = change("mean_cosine", "image", +0.3, after="early")
    last = change("mean_cosine", "image", -0.3)
    measured = [*ends(first), ends(last)[1]]
    (found,) = verdicts(measured, [last, first], [], ("text",))
    assert found.status == "PASS"


def test_spoken_probes_are_summed_up_by_direction():
    up = change("probe:colour", "text->image", 0.3, better="higher")
    down = change("probe:shape", "text->image", -0.3, better="higher")
    probes = [probed(n, 0.8, "lco", spoken=True, on=("text", "image")) for n in ("colour", "shape")]
    own = change("mean_cosine", "text", -0.3)
    found, _ = judge(own, up, down, probes=probes)
    assert found["probe", "text->image"].status == "WARN"
    assert "better for colour; clearly worse for shape" in found["probe", "text->image"].sentence
    found, _ = judge(own, up, probes=probes)
    assert found["probe", "text->image"].status == "PASS"
    assert found["probe", "text->image"].role == "untrained"


@pytest.mark.parametrize(
    ("value", "status", "word"),
    [(0.3, "WARN", "clearly up"), (-0.3, "WARN", "clearly down"), (0.0, "info", "no clear change")],
)
def test_a_control_that_moves_is_reported(value, status, word):
    moved = change("probe:voice", "audio->audio", value, better="higher")
    probes = [
        probed("voice", 0.5, "base", on=("audio", "audio")),
        probed("voice", 0.5 + value, "lco", on=("audio", "audio")),
    ]
    found, top = judge(change("mean_cosine", "text", -0.3), moved, probes=probes)
    verdict = found["probe:voice", "audio->audio"]
    assert (verdict.role, verdict.status) == ("control", status)
    assert word in verdict.sentence
    assert ("Negative controls to look at: voice." in top) is (status == "WARN")


def test_a_control_that_was_not_measured_says_so_and_why():
    """It did not stay where it was: nobody looked."""
    none = change("probe:voice", "audio->audio", None, better="higher")
    probes = [
        dataclasses.replace(
            probed("voice", 0.5, name, on=("audio", "audio")), accuracy=None, interval=None
        )
        for name in ("base", "lco")
    ]
    found, top = judge(change("mean_cosine", "text", -0.3), none, probes=probes)
    verdict = found["probe:voice", "audio->audio"]
    assert verdict.status == "NOT RUN"
    assert verdict.sentence == (
        "voice (audio->audio), which no caption names: not measured (all rows are equal)."
    )
    assert "voice" not in top


def test_a_control_that_fell_reaches_the_headline_also_where_text_is_read():
    down = change("probe:voice", "audio->text", -0.3, better="higher")
    probes = [probed("voice", a, n, on=("audio", "text")) for n, a in (("base", 0.8), ("lco", 0.5))]
    found, top = judge(change("mean_cosine", "text", -0.3), down, probes=probes)
    assert found["probe:voice", "audio->text"].status == "WARN"
    assert "Negative controls to look at: voice." in top


def test_probes_without_any_change_are_not_told_as_two_lists_of_none():
    still = change("probe:colour", "text->image", 0.0, better="higher")
    probes = [probed("colour", 0.5, "lco", spoken=True, on=("text", "image"))]
    found, _ = judge(change("mean_cosine", "text", -0.3), still, probes=probes)
    sentence = found["probe", "text->image"].sentence
    assert sentence.endswith("(colour): no clear change.")


def test_an_attribute_that_was_not_measured_is_named_beside_the_others():
    up = change("probe:colour", "text->image", 0.3, better="higher")
    none = change("probe:shape", "text->image", None, better="higher")
    probes = [probed(n, 0.8, "lco", spoken=True, on=("text", "image")) for n in ("colour", "shape")]
    found, _ = judge(change("mean_cosine", "text", -0.3), up, none, probes=probes)
    sentence = found["probe", "text->image"].sentence
    assert sentence.endswith(
        "clearly better for colour; not measured for shape (all rows are equal)."
    )


def test_equal_values_are_no_change_and_no_arithmetic():
    found, _ = judge(change("mean_cosine", "image", 0.0, half=0.0))
    assert found["mean_cosine", "image"].sentence == (
        "mean cosine of image 0.5 before and after, n 100: no change."
    )


@pytest.mark.parametrize(("groups", "few"), [(3, True), (19, True), (20, False), (0, False)])
def test_a_claim_on_few_groups_says_how_few(groups, few):
    d = change("retrieval_r1", "image->text", 0.3)
    told = dataclasses.replace(d, interval=dataclasses.replace(d.interval, groups=groups))
    verdict = judge(told)[0]["retrieval_r1", "image->text"]
    assert verdict.status == "PASS"
    assert (f"clearly better, but {groups} groups of samples are few." in verdict.sentence) is few


def test_captions_that_tell_a_control_are_reported():
    leak = probed("voice", 0.9, "lco", on=("text", "text"))
    found, _ = judge(change("mean_cosine", "text", -0.3), probes=[leak])
    assert found["probe:voice", "text->text"].status == "WARN"
    assert "no negative control" in found["probe:voice", "text->text"].sentence
    silent = probed("voice", 0.52, "lco", on=("text", "text"))
    found, _ = judge(change("mean_cosine", "text", -0.3), probes=[silent])
    assert ("probe:voice", "text->text") not in found


def geometry(text, image, audio):
    return [change("mean_cosine", "text", text)] + [
        change("mean_cosine", m, v) for m, v in (("image", image), ("audio", audio))
    ]


def test_the_headline_tells_geometry_from_retrieval():
    found = [change("retrieval_r1", d, 0.0) for d in ("image->text", "text->image")]
    found += [change("retrieval_r1", d, 0.3) for d in ("audio->text", "text->audio")]
    _, top = judge(*geometry(-0.3, -0.3, -0.3), *found)
    assert top == (
        "lco against base, trained on text only: more isotropic states in text (mean cosine "
        "0.5 -> 0.2); this transferred to image (mean cosine 0.5 -> 0.2) and audio (mean cosine "
        "0.5 -> 0.2). Retrieval is better for audio-text; without a clear change for image-text."
    )


def test_the_headline_claims_no_transfer_that_was_not_seen():
    _, top = judge(*geometry(-0.3, -0.3, +0.001))
    assert "this transferred to image (" in top
    assert "no clear transfer to audio (" in top
    _, top = judge(*geometry(+0.3, -0.3, -0.3))
    assert "less isotropic states in text" in top
    assert "transfer" not in top
    _, top = judge(*geometry(-0.3, +0.3, None))
    assert "the opposite happened in image" in top
    assert "transfer to audio cannot be judged" in top
    assert "- -> -" not in top


def test_the_headline_does_not_guess_what_training_saw():
    _, top = judge(*geometry(-0.3, -0.3, -0.3), trained=())
    assert "trained on" not in top
    assert "transfer" not in top


def test_two_directions_that_disagree_are_no_clear_change():
    pair = [change("retrieval_r1", "image->text", 0.3), change("retrieval_r1", "text->image", -0.3)]
    _, top = judge(*geometry(-0.3, -0.3, -0.3), *pair)
    assert "without a clear change for image-text" in top


def test_probes_that_were_not_run_say_why():
    none = change("probe:colour", "text->image", None, better="higher")
    probes = [probed("colour", 0.5, "lco", spoken=True, on=("text", "image"))]
    found, _ = judge(change("mean_cosine", "text", -0.3), none, probes=probes)
    verdict = found["probe", "text->image"]
    assert verdict.status == "NOT RUN"
    assert verdict.sentence.endswith("(colour): not measured (all rows are equal).")


def test_the_headline_quotes_the_metric_that_is_clear():
    found = [change("mean_cosine", "image", 0.0), change("uniformity", "image", -0.3)]
    _, top = judge(change("mean_cosine", "text", -0.3), *found)
    assert "this transferred to image (uniformity 0.5 -> 0.2)" in top


def test_joint_and_listed():
    assert joint(["PASS", "WARN"]) == "PASS"
    assert joint(["PASS", "FAIL"]) == "WARN"
    assert joint(["FAIL", "NOT RUN"]) == "FAIL"
    assert joint([]) == "NOT RUN"
    assert listed([]) == "none"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_the_headline_names_the_price():
    """A model that generates worse afterwards is said to, whatever its geometry gained."""
    spread = change("mean_cosine", "text", -0.5)
    worse = change("generative_loss", "audio", 0.4, site="lm_head", better="lower")
    told = [judge(spread, worse)[1], judge(spread)[1]]
    assert "Generation got worse in audio." in told[0]
    assert "Generation" not in told[1]


@pytest.mark.parametrize(
    ("verdict", "ratio", "told"),
    [
        (PART, 0.53, "image (mean cosine 0.5 -> 0.35, 0.53 of the way text went)"),
        (PART, 0.95, "image (mean cosine 0.5 -> 0.35)"),
        (FULL, 1.02, "image (mean cosine 0.5 -> 0.35)"),
        (PART, None, "image (mean cosine 0.5 -> 0.35)"),
        (OPEN, 0.53, "image (mean cosine 0.5 -> 0.35, too few samples to tell)"),
    ],
)
def test_the_headline_tells_the_amount_where_it_adds_something(verdict, ratio, told):
    changes = geometry(-0.3, -0.15, -0.3)
    measured = [m for d in changes for m in sorted(ends(d), key=lambda m: m.checkpoint)]
    found = verdicts(measured, changes, [], ["text"])

    def share(trained):
        return Transfer(
            "mean_cosine", "base", "lco", "final_norm", trained, "image",
            -0.3, -0.15, 0.5, None, verdict, closed_ratio=ratio,
        )  # fmt: skip

    assert told in headline(found, measured, [share("text")])
    assert "image (mean cosine 0.5 -> 0.35)" in headline(found, measured)
    other = dataclasses.replace(share("text"), after="step100")
    assert told in headline(found, measured, [share("text"), other])
    two = headline(found, measured, [share("text"), share("audio")])
    assert "image (mean cosine 0.5 -> 0.35)" in two


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "-"), (1.0, "1"), (0.9999, "0.9999"), (-0.99996, "-1.0000"), (0.98765, "0.988")],
)
def test_what_is_not_quite_one_is_not_told_as_one(value, told):
    assert number(value) == told


def test_the_headline_says_whether_text_foretells_what_happened():
    def cells(modality, mapped, own):
        values = {
            ("r2", "text"): mapped, ("r2", "own"): own, ("r2", "text-shift"): mapped,
            ("r2", "shift"): 0.0, ("r2_centred", "text"): mapped, ("r2_centred", "own"): own,
        }  # fmt: skip
        return [
            Binding(
                "base",
                "lco",
                "final_norm",
                modality,
                quantity,
                predictor,
                value,
                Interval(value - 0.1, value + 0.1),
                50,
                50,
            )
            for (quantity, predictor), value in values.items()
        ]

    measured = [
        Measurement("mean_cosine", name, "final_norm", "image", value, None, 0.0, "lower", 100)
        for name, value in (("base", 0.5), ("lco", 0.2))
    ]
    found = [*cells("text", 0.9, 0.9), *cells("image", 0.8, 0.9), *cells("audio", -3.0, 0.9)]
    told = headline([], measured, bindings=found)
    assert (
        "A map fitted on text foretells the change of image and does not foretell the change of "
        "audio." in told
    )
    assert "A map" not in headline([], measured)


def test_equal_checkpoints_are_said_to_be_equal():
    """No change that is not clear: none at all, at any site."""
    still = [change("mean_cosine", m, 0.0, half=0.0) for m in ("text", "image")]
    still += [change("mean_cosine", "image", 0.0, half=0.0, site="block_00")]
    assert judge(*still, trained=())[1] == (
        "lco against base: nothing changed. 3 values before and after, and all are equal: so are "
        "the states, as far as they can tell."
    )
    _, top = judge(*still, change("uniformity", "image", -1e-5, half=1e-6), trained=())
    assert top == (
        "lco against base: nothing changed by more than rounding can do, at no site and in no "
        "measure."
    )
    moved = change("uniformity", "image", 0.01, half=0.1, site="block_00")
    assert "nothing changed" not in judge(*still, moved)[1]
    assert "nothing changed" not in judge(change("retrieval_r1", "text->image", 0.0))[1]


def test_the_headline_names_the_probes_that_failed():
    attributes = ("colour", "shape")
    probes = [
        probed(name, 0.8, "lco", spoken=True, on=on)
        for name in attributes
        for on in (("image", "image"), ("text", "image"), ("image", "text"))
    ]
    moves = {
        ("colour", "image->image"): -0.3, ("shape", "image->image"): 0.0,
        ("colour", "text->image"): 0.3, ("shape", "text->image"): -0.3,
        ("colour", "image->text"): 0.3, ("shape", "image->text"): 0.3,
    }  # fmt: skip
    found = [change(f"probe:{a}", d, v, better="higher") for (a, d), v in moves.items()]
    own = change("mean_cosine", "text", -0.3)
    assert judge(own, *found, probes=probes)[1].endswith(
        "Probes of spoken attributes: worse in image->image; better and worse, by attribute, in "
        "text->image; better in 1 of 3 directions."
    )
    assert "Probes" not in judge(own, *found[-2:], probes=probes)[1]
    down = [dataclasses.replace(d, value=-0.3, interval=Interval(-0.4, -0.2)) for d in found]
    assert judge(own, *down, probes=probes)[1].endswith(
        "Probes of spoken attributes: worse in all of 3 directions."
    )


def test_the_headline_names_every_headline_metric_that_failed():
    own = change("mean_cosine", "text", -0.3)
    _, top = judge(
        own, change("effective_rank", "image", -2), change("mutual_knn", "image-text", -1)
    )
    assert "Clearly worse: effective rank of image; mutual neighbours of image-text." in top
