"""What a mart holds and what it refused: the figures of ``caremodels mart check``.

They are printed and passed on, so that none stands for one person alone where that can be helped:
cells of fewer than :data:`SMALLEST` rows are merged, and of identifiers and free texts only the
number of different ones is told. The database does the counting; what comes back is counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import itemgetter, or_
from typing import Any

import ibis

from data.contract import Column, Mart
from data.engine import collect
from data.store import DUPLICATE, EVERYTHING, KNOWN, Store
from data.terminal import Stage

SMALLEST = 20
"""Rows under which a cell, or a site, is shown together with others."""
OFTEN_MISSING = 0.2
DIFFERS = 0.1
"""Share by which a site's missing values differ from the mart's before a person is told."""
LINES = 8
OTHER = "other"

Rows = list[dict[str, Any]]


def measure(store: Store, mart: Mart, *, stage: Stage = lambda _name, _done: None) -> dict[str, Any]:
    """Counts over all loads of a mart; exact, and the same on every engine.

    ``load_id`` lists the loads and ``loads`` tells of each, with ``read``, ``kept``, ``refused`` and
    ``reasons`` summed over them. ``columns`` has for each column what its kind allows: ``low``,
    ``high`` and ``mean`` of numbers, first and last of times, counts by category, and of texts and
    identifiers ``distinct`` alone. ``sites`` has rows, first and last time and the share missing by
    column. ``duplicates`` has keys that stand in the mart twice (of which there should be none),
    rows refused for that, and patients with several rows.

    Raises NotEnoughDataError where the mart was never loaded.
    """
    store.rows(mart, EVERYTHING)
    stage("counting loads", 0.0)
    loads = _loads(store, mart)
    found: dict[str, Any] = {"load_id": [load["load_id"] for load in loads], "mart": mart.name}
    for name in ("read", "kept", "refused"):
        found[name] = sum(load[name] for load in loads)
    found["reasons"], repeated = _reasons(store, mart)
    found["loads"] = loads
    table = store.engine.table(mart.name)
    stage("counting by column", 0.1)
    found["columns"] = _columns(store, mart, table)
    stage("counting by site", 0.6)
    found["sites"] = _sites(store, mart, table)
    stage("looking for duplicates", 0.8)
    found["duplicates"] = {**_duplicates(store, mart, table), "refused": repeated}
    return found


def _loads(store: Store, mart: Mart) -> Rows:
    loads = store.engine.table("loads")
    names = ["load_id", "source", "use", "loaded_at", "read", "kept", "refused"]
    rows = loads.filter(loads.mart == mart.name).order_by("loaded_at", "load_id").select(*names)
    return [
        {**row, "loaded_at": _shown(row["loaded_at"])} for row in collect(store.engine, rows).to_pylist()
    ]


def _reasons(store: Store, mart: Mart) -> tuple[dict[str, int], int]:
    """Reason -> rows, the most frequent first; and the rows refused because their key was there."""
    refused = store.engine.table(f"{mart.name}_refused")
    counts = refused.group_by("column", "rule").agg(n=refused.count())
    rows = collect(store.engine, counts).to_pylist()
    rows.sort(key=lambda row: (-row["n"], row["column"], row["rule"]))
    repeated = sum(row["n"] for row in rows if row["rule"] in (DUPLICATE, KNOWN))
    return {f"{row['column']}: {row['rule']}": row["n"] for row in rows}, repeated


def _columns(store: Store, mart: Mart, table: Any) -> Rows:
    asked = {("", "rows"): table.count()}
    for column in mart.columns:
        for what, figure in _figures(column, table[column.name]).items():
            asked[column.name, what] = figure
    figures = _aggregate(store, table, asked)
    rows = figures["", "rows"]
    categories = _by_category(store, mart, table)
    found = []
    for column in mart.columns:
        name = column.name
        there = figures[name, "there"]
        of_column: dict[str, Any] = {"column": name, "kind": column.kind, "role": column.role}
        of_column["available"] = column.available
        of_column["missing"] = {"n": rows - there, "share": _share(rows - there, rows)}
        for what in ("low", "high", "mean"):
            if (name, what) in figures:
                of_column[what] = _shown(figures[name, what], exact=what != "mean")
        if column.kind == "flag":
            yes = figures[name, "yes"]
            of_column["categories"] = merged({"yes": yes, "no": there - yes})
        elif column.kind == "category":
            of_column["categories"] = merged(categories.get(name, {}))
        elif "low" not in of_column:
            of_column["distinct"] = _distinct(store, table, name)
        found.append(of_column)
    return found


def _figures(column: Column, value: Any) -> dict[str, Any]:
    found = {"there": value.count()}
    if _measured(column) or column.kind == "time":
        found |= {"low": value.min(), "high": value.max()}
    if _measured(column):
        found["mean"] = value.mean()
    if column.kind == "flag":
        found["yes"] = value.count(where=value)
    return found


def _measured(column: Column) -> bool:
    """Whether the column's values are figures; a number that names somebody is not one."""
    return column.kind in ("number", "integer") and column.role != "id"


