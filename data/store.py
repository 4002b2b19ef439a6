"""The only reader and writer of marts: tables in DuckDB, through Ibis.

Beside each mart stand the rows that it refused (``MART_refused``: which row, which field, which
rule) and, for all marts, ``loads``: what came from where, under which terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.compute as pc

from data.contract import Checked, Mart, Refusal, check
from data.errors import CaremodelsError, NotEnoughDataError
from data.period import Period
from data.source import Use

_LOADS = pa.schema(
    [
        ("load_id", pa.string()),
        ("mart", pa.string()),
        ("source", pa.string()),
        ("use", pa.string()),
        ("terms", pa.string()),
        ("attribution", pa.string()),
        ("loaded_at", pa.timestamp("us")),
        ("read", pa.int64()),
        ("kept", pa.int64()),
        ("refused", pa.int64()),
    ]
)
_REFUSED = pa.schema(
    [("load_id", pa.string()), ("row", pa.int64()), ("column", pa.string()), ("rule", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where rows come from, and what may be done with them."""

    load_id: str
    source: str
    use: Use
    terms: str = ""
    attribution: str = ""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the rows of one load."""

    load_id: str
    mart: str
    read: int
    kept: int
    refused: int
    reasons: dict[str, int] = field(default_factory=dict)


class Store:
    """The marts of one database. Use :func:`open_store`."""

    def __init__(self, connection: Any) -> None:
        self._db = connection

    def load(self, mart: Mart, table: pa.Table, origin: Origin) -> LoadReport:
        """Hold rows to the contract and keep those that fit: all of them, or on failure none.

        The same load twice adds nothing twice. A row whose key the mart already holds is refused
        as a duplicate.
        """
        if (done := self._loaded(mart, origin.load_id)) is not None:
            return done
        checked = check(mart.columns, table, key=mart.key)
        kept = table.select([column.name for column in mart.columns]).cast(mart.arrow_schema, safe=False)
        if mart.name in self._db.list_tables():
            checked = self._without_known_keys(mart, kept, checked)
        kept = kept.filter(pa.array(checked.kept))
        report = LoadReport(
            load_id=origin.load_id,
            mart=mart.name,
            read=table.num_rows,
            kept=len(checked),
            refused=table.num_rows - len(checked),
            reasons=checked.reasons,
        )
        with self._transaction():
            ids = pa.array([origin.load_id] * len(kept), pa.string())
            self._append(mart.name, kept.append_column("load_id", ids))
            self._append(f"{mart.name}_refused", _refused_rows(origin.load_id, checked.refused))
            self._append("loads", _load_row(origin, report))
        return report

    def read(self, mart: Mart, period: Period, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of ``period``, ordered by time and key, with ``load_id``.

        Raises NotEnoughDataError where the mart was never loaded.
        """
        table = self._table(mart)
        names = [*(columns or [column.name for column in mart.columns]), "load_id"]
        when = table[mart.time]
        rows = table.filter((when >= period.start) & (when < period.end))
        return rows.order_by([mart.time, mart.key]).select(*names).to_pyarrow()

    def origins(self, load_ids: Sequence[str]) -> list[Origin]:
        """Where the loads ``load_ids`` came from."""
        loads = self._db.table("loads")
        wanted = loads.filter(loads.load_id.isin(list(load_ids))).order_by("load_id")
        names = ["load_id", "source", "use", "terms", "attribution"]
        return [Origin(**row) for row in wanted.select(*names).to_pyarrow().to_pylist()]

    def _table(self, mart: Mart) -> Any:
        if mart.name not in self._db.list_tables():
            raise NotEnoughDataError(
                f"mart {mart.name} is empty: load it (caremodels mart load) "
                "or simulate it (caremodels mart simulate)"
            )
        return self._db.table(mart.name)

    def _loaded(self, mart: Mart, load_id: str) -> LoadReport | None:
        if "loads" not in self._db.list_tables():
            return None
        loads = self._db.table("loads")
        rows = (
            loads.filter((loads.load_id == load_id) & (loads.mart == mart.name)).to_pyarrow().to_pylist()
        )
        if not rows:
            return None
        refused = self._db.table(f"{rows[0]['mart']}_refused")
        counts = refused.filter(refused.load_id == load_id).group_by("column", "rule").count()
        reasons = {
            f"{c}: {r}": n for c, r, n in (row.values() for row in counts.to_pyarrow().to_pylist())
        }
        known = {name: rows[0][name] for name in ("load_id", "mart", "read", "kept", "refused")}
        return LoadReport(**known, reasons=reasons)

    def _without_known_keys(self, mart: Mart, table: pa.Table, checked: Checked) -> Checked:
        keys = self._db.table(mart.name).select(mart.key).to_pyarrow()[mart.key]
        known = pc.is_in(table[mart.key], value_set=keys.combine_chunks()).to_numpy()
        known &= checked.kept
        if not known.any():
            return checked
        refusal = Refusal(column=mart.key, rule="already in the mart", positions=known.nonzero()[0])
        return Checked(
            rows=checked.rows, kept=checked.kept & ~known, refused=(*checked.refused, refusal)
        )

    def _append(self, name: str, rows: pa.Table) -> None:
        if name not in self._db.list_tables():
            self._db.create_table(name, schema=ibis.Schema.from_pyarrow(rows.schema))
        if rows.num_rows:
            self._db.insert(name, rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.raw_sql("BEGIN")
        try:
            yield
        except BaseException:
            self._db.raw_sql("ROLLBACK")
            raise
        self._db.raw_sql("COMMIT")


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """The marts kept in the DuckDB file ``path``, made when it is not there.

    Raises CaremodelsError where the file is no DuckDB database or another process writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = ibis.duckdb.connect(path, autoinstall_known_extensions=False)
    except duckdb.Error as error:
        busy = "could not set lock" in str(error).lower()
        why = "another process has it open" if busy else "it is no DuckDB database"
        raise CaremodelsError(f"the marts at {path} cannot be opened: {why}") from None
    try:
        yield Store(connection)
    finally:
        connection.disconnect()


def _refused_rows(load_id: str, refused: Sequence[Refusal]) -> pa.Table:
    rows = [
        pa.table(
            {
                "load_id": pa.array([load_id] * len(refusal.positions), pa.string()),
                "row": pa.array(refusal.positions, pa.int64()),
                "column": pa.array([refusal.column] * len(refusal.positions), pa.string()),
                "rule": pa.array([refusal.rule] * len(refusal.positions), pa.string()),
            },
            schema=_REFUSED,
        )
        for refusal in refused
    ]
    return pa.concat_tables([_REFUSED.empty_table(), *rows])


def _load_row(origin: Origin, report: LoadReport) -> pa.Table:
    counts = {name: getattr(report, name) for name in ("mart", "read", "kept", "refused")}
    now = datetime.now(UTC).replace(tzinfo=None)
    return pa.Table.from_pylist([{**asdict(origin), **counts, "loaded_at": now}], schema=_LOADS)
