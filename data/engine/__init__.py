"""Where marts live: DuckDB in a file, PostgreSQL, or Spark over a shared folder.

Questions are Ibis expressions and the same on all three. What differs, and stands here, is how rows
come in and go out as Arrow and what "all or nothing" means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from data.errors import UsageError

BATCH = 65_536
"""Rows a batch: wide enough for Arrow's kernels, a few dozen MiB at most."""
MEMORY = "512MiB"
"""What DuckDB may hold, as a store and as a reader of files; past it, it spills to disk."""

Function = Callable[[pa.Table], pa.Table]
SCHEMES = {"duckdb": "embedded", "postgresql": "postgres", "postgres": "postgres", "spark": "spark"}


class Engine(Protocol):
    """One open database of marts."""

    def tables(self) -> list[str]:
        """Names of the tables that hold something committed."""

    def table(self, name: str) -> Any:
        """The table ``name`` as an Ibis expression."""

    def rows(self, sql: str) -> Iterator[pa.Table]:
        """The rows of a query in the engine's own dialect, a batch at a time; at least one batch.

        Raises ContractError where the query names what is not there.
        """

    def transaction(self, name: str) -> AbstractContextManager[None]:
        """What is written inside is kept together, or on any failure not at all.

        ``name`` says whose work it is: what an earlier attempt of that name left behind is cleared.
        """

    def stage(self, name: str, schema: pa.Schema) -> None:
        """An empty table that only this transaction sees and that ends with it."""

    def append(self, name: str, rows: pa.Table) -> None:
        """Rows into a staged table, or into a kept one, which is made when it is not there."""

    def insert(self, name: str, rows: Any, *, asked_by: str | None = None) -> None:
        """The rows of an Ibis expression into a kept table, made when it is not there.

        ``asked_by``: a column by which ranges are asked for, where the engine would rather know.
        """

    def batches(self, rows: Any) -> Iterator[pa.Table]:
        """The rows of an Ibis expression, in its order, a batch at a time; at least one batch."""

    def mapped(self, rows: Any, function: Function, schema: pa.Schema) -> Iterator[pa.Table]:
        """``function`` of each batch of ``rows``, run where the rows are."""

    def close(self) -> None: ...


@contextmanager
def open_engine(url: str, *, write: bool = True) -> Iterator[Engine]:
    """The database at ``url``: duckdb://FILE, postgresql://…, spark://MASTER:PORT/FOLDER.

    Raises UsageError for another scheme or where the engine's extra is not installed, and
    CaremodelsError where the database cannot be reached.
    """
    try:
        place = urlsplit(url)
        _ = place.port  # which is read no sooner than asked for
    except ValueError:  # its message repeats what stands in the port's place: a password, perhaps
        raise UsageError(
            "the database's URL cannot be read: special characters in a password are percent-encoded"
        ) from None
    scheme = place.scheme if "://" in url else ""
    if scheme not in SCHEMES:
        known = "duckdb://FILE, postgresql://HOST/DATABASE, spark://HOST:PORT/FOLDER"
        raise UsageError(f"no engine for {scheme or 'that'}://; known: {known}")
    engine: Engine = import_module(f"data.engine.{SCHEMES[scheme]}").connect(url, write=write)
    try:
        yield engine
    finally:
        engine.close()


def collect(engine: Engine, rows: Any) -> pa.Table:
    """All rows of an Ibis expression: for counts and other short answers."""
    return pa.concat_tables(engine.batches(rows))


def whole(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Record batches as tables; where there is none, one empty table, which still has columns."""
    some = False
    for batch in reader:
        some = True
        yield pa.Table.from_batches([batch])
    if not some:
        yield reader.schema.empty_table()
