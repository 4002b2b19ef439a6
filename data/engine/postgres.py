"""PostgreSQL: marts in the department's database. Rows travel by COPY, both ways."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import ibis
import pyarrow as pa
from pyarrow import csv

from data.engine import BATCH, Function, whole
from data.errors import CaremodelsError, ContractError, UnavailableError, UsageError

try:
    import psycopg
except ModuleNotFoundError:
    raise UsageError("marts on PostgreSQL need the extra: pip install 'caremodels[postgres]'") from None

BLOCK = 16 << 20
"""Bytes of text that become one batch."""

PLAIN = ("DateStyle = 'ISO'", "extra_float_digits = 1", "TimeZone = 'UTC'", "client_encoding = 'UTF8'")
"""How values are written, whatever the server's own habits: exactly, and so that Arrow reads them."""

_LOADING = 0x6361_7265
"""The advisory lock under which loads wait for each other."""


class Postgres:
    """An open PostgreSQL database."""

    def __init__(self, connection: Any) -> None:
        self._db = connection
        self._staged: set[str] = set()

    def tables(self) -> list[str]:
        names: list[str] = self._db.list_tables()
        return [name for name in names if name not in self._staged]

    def table(self, name: str) -> Any:
        return self._db.table(name)

    @contextmanager
    def transaction(self, name: str) -> Iterator[None]:
        del name  # nothing outlives a transaction that failed
        try:
            with self._db.con.transaction():
                self._execute(f"SELECT pg_advisory_xact_lock({_LOADING})")
                yield
        except psycopg.Error as error:
            raise _told(error) from None
        finally:
            self._staged.clear()

    def stage(self, name: str, schema: pa.Schema) -> None:
        self._execute(f'CREATE TEMP TABLE "{name}" ({_columns(schema)}) ON COMMIT DROP')
        self._staged.add(name)

    def append(self, name: str, rows: pa.Table) -> None:
        if name not in self._staged:
            self._make(name, rows.schema)
        names = ", ".join(f'"{column}"' for column in rows.column_names)
        with (
            self._db.con.cursor() as cursor,
            cursor.copy(f'COPY "{name}" ({names}) FROM STDIN (FORMAT csv)') as copy,
        ):
            for batch in rows.to_batches(BATCH):
                text = io.BytesIO()
                # Texts are quoted and a null is not, so that the two never meet.
                csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
                copy.write(text.getvalue())

    def insert(self, name: str, rows: Any, *, asked_by: str | None = None) -> None:
        self._make(name, rows.schema().to_pyarrow())
        names = ", ".join(f'"{column}"' for column in rows.columns)
        self._execute(f'INSERT INTO "{name}" ({names}) {ibis.to_sql(rows, dialect="postgres")}')
        if asked_by is not None:
            index = f"{name}_{asked_by}"
            self._execute(f'CREATE INDEX IF NOT EXISTS "{index}" ON "{name}" ("{asked_by}")')

    def rows(self, sql: str) -> Iterator[pa.Table]:
        query = sql.strip().removesuffix(";")
        try:
            with self._db.con.transaction(), self._db.con.cursor() as cursor:
                # The rows come as text; the types come from the same query without rows.
                cursor.execute(f"SELECT * FROM (\n{query}\n) AS asked LIMIT 0")  # noqa: S608 the caller's query
                schema = pa.schema([(column.name, _arrow(column)) for column in cursor.description])
                with cursor.copy(f"COPY (\n{query}\n) TO STDOUT (FORMAT csv)") as copy:
                    yield from _tables(copy, schema)
        except psycopg.Error as error:
            raise _told(error) from None
        except pa.ArrowException:  # its message quotes the cell, as a time before or after all calendars
            raise CaremodelsError("a row of the query holds what no column of Arrow can") from None

    def batches(self, rows: Any) -> Iterator[pa.Table]:
        return self.rows(ibis.to_sql(rows, dialect="postgres"))

    def mapped(self, rows: Any, function: Function, schema: pa.Schema) -> Iterator[pa.Table]:
        for batch in self.batches(rows):
            yield function(batch).cast(schema)

    def close(self) -> None:
        self._db.disconnect()

    def _execute(self, sql: str) -> None:
        self._db.con.execute(sql)

    def _make(self, name: str, schema: pa.Schema) -> None:
        if name not in self._db.list_tables():
            self._execute(f'CREATE TABLE "{name}" ({_columns(schema)})')


def connect(url: str, *, write: bool) -> Postgres:
    """The database that ``url`` names."""
    place = urlsplit(url)
    try:
        connection = ibis.postgres.connect(
            host=place.hostname,
            port=place.port or 5432,
            user=unquote(place.username) if place.username else None,
            password=unquote(place.password) if place.password else None,
            database=place.path.strip("/") or None,
            autocommit=True,
        )
    except psycopg.Error:  # its message may hold the password
        where = f"{place.hostname}:{place.port or 5432}{place.path}"
        raise UnavailableError(f"the database postgresql://{where} cannot be reached") from None
    for setting in (*PLAIN, *([] if write else ["default_transaction_read_only = on"])):
        connection.con.execute(f"SET {setting}")
    return Postgres(connection)


def _told(error: psycopg.Error) -> CaremodelsError:
    """What may be said of a failure: a message about names and not one about a value."""
    state = error.sqlstate or ""
    said = error.diag.message_primary or ""
    if state.startswith("42"):  # syntax, or a name that is not there
        return ContractError(f"the query does not fit: {said}")
    if state in {"53100", "53200"}:
        return CaremodelsError(f"PostgreSQL has no room: {said}")
    if state.startswith("25006"):
        return ContractError("the query writes; only reading is allowed")
    return CaremodelsError(f"the query failed in PostgreSQL ({type(error).__name__})")


_OWN = {
    pa.float64(): "double precision",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.string(): "text",
    pa.timestamp("us"): "timestamp",
}
# By the type's name in PostgreSQL; whatever else there is travels as text, which the contract then
# judges.
_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "float4": pa.float64(),
    "float8": pa.float64(),
    "numeric": pa.float64(),
    "date": pa.timestamp("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f'"{field.name}" {_OWN[field.type]}' for field in schema)


def _arrow(column: psycopg.Column) -> pa.DataType:
    info = psycopg.adapters.types.get(column.type_code)
    return _TYPES.get(info.name if info else "", pa.string())


class _Stream(io.RawIOBase):
    """The bytes of a COPY as a file that Arrow can read."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self._chunks = iter(copy)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = bytes(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _tables(copy: psycopg.Copy, schema: pa.Schema) -> Iterator[pa.Table]:
    stream = io.BufferedReader(_Stream(copy), 1 << 20)
    if not stream.peek(1):
        yield schema.empty_table()
        return
    yield from whole(
        csv.open_csv(
            stream,
            csv.ReadOptions(column_names=schema.names, block_size=BLOCK),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=schema,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    )
