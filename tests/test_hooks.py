from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from geomkit.errors import CaptureError, CheckpointError, UsageError
from geomkit.hooks import resolve, sites, stream, tap

NAMES = ("embed", "block_00", "block_01", "block_02", "final_norm")


class Block(nn.Module):
    def __init__(self, add: float, *, as_tuple: bool = False) -> None:
        super().__init__()
        self.add, self.as_tuple = add, as_tuple

    def forward(self, hidden_states: torch.Tensor) -> Any:
        out = hidden_states + self.add
        return (out, "cache") if self.as_tuple else out


class Decoder(nn.Module):
    """Adds 1, 10, 100; the norm doubles. `repeat` runs the last block again."""

    def __init__(
        self, *, by_keyword: bool = False, as_tuple: bool = False, repeat: int = 1
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(10.0**i, as_tuple=as_tuple) for i in range(3))
        self.norm = Doubling()
        self.by_keyword, self.repeat = by_keyword, repeat

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.layers):
            for _ in range(self.repeat if i == 2 else 1):
                x = block(hidden_states=x) if self.by_keyword else block(x)
                x = x[0] if isinstance(x, tuple) else x
        return self.norm(x)


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def pool(states: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"last": states[:, -1].clone()}


def hook_count(decoder: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in decoder.modules())


X = torch.zeros(1, 2, 4)


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("as_tuple", [False, True])
def test_each_site_is_the_state_that_its_name_says(by_keyword: bool, as_tuple: bool) -> None:
    decoder = Decoder(by_keyword=by_keyword, as_tuple=as_tuple)
    with tap(decoder, (), pool) as seen:
        out = decoder(X)
    assert {site: float(seen[site]["last"][0, 0]) for site in NAMES} == dict(
        zip(NAMES, (0.0, 1.0, 11.0, 111.0, 222.0), strict=True)
    )
    assert torch.equal(out, torch.full_like(X, 222.0)), "a hook changed the output"
    assert hook_count(decoder) == 0


def test_only_wanted_sites_are_tapped_in_forward_order() -> None:
    decoder = Decoder()
    assert sites(decoder) == NAMES
    assert resolve(decoder, ("final_norm", "embed")) == ("embed", "final_norm")
    with tap(decoder, ("block_01",), pool) as seen:
        assert hook_count(decoder) == 1
        decoder(X)
    assert list(seen) == ["block_01"]


def test_an_unknown_site_is_refused_before_anything_is_hooked() -> None:
    decoder = Decoder()
    with (
        pytest.raises(UsageError, match=r"'block_1'; near names: block_01, block_0"),
        tap(decoder, ("embed", "block_1"), pool),
    ):
        pytest.fail("the body must not run")
    assert hook_count(decoder) == 0


def test_hooks_are_gone_after_an_exception_inside() -> None:
    decoder = Decoder()
    with pytest.raises(ZeroDivisionError), tap(decoder, (), pool):
        decoder(X / (1 // 0))
    assert hook_count(decoder) == 0


def test_hooks_are_gone_after_a_pool_that_fails() -> None:
    decoder = Decoder()

    def broken(states: torch.Tensor) -> dict[str, torch.Tensor]:
        raise CaptureError("no state here")

    with pytest.raises(CaptureError, match="no state here"), tap(decoder, (), broken):
        decoder(X)
    assert hook_count(decoder) == 0


def test_a_site_that_does_not_fire_is_an_error() -> None:
    decoder = Decoder()
    with pytest.raises(CaptureError, match=r"fire once.*'final_norm': 0"), tap(decoder, (), pool):
        pass
    assert hook_count(decoder) == 0


def test_a_site_that_fires_twice_is_an_error() -> None:
    decoder = Decoder(repeat=2)
    with pytest.raises(CaptureError, match="'block_02': 2"), tap(decoder, (), pool):
        decoder(X)


def test_an_output_that_is_no_tensor_is_an_error() -> None:
    decoder = Decoder()
    decoder.norm.register_forward_hook(lambda *_: {"states": X})
    with (
        pytest.raises(CaptureError, match="tensor at final_norm, got dict"),
        tap(decoder, (), pool),
    ):
        decoder(X)


def test_a_decoder_without_a_known_norm_is_refused() -> None:
    decoder = Decoder()
    del decoder.norm
    with pytest.raises(CheckpointError, match="final norm"):
        sites(decoder)


@pytest.mark.parametrize("name", ["final_layernorm", "embedding_norm", "norm_f"])
def test_other_names_of_the_norm_are_known(name: str) -> None:
    decoder = Decoder()
    norm = decoder.norm
    del decoder.norm
    setattr(decoder, name, norm)
    assert sites(decoder)[-1] == "final_norm"


def test_of_several_streams_the_active_one_is_read() -> None:
    decoder = Decoder()
    streams = torch.arange(4.0)[:, None, None, None].expand(4, 2, 3, 5)
    assert stream(decoder, streams) is streams  # nothing says which
    decoder.config = SimpleNamespace(altup_active_idx=2)  # type: ignore[assignment]  # as transformers sets it
    assert torch.equal(stream(decoder, streams), streams[2])
    flat = streams[1]
    assert stream(decoder, flat) is flat
