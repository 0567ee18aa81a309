"""All numbers of an analysis as one Parquet table, in the columns of analysis.csv."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

from geomkit.errors import MissingExtra
from geomkit.store.files import write_atomic
from geomkit.store.records import COLUMNS, lines
from geomkit.types import Analysis


def require_parquet() -> None:
    """Refuse early where Parquet cannot be written.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("--parquet needs pyarrow: pip install 'geomkit[parquet]'")


def write_parquet(analysis: Analysis, path: Path) -> None:
    """Write the table; numbers stay numbers, and what a line does not have is null.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(lines(analysis))
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    memory = io.BytesIO()
    pq.write_table(pa.table(columns), memory, compression="zstd")
    write_atomic(path, memory.getvalue())
