"""Many rows into a table, through the driver's own ``executemany``.

SQLAlchemy makes the statement once and converts the values by the table's types. Left to execute it
too, it took half as much time again for batches of the size that concurrent requests make, in a thread
that shares the interpreter with the one that answers them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert


class Insert:
    """``INSERT`` of whole rows. A column that a row leaves out, or gives as None, gets its default."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        compiled = insert(table).compile(dialect=dialect, column_keys=list(table.c.keys()))
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup or table.c.keys())
        self._positional = compiled.positional
        self._defaults = {
            column.name: str(column.server_default.arg)  # type: ignore[attr-defined]  # a DefaultClause
            for column in table.columns
            if column.server_default is not None
        }
        found = {
            column.name: column.type.dialect_impl(dialect).bind_processor(dialect)
            for column in table.columns
        }
        self._convert = {name: convert for name, convert in found.items() if convert is not None}

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        values = [self._values(row) for row in rows]
        connection.exec_driver_sql(self._sql, values)

    def _values(self, row: Mapping[str, object]) -> Any:
        ready: dict[str, object] = dict.fromkeys(self._names)
        ready.update(row)
        for name, default in self._defaults.items():
            if ready[name] is None:
                ready[name] = default
        for name, convert in self._convert.items():
            if (value := ready[name]) is not None:
                ready[name] = convert(value)
        return tuple(ready.values()) if self._positional else ready
