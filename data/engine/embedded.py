"""DuckDB: marts in one file, the embedded default."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import ibis
import pyarrow as pa
from pyarrow import parquet

from data.engine import BATCH, MEMORY, Function, whole
from data.errors import CaremodelsError, ContractError, NotEnoughDataError, UsageError


class Embedded:
    """An open DuckDB database."""

    def __init__(self, connection: Any, path: Path) -> None:
        self._db = connection
        self._path = path
        self._staged: dict[str, parquet.ParquetWriter] = {}
        self._scratch = Path()

    def tables(self) -> list[str]:
        names: list[str] = self._db.list_tables()
        return [name for name in names if name not in self._staged]

    def table(self, name: str) -> Any:
        if name in self._staged:
            with _room():
                self._staged[name].close()
            return self._db.read_parquet(self._scratch / name, table_name=name)
        return self._db.table(name)

    @contextmanager
    def transaction(self, name: str) -> Iterator[None]:
        del name  # what a killed load left behind has one name for all
        folder, prefix = self._path.parent, f"{self._path.name}.loading-"
        for old in folder.glob(f"{escape(prefix)}*"):  # nobody else writes: the file is locked
            rmtree(old)
        with TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
            self._scratch = Path(scratch)
            self._db.raw_sql("BEGIN")
            try:
                yield
                self._db.raw_sql("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error):  # a COMMIT that failed has rolled back itself
                    self._db.raw_sql("ROLLBACK")
                if isinstance(error, duckdb.Error):
                    raise _unwritten(error) from None
                raise
            finally:
                for staged, writer in self._staged.items():
                    with suppress(OSError):  # it is thrown away
                        writer.close()
                    self._db.raw_sql(f'DROP VIEW IF EXISTS "{staged}"')
                self._staged.clear()

    def stage(self, name: str, schema: pa.Schema) -> None:
        # A file, because DuckDB holds in memory what a transaction put into a table of its own.
        self._staged[name] = parquet.ParquetWriter(self._scratch / name, schema, compression="lz4")

    def append(self, name: str, rows: pa.Table) -> None:
        if name in self._staged:
            with _room():
                self._staged[name].write_table(rows)
            return
        self._make(name, ibis.Schema.from_pyarrow(rows.schema))
        if rows.num_rows:
            names = ", ".join(f'"{column}"' for column in rows.column_names)
            connection = self._db.con
            connection.register("_arriving", rows)
            connection.execute(f'INSERT INTO "{name}" ({names}) SELECT {names} FROM _arriving')  # noqa: S608 our own names
            connection.unregister("_arriving")

    def insert(self, name: str, rows: Any, *, asked_by: str | None = None) -> None:
        del asked_by  # DuckDB keeps the least and largest value of every stretch of rows
        self._make(name, rows.schema())
        names = ", ".join(f'"{column}"' for column in rows.columns)
        self._db.raw_sql(f'INSERT INTO "{name}" ({names}) {ibis.to_sql(rows, dialect="duckdb")}')

    def rows(self, sql: str) -> Iterator[pa.Table]:
        # A result ends when its connection runs something else, so each has a cursor of its own;
        # inside a transaction only the connection itself sees what was written.
        connection = self._db.con if self._staged else self._db.con.cursor()
        try:
            yield from whole(connection.execute(sql).to_arrow_reader(BATCH))
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
            raise ContractError(f"the query does not fit: {str(error).splitlines()[0]}") from None
        # In mid-stream Arrow wraps DuckDB's error. Either message may quote a cell.
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise CaremodelsError(f"the query failed in DuckDB ({type(error).__name__})") from None

    def batches(self, rows: Any) -> Iterator[pa.Table]:
        return self.rows(ibis.to_sql(rows, dialect="duckdb"))

    def mapped(self, rows: Any, function: Function, schema: pa.Schema) -> Iterator[pa.Table]:
        for batch in self.batches(rows):
            yield function(batch).cast(schema)

    def close(self) -> None:
        self._db.disconnect()

    def _make(self, name: str, schema: Any) -> None:
        if name not in self._db.list_tables():
            self._db.create_table(name, schema=schema)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "the disk is full" if full else type(error).__name__
        raise CaremodelsError(f"the marts cannot be written: {why}") from None


def _unwritten(error: duckdb.Error) -> CaremodelsError:
    """DuckDB tells of a full disk in words only; anything else it says may quote a cell."""
    full = any(
        words in str(error) for words in ("Could not write", "No space left", "max_temp_directory")
    )
    why = "the disk is full" if full else type(error).__name__
    return CaremodelsError(f"the marts cannot be written: {why}")


def connect(url: str, *, write: bool) -> Embedded:
    """The database in the file that ``url`` names, made when it is not there."""
    place = url.partition("://")[2]
    if not place:
        raise UsageError("duckdb://FILE: the file is missing")
    path = Path(place)
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise NotEnoughDataError(
            f"there are no marts at {path}: load one (caremodels mart load) "
            "or simulate it (caremodels mart simulate)"
        )
    try:
        connection = ibis.duckdb.connect(
            path,
            read_only=not write,
            autoinstall_known_extensions=False,
            memory_limit=MEMORY,
            preserve_insertion_order=False,
        )
    except duckdb.Error as error:
        said = str(error).lower()
        why = "it is no DuckDB database"
        if "could not set lock" in said:
            why = "another process has it open"
        elif "different configuration" in said:
            why = "this command has it open already"
        raise CaremodelsError(f"the marts at {path} cannot be opened: {why}") from None
    connection.con.execute("SET enable_progress_bar = false")
    return Embedded(connection, path)
