"""The README's tree is the tree, and its Python runs against what exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="needs the checkout, not the wheel")


def _tree() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index("## The tree") : text.index("## Limits")]


@pytest.mark.parametrize("package", ["geomkit", "probes", "reports"])
def test_every_module_has_its_line(package: str) -> None:
    listed = set(re.findall(r"^ +([\w.]+\.py) ", _tree(), re.MULTILINE))
    own = {p.name for p in (ROOT / package).rglob("*.py") if p.name != "__init__.py"}
    assert own <= listed


def test_every_line_is_a_file() -> None:
    listed = set(re.findall(r"^ +([\w.]+\.py) ", _tree(), re.MULTILINE))
    assert listed <= {p.name for p in ROOT.rglob("*.py") if ".venv" not in p.parts}


def test_every_import_in_it_exists() -> None:
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)
            elif isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)


def test_nothing_in_it_is_a_placeholder() -> None:
    assert not re.findall(r"@[A-Z_]{3,}@", README.read_text(encoding="utf-8"))
