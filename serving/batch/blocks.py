"""A period cut into blocks by the mart's own time: what a batch scoring finishes one at a time.

Rows of a series look back on one another, so that series are cut by encounter and stay whole; of one
that reaches into the period from before, the earlier rows are read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import pyarrow as pa

from data.contract import Mart
from data.engine import collect
from data.errors import NotEnoughDataError
from data.period import Period
from data.store import Slice, Store

BLOCK = 200_000
"""Rows of a block: seconds of work. A day, or a place in the order, is never parted."""
MOST = 64
"""Blocks at most, or so, and larger ones then: each may cost a look at the whole column of times."""
BUCKETS = 4_096


PREFIX = 3
"""Characters of an encounter's keyed hash: up to 4,096 kinds of them, of about equal size."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows from ``first`` to ``last``, inclusive: days, or the mart's order where there are no dates.

    Of series: from one beginning of an encounter's keyed hash to another.
    """

    first: str | int
    last: str | int
    rows: int

    @property
    def days(self) -> Period | None:
        if isinstance(self.first, int) or isinstance(self.last, int):
            return None
        return Period.between(self.first, self.last)


def cut(store: Store, mart: Mart, period: Period, *, finer: int = 1) -> tuple[list[Block], list[str]]:
    """The blocks of ``period`` in the mart's order, and the loads that its rows came with.

    ``finer`` so many times where a row is more work. Raises NotEnoughDataError where the period
    holds no row, UsageError where a period is asked of a mart without dates.
    """
    columns = [mart.time, *([mart.order] if mart.order else [])]
    rows = store.rows(mart, Slice(period=period), columns=columns)
    day = rows[mart.time].date()
    counted = _count(store, rows.filter(day.notnull()), day.cast("string"))
    width = 1
    undated: list[dict[str, Any]] = []
    if mart.order is not None and period.open:
        waiting = rows.filter(day.isnull())
        place = waiting[mart.order]
        ends = waiting.aggregate(low=place.min(), high=place.max())
        ((low, high),) = (row.values() for row in collect(store.engine, ends).to_pylist())
        if low is not None:
            width = max(1, (high - low + 1) // BUCKETS)
            undated = _count(store, waiting, (place - low) // width)
            for row in undated:
                row["at"] = low + row["at"] * width
    found = [*counted, *undated]
    if not found:
        raise NotEnoughDataError(f"mart {mart.name} holds no row in that period")
    size = _size(found, finer)
    blocks = [*_merged(counted, size, width=0), *_merged(undated, size, width=width - 1)]
    return blocks, _loads(found)


def within(
    store: Store, mart: Mart, block: Block, *, loads: Sequence[str], columns: Sequence[str]
) -> Any:
    """The rows of ``block`` in the mart's order, of those loads only, as an Ibis expression."""
    if (days := block.days) is not None:
        return store.rows(mart, Slice(period=days, loads=loads), columns=columns)
    rows = store.rows(mart, Slice(loads=loads))
    place = rows[mart.order]
    wanted = rows.filter(rows[mart.time].isnull(), place >= block.first, place <= block.last)
    return wanted.order_by([mart.order, *mart.key]).select(*columns)


def cut_series(
    store: Store, mart: Mart, period: Period, *, finer: int = 1
) -> tuple[list[Block], list[str]]:
    """:func:`cut` for series: the loads are also those of the rows that are looked back on."""
    rows = _series(store, mart, Slice(period=period))
    counts = rows.group_by(at=_beginning(rows, mart), load_id=rows.load_id).agg(
        n=rows.count(where=rows.asked)
    )
    found = collect(store.engine, counts).sort_by("at").to_pylist()
    if not found:
        raise NotEnoughDataError(f"mart {mart.name} holds no row in that period")
    return _merged(found, _size(found, finer), width=0), _loads(found)


def within_series(
    store: Store,
    mart: Mart,
    block: Block,
    period: Period,
    *,
    loads: Sequence[str],
    columns: Sequence[str],
) -> Iterator[pa.Table]:
    """The rows of ``block`` in tables that part no series, those looked back on among them."""
    rows = _series(store, mart, Slice(period=period, loads=loads))
    beginning = _beginning(rows, mart)
    wanted = rows.filter(beginning >= block.first, beginning <= block.last)
    ordered = wanted.order_by([ibis.asc(name) for name in mart.sequence]).select(*columns)
    waiting: pa.Table | None = None
    for table in store.engine.batches(ordered):
        joined = pa.concat_tables([waiting, table]) if waiting else table
        # The last series may go on in the next batch.
        names = joined[mart.encounter]
        whole = names.index(names[-1]).as_py() if len(names) else 0
        if whole:
            yield joined.slice(0, whole)
        waiting = joined.slice(whole)
    if waiting:
        yield waiting


def _series(store: Store, mart: Mart, which: Slice) -> Any:
    """The whole series that have a row in the slice, with ``asked``: whether a row is in it."""
    inside = store.rows(mart, which, columns=[mart.encounter])
    rows = store.rows(mart, Slice(loads=which.loads))
    if which.period.open:
        return rows.mutate(asked=ibis.literal(True))
    time = rows[mart.time]
    asked = (time >= which.period.start) & (time < which.period.end)
    return rows.mutate(asked=asked).semi_join(inside, mart.encounter)


def _beginning(rows: Any, mart: Mart) -> Any:
    return rows[mart.encounter].left(PREFIX)


def _count(store: Store, rows: Any, at: Any) -> list[dict[str, Any]]:
    """Rows by place and load: ``at``, ``load_id``, ``n``."""
    counts = rows.group_by(at=at, load_id=rows.load_id).agg(n=ibis._.count())
    return collect(store.engine, counts).sort_by("at").to_pylist()  # type: ignore[no-any-return]


def _size(counted: Sequence[dict[str, Any]], finer: int) -> int:
    """Rows of a block."""
    total: int = sum(row["n"] for row in counted)
    return max(BLOCK, total // MOST) // finer


def _loads(counted: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({row["load_id"] for row in counted})


def _merged(counted: Iterable[dict[str, Any]], size: int, *, width: int) -> list[Block]:
    """Neighbouring places together, up to ``size`` rows; one place is never parted."""
    blocks: list[Block] = []
    for row in counted:
        at, last = row["at"], row["at"] + width if width else row["at"]
        before = blocks[-1] if blocks else None
        if before and (before.last == last or before.rows + row["n"] <= size):
            blocks[-1] = Block(first=before.first, last=last, rows=before.rows + row["n"])
        else:
            blocks.append(Block(first=at, last=last, rows=row["n"]))
    return blocks
