"""Group I, code that comes with weights: none of it runs, and in its place there is an error.

    123 weights in a pickle             tests/test_places.py: test_pickles_get_a_clear_refusal
    124 a pickle that torch would take  the same: only safetensors are opened
    125 a pickled probe                 nothing pickled is ever read: test_nothing_here_unpickles
    126 arrays with objects             the same
    127 auto_map in a configuration     tests/test_places.py: test_code_...; and below, end to end
    128 _attn_implementation_internal   tests/test_places.py: test_a_hostile_config_is_refused
    129 class in modules.json           tests/test_places.py: test_foreign_modules_...
    130 adapter of another base         tests/test_places.py: test_an_adapter_that_leads_...

What does run is the chat template, in jinja's sandbox; templates are the corpus here.
"""

from __future__ import annotations

import ast
import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from geomkit.capture import CaptureConfig, capture_run
from geomkit.checkpoints import CheckpointSpec
from geomkit.errors import CheckpointError, GeomkitError
from geomkit.types import Sample
from tests.tiny_models import saved

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved("qwen2_5_vl"), tmp_path / "model"))


def capture(folder: Path) -> None:
    samples = [Sample(id=f"s{i}", text=f"thing {i}") for i in range(3)]
    config = CaptureConfig(batch_size=2, device="cpu")
    capture_run([CheckpointSpec("tiny", str(folder))], samples, folder.with_name("run"), config)


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


TEMPLATES = {
    "system call": "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "module": "{{ self._TemplateReference__context.eval_ctx.environment.loader }}",
    "import": "{% import 'os' as os %}{{ os.system('touch MARK') }}",
    "file": "{% include '/etc/passwd' %}",
    "syntax": "{% for m in messages %}",
    "complaint": "{{ raise_exception('I do not like this') }}",
    "range": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "zero": "{{ 1 // 0 }}",
    "unknown": "{{ messages[0].nothing.at.all }}",
    "number": "{{ 'x' + 1 }}",
    "constant": "always the same words",
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_hostile_chat_template_is_refused(folder: Path, case: str) -> None:
    mark = folder.with_name("mark")
    (folder / "chat_template.jinja").write_text(TEMPLATES[case].replace("MARK", str(mark)))
    with pytest.raises(GeomkitError, match="template"):
        capture(folder)
    assert not mark.exists()


class Touch:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "training_args.bin"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_pickle_beside_the_weights_is_not_opened(folder: Path, name: str, alone: bool) -> None:
    mark = folder.with_name("mark")
    (folder / name).write_bytes(pickle.dumps(Touch(mark)))
    if alone:
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="only safetensors are read"):
            capture(folder)
    else:
        capture(folder)
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists(), "the pickle does nothing: nothing was tested"


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_code_that_a_configuration_names_is_not_run(folder: Path, name: str) -> None:
    mark = folder.with_name("mark")
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    parts = ("AutoConfig", "AutoModelForMultimodalLM", "AutoTokenizer", "AutoProcessor")
    change(folder / name, auto_map=dict.fromkeys(parts, "own.Own"))
    with contextlib.suppress(GeomkitError):  # ignored or refused, never run
        capture(folder)
    assert not mark.exists()


def test_nothing_here_unpickles() -> None:
    """No module loads a pickle, whatever it is called there."""
    loaders = {
        ("pickle", "load"), ("pickle", "loads"), ("joblib", "load"),
        ("np", "load"), ("numpy", "load"), ("dill", "load"), ("pd", "read_pickle"),
    }  # fmt: skip
    for package in ("geomkit", "probes", "reports"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    assert (node.value.id, node.attr) not in loaders, f"{path}:{node.lineno}"
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    assert "weights_only" in [word.arg for word in node.keywords], path
                if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
                    assert isinstance(node.value, ast.Constant)
                    assert node.value.value is (node.arg == "weights_only"), path
                if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                    assert isinstance(node.value, ast.Constant)
                    assert node.value.value is False, f"{path}:{node.value.lineno}"


WIDTHS = [
    {"text_config": {"hidden_size": 1 << 20}},
    {"text_config": {"vocab_size": 1 << 40}},
    {"text_config": {"intermediate_size": 1 << 30}},
    {"text_config": {"num_attention_heads": 0}},
    {"text_config": {"num_hidden_layers": 500}},
    {"vision_config": {"depth": 500}},
]


@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: "-".join(*(v.keys() for v in w.values())))
def test_a_configuration_of_other_sizes_than_the_weights_is_refused(
    folder: Path, widths: dict[str, dict[str, int]]
) -> None:
    path = folder / "config.json"
    found = json.loads(path.read_text())
    for part, entries in widths.items():
        found[part] |= entries
    path.write_text(json.dumps(found))
    with pytest.raises(CheckpointError):
        capture(folder)
