"""Geometry diagnostics for multimodal LLMs.

    capture -> run -> analyze -> report | assert

The names below are the library; each is loaded when it is first asked for, so that
`import geomkit` costs milliseconds and pulls in neither torch nor a plotting library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomkit.analyze import analyze_run as analyze_run
    from geomkit.assertions import assert_improved as assert_improved
    from geomkit.assertions import assert_isotropic as assert_isotropic
    from geomkit.assertions import assert_transfers as assert_transfers
    from geomkit.capture import capture_run as capture_run
    from geomkit.data.samples import load_samples as load_samples
    from geomkit.errors import GeomkitError as GeomkitError
    from geomkit.places import CheckpointSpec as CheckpointSpec
    from geomkit.plans import CaptureConfig as CaptureConfig
    from geomkit.store import Run as Run
    from geomkit.store import create_run as create_run
    from geomkit.store import latest_run as latest_run
    from geomkit.store import open_run as open_run
    from geomkit.store import verify_run as verify_run
    from geomkit.types import Analysis as Analysis
    from geomkit.types import Plan as Plan
    from geomkit.types import Sample as Sample

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "geomkit.types",
    "CaptureConfig": "geomkit.plans",
    "CheckpointSpec": "geomkit.places",
    "GeomkitError": "geomkit.errors",
    "Plan": "geomkit.types",
    "Run": "geomkit.store",
    "Sample": "geomkit.types",
    "analyze_run": "geomkit.analyze",
    "assert_improved": "geomkit.assertions",
    "assert_isotropic": "geomkit.assertions",
    "assert_transfers": "geomkit.assertions",
    "capture_run": "geomkit.capture",
    "create_run": "geomkit.store",
    "latest_run": "geomkit.store",
    "load_samples": "geomkit.data.samples",
    "open_run": "geomkit.store",
    "verify_run": "geomkit.store",
}

__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604 - names, computed from the table above


def __getattr__(name: str) -> Any:
    """The public name, loaded from its home the first time (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'geomkit' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
