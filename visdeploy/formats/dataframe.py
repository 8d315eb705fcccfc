"""Conversion of results to a pandas data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visdeploy.formats.common import TABLE_COLUMNS, table_rows
from visdeploy.optional import require
from visdeploy.results import VideoResult

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(result: VideoResult) -> pd.DataFrame:
    """Convert a result to a table with one row per instance and frame, and the columns of `visdeploy.formats.parquet`.

    Raises:
        DependencyError: The package pandas is not installed.
        DataError: The result is inconsistent.
    """
    pandas = require("pandas", extra="formats", purpose="to_dataframe()")
    result.check()
    table: pd.DataFrame = pandas.DataFrame(list(table_rows(result)), columns=list(TABLE_COLUMNS))
    kinds = {name: kind for name, kind in TABLE_COLUMNS.items() if kind not in ("string", "binary")}
    return table.astype(kinds)
