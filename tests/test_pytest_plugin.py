from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.synthetic_run import COLLAPSED, NARROW, WIDE, write_run

EXAMPLES = Path(__file__).parents[1] / "examples"
INSTALLED = any(e.value == "geomkit.pytest_plugin" for e in entry_points(group="pytest11"))
ALONE = ["-p", "geomkit.pytest_plugin"]
PLUGIN = [] if INSTALLED else ALONE


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    for name, last in (("good", WIDE), ("collapsed", COLLAPSED)):
        write_run(folder / name, {"base": NARROW, "lco": last}, scenes=60, training={"media": {}})
    return folder


def suite(root, *args, alone=False):
    """Exit code and output of a pytest run of its own in `root`; `alone`: no other plugin."""
    command = [sys.executable, "-m", "pytest", "--rootdir", str(root), "-p", "no:cacheprovider"]
    ini = root / "pytest.ini"
    if not ini.exists():
        ini.write_text("[pytest]\naddopts = --strict-markers\n")
    done = subprocess.run(
        [*command, "-c", str(ini), *(ALONE if alone else PLUGIN), *map(str, args)],
        cwd=root,
        env=os.environ | ({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if alone else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_importing_the_plugin_imports_nothing_heavy():
    heavy = ("torch", "h5py", "plotly", "numpy", "sklearn", "transformers", "pydantic")
    code = f"import sys, geomkit.pytest_plugin; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_suite_without_geometry_pays_and_prints_nothing(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not {'torch', 'h5py', 'numpy'} & set(sys.modules)\n"
    )
    code, out = suite(tmp_path, "test_it.py", alone=True)
    assert code == 0, out
    assert "geomkit:" not in out


def test_the_example_passes_on_a_good_run(runs, tmp_path):
    code, out = suite(tmp_path, EXAMPLES / "test_geometry.py", "--geomkit-run", runs / "good")
    assert code == 0, out
    assert "4 passed" in out


def test_the_example_fails_on_a_collapsed_run_and_says_why(runs, tmp_path):
    code, out = suite(tmp_path, EXAMPLES / "test_geometry.py", "--geomkit-run", runs / "collapsed")
    assert code == 1
    assert "4 failed" in out
    assert "GEOM mean_cosine@final_norm text: worse by 0." in out
    assert "GEOM mean_cosine@final_norm: no transfer to image and audio" in out
    assert f"look: geomkit report {runs / 'collapsed'}" in out
    assert "geomkit/assertions.py" not in out  # its frames are hidden: the test is what is shown


def test_the_collapsed_example_fails_and_says_why(tmp_path):
    code, out = suite(tmp_path, EXAMPLES / "test_collapsed.py")
    assert code == 1
    assert "1 failed" in out
    assert "> 0.2, states lie in a narrow cone" in out


@pytest.mark.parametrize("place", ["run", "geomkit-demo/run"])
def test_the_newest_run_is_the_default(runs, tmp_path, place):
    for name, at in (("good", tmp_path / "older"), ("collapsed", tmp_path / place)):
        shutil.copytree(runs / name, at)
        os.utime(at / "plan.json", ns=(0, 10**9 if name == "good" else 2 * 10**9))
    (tmp_path / "test_it.py").write_text(
        "def test_it(geomkit_run, geom):\n"
        f"    assert geomkit_run.path.relative_to({str(tmp_path)!r}).as_posix() == {place!r}\n"
        "    assert geom.checkpoints == ('base', 'lco')\n"
    )
    code, out = suite(tmp_path, "test_it.py")
    assert code == 0, out


def test_the_ini_file_can_name_the_run_relative_to_the_root(runs, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\ngeomkit_run = linked\n")
    (tmp_path / "linked").symlink_to(runs / "good", target_is_directory=True)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.geom\n"
        "def test_it(geom): assert geom.change('mean_cosine', 'final_norm', 'image').improved\n"
    )
    code, out = suite(tmp_path, "test_it.py")
    assert code == 0, out


def test_a_missing_run_fails_and_does_not_skip(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(geom): pass\n")
    code, out = suite(tmp_path, "test_it.py")
    assert code == 1
    assert "no run at" in out
    assert "Name a run with --geomkit-run RUN" in out
    code, out = suite(tmp_path, "test_it.py", "--geomkit-run", "nowhere")
    assert code == 1
    assert "is no run" in out
    assert "Traceback" not in out


def test_the_plugin_can_be_left_out(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    blocked = ["-p", "no:geomkit"] if INSTALLED else ["-p", "no:geomkit.pytest_plugin"]
    code, out = suite(tmp_path, "test_it.py", *blocked)
    assert code == 0, out
