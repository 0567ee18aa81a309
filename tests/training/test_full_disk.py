"""A disk that is full while a training keeps or writes: one sentence, and room makes it go on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from geomkit.errors import GeomkitError
from geomkit.training.config import TrainConfig
from geomkit.training.pairs import TextPair
from geomkit.training.trainer import train

resource = pytest.importorskip("resource", reason="needs limits of a POSIX system")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs limits that the system enforces")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_file_that_cannot_be_written_is_a_sentence(
    method: str, base: Path, pairs: tuple[TextPair, ...], quick: TrainConfig, tmp_path: Path
) -> None:
    """A limit on the size of files fails like a full disk, at whatever file comes to it first."""
    config = replace(quick, method=method, save_steps=1, geometry_every=0)
    whole = train(config, base, pairs, tmp_path / "whole", source="tiny")
    sizes = sorted({p.stat().st_size for p in (tmp_path / "whole").rglob("*") if p.is_file()})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = []
    for size in [1, 100, *(one - 1 for one in sizes if one > 200)]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            train(config, base, pairs, tmp_path / "cut", source="tiny")
        except GeomkitError as error:
            told.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not (tmp_path / "cut").exists()
    assert len(told) > 3
    assert all("File too large" in one or "failed" in one for one in told), told
    again = train(config, base, pairs, tmp_path / "cut", source="tiny")
    assert again.adapter_sha == whole.adapter_sha
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "whole"]
