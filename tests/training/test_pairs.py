"""Text pairs: what is kept, what is counted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from pyarrow import parquet

from geomkit.errors import SampleError, TrainingError, UsageError
from geomkit.training.pairs import TextPair, fingerprint, load_pairs, select

ROWS: list[dict[str, Any]] = [
    {"anchor": "a red circle", "positive": "one red disc", "negative": "a blue circle"},
    {"anchor": "a green ring", "positive": "one green hoop", "negative": "a green star"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_formats_give_the_same_pairs(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "p.jsonl", list(ROWS))
    csv = tmp_path / "p.csv"
    csv.write_text(
        "anchor,positive,negative\n" + "".join(",".join(row.values()) + "\n" for row in ROWS)
    )
    table = tmp_path / "p.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), table)
    expected = tuple(TextPair(r["anchor"], r["positive"], r["negative"]) for r in ROWS)
    tsv = tmp_path / "p.tsv"
    tsv.write_bytes(b"\xef\xbb\xbf" + csv.read_bytes().replace(b",", b"\t").replace(b"\n", b"\r\n"))
    for path in (jsonl, csv, table, tsv):
        assert load_pairs(path).pairs == expected


def test_unusable_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        *ROWS,
        dict(ROWS[0]),
        {"anchor": "", "positive": "x", "negative": "y"},
        {"anchor": "x", "negative": "y"},
        {"anchor": 3, "positive": "x", "negative": "y"},
        {"anchor": "x", "positive": "y", "negative": "y"},
        {"anchor": "x", "positive": "y"},
    ]
    found = load_pairs(write(tmp_path / "p.jsonl", rows))
    assert found.pairs == tuple(TextPair(r["anchor"], r["positive"], r["negative"]) for r in ROWS)
    assert found.dropped == {
        "duplicate": 1,
        "empty": 1,
        "missing column": 1,
        "not text": 1,
        "negative equal to its pair": 1,
        "without a negative": 1,
    }
    assert "2 pairs from p.jsonl; left out: 1 duplicate, 1 empty" in found.report()


def test_a_few_negatives_do_not_cost_the_pairs_that_have_none(tmp_path: Path) -> None:
    rows = [{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(7)]
    rows += [{"anchor": "a8", "positive": "p8", "negative": f"n{i}"} for i in range(2)]
    found = load_pairs(write(tmp_path / "p.jsonl", rows))
    expected = [TextPair(f"a{i}", f"p{i}") for i in (*range(7), 8)]
    assert list(found.pairs) == expected
    assert found.dropped == {"negative, which most pairs lack": 2, "duplicate": 1}


def test_nli_column_names_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "nli.csv"
    path.write_text("sent0,sent1,hard_neg\nit rains,it is wet,it is dry\n", encoding="utf-8-sig")
    assert load_pairs(path).pairs == (TextPair("it rains", "it is wet", "it is dry"),)


def test_groups_are_kept_and_pairs_need_no_negative() -> None:
    rows: list[dict[str, Any]] = [
        {"anchor": "a", "positive": "b", "group": 7},
        {"anchor": "c", "positive": "d"},
    ]
    assert select(rows, source="rows").pairs == (TextPair("a", "b", None, "7"), TextPair("c", "d"))


@pytest.mark.parametrize(
    ("cell", "group"),
    [(None, ""), (float("nan"), ""), ("", ""), ("  ", ""), (7.0, "7"), (7, "7"), (" a ", "a")],
)
def test_an_empty_group_is_none_however_a_table_writes_it(cell: Any, group: str) -> None:
    """Rows of an empty group that counted as equal would have no negatives."""
    rows = [{"anchor": "a", "positive": "b", "group": cell}]
    assert select(rows, source="rows").pairs[0].group == group


def test_cells_with_commas_quotes_and_lines_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('anchor,positive\n"a dog, a ""cat""","one\ntwo"\n\nc,d\n')
    assert load_pairs(path).pairs == (
        TextPair('a dog, a "cat"', "one\ntwo"),
        TextPair("c", "d"),
    )


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1, 2]), "2 not text"),
        (pa.array([b"a", b"b"]), "2 not text"),
        (pa.array([["a"], ["b"]]), "2 not text"),
        (pa.array([None, None], pa.string()), "2 missing column"),
        (pa.array([b"\xff", b"\xe9"]).cast(pa.string(), safe=False).view(pa.string()), "cannot be"),
    ],
)
def test_parquet_of_other_types_is_refused(column: Any, reason: str, tmp_path: Path) -> None:
    table = pa.table({"anchor": column, "positive": ["c", "d"]})
    parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(TrainingError, match=reason):
        load_pairs(tmp_path / "p.parquet")


def test_a_parquet_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["anchor", "anchor", "positive"])
    parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(TrainingError, match="'anchor' more than once"):
        load_pairs(tmp_path / "p.parquet")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b", str(tmp_path)):
        with pytest.raises(TrainingError, match="found no file"):
            load_pairs(name)


@pytest.mark.parametrize("column", ["image", "audio_path", "video", "pixel_values", "Wave_WAV"])
def test_media_columns_are_refused(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{**ROWS[0], column: "x.png"}])
    with pytest.raises(TrainingError, match=f"media column '{column}'"):
        load_pairs(path)


