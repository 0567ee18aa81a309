"""The command line: help without weight, one sentence for a mistake, and the thread end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image
from rich.text import Text

from geomkit import cli
from geomkit.store import create_run, open_run, pack_run
from tests import small_run, tiny_models


@pytest.fixture
def geomkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geomkit", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, geomkit.cli as c\n"
        "heavy = {'torch', 'transformers', 'plotly', 'sklearn', 'umap', 'h5py'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    ["train", "merge", "capture", "info", "pack", "verify", "analyze", "compare", "report", "demo"],
)
def test_every_command_has_help(geomkit, command: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = geomkit(command, "--help")
    assert code == 0
    assert "Usage: geomkit" in out


def test_no_bracket_is_lost_in_any_help() -> None:
    """rich reads `[eval]` as a style that it does not know, and leaves it out."""
    group = typer.main.get_command(cli.app)
    commands = [group, *group.commands.values()]  # type: ignore[attr-defined]  # a group
    texts = [c.help or "" for c in commands]
    texts += [getattr(p, "help", "") or "" for c in commands for p in c.params]
    assert len(texts) > 100
    for text in texts:
        own = text.replace("[dim]", "").replace("[/dim]", "")  # ours, of options.py
        assert Text.from_markup(own).plain == own.replace("\\[", "[")


def test_config_fields_are_options_with_their_own_help(geomkit) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = geomkit("capture", "--help")
    for flag in ("--batch-size", "--prompt", "--gate", "--no-gate", "--sites", "--attn"):
        assert flag in out


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "capture",
            [
                "[default: 8]",
                "[default: last, mean]",
                "[default: off; sandbox: on]",
                "Modalities to show. [default: all]",
                "every:4. [default: all]",
            ],
        ),
        ("train", ["[default: 64; sandbox: 16]", "[default: cosine; lco-released: linear]"]),
    ],
)
def test_the_help_shows_defaults_and_what_presets_change(  # type: ignore[no-untyped-def]
    geomkit, monkeypatch: pytest.MonkeyPatch, command: str, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = geomkit(command, "--help")
    for default in shown:
        assert default in out


def test_the_options_of_capture_are_in_panels_of_their_own(geomkit) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = geomkit("capture", "--help")
    panels = [line.split("─ ")[1].split(" ─")[0] for line in out.splitlines() if "╭─" in line]
    own = ["What is shown", "What is kept", "Model and memory", "Rules"]
    assert panels == ["Options", *own, "Data", "Engine"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("capture",), "Missing option '--ckpt'; see `geomkit capture --help`."),
        (("pack", "run"), "Missing argument 'to'; see `geomkit pack --help`."),
        (("capture", "--ckpt", "base", "--nonsense"), "No such option: --nonsense"),
        (("capture", "--ckpt", "base", "--limit", "x"), "Invalid value for '--limit'"),
        (("capture", "--ckpt", "base", "more"), "extra argument"),
        (("captuer",), "No such command 'captuer'"),
    ],
)
def test_a_wrong_call_is_one_line_like_any_mistake(  # type: ignore[no-untyped-def]
    geomkit, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, err = geomkit(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert err.endswith("--help`.\n")


def test_no_command_is_a_question_for_the_help(geomkit) -> None:  # type: ignore[no-untyped-def]
    code, out, err = geomkit()
    assert (code, err) == (2, "")
    assert "Usage: geomkit" in out
    assert geomkit("--version")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("capture", "--ckpt", "bsae"), 3, "near names: base"),
        (("capture", "--ckpt", "base", "--data", "nowhere.jsonl"), 3, "nowhere.jsonl"),
        (
            ("capture", "--ckpt", "base", "--batch-size", "0"),
            2,
            "batch_size (--batch-size) of at least 1",
        ),
        (("train", "--preset", "lco-txet"), 2, "preset"),
        (("train", "--pairs", "nowhere.jsonl"), 3, "nowhere.jsonl"),
        (("report",), 3, "run"),
        (("info", "no-such-run"), 3, "no-such-run"),
        (("merge", "no-such-adapter"), 3, "no-such-adapter"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(  # type: ignore[no-untyped-def]
    geomkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, code, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = geomkit(*arguments)
    assert found == code, err
    assert sentence in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "code", "sentence"),
    [
        (("--limit", "-3"), 2, "limit (--limit) of at least 0, got -3"),
        (("--batch-size", "0"), 2, "batch_size (--batch-size) of at least 1, got 0"),
        (("--store-dtype", "int8"), 2, "store_dtype (--store-dtype) (float32, bfloat16)"),
        (("--sites", "every:0"), 2, "every:N with N of at least 1, got 'every:0'"),
        (("--sites", "norm"), 2, "Expected sites as embed, block_04"),
        (("--engine", "rya"), 2, "Expected an engine (inline, ray), got 'rya'"),
        (("--shard", "foo"), 2, "Expected --shard i/n"),
        (("--data", "nope.jsonl"), 3, "nope.jsonl"),
        (("--out", "my.csv"), 3, "my.csv is a file, and a run is a folder; choose another folder"),
        (("--out", "my.csv/run"), 3, "my.csv is a file"),
    ],
)
def test_a_cheap_mistake_is_told_before_torch_is_there(
    tmp_path: Path, option: tuple[str, str], code: int, sentence: str
) -> None:
    (tmp_path / "my.csv").write_text("id,text\n")
    program = (
        "import sys; from geomkit import cli\n"
        f"sys.argv = ['geomkit', 'capture', '--ckpt', 'base', *{option!r}]\n"
        "try:\n    cli.main()\n"
        "finally:\n    print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert done.stdout.strip() == "set()"
    assert [p.name for p in tmp_path.iterdir()] == ["my.csv"]


def test_verify_tells_a_wrong_path_from_damage(  # type: ignore[no-untyped-def]
    geomkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.h5").write_text("no run")
    for name in ("nowhere", "empty", "file.h5"):
        code, out, err = geomkit("verify", name)
        assert (code, out) == (3, ""), name
        assert f"error: {name} is no run" in err
    run = small_run.fill(create_run(tmp_path / "run", small_run.plan()))
    packed = pack_run(run, tmp_path / "run.h5")
    for path in (run.path, packed):
        assert geomkit("verify", str(path))[0] == 0
    packed.write_bytes(packed.read_bytes()[:-100])
    (run.path / "base" / "shard-00001.h5").write_bytes(b"")
    for path in (run.path, packed):
        code, out, err = geomkit("verify", str(path))
        assert (code, err, len(out.splitlines())) == (1, "", 1)
    (run.path / "plan.json").unlink()
    assert geomkit("verify", str(run.path))[0] == 1  # the rest of a run is there


def test_verify_says_what_an_interrupted_run_lacks_in_one_line(geomkit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = create_run(tmp_path / "run", small_run.plan(samples=18))
    run.write_checkpoint(small_run.record())
    for number in (0, 2, 4, 6, 8):
        run.write_shard("base", number, small_run.shard_rows(run, number), small_run.SITES)
    code, out, _ = geomkit("verify", str(run.path))
    assert code == 1
    assert out == (
        f"base lacks {run.shard_count() - 5} of {run.shard_count()} shards:"
        " 1, 3, 5, 7, 9, 10, 11; run the same capture again, it continues where it stopped\n"
    )
    assert "base lacks" in geomkit("verify", str(run.path), "--json")[1]


def test_the_thread_on_the_sandbox(  # type: ignore[no-untyped-def]
    geomkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train -> merge -> capture -> analyze -> report, a few steps of each, as a user types them."""
    monkeypatch.chdir(tmp_path)
    code, out, err = geomkit(
        *("train", "--ckpt", "base", "--pairs", "sandbox:200", "--out", "lco"),
        *("--steps", "2", "--batch", "16", "--mini-batch", "16", "--warmup-steps", "0"),
    )
    assert code == 0, err
    assert "0 media" in out
    assert "0 outside" in out
    record = json.loads((tmp_path / "lco" / "training.json").read_text())
    assert record["frozen_before"] == record["frozen_after"]
    assert {c["modality"] for c in record["generation"]} == {"text", "image", "audio"}

    code, out, err = geomkit("merge", "lco", "--out", "merged")
    assert code == 0, err
    assert "merged equals adapter, audio" in out

    code, out, err = geomkit(
        *("capture", "--ckpt", "base", "--ckpt", "lco", "--data", "sandbox:validation")
    )
    assert code == 0, err
    assert "./lco" in out  # the folder just trained, not the built-in of that name

    code, out, err = geomkit("report")
    assert code == 0, err
    assert "mean_cosine" in out
    page = (tmp_path / "geomkit-run" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    analysis = json.loads((tmp_path / "geomkit-run" / "analysis.json").read_text())
    assert analysis["checkpoints"] == ["base", "lco"]
    assert analysis["trained"] == ["text"]

    code, out, err = geomkit("verify")
    assert code == 0, err
    code, out, err = geomkit("info", "--json")
    assert json.loads(out)["checkpoints"][1]["name"] == "lco"
    code, out, err = geomkit("info")
    assert "checks passed" in out

    code, out, err = geomkit("pack", "geomkit-run", "packed.h5")
    assert code == 0, err
    code, out, err = geomkit("verify", "packed.h5", "--json")
    assert (code, json.loads(out)["problems"]) == (0, []), err
    code, out, err = geomkit("report", "packed.h5")
    assert code == 0, err
    same = (tmp_path / "packed.report.html").read_text(encoding="utf-8")
    assert same == page  # the packed analysis, map and rows are the folder's
    code, out, err = geomkit("analyze", "packed.h5", "--json")
    assert code == 0, err
    assert json.loads(out) == analysis


def _manifest(folder: Path, *, count: int) -> Path:
    lines = []
    for k in range(count):
        Image.new("RGB", (64, 64), (20 * k % 256, 90, 255 - 20 * k % 256)).save(folder / f"{k}.png")
        row = {"id": f"s{k}", "text": f"colour number {k}", "image": f"{k}.png"}
        lines.append(json.dumps({**row, "labels": {"parity": "odd" if k % 2 else "even"}}))
    path = folder / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_next"])
def test_a_real_architecture_from_a_folder(  # type: ignore[no-untyped-def]
    geomkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A tiny random checkpoint folder goes through capture and report, as one from a hub would."""
    monkeypatch.chdir(tmp_path)
    folder = tiny_models.saved(family)
    data = _manifest(tmp_path, count=12)
    code, _, err = geomkit(
        "capture", "--ckpt", f"before={folder}", "--ckpt", f"after={folder}", "--data", str(data)
    )
    assert code == 0, err
    run = open_run(tmp_path / "geomkit-run")
    assert {row.modality for row in run.plan.rows} == {"text", "image"}
    assert run.media("s0", "image") is None  # previews are off: samples may be private
    code, out, err = geomkit("report")
    assert code == 0, err
    assert (tmp_path / "geomkit-run" / "report.html").exists()
    assert "PASS" not in out  # equal weights: nothing may count as improved
