from __future__ import annotations

import pytest

from geomkit.errors import SampleError, UsageError
from geomkit.processing import Processor, load_processor
from geomkit.prompts import PRESETS, cut, prompts, render
from tests.tiny_models import saved

ASKED = "\nSummarize the above image in one word:"
END = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def omni() -> Processor:
    return load_processor(saved("qwen2_5_omni"))


def test_lco_asks_for_one_word_of_each_modality() -> None:
    assert PRESETS["lco"]["image"] == ASKED
    assert prompts("lco")["text"] == "\nSummarize the above text in one word:"
    assert prompts("e5v")["text"] == "\nSummary above sentence in one word: "
    assert set(prompts("none").values()) == {""}


def test_a_template_of_the_user_names_the_modality() -> None:
    assert prompts(r"\nName the {modality}:")["audio"] == "\nName the audio:"
    assert prompts("One word:")["text"] == "One word:"


@pytest.mark.parametrize("spec", ["lc0", "", "oneword"])
def test_a_word_that_is_no_preset_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"preset \(lco, e5v, none\)"):
        prompts(spec)


def test_another_field_in_a_template_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\{modality\} as the only field"):
        prompts("the {thing} in one word")


def test_a_media_row_is_one_turn_with_the_media_first(omni: Processor) -> None:
    shown = render(omni, "image", "", ASKED)
    media = "<|vision_bos|><|IMAGE|><|vision_eos|>"
    assert shown == f"<|im_start|>user\n{media}{ASKED}{END}"


def test_a_text_row_is_content_then_prompt_in_one_turn(omni: Processor) -> None:
    asked = prompts("lco")["text"]
    assert render(omni, "text", "two dogs", asked) == f"<|im_start|>user\ntwo dogs{asked}{END}"


def test_no_prompt_leaves_the_template_alone(omni: Processor) -> None:
    media = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    assert render(omni, "audio", "", "") == f"<|im_start|>user\n{media}{END}"


def test_a_text_model_is_given_a_plain_string() -> None:
    shown = render(load_processor(saved("text_only")), "text", "two dogs", " In one word:")
    assert shown == f"<|im_start|>user\ntwo dogs In one word:{END}"


@pytest.mark.parametrize("token", ["<|IMAGE|>", "<|im_end|>", "<|AUDIO|>"])
def test_a_control_token_in_the_content_is_refused(omni: Processor, token: str) -> None:
    with pytest.raises(SampleError, match="control token"):
        render(omni, "text", f"look: {token}", "")


def test_cutting_takes_content_only_and_keeps_its_characters(omni: Processor) -> None:
    words = omni.tokenizer
    assert cut(words, "abcdef", 6) == ("abcdef", False)
    assert cut(words, "abcdef", 4) == ("abcd", True)
    kept, was_cut = cut(words, "é" * 10, 6)  # two bytes, two tokens each
    assert (kept, was_cut) == ("é" * 3, True)
    assert cut(words, "", 3) == ("", False)