def test_media_nested_in_a_text_column_are_refused() -> None:
    row = {"anchor": {"text": "a", "image_path": "x.png"}, "positive": {"text": "b"}}
    with pytest.raises(TrainingError, match=r"media column 'anchor\.image_path'"):
        select([row], source="rows")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", r"empty\.jsonl is empty"),
        ("empty.csv", b"", r"empty\.csv is empty"),
        ("header.csv", b"anchor,positive\n", r"header\.csv is empty"),
        ("wrong.csv", b"premise,hypothesis\na,b\n", "no usable row \\(1 missing column\\)"),
        ("bad.jsonl", b'{"anchor": "a"\n', "line 1 is not JSON"),
        ("list.jsonl", b'["a", "b"]\n', "line 1 is a list"),
        ("latin.jsonl", b'{"anchor": "\xe9"}\n', "UTF-8 text, .* line 1 has the byte 0xe9"),
        ("latin.csv", b"anchor,positive\nx,y\n\xe9,b\n", "UTF-8 text, .* line 3 has the byte"),
        ("wide.csv", "anchor,positive\na,b\n".encode("utf-16"), "UTF-8 text, .* line 1"),
        ("comma.csv", b"anchor,positive\na,b\na dog, a cat,an animal\n", "2 cells.*line 3 has 3"),
        ("short.csv", b"anchor,positive,negative\na,b\n", "3 cells.*line 2 has 2"),
        ("quote.csv", b'anchor,positive\n"a,b\nc,d\n', "line 3 is none"),
        ("after.csv", b'anchor,positive\n"a"x,b\n', "line 2 is none"),
        ("semi.csv", b"anchor;positive\na;b\n", "separated by semicolons"),
        ("tab.csv", b"anchor\tpositive\na\tb\n", "separated by tabs"),
        ("comma.tsv", b"anchor,positive\na,b\n", "separated by commas"),
        ("twice.csv", b"anchor,anchor,positive\na,b,c\n", "'anchor' more than once"),
        ("bare.csv", b"it rains,it is wet\na,b\n", "its columns are 'it rains', 'it is wet'"),
        ("twice.jsonl", b'{"anchor": "a", "anchor": "b"}\n', "'anchor' is there twice"),
        ("both.csv", b"anchor,sent0,positive\na,b,c\n", "has anchor and sent0: keep one"),
        ("many.csv", b"anchor,positive,negative_1\na,b,c\n", "'negative_1', which would not"),
        ("case.csv", b"anchor,Positive\na,b\n", "'Positive', which would not be read"),
        ("deep.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("fake.parquet", b"not parquet at all", "cannot be read as one"),
        ("pairs.txt", b"a b", r"Expected \.jsonl, \.csv, \.tsv, \.parquet"),
    ],
)
def test_bad_files_say_what_is_wrong(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        load_pairs(tmp_path / name)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(TrainingError, match=r"no file nowhere\.csv"):
        load_pairs("nowhere.csv")


@pytest.mark.parametrize("spec", ["sandbox:many", "sandbox:0", "sandbox:-3", "sandbox:1"])
def test_a_bad_sandbox_count_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match="sandbox:<count>"):
        load_pairs(spec)


def test_fingerprint_tells_order_and_fields_apart() -> None:
    one, two = TextPair("a", "b", "c"), TextPair("a", "b", None, "c")
    assert fingerprint([one, two]) != fingerprint([two, one])
    assert fingerprint([one]) != fingerprint([two])
    assert fingerprint([one]) == fingerprint([TextPair("a", "b", "c")])


def saved(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """A dataset as the datasets library writes it."""
    tables = {name: Dataset.from_list(rows) for name, rows in splits.items()}
    DatasetDict(tables).save_to_disk(str(folder))
    return folder


def test_a_dataset_of_the_hub_library_is_read_and_what_it_lacks_is_counted(tmp_path: Path) -> None:
    rows = [{"anchor": f"a {i}", "positive": f"b {i}", "negative": f"c {i}"} for i in range(3)]
    odd = [rows[0], {"anchor": "", "positive": "b", "negative": "c"}]
    folder = saved(tmp_path / "nli", train=rows + odd, dev=rows[:2])
    found = load_pairs(f"hf:{folder}::train")
    assert [pair.anchor for pair in found] == ["a 0", "a 1", "a 2"]
    assert found.dropped == {"duplicate": 1, "empty": 1}
    assert len(load_pairs(f"hf:{folder}::dev")) == 2
    with pytest.raises(UsageError, match="one of train, dev"):
        load_pairs(f"hf:{folder}")
    with pytest.raises(SampleError, match="dataset folder"):
        load_pairs("hf:./nowhere")


def test_a_dataset_with_media_or_without_the_columns_is_refused(tmp_path: Path) -> None:
    media = saved(tmp_path / "media", train=[{"anchor": "a", "positive": "b", "image": "x.png"}])
    with pytest.raises(TrainingError, match="media column 'image'"):
        load_pairs(f"hf:{media}")
    other = saved(tmp_path / "other", train=[{"premise": "a", "hypothesis": "b"}])
    with pytest.raises(TrainingError, match="1 missing column"):
        load_pairs(f"hf:{other}")


def test_half_a_character_and_a_nul_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"anchor": "a \\ud800", "positive": "b"}\n{"anchor": "c", "positive": "d"}\n'
        '{"anchor": "a", "positive": "b\\u0000"}\n',
        encoding="utf-8",
    )
    found = load_pairs(str(path))
    assert found.dropped == {"half a character": 1, "with a NUL": 1}
    assert len(found.pairs) == 1
