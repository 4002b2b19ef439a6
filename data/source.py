"""From files to rows of a mart: one SQL query over a view named ``source``.

A query says in comments at its head what it reads and on which terms; what is learned from its rows
inherits them:

``-- use: care`` or ``demonstration``, ``-- terms: …``, ``-- attribution: …``
``-- member: *diabetic_data.csv`` which files of a zip are meant
``-- cells: text`` CSV and PSV as they stand: numbers and dates are the query's to read
``-- tables: person, death`` a view for each file of that name, instead of ``source``

Each row has the name of its file, without folder and suffix, as ``source_file``.
"""

from __future__ import annotations

import glob
import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from data.engine import BATCH, MEMORY
from data.errors import CaremodelsError, ContractError, NotFoundError, UsageError
from data.files import COLUMN, Ready, listed, ready

Use = Literal["care", "demonstration"]
SOURCES = Path(__file__).parent / "sources"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of one load come from, and what may be done with them."""

    load_id: str
    source: str
    use: Use
    terms: str = ""
    attribution: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A query and what its head says of the rows that it gives."""

    name: str
    sql: str
    use: Use
    terms: str
    attribution: str
    member: str = ""
    text: bool = False
    tables: tuple[str, ...] = ()

    def origin(self, load_id: str) -> Origin:
        """What a load of this source is marked with."""
        return Origin(
            load_id=load_id,
            source=self.name,
            use=self.use,
            terms=self.terms,
            attribution=self.attribution,
        )


def known() -> list[str]:
    return sorted(file.stem for file in SOURCES.glob("*.sql"))


def load(name: str) -> Source:
    """A source that comes with caremodels. Raises NotFoundError naming the known ones."""
    if name not in known():
        raise NotFoundError(f"no source {name!r}; known: {', '.join(known())}")
    return from_file(SOURCES / f"{name}.sql")


def from_file(path: Path) -> Source:
    """A source of the user's own. Raises UsageError where it cannot be read."""
    try:
        sql = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path} as SQL text: {type(error).__name__}") from None
    head = _head(sql)
    use = head.get("use", "care")
    if use not in ("care", "demonstration"):
        raise UsageError(f"{path}: use is care or demonstration, found {use!r}")
    if (cells := head.get("cells", "typed").lower()) not in ("typed", "text"):
        raise UsageError(f"{path}: cells are typed or text, found {cells!r}")
    tables = tuple(re.split(r"[\s,]+", head["tables"].strip(", "))) if "tables" in head else ()
    if not all(re.fullmatch(r"[A-Za-z_]\w*", table) for table in tables):
        raise UsageError(f"{path}: tables are names between commas, found {head['tables']!r}")
    return Source(
        name=path.stem,
        sql=sql,
        use="care" if use == "care" else "demonstration",
        terms=head.get("terms", ""),
        attribution=head.get("attribution", ""),
        member=head.get("member", ""),
        text=cells == "text",
        tables=tables,
    )


def _head(sql: str) -> dict[str, str]:
    """``-- term: text`` of the comments, the first of each; case, spaces and place are forgiven.

    A term that is misread would quietly become a licence for care.
    """
    found: dict[str, str] = {}
    for line in sql.splitlines():
        if term := re.fullmatch(r"\s*--\s*(\w+)\s*:\s*(.+?)\s*", line):
            found.setdefault(term[1].lower(), term[2])
    return {**found, "use": found["use"].lower()} if "use" in found else found


def find(pattern: str) -> list[Path]:
    """The files that match, sorted, and those of a folder that matches.

    Raises NotFoundError where there is none.
    """
    matches = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 any glob
    if not matches:
        raise NotFoundError(f"no file matches {pattern!r}")
    if not any(match.is_dir() for match in matches):
        return matches
    # "**" matches folders and what they hold
    return sorted({file for match in matches for file in (listed(match) if match.is_dir() else [match])})


def fingerprint(source: Source, files: list[Path]) -> str:
    """SHA-256 of the query and of every file's content: the same load has the same one."""
    digest = hashlib.sha256(source.sql.encode())
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read(source: Source, files: list[Path]) -> pa.Table:
    """All rows that :func:`batches` gives, in memory."""
    return pa.concat_tables(batches(source, files))


def batches(source: Source, files: list[Path]) -> Iterator[pa.Table]:
    """Run the query over the files, a batch of rows at a time; at least one batch.

    Raises an error that names the file or the column at fault. DuckDB's own message is passed on
    only where it speaks of names: a conversion error quotes the cell that it could not convert.
    """
    with tempfile.TemporaryDirectory(prefix="caremodels-") as folder:
        scratch = Path(folder)
        found = ready(files, scratch, member=source.member, tables=source.tables)
        settings = {
            # Extensions would be fetched from the network: a load uses what is installed.
            "autoinstall_known_extensions": "false",
            "memory_limit": MEMORY,
            "temp_directory": str(scratch / "duckdb"),
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            for view in source.tables or ("source",):
                _view(connection, view, found.of(view) if source.tables else found, source)
            yield from _rows(connection, source)


def _view(connection: Any, name: str, found: Ready, source: Source) -> None:
    if not found.files:
        raise ContractError(f"source {source.name}: no file for the table {name}")
    # Suppressed S608: the names quoted into SQL are files that the caller chose to read.
    columns = f"* REPLACE (regexp_replace(parse_filename({COLUMN}), '{_SUFFIX}', '', 'i') AS {COLUMN})"
    try:
        table = found.sql(text=source.text)
        connection.execute(f'CREATE VIEW "{name}" AS SELECT {columns} FROM {table}')  # noqa: S608
    except duckdb.Error as error:
        for path, shown in found.files:
            try:
                only = found.sql(text=source.text, only=path)
                connection.execute(f"SELECT * FROM {only} LIMIT 1")  # noqa: S608
            except duckdb.Error:
                raise ContractError(f"{shown} cannot be read as {found.label}") from None
        raise _translated(error, source) from None


_SUFFIX = r"[.](parquet|csv|psv)([.]gz)?$"


def _rows(connection: Any, source: Source) -> Iterator[pa.Table]:
    with _translating(source):
        statements = connection.extract_statements(source.sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise ContractError(f"source {source.name}: the query gives no rows: write one SELECT")
        result = connection.sql(source.sql)
        reader = result.to_arrow_reader(BATCH)
    empty = True
    while True:
        with _translating(source):
            batch = next(reader, None)
        if batch is None:
            break
        empty = False
        yield _own(pa.Table.from_batches([batch]))
    if empty:  # its columns are still held to the contract
        yield _own(reader.schema.empty_table())


def _own(table: pa.Table) -> pa.Table:
    """What the file holds, when a query takes all: the file's name is no column of anybody's."""
    return table.drop_columns([COLUMN]) if COLUMN in table.column_names else table


@contextmanager
def _translating(source: Source) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # in mid-stream Arrow wraps DuckDB's
        raise _translated(error, source) from None


def _translated(error: Exception, source: Source) -> CaremodelsError:
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException):
        return ContractError(f"source {source.name}: {str(error).splitlines()[0]}")
    # An OSError of Arrow is DuckDB's error in words, as "Conversion Error: …"
    kind = re.match(r"[A-Z][A-Za-z ]+ Error(?=:)", str(error))
    if "No space left on device" in str(error) or "max_temp_directory_size" in str(error):
        return CaremodelsError(f"source {source.name}: the disk for temporary files is full")
    shown = kind[0].replace(" ", "") if kind else type(error).__name__
    return CaremodelsError(f"source {source.name}: the query failed over these files ({shown})")
