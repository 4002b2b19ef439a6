"""A period cut into blocks by the mart's own time: what a batch scoring finishes one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

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


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows from ``first`` to ``last``, inclusive: days, or the mart's order where there are no dates."""

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
    size = max(BLOCK, sum(row["n"] for row in found) // MOST) // finer
    blocks = [*_merged(counted, size, width=0), *_merged(undated, size, width=width - 1)]
    return blocks, sorted({row["load_id"] for row in found})


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


def _count(store: Store, rows: Any, at: Any) -> list[dict[str, Any]]:
    """Rows by place and load: ``at``, ``load_id``, ``n``."""
    counts = rows.group_by(at=at, load_id=rows.load_id).agg(n=ibis._.count())
    return collect(store.engine, counts).sort_by("at").to_pylist()  # type: ignore[no-any-return]


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
