"""The rules of the house that no linter checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import geomkit

ROOT = Path(__file__).parents[1]
PACKAGES = ("geomkit", "probes", "reports")
checkout = pytest.mark.skipif(
    not (ROOT / "geomkit").is_dir(), reason="needs the checkout, this is the installed wheel"
)
HEAVY = ("torch", "transformers", "plotly", "umap", "sklearn", "h5py", "numpy", "pydantic")
# Import name -> distribution name, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn"}
# Imported where they are an extra, or where someone else brings them: geomkit never needs them.
OPTIONAL = {"av", "mteb", "ray", "torchvision", "pyarrow", "pytest", "joblib", "tokenizers"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_importing_geomkit_imports_nothing_heavy() -> None:
    code = f"import geomkit, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_public_name_is_loaded_when_it_is_asked_for() -> None:
    code = (
        "import geomkit, sys; assert 'h5py' not in sys.modules; geomkit.open_run; "
        "assert 'h5py' in sys.modules and 'torch' not in sys.modules"
    )
    assert python("-c", code).returncode == 0


@pytest.mark.parametrize("name", geomkit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(geomkit, name) is not None
    assert name in dir(geomkit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        geomkit.nothing  # noqa: B018 - the access is what is tested


def test_what_the_type_checker_sees_is_what_is_loaded() -> None:
    tree = ast.parse(Path(geomkit.__file__).read_text(encoding="utf-8"))
    declared = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert declared == geomkit._HOMES


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", geomkit.__version__)


@checkout
def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@checkout
def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[ ]", entry)[0] for entry in project["dependencies"]}
    used = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            used |= _top_level_imports(ast.parse(path.read_text(encoding="utf-8")))
    foreign = used - set(sys.stdlib_module_names) - set(PACKAGES) - OPTIONAL
    names = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in foreign}
    assert names <= declared, f"imported, not declared: {sorted(names - declared)}"


def _top_level_imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@checkout
def test_the_constraints_pin_every_dependency_above_its_floor() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if "==" in line)
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    for requirement in map(Requirement, wanted):
        pin = pins.get(requirement.name.lower(), pins.get(requirement.name.replace("-", "_")))
        assert pin is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    done = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


@checkout
def test_the_wheel_has_three_packages_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@checkout
def test_the_wheel_has_the_data_that_the_code_reads(wheel: list[str]) -> None:
    sources = [
        *(ROOT / "reports" / "assets").rglob("*"),
        *(ROOT / "geomkit" / "sandbox" / "weights").rglob("*"),
        *(ROOT / package / "py.typed" for package in PACKAGES),
    ]
    files = {p.relative_to(ROOT).as_posix() for p in sources if p.is_file()}
    assert files <= set(wheel), sorted(files - set(wheel))
    assert any(name.startswith("reports/assets/") for name in files)
