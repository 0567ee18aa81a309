"""Fixtures for geometry tests; loaded in every pytest run of an environment, so it stays tiny.

    geomkit_run   the run under test, opened          (session)
    geom          the analysis of that run            (session)

    pytest --geomkit-run geomkit-run                  or `geomkit_run = geomkit-run` in the ini file

Without either, the newest run folder up to two levels below the root directory is taken. A run that
is missing fails the tests that ask for it: a skip would hide that nothing was tested. Until a
fixture is used nothing but pytest is imported, nothing is read and nothing is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from geomkit.store import Run
    from geomkit.types import Analysis


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option and the ini key that name the run."""
    doc = "run folder for the geomkit_run and geom fixtures; the newest one by default"
    parser.getgroup("geomkit").addoption("--geomkit-run", metavar="RUN", default=None, help=doc)
    parser.addini("geomkit_run", doc, default="")


def pytest_configure(config: pytest.Config) -> None:
    """The marker, so that --strict-markers knows it."""
    config.addinivalue_line("markers", "geom: a test of the geometry of a captured run")


@pytest.fixture(scope="session")
def geomkit_run(pytestconfig: pytest.Config) -> Run:
    """The run under test, read-only."""
    from geomkit.errors import GeomkitError
    from geomkit.store import open_run

    try:
        return open_run(_run_path(pytestconfig))
    except GeomkitError as error:
        problem = str(error)
    pytest.fail(
        f"geomkit: {problem}\nName a run with --geomkit-run RUN, or geomkit_run in the ini file.",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def geom(geomkit_run: Run) -> Analysis:
    """What was measured on the run; measured now, without probes, when it was not yet."""
    from geomkit.assertions import analysis_of
    from geomkit.errors import GeomkitError

    try:
        return analysis_of(geomkit_run)
    except GeomkitError as error:
        problem = str(error)
    pytest.fail(f"geomkit: {problem}", pytrace=False)


def _run_path(config: pytest.Config) -> Path:
    """The named run (an ini path is relative to the root), or the newest."""
    from geomkit.store import latest_run

    if option := config.getoption("--geomkit-run"):
        return Path(config.invocation_params.dir, option)
    if ini := config.getini("geomkit_run"):
        return Path(config.rootpath, ini)
    return latest_run(config.rootpath)
