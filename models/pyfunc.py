"""The artifact behind MLflow's ``python_function``: what ``mlflow models serve`` answers with.

A convenience for notebooks and batch jobs. Its risks equal the service's; it neither records nor
explains, so that care does not run on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data.contract import check
from data.errors import ContractError
from models import artifact

if TYPE_CHECKING:  # MLflow brings the frame
    import pandas as pd


class Model:
    """Frames in, frames out; a column that is absent is missing in every row."""

    def __init__(self, folder: Path) -> None:
        self._artifact = artifact.load(folder)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The calibrated risk of each row, under the frame's own index.

        Raises ContractError naming field and rule where a row does not fit the contract.
        """
        import pandas as pd

        del params  # there are none; MLflow passes the argument
        columns = self._artifact.mart.columns
        unknown = set(model_input.columns) - {column.name for column in columns}
        if unknown:
            raise ContractError(f"unknown field: {', '.join(sorted(map(str, unknown)))}")
        absent = pa.nulls(len(model_input))
        table = pa.table(
            {
                column.name: _array(model_input[column.name])
                if column.name in model_input.columns
                else absent
                for column in columns
            }
        )
        checked = check(columns, table)
        if not checked.kept.all():
            raise ContractError(f"rows that do not fit: {'; '.join(checked.reasons)}")
        return pd.DataFrame({"risk": self._artifact.risk(checked.rows)}, index=model_input.index)


def _array(series: pd.Series) -> pa.Array:
    try:
        return pa.array(series, from_pandas=True)
    except pa.ArrowException:  # its message quotes the value
        raise ContractError(f"column {series.name}: values of several types") from None


def _load_pyfunc(path: str) -> Model:
    """MLflow's entry point for a ``loader_module``."""
    return Model(Path(path))
