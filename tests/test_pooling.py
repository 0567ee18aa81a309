from __future__ import annotations

import pytest
import torch

from geomkit import plans
from geomkit.errors import CaptureError, UsageError
from geomkit.pooling import POOLINGS, last, mean, media_mask, pooler, tokens

STATES = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)


def test_last_reads_the_last_real_token_under_right_padding() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(last(STATES, mask), torch.stack([STATES[0, 1], STATES[1, 3]]))


def test_last_reads_the_last_real_token_under_left_padding() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert torch.equal(last(STATES, mask), STATES[:, 3])


def test_mean_averages_real_tokens_only() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1]])
    expected = torch.stack([STATES[0, :2].mean(0), STATES[1, 3]])
    torch.testing.assert_close(mean(STATES, mask), expected)


def test_padding_that_is_not_a_number_does_not_leak_into_the_mean() -> None:
    states = STATES.clone()
    states[0, 2:] = torch.nan
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    torch.testing.assert_close(mean(states, mask), mean(STATES, mask))


def test_both_accumulate_in_float32_and_keep_no_view() -> None:
    half = (STATES * 100).to(torch.bfloat16)
    mask = torch.ones(2, 4, dtype=torch.long)
    for pool in (last, mean):
        pooled = pool(half, mask)
        assert pooled.dtype == torch.float32
        assert pooled.untyped_storage().nbytes() == pooled.numel() * 4
    exact = last(STATES, mask)
    assert exact.data_ptr() != STATES.data_ptr()
    assert exact.untyped_storage().nbytes() == exact.numel() * 4


def test_the_sum_of_a_mean_is_not_rounded_to_the_states_precision() -> None:
    ones = torch.ones(1, 257, 3, dtype=torch.bfloat16)  # bfloat16 has 256 and 258
    assert torch.equal(mean(ones, torch.ones(1, 257)), torch.ones(1, 3))


def test_a_row_of_padding_only_is_refused() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    with pytest.raises(CaptureError, match="at least one real token in every row"):
        pooler(["last"], mask)


def test_the_mean_of_media_reads_placeholders_or_all_of_a_row_without() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    media = media_mask(torch.tensor([[5, 9, 9, 9], [5, 6, 9, 9]]), (9, 8))
    assert media.tolist() == [[False, True, True, True], [False, False, True, True]]
    pooled = pooler(["mean", "mean-of-media"], mask, media)(STATES)
    of_media = torch.stack([STATES[0, 1:3].mean(0), STATES[1, :2].mean(0)])
    torch.testing.assert_close(pooled["mean-of-media"], of_media)
    assert not torch.allclose(pooled["mean"][0], pooled["mean-of-media"][0])
    text = pooler(["mean", "mean-of-media"], mask)(STATES)
    assert torch.equal(text["mean"], text["mean-of-media"])


def test_tokens_are_those_of_the_mask_row_after_row() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert torch.equal(tokens(STATES, mask), torch.cat([STATES[0, 2:], STATES[1, :3]]))


def test_states_that_are_not_rows_tokens_dim_are_refused() -> None:
    mask = torch.ones(2, 4)
    with pytest.raises(CaptureError, match=r"rows, tokens, dim.*\(4, 2, 4, 3\)"):
        last(STATES.expand(4, 2, 4, 3), mask)
    with pytest.raises(CaptureError, match=r"\(2, 5\)"):
        mean(STATES, torch.ones(2, 5))


def test_the_plan_knows_every_pooling() -> None:
    assert tuple(POOLINGS) == plans.POOLINGS


def test_an_unknown_pooling_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"last, mean.*'max'"):
        pooler(["last", "max"], torch.ones(2, 4))
