"""geomkit.toml: what it names, who wins over it, and what is said when it is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from geomkit import cli, stages
from geomkit.config import COMMAND_LINE_ONLY, RECORDS, Capture, load
from geomkit.errors import CheckpointError, GeomkitError, UsageError
from geomkit.project import LARGEST, find
from tests.tiny_models import saved

Write = Callable[..., Path]
MANUAL = Path(__file__).parents[1] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.upper().startswith("GEOMKIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A geomkit.toml in a folder of the project, by default where we are."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)

    def toml(text: str, folder: str = ".") -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        path = tmp_path / folder / "geomkit.toml"
        path.write_text(text)
        return path

    return toml


# ----------------------------------------------------------------------------------- what it says


def test_names_stand_for_sources(write: Write) -> None:
    path = write(
        """
        [checkpoints]
        base = "org/model@v1"
        tuned = { source = "org/lora", revision = "v2" }
        own = "sandbox:lco"

        [checkpoints.long]
        source = "org/long"

        [data]
        dev = "sandbox:validation"
        """
    )
    settings = load(path)
    asked = ["base", "tuned", "own", "long", "before=base", "after=sandbox:base", "org/x@main"]
    assert settings.named_checkpoints(asked) == [
        "base=org/model@v1", "tuned=org/lora@v2", "own=sandbox:lco", "long=org/long",
        "before=org/model@v1", "after=sandbox:base", "x=org/x@main",
    ]  # fmt: skip
    assert settings.named_data("dev") == "sandbox:validation"
    assert settings.named_data("other.jsonl") == "other.jsonl"
    assert settings.source("tuned") == "org/lora@v2"


def test_the_file_comes_before_the_built_in_and_the_folder(write: Write) -> None:
    here = write("[checkpoints]\nbase = 'org/model'\n").parent
    (here / "base").mkdir()
    (here / "base" / "config.json").write_text("{}")
    settings = load(find(Path()))
    assert settings.named_checkpoints(["base"]) == ["base=org/model"]
    assert settings.named_checkpoints(["base=./base"]) == ["base=./base"]
    assert settings.named_checkpoints(["base=sandbox:base"]) == ["base=sandbox:base"]
    assert load(None).named_checkpoints(["base"]) == ["base=base"]


def test_every_option_of_capture_can_be_set(write: Write) -> None:
    """Each with its own default, so that a field that is added later is covered too."""
    lines = []
    for field in [field for record in RECORDS for field in fields(record)]:
        if field.name in COMMAND_LINE_ONLY:
            continue
        assert field.name in Capture.model_fields
        value = field.default
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        lines.append(f"{field.name} = {shown}")
    captured = load(write("[capture]\n" + "\n".join(lines))).captured({})
    assert len(captured) == len(lines)
    for record in RECORDS:
        own = {f.name: captured[f.name] for f in fields(record) if f.name in captured}
        assert record(**own) == record()


def test_no_option_is_there_twice() -> None:
    names = [field.name for record in RECORDS for field in fields(record)]
    assert len(set(names)) == len(names)


def test_only_what_is_set_is_given(write: Write) -> None:
    settings = load(write("[capture]\nbatch_size = 8\nsites = ['embed']\npoolings = 'last'\n"))
    # 8 is the default too: it was set, so a preset does not replace it.
    own = {"batch_size": 8, "sites": ("embed",), "poolings": ("last",)}
    assert settings.captured({}) == own
    assert load(None).captured({}) == {}


def test_the_command_line_wins_over_the_environment_over_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[capture]\nbatch_size = 2\nlimit = 3\ndtype = 'bfloat16'\n")
    assert load(path).captured({}) == {"batch_size": 2, "limit": 3, "dtype": "bfloat16"}
    monkeypatch.setenv("GEOMKIT_CAPTURE__LIMIT", "30")
    monkeypatch.setenv("GEOMKIT_CAPTURE__DTYPE", "float16")
    monkeypatch.setenv("GEOMKIT_CAPTURE__SITES", "embed, final_norm")
    monkeypatch.setenv("geomkit_capture__gate", "off")
    assert load(path).captured({"dtype": "float32"}) == {
        "batch_size": 2,
        "limit": 30,
        "dtype": "float32",
        "sites": ("embed", "final_norm"),
        "gate": False,
    }
    assert load(None).captured({})["limit"] == 30


def test_the_environment_names_checkpoints_and_data(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[checkpoints]\nbase = 'org/model'\ntuned = 'org/tuned'\n")
    monkeypatch.setenv("GEOMKIT_CHECKPOINTS__BASE", "org/other")
    monkeypatch.setenv("GEOMKIT_CHECKPOINTS__NEW__SOURCE", "org/new")
    monkeypatch.setenv("GEOMKIT_CHECKPOINTS__NEW__REVISION", "v1")
    monkeypatch.setenv("GEOMKIT_DATA__DEV", "sandbox")
    settings = load(path)
    assert settings.named_checkpoints(["base", "tuned", "new"]) == [
        "base=org/other", "tuned=org/tuned", "new=org/new@v1",
    ]  # fmt: skip
    assert settings.named_data("dev") == "sandbox"


# ------------------------------------------------------------------------------------ where it is


def test_the_nearest_file_of_the_project_is_taken(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    inner = tmp_path / "runs" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert find(Path()) == Path("../../geomkit.toml")
    write("", "runs")
    assert find(Path()) == Path("../geomkit.toml")
    write("", "runs/deep")
    assert find(Path()) == Path("geomkit.toml")


def test_a_project_ends_at_its_root(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    inner = tmp_path / "other" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "other" / "pyproject.toml").touch()
    monkeypatch.chdir(inner)
    assert find(Path()) is None


def test_outside_a_project_only_the_working_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "geomkit.toml").touch()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert find(Path()) is None
    monkeypatch.chdir(tmp_path)
    assert find(Path()) == Path("geomkit.toml")


def test_paths_are_relative_to_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        """
        [checkpoints]
        near = "models/tuned"
        table = { source = "./models/tuned" }
        hub = "models/absent"
        absent = "./models/absent"
        whole = "/models/tuned"
        home = "~/tuned"
        [data]
        dev = "dev.jsonl"
        kind = "coco:dev.jsonl"
        other = "coco:absent.jsonl"
        sandbox = "sandbox:test"
        [capture]
        media_root = "media"
        url_cache = "~/cache"
        """,
        "conf",
    )
    (tmp_path / "conf" / "models" / "tuned").mkdir(parents=True)
    (tmp_path / "conf" / "dev.jsonl").touch()
    monkeypatch.setenv("HOME", "/home/someone")
    settings = load(Path("conf/geomkit.toml"))
    assert {name: one.full for name, one in settings.checkpoints.items()} == {
        "near": "./conf/models/tuned",
        "table": "./conf/models/tuned",
        "hub": "models/absent",
        "absent": "./conf/models/absent",
        "whole": "/models/tuned",
        "home": "/home/someone/tuned",
    }
    assert settings.data == {
        "dev": "./conf/dev.jsonl",
        "kind": "coco:./conf/dev.jsonl",
        "other": "coco:absent.jsonl",
        "sandbox": "sandbox:test",
    }
    folders = {"media_root": "./conf/media", "url_cache": "/home/someone/cache"}
    assert settings.captured({}) == folders
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert load(path).checkpoints["near"].full == "../conf/models/tuned"


# ------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[chekpoints]", r"sections checkpoints, capture, data in .*toml, got 'chekpoints'; near "),
        ("[rules]", "got 'rules'"),
        ("batch_size = 4", "got 'batch_size'"),
        ("[capture]\nbach_size = 4", r"in .*toml, got 'capture.bach_size'; near names: batch_size"),
        (
            "[capture]\nbatch_size = 'many'",
            "a whole number for capture.batch_size in .*, got 'many'",
        ),
        ("[capture]\nbatch_size = 2.5", "a whole number for capture.batch_size in .*, got '2.5'"),
        ("[capture]\nbatch_size = true", "a whole number for capture.batch_size in .*, got 'True'"),
        ("[capture]\ngate = 'perhaps'", "true or false for capture.gate in .*, got 'perhaps'"),
        ("[capture]\ndtype = 32", "a text for capture.dtype in .*, got '32'"),
        ("[capture]\nsites = [1]", "a text for capture.sites.0 in .*, got '1'"),
        ("[capture]\nsites = 1", "a list of texts for capture.sites in .*, got '1'"),
        ("[capture]\nbatch_size = 0", r"In .*toml, capture.batch_size: .* at least 1, got 0"),
        ("[capture]\nmodalities = ['smell']", r"In .*, capture.modalities: .*, got 'smell'"),
        ("[capture]\nforce = true", "--force on the command line"),
        ("[capture]\nallow_url = true", "--allow-url on the command line"),
        ("[capture]\ncaptions = 0", r"In .*toml, capture.captions: .* at least 1"),
        ("capture = 3", "a table for capture in .*, got '3'"),
        ("data = ['x']", "a table for data in .*"),
        ("[checkpoints]\nbase = 3", "a source or a table .* for checkpoints.base in .*, got '3'"),
        ("[checkpoints]\nbase = ''", "a text for checkpoints.base.source in .*, got ''"),
        ("[checkpoints]\nbase = {}", "a text for checkpoints.base.source in .*, got none"),
        ("[checkpoints.base]\nsource = 3", "a text for checkpoints.base.source in .*, got '3'"),
        ("[checkpoints.base]\nsource = 'a/b'\nrevison = 'x'", "near names: revision"),
        ("[checkpoints]\n'../x' = 'org/a'", r"toml, checkpoints: Expected NAME=SOURCE with a NAME"),
        ("[checkpoints]\n'a=b' = 'org/a'", "checkpoints: Expected NAME=SOURCE"),
        ("[checkpoints]\nmedia = 'org/a'", "checkpoints: .* keeps for itself"),
        ("[checkpoints.a]\nsource='./x'\nrevision='v'", "revision only with a hub id"),
        ("[checkpoints.a]\nsource='o/x@v'\nrevision='v'", "revision only with a hub id"),
        ("[checkpoints]\na = 'base'\nbase = 'org/x'", "another name of the file"),
        ("[data]\ndev = 3", "a text for data.dev in .*, got '3'"),
        ("[data]\ndev = ''", "a text for data.dev in .*, got ''"),
        ("x = ", "Expected TOML in"),
        ("a = 1\na = 2", "Expected TOML in"),
        ("a = " + "[" * 5000, "Expected TOML in"),
    ],
)
def test_a_wrong_file_is_one_sentence(write: Write, text: str, sentence: str) -> None:
    path = write(text)
    with pytest.raises(UsageError, match=sentence) as caught:
        load(path)
    assert "\n" not in str(caught.value).replace("(at end of document)", "")
    assert str(path) in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b'a = "\\ud800"'])
def test_bytes_that_are_no_toml_are_refused(write: Write, content: bytes) -> None:
    path = write("")
    path.write_bytes(content)
    with pytest.raises(UsageError, match="Expected TOML in"):
        load(path)


def test_only_a_small_regular_file_is_read(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(UsageError, match="Expected a TOML file at"):
            load(path)
    large = write("")
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UsageError, match="more than 1 MiB"):
        load(large)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("GEOMKIT_CAPTURE__BATCH_SIZE", "many", "the variable GEOMKIT_CAPTURE__BATCH_SIZE, got 'm"),
        ("GEOMKIT_CAPTURE__BATCH_SIZE", "0", "In the variable GEOMKIT_CAPTURE__BATCH_SIZE, capt"),
        ("GEOMKIT_CAPTURE__BATCHSIZE", "4", "GEOMKIT_CAPTURE__BATCHSIZE, got 'capture.batchsize'"),
        ("GEOMKIT_CAPTRUE__LIMIT", "4", "near names: CAPTURE"),
        ("GEOMKIT_CAPTURE", "x", "one variable a key"),
        ("GEOMKIT_CAPTURE__FORCE", "true", "--force on the command line"),
        ("GEOMKIT_CHECKPOINTS__CON", "org/x", "keeps for itself"),
    ],
)
def test_a_wrong_variable_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=sentence):
        load(write("[capture]\nbatch_size = 4\n"))


def test_the_file_is_to_blame_for_what_it_says(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOMKIT_CAPTURE__LIMIT", "4")
    with pytest.raises(UsageError, match=r"capture.batch_size in .*geomkit\.toml, got 'x'"):
        load(write("[capture]\nbatch_size = 'x'\n"))


def test_other_variables_are_let_be(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOMKIT_REQUIRE", "gpu")
    monkeypatch.setenv("GEOMKIT_CONFIG", "elsewhere")
    assert load(write("")).captured({}) == {}


def test_an_unknown_name_lists_near_ones_of_all_three(write: Write, tmp_path: Path) -> None:
    settings = load(write("[checkpoints]\nomni-small = 'org/model'\n"))
    (tmp_path / "omni-here").mkdir()
    (tmp_path / "omni-here" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="near names: omni-small") as caught:
        settings.named_checkpoints(["omni-smal"])
    assert "omni-here" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"near names: .*base"):
        settings.named_checkpoints(["bse"])


@pytest.mark.parametrize("twice", [["base", "base"], ["base", "Base=sandbox:lco"]])
def test_a_name_is_there_once(twice: list[str]) -> None:
    with pytest.raises(UsageError, match="one checkpoint a name"):
        load(None).named_checkpoints(twice)


# --------------------------------------------------------------------------- on the command line


class Stop(GeomkitError):
    """What the stage was given is known; nothing needs to run."""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, write: Write) -> Callable[..., dict[str, Any]]:
    """Run `geomkit ...` up to its stage and return what the stage was called with."""
    seen: dict[str, Any] = {}

    def stage(*arguments: Any, **options: Any) -> None:
        seen.update(arguments=arguments, options=options)
        raise Stop("enough")

    monkeypatch.setattr(stages, "capture", stage)
    monkeypatch.setattr(stages, "train", stage)
    monkeypatch.setattr(stages, "merge", stage)

    def run(*words: str) -> dict[str, Any]:
        seen.clear()
        monkeypatch.setattr(sys, "argv", ["geomkit", *words])
        with pytest.raises(SystemExit):
            cli.main()
        return seen

    return run


def test_capture_reads_names_and_defaults(given: Any, write: Write) -> None:
    write(
        "[checkpoints]\nbase = 'org/model'\n[data]\ndev = 'sandbox:validation'\n"
        "[capture]\nbatch_size = 2\nlimit = 7\npreviews = false\n"
    )
    seen = given("capture", "--ckpt", "base", "--ckpt", "lco", "--data", "dev", "--limit", "9")
    assert seen["arguments"][:2] == (["base=org/model", "lco=lco"], "sandbox:validation")
    assert seen["options"] == {"batch_size": 2, "limit": 9, "previews": False}


def test_config_by_flag_and_by_variable(
    given: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[capture]\nlimit = 1\n")
    write("[capture]\nlimit = 2\n", "two")
    write("[capture]\nlimit = 3\n", "three")
    assert given("capture", "--ckpt", "base")["options"]["limit"] == 1
    monkeypatch.setenv("GEOMKIT_CONFIG", "two/geomkit.toml")
    assert given("capture", "--ckpt", "base")["options"]["limit"] == 2
    flag = ("--config", "three/geomkit.toml")
    assert given("capture", "--ckpt", "base", *flag)["options"]["limit"] == 3


def test_train_and_merge_know_the_names(given: Any, write: Write) -> None:
    write("[checkpoints]\nmine = 'org/model'\n[data]\npairs = './pairs.jsonl'\n")
    seen = given("train", "--ckpt", "mine", "--pairs", "pairs")
    assert seen["arguments"][:2] == ("org/model", "./pairs.jsonl")
    assert given("merge", "lco", "--into", "mine")["arguments"][1] == "org/model"
    assert given("merge", "lco")["arguments"][1] == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--ckpt", "base", "--ckpt", "base"), 2, "--ckpt base=base --ckpt base2=base"),
        (("--ckpt", "base", "--ckpt", "BASE=lco"), 2, "got 'base' and 'BASE'"),
        (("--ckpt", "mni"), 3, "near names: mine"),
        (("--ckpt", "mine", "--config", "absent.toml"), 2, "Expected a TOML file at absent.toml"),
        (("--ckpt", "aux=base"), 2, "keeps for itself"),
    ],
)
def test_a_mistake_is_one_sentence(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    write("[checkpoints]\nmine = 'org/model'\n")
    monkeypatch.setattr(sys, "argv", ["geomkit", "capture", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert (stopped.value.code, said.out) == (code, "")
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_a_run_from_the_names_of_a_file(write: Write, tmp_path: Path) -> None:
    """The real command in a folder of its own: the file's model, its data, its options."""
    write(f"[checkpoints]\nbase = {str(saved('text_only'))!r}\n[data]\ndev = 'in/dev.jsonl'\n"
          "[capture]\nlimit = 3\nsites = ['final_norm']\npoolings = ['last']\n")  # fmt: skip
    (tmp_path / "in").mkdir()
    rows = [json.dumps({"id": str(i), "text": f"thing number {i}"}) for i in range(5)]
    (tmp_path / "in" / "dev.jsonl").write_text("\n".join(rows))
    (tmp_path / "deep").mkdir()
    words = ("capture", "--ckpt", "base", "--data", "dev", "--out", "run", "--json")
    done = subprocess.run(
        [sys.executable, "-c", "from geomkit.cli import main; main()", *words],
        capture_output=True, text=True, check=False, cwd=tmp_path / "deep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "settings: ../geomkit.toml" in done.stderr
    plan = json.loads((tmp_path / "deep" / "run" / "plan.json").read_text())
    assert len(plan["rows"]) == 3
    assert (plan["sites"], plan["poolings"]) == (["final_norm"], ["last"])


@pytest.mark.skipif(not MANUAL.exists(), reason="needs the checkout, not the wheel")
def test_the_manual_s_file_is_one(write: Write) -> None:
    block = re.search(r"```toml\n(.*?)```", MANUAL.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    settings = load(write(block[1]))
    assert settings.named_checkpoints(["base", "tuned"]) == [
        "base=org/model@v1", "tuned=org/lora@v2",
    ]  # fmt: skip
    assert settings.captured({})["sites"] == ("embed", "final_norm")
    assert settings.named_data("dev") == "./data/dev.jsonl"


def test_a_mistake_in_a_name_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from geomkit.config import load\n"
        "try: load(None).named_checkpoints(['bsae'])\n"
        "except Exception: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path)
    assert done.returncode == 0
