"""From files to rows of a mart: one SQL query over a view named ``source``.

A query states its terms in comments at its head (``-- use: demonstration``); what is learned from
its rows inherits them.
"""

from __future__ import annotations

import glob
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from data.errors import CaremodelsError, ContractError, NotFoundError, UsageError

Use = Literal["care", "demonstration"]
SOURCES = Path(__file__).parent / "sources"
READERS = {
    ".parquet": ("Parquet", "read_parquet({}, union_by_name=true)"),
    ".csv": ("CSV", "read_csv({}, union_by_name=true)"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A query and what its head says of the rows that it gives."""

    name: str
    sql: str
    use: Use
    terms: str
    attribution: str


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
    return Source(
        name=path.stem,
        sql=sql,
        use="care" if use == "care" else "demonstration",
        terms=head.get("terms", ""),
        attribution=head.get("attribution", ""),
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
    """The files that match, sorted. Raises NotFoundError where there is none."""
    files = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 any glob
    if not files:
        raise NotFoundError(f"no file matches {pattern!r}")
    return files


def fingerprint(source: Source, files: list[Path]) -> str:
    """SHA-256 of the query and of every file's content: the same load has the same one."""
    digest = hashlib.sha256(source.sql.encode())
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read(source: Source, files: list[Path]) -> pa.Table:
    """Run the query over the files. Raises an error that names the file or the column at fault.

    DuckDB's own message is passed on only where it speaks of names: a conversion error quotes
    the cell that it could not convert.
    """
    kind = {file.suffix.lower() for file in files}
    if len(kind) != 1 or not kind <= READERS.keys():
        raise UsageError(f"files must be all of one kind: {' or '.join(READERS)}")
    label, reader = READERS[kind.pop()]
    # Extensions would be fetched from the network: a load uses what is installed.
    # Suppressed S608 below: the names quoted into SQL are files that the caller chose to read.
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        for file in files:
            try:
                connection.execute(f"SELECT * FROM {reader.format(_quoted([file]))} LIMIT 1")  # noqa: S608
            except duckdb.Error:
                raise ContractError(f"{file} cannot be read as {label}") from None
        try:
            rows = reader.format(_quoted(files))
            connection.execute(f"CREATE VIEW source AS SELECT * FROM {rows}")  # noqa: S608
            result = connection.sql(source.sql)
            if result is None:
                raise ContractError(
                    f"source {source.name}: the query gives no rows: end it with a SELECT"
                )
            return result.to_arrow_table()
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
            raise ContractError(f"source {source.name}: {str(error).splitlines()[0]}") from None
        except duckdb.Error as error:
            raise CaremodelsError(
                f"source {source.name}: the query failed over these files ({type(error).__name__})"
            ) from None


def _quoted(files: list[Path]) -> str:
    return "[" + ", ".join("'" + str(file).replace("'", "''") + "'" for file in files) + "]"
