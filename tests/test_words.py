from __future__ import annotations

from geomkit.words import counted, lacking


def test_one_is_no_plural() -> None:
    assert [counted(n, "shard") for n in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(3000, "batch", "batches") == "3,000 batches"


def test_what_is_lacking_is_counted_and_its_first_named() -> None:
    assert lacking("base", (1, 3), 9) == "base lacks 2 of 9 shards: 1, 3"
    assert lacking("base", range(9), 9).endswith("9 of 9 shards: 0, 1, 2, 3, 4, 5, 6, 7, ...")
    assert lacking("base", (0,), 1) == "base lacks 1 of 1 shard: 0"
