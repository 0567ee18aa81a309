"""Whether this machine has what a marked test needs; a skip says what was missing.

On a machine that must have it, set GEOMKIT_REQUIRE=browser,gpu: the run then stops instead.
"""

from __future__ import annotations

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _browser_missing() -> str:
    found = any(shutil.which(name) for name in BROWSERS)
    return "" if found else f"needs a browser on PATH: one of {', '.join(BROWSERS)}"


def _gpu_missing() -> str:
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device"


NEEDS = {"browser": _browser_missing, "gpu": _gpu_missing}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = os.environ.get("GEOMKIT_REQUIRE", "").split(",")
    for marker, missing in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing() if marked else ""
        for item in marked if reason else ():
            if marker in required:
                raise pytest.UsageError(f"GEOMKIT_REQUIRE={marker}, but this machine {reason}")
            item.add_marker(pytest.mark.skip(reason=reason))
