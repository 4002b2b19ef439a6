"""The only reader and writer of marts, on whatever engine they live.

Beside each mart stand the rows that it refused (``MART_refused``: which row, which field, which
rule) and, for all marts, ``loads``: what came from where, under which terms. A refused row's values
are not kept: a mapping gone wrong may have put a name into any column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.contract import Checked, Column, Mart, Refusal, check_mart, complete
from data.engine import Engine, Function, collect, open_engine
from data.errors import NotEnoughDataError, UsageError
from data.period import Period
from data.pseudonym import hasher
from data.source import Origin

LOADS = pa.schema(
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
REFUSED = pa.schema(
    [
        ("load_id", pa.string()),
        ("row", pa.int64()),
        ("encounter", pa.string()),
        ("column", pa.string()),
        ("rule", pa.string()),
    ]
)
DUPLICATE, KNOWN = "duplicate", "already in the mart"
Heard = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the rows of one load."""

    load_id: str
    mart: str
    read: int
    kept: int
    refused: int
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Which rows of a mart: of a ``period``, of some ``loads`` only, with what was known ``as_of``.

    An outcome that became known at ``as_of`` or later is missing, and so is a row whose event lies
    there: a training set as of a date never sees the future.
    """

    period: Period = field(default_factory=lambda: Period.between(None, None))
    loads: Sequence[str] | None = None
    as_of: datetime | None = None


EVERYTHING = Slice()


class Store:
    """The marts of one database. Use :func:`open_store`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def load(
        self,
        mart: Mart,
        tables: Iterable[pa.Table],
        origin: Origin,
        *,
        key: bytes,
        heard: Heard = lambda rows: None,  # noqa: ARG005 nobody listens
    ) -> LoadReport:
        """Hold rows to the contract and keep those that fit: all of them, or on failure none.

        The same load twice adds nothing twice. Of two rows with one key the first is kept, and of a
        row that the mart already holds the one that it holds. ``key`` is the one for keyed hashes;
        ``heard`` is told how many rows were read so far.
        """
        arriving, refused = f"{mart.name}_arriving", f"{mart.name}_refused"
        read = kept = 0
        reasons: Counter[str] = Counter()
        with self.engine.transaction(f"{mart.name}-{origin.load_id}"):
            # Asked inside, where another process that loads the same has finished.
            if (done := self._loaded(mart, origin.load_id)) is not None:
                return done
            self.engine.stage(arriving, _stored(mart).append(pa.field("row", pa.int64())))
            self.engine.append(refused, REFUSED.empty_table())
            for given in tables:
                table = complete(mart, given)
                checked = check_mart(mart, table)
                rows = _pseudonymised(mart, table, key)
                numbers = pa.array(np.arange(read, read + len(rows)))
                rows = rows.append_column("load_id", pa.repeat(origin.load_id, len(rows)))
                fits = rows.append_column("row", numbers).filter(pa.array(checked.kept))
                self.engine.append(arriving, fits)
                if checked.refused:
                    self.engine.append(refused, _quarantined(mart, rows, checked, first=read))
                reasons.update(checked.reasons)
                read += len(rows)
                kept += len(fits)
                heard(read)
            repeated = self._repeated(mart, arriving)
            self.engine.insert(refused, repeated.select(*REFUSED.names))
            for row in collect(
                self.engine, repeated.group_by("rule").agg(n=repeated.count())
            ).to_pylist():
                reasons[f"{', '.join(mart.key)}: {row['rule']}"] += row["n"]
                kept -= row["n"]
            good = self.engine.table(arriving).anti_join(repeated, "row")
            self.engine.insert(mart.name, good.select(*_stored(mart).names), asked_by=mart.time)
            report = LoadReport(
                load_id=origin.load_id,
                mart=mart.name,
                read=read,
                kept=kept,
                refused=read - kept,
                reasons=dict(reasons),
            )
            self.engine.append("loads", _load_row(origin, report))
        return report

    def read(
        self, mart: Mart, which: Slice = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of a slice in the mart's order, with ``load_id``, all in memory.

        Raises NotEnoughDataError where the mart was never loaded, UsageError where a period is asked
        of a mart without dates.
        """
        return pa.concat_tables(self.batches(mart, which, columns=columns))

    def batches(
        self, mart: Mart, which: Slice = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The same, a batch at a time."""
        return self.engine.batches(self.rows(mart, which, columns=columns))

    def mapped(
        self,
        mart: Mart,
        which: Slice,
        function: Function,
        schema: pa.Schema,
        *,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """``function`` of each batch of a slice, run where the rows are; in the mart's order."""
        return self.engine.mapped(self.rows(mart, which, columns=columns), function, schema)

    def rows(self, mart: Mart, which: Slice, *, columns: Sequence[str] | None = None) -> Any:
        """A slice as an Ibis expression."""
        table = self._table(mart)
        when = table[mart.time]
        if which.loads is not None:
            table = table.filter(table.load_id.isin(list(which.loads)))
        if not which.period.open:
            self._dated(mart)
            table = table.filter((when >= which.period.start) & (when < which.period.end))
        if which.as_of is not None:
            self._dated(mart)
            table = table.filter(when < which.as_of).mutate(**_known(mart, table, which.as_of))
        names = [*(columns or [column.name for column in mart.columns]), "load_id"]
        return table.order_by([ibis.asc(name) for name in mart.sequence]).select(*names)

    def origins(self, load_ids: Sequence[str]) -> list[Origin]:
        """Where the loads ``load_ids`` came from."""
        loads = self.engine.table("loads")
        wanted = loads.filter(loads.load_id.isin(list(load_ids))).order_by("load_id")
        names = ["load_id", "source", "use", "terms", "attribution"]
        return [Origin(**row) for row in collect(self.engine, wanted.select(*names)).to_pylist()]

    def _table(self, mart: Mart) -> Any:
        if mart.name not in self.engine.tables():
            raise NotEnoughDataError(
                f"mart {mart.name} is empty: load it (caremodels mart load) "
                "or simulate it (caremodels mart simulate)"
            )
        return self.engine.table(mart.name)

    def _dated(self, mart: Mart) -> None:
        """Refuse a question of time to a mart that has an order and no dates."""
        if mart.order is None:
            return
        table = self._table(mart)
        counts = table.aggregate(rows=table.count(), dated=table[mart.time].count())
        (found,) = collect(self.engine, counts).to_pylist()
        if found["rows"] and not found["dated"]:
            raise UsageError(f"mart {mart.name} holds no dates, only {mart.order}: ask for no period")

    def _loaded(self, mart: Mart, load_id: str) -> LoadReport | None:
        if "loads" not in self.engine.tables():
            return None
        loads = self.engine.table("loads")
        same = loads.filter((loads.load_id == load_id) & (loads.mart == mart.name))
        rows = collect(self.engine, same).to_pylist()
        if not rows:
            return None
        refused = self.engine.table(f"{mart.name}_refused")
        refused = refused.filter(refused.load_id == load_id)
        counts = refused.group_by("column", "rule").agg(n=refused.count()).order_by("column", "rule")
        reasons = {
            f"{row['column']}: {row['rule']}": row["n"]
            for row in collect(self.engine, counts).to_pylist()
        }
        known = {name: rows[0][name] for name in ("load_id", "mart", "read", "kept", "refused")}
        return LoadReport(**known, reasons=reasons)

    def _repeated(self, mart: Mart, arriving: str) -> Any:
        """The staged rows whose key stands in an earlier row of the load, or in the mart."""
        staged = self.engine.table(arriving)
        names = list(mart.key)
        firsts = staged.group_by(names).agg(first=staged.row.min(), n=staged.count())
        firsts = firsts.filter(firsts.n > 1).drop("n")
        twice = staged.inner_join(firsts, names)
        twice = twice.filter(twice.row > twice.first).select("load_id", "row", encounter=mart.encounter)
        found = twice.mutate(rule=ibis.literal(DUPLICATE))
        if mart.name in self.engine.tables():
            kept = self.engine.table(mart.name).select(names)
            known = staged.anti_join(twice, "row").inner_join(kept, names)
            known = known.select("load_id", "row", encounter=mart.encounter)
            found = ibis.union(found, known.mutate(rule=ibis.literal(KNOWN)))
        return found.mutate(column=ibis.literal(", ".join(mart.key)))


@contextmanager
def open_store(url: str, *, write: bool = True) -> Iterator[Store]:
    """The marts in the database ``url``; see :func:`data.engine.open_engine`."""
    with open_engine(url, write=write) as engine:
        yield Store(engine)


def _stored(mart: Mart) -> pa.Schema:
    return mart.arrow_schema.append(pa.field("load_id", pa.string()))


def _pseudonymised(mart: Mart, table: pa.Table, key: bytes) -> pa.Table:
    """The columns of the mart, typed, with keyed hashes for identifiers."""

    def stored(column: Column) -> pa.ChunkedArray:
        values = table[column.name]
        if column.identity is None:
            return values
        name = hasher(key, kind=column.identity)
        distinct = values.unique()
        hashes = [None if value is None else name(value) for value in distinct.to_pylist()]
        return pc.take(pa.array(hashes, pa.string()), pc.index_in(values, distinct))

    arrays = [stored(column) for column in mart.columns]
    return pa.table(arrays, names=mart.arrow_schema.names).cast(mart.arrow_schema, safe=False)


def _known(mart: Mart, table: Any, as_of: datetime) -> dict[str, Any]:
    """Outcome -> its value where it was known before ``as_of``."""
    found = {}
    for column in mart.columns:
        if column.role != "outcome":
            continue
        said = table[column.known_at] < as_of if column.known_at else ibis.null("boolean")
        waited = table[mart.time] < as_of - timedelta(days=column.known_within or 0)
        known = ibis.coalesce(said, waited)
        found[column.name] = known.ifelse(table[column.name], ibis.null())
    return found


def _quarantined(mart: Mart, rows: pa.Table, checked: Checked, *, first: int) -> pa.Table:
    def of(refusal: Refusal) -> pa.Table:
        size = len(refusal.positions)
        return pa.table(
            {
                "load_id": rows["load_id"].take(refusal.positions),
                "row": pa.array(refusal.positions + first, pa.int64()),
                "encounter": rows[mart.encounter].take(refusal.positions),
                "column": pa.repeat(refusal.column, size),
                "rule": pa.repeat(refusal.rule, size),
            },
            schema=REFUSED,
        )

    return pa.concat_tables([of(refusal) for refusal in checked.refused])


def _load_row(origin: Origin, report: LoadReport) -> pa.Table:
    counts = {name: getattr(report, name) for name in ("mart", "read", "kept", "refused")}
    now = datetime.now(UTC).replace(tzinfo=None)
    return pa.Table.from_pylist([{**asdict(origin), **counts, "loaded_at": now}], schema=LOADS)