def _aggregate(store: Store, table: Any, asked: Mapping[Any, Any]) -> dict[Any, Any]:
    """All figures in one pass; under short names, for PostgreSQL cuts a long one."""
    names = {name: f"v{number}" for number, name in enumerate(asked)}
    expressions = {names[name]: expression for name, expression in asked.items()}
    (row,) = collect(store.engine, table.aggregate(**expressions)).to_pylist()
    return {name: row[short_name] for name, short_name in names.items()}


def _by_category(store: Store, mart: Mart, table: Any) -> dict[str, dict[str, int]]:
    def counted(name: str) -> Any:
        there = table.filter(table[name].notnull())
        by_value = there.group_by(value=there[name]).agg(n=there.count())
        return by_value.select(ibis.literal(name).name("column"), "value", "n")

    names = [column.name for column in mart.columns if column.kind == "category"]
    if not names:
        return {}
    found: dict[str, dict[str, int]] = {}
    counts = ibis.union(*map(counted, names)) if len(names) > 1 else counted(names[0])
    for row in collect(store.engine, counts).to_pylist():
        found.setdefault(row["column"], {})[row["value"]] = row["n"]
    return found


def merged(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, most frequent first, with those under :data:`SMALLEST` put together as "other".

    What is put together must not be too few itself, or the sum tells what the merging hid: then
    the smallest of the rest joins it.

    >>> merged({"home": 300, "died": 3, "court": 40})
    {'home': 300, 'other': 43}
    """
    ordered = sorted(
        ((n, name) for name, n in counts.items() if n), key=lambda pair: (-pair[0], pair[1])
    )
    kept = [(n, name) for n, name in ordered if n >= SMALLEST and name != OTHER]
    other = sum(n for n, _ in ordered) - sum(n for n, _ in kept)
    hidden = any(n < SMALLEST for n, _ in ordered)
    while hidden and other < SMALLEST and kept:
        other += kept.pop()[0]
    return {**{name: n for n, name in kept}, **({OTHER: other} if other else {})}


def _distinct(store: Store, table: Any, name: str) -> int:
    values = table.filter(table[name].notnull()).select(name).distinct()
    return int(_aggregate(store, values, {"n": values.count()})["n"])


def _sites(store: Store, mart: Mart, table: Any) -> Rows:
    """By site, most rows first. A site under :data:`SMALLEST` rows is shown together with others."""
    names = [column.name for column in mart.columns if column.name != mart.site]
    expressions = {f"there{number}": table[name].count() for number, name in enumerate(names)}
    time = table[mart.time]
    by_site = table.group_by(site=table[mart.site]).agg(
        n=table.count(), first=time.min(), last=time.max(), **expressions
    )
    rows = collect(store.engine, by_site).to_pylist()
    rows.sort(key=lambda row: (-row["n"], row["site"] or ""))
    large = [row for row in rows if row["n"] >= SMALLEST]
    small = rows[len(large) :]
    while small and large and sum(row["n"] for row in small) < SMALLEST:
        small.append(large.pop())
    if small:
        large.append(reduce(_together, small))
    found = []
    for row in large:
        missing = {
            name: _share(row["n"] - row[f"there{number}"], row["n"]) for number, name in enumerate(names)
        }
        several = len(small) > 1 and row is large[-1]
        site = {"site": OTHER if small and row is large[-1] else row["site"] or "(not given)"}
        if several:
            site["sites"] = len(small)
        times = {"first": _shown(row["first"]), "last": _shown(row["last"])}
        found.append({**site, "rows": row["n"], **times, "missing": missing})
    return found


def _together(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    def joined(name: str) -> Any:
        values = [value for value in (one[name], two[name]) if value is not None]
        if not values or name == "site":
            return None
        return {"first": min, "last": max}.get(name, sum)(values)

    return {name: joined(name) for name in one}


def _duplicates(store: Store, mart: Mart, table: Any) -> dict[str, int]:
    def several(names: Sequence[str]) -> int:
        counts = table.group_by(list(names)).agg(n=table.count())
        missing = reduce(or_, [counts[name].isnull() for name in names])
        more = counts.filter((counts.n > 1) & ~missing)
        return int(_aggregate(store, more, {"n": more.count()})["n"])

    return {"keys": several(mart.key), "patients_with_several_rows": several([mart.patient])}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _shown(value: object, *, exact: bool = True) -> object:
    """Times as ISO; a mean without the last digits, in which the order of adding shows."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value if exact or not isinstance(value, float) else float(f"{value:.9g}")


def short(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a person reads first: what was refused, what the values are, what is missing, who differs."""
    read, refused = found["read"], found["refused"]
    lines: dict[str, Any] = {
        "mart": found["mart"],
        "loads": len(found["load_id"]),
        "rows": f"{read} read, {found['kept']} kept, {refused} refused{_percent(refused, read)}",
    }
    reasons = list(found["reasons"].items())
    if reasons:
        lines["refused by reason"] = _first(
            [(reason, f"{n}{_percent(n, read)}") for reason, n in reasons], "reasons"
        )
    doubles = found["duplicates"]
    lines["duplicates"] = f"{doubles['refused']} refused, {doubles['keys']} in the mart"
    lines["patients with several rows"] = doubles["patients_with_several_rows"]
    measured = [column for column in found["columns"] if column.get("mean") is not None]
    if measured:
        lines["values"] = {column["column"]: _range(column) for column in measured}
    gaps = [(column["column"], column["missing"]["share"] or 0.0) for column in found["columns"]]
    gaps = sorted((gap for gap in gaps if gap[1] > OFTEN_MISSING), key=lambda gap: (-gap[1], gap[0]))
    if gaps:
        title = f"columns missing in more than {OFTEN_MISSING:.0%} of the rows"
        lines[title] = _first([(name, f"{share:.0%}") for name, share in gaps], "columns")
    lines["sites"] = sum(site.get("sites", 1) for site in found["sites"])
    if differing := sorted(_differing(found), key=itemgetter(0), reverse=True):
        lines["sites that differ most"] = _first(
            [(f"{site}, {column}", text) for _, site, column, text in differing], "differences"
        )
    return lines


def _differing(found: Mapping[str, Any]) -> Iterator[tuple[float, str, str, str]]:
    overall = {column["column"]: column["missing"]["share"] for column in found["columns"]}
    for site in found["sites"]:
        for name, share in site["missing"].items():
            difference = abs(share - overall[name])
            if difference > DIFFERS:
                text = f"{share:.0%} missing, {overall[name]:.0%} over all sites"
                yield difference, site["site"], name, text


def _range(column: Mapping[str, Any]) -> str:
    return f"{column['low']:g} to {column['high']:g}, mean {column['mean']:.4g}"


def _first(pairs: Sequence[tuple[str, str]], things: str) -> dict[str, str]:
    shown = dict(pairs[:LINES])
    more = len(pairs) - LINES
    return {**shown, "and": f"{more} more {things}; --json has all"} if more > 0 else shown


def _percent(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""
