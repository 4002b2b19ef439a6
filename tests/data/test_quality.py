"""The figures of a mart are exact, the same on each engine, and name nobody."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pyarrow as pa
import pytest

import caremodels
from data.contract import Category, Column, Mart, Text, sample
from data.errors import NotEnoughDataError
from data.marts.ed_visit import MART as ED_VISIT
from data.quality import measure, merged, short
from data.source import Origin
from data.store import open_store

KEY = b"0123456789abcdef"
CANARY = "canary-8c41"
NAMED = Text("", "")


def column(name: str, kind: str, role: str = "input", **more: object) -> Column:
    return Column(name=name, kind=kind, role=role, available="arrival", label=NAMED, **more)


MART = Mart(
    name="small",
    row=NAMED,
    key=("visit",),
    encounter="visit",
    patient="patient",
    site="site",
    time="at",
    order="place",
    columns=(
        column("visit", "text", "id", identity="encounter", required=True),
        column("patient", "text", "id", identity="patient"),
        column("site", "text", "id"),
        column("at", "time", "id"),
        column("place", "integer", "id"),
        column("age", "number", low=0, high=120, required=True),
        column("beds", "integer", low=0, high=90),
        column("sick", "flag"),
        column(
            "sex", "category", categories=tuple(Category(id=i, label=NAMED) for i in ("f", "m", "x"))
        ),
        column("note", "text", "audit"),
    ),
)


def rows(numbers: range, **changed: object) -> pa.Table:
    """One row a number; each column a plain function of it, so that sums can be done by hand."""
    made = [
        {
            "visit": f"{CANARY}-{i}",
            "patient": f"p{i // 2}",
            "site": "north" if i < 60 else "south" if i < 95 else f"tiny{i % 2}",
            "at": None,
            "place": i,
            "age": float(i % 101),
            "beds": None if i < 60 else i % 10,
            "sick": None if i % 10 == 0 else i % 2 == 1,
            "sex": "f" if i < 70 else "m" if i < 97 else "x",
            "note": f"{CANARY} {i % 7}",
        }
        | changed
        for i in numbers
    ]
    return pa.Table.from_pylist(made, schema=MART.arrow_schema)


def origin(load_id: str) -> Origin:
    return Origin(load_id=load_id, source="own", use="care")


def test_counts_by_reason_column_and_site_are_exact(marts_url):
    with open_store(marts_url) as store:
        store.load(MART, [rows(range(100)), rows(range(3), age=500.0)], origin("one"), key=KEY)
        store.load(MART, [rows(range(98, 100)), rows(range(100, 102), age=None)], origin("two"), key=KEY)
        found = measure(store, MART)
    text = json.dumps(found)
    columns = {entry.pop("column"): entry for entry in found["columns"]}

    assert found["load_id"] == ["one", "two"]
    assert (found["read"], found["kept"], found["refused"]) == (107, 100, 7)
    assert found["reasons"] == {
        "age: outside 0 to 120": 3,
        "age: required": 2,
        "visit: already in the mart": 2,
    }
    assert [(load["load_id"], load["kept"], load["use"]) for load in found["loads"]] == [
        ("one", 100, "care"),
        ("two", 0, "care"),
    ]
    assert found["duplicates"] == {"keys": 0, "patients_with_several_rows": 50, "refused": 2}
    assert list(columns) == [column.name for column in MART.columns]
    assert columns["age"] == {
        "kind": "number",
        "role": "input",
        "available": "arrival",
        "missing": {"n": 0, "share": 0.0},
        "low": 0.0,
        "high": 99.0,
        "mean": 49.5,
    }
    beds = columns["beds"]
    assert (beds["missing"], beds["low"], beds["high"]) == ({"n": 60, "share": 0.6}, 0, 9)
    assert columns["sick"]["categories"] == {"yes": 50, "no": 40}
    # 3 of sex x alone would be told by what is missing from 100: m joins them
    assert columns["sex"]["categories"] == {"f": 70, "other": 30}
    assert (columns["patient"]["distinct"], columns["note"]["distinct"]) == (50, 7)
    assert columns["at"]["missing"]["n"] == 100
    assert columns["at"]["low"] is None
    # an order may be the hospital's own number of the encounter
    assert columns["place"].keys().isdisjoint({"low", "high", "mean"})
    assert [(site["site"], site["rows"]) for site in found["sites"]] == [("north", 60), ("other", 40)]
    assert found["sites"][1]["sites"] == 3
    assert [site["missing"]["beds"] for site in found["sites"]] == [1.0, 0.0]
    assert CANARY not in text


def test_times_are_told_as_they_stand_on_the_wall(marts_url):
    visits = sample(ED_VISIT, 200, seed=3)
    with open_store(marts_url) as store:
        store.load(ED_VISIT, [visits], origin("one"), key=KEY)
        found = measure(store, ED_VISIT)
    columns = {entry["column"]: entry for entry in found["columns"]}
    arrived = sorted(visits["arrived_at"].to_pylist())

    assert columns["arrived_at"]["low"] == arrived[0].isoformat()
    assert columns["arrived_at"]["high"] == arrived[-1].isoformat()
    assert sum(site["rows"] for site in found["sites"]) == 200
    for entry in found["columns"]:
        there = visits[entry["column"]].drop_null()
        assert entry["missing"]["n"] == 200 - len(there), entry["column"]
        assert sum(entry.get("categories", {"": len(there)}).values()) == len(there)
        assert all(n >= 20 for n in entry.get("categories", {}).values())
        if entry["kind"] == "text":
            assert entry["distinct"] == len(there.unique())
        if "low" in entry and entry["kind"] != "time":
            values = there.to_pylist()
            assert (entry["low"], entry["high"]) == (min(values), max(values))
            assert entry["mean"] == pytest.approx(sum(values) / len(values), rel=1e-8)


def test_a_mart_that_was_never_loaded_or_kept_nothing(marts_url):
    with open_store(marts_url) as store:
        with pytest.raises(NotEnoughDataError, match="mart small is empty"):
            measure(store, MART)
        store.load(MART, [rows(range(3), age=None)], origin("bad"), key=KEY)
        found = measure(store, MART)

    assert (found["read"], found["kept"], found["refused"], found["sites"]) == (3, 0, 3, [])
    assert all(entry["missing"] == {"n": 0, "share": None} for entry in found["columns"])
    assert short(found)["rows"] == "3 read, 0 kept, 3 refused (100.0%)"
    assert short({**found, "read": 0, "refused": 0})["rows"] == "0 read, 0 kept, 0 refused"


def test_only_rows_of_the_mart_asked_for_are_counted(tmp_path):
    other = replace(MART, name="other")
    with open_store(f"duckdb://{tmp_path / 'marts.duckdb'}") as store:
        store.load(MART, [rows(range(50))], origin("one"), key=KEY)
        store.load(other, [rows(range(7))], origin("one"), key=KEY)
        assert measure(store, MART)["read"] == 50


def test_the_short_text_has_the_worst_first(tmp_path):
    with open_store(f"duckdb://{tmp_path / 'marts.duckdb'}") as store:
        bad = [rows(range(i, i + 1 + i), age=500.0, beds=-1) for i in range(5)]
        store.load(MART, [rows(range(100)), *bad], origin("one"), key=KEY)
        seen = short(measure(store, MART))

    assert list(seen)[:4] == ["mart", "loads", "rows", "refused by reason"]
    assert seen["duplicates"] == "0 refused, 0 in the mart"
    assert all(re.fullmatch(r"\S+ to \S+, mean \S+", text) for text in seen["values"].values())
    assert seen["columns missing in more than 20% of the rows"] == {"at": "100%", "beds": "60%"}
    assert seen["sites"] == 4
    assert next(iter(seen["sites that differ most"].items())) == (
        "other, beds",
        "0% missing, 60% over all sites",
    )


def test_many_lines_are_cut_and_that_is_said():
    found = {
        "mart": "small", "load_id": ["one"], "read": 100, "kept": 50, "refused": 50,
        "reasons": {f"c{i}: required": 50 - i for i in range(30)},
        "columns": [{"column": f"c{i}", "missing": {"share": 0.5 + i / 100}} for i in range(30)],
        "sites": [{"site": f"s{i}", "missing": {f"c{j}": 1.0 for j in range(30)}} for i in range(9)],
        "duplicates": {"keys": 0, "patients_with_several_rows": 3, "refused": 0},
    }  # fmt: skip
    seen = short(found)

    lines = sum(len(value) if isinstance(value, dict) else 1 for value in seen.values())
    assert lines < 40
    assert next(iter(seen["refused by reason"].items())) == ("c0: required", "50 (50.0%)")
    assert seen["refused by reason"]["and"] == "22 more reasons; --json has all"
    assert next(iter(seen["columns missing in more than 20% of the rows"])) == "c29"


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({}, {}),
        ({"a": 5}, {"other": 5}),
        ({"a": 20, "b": 30}, {"b": 30, "a": 20}),
        ({"a": 19, "b": 30, "c": 40}, {"c": 40, "other": 49}),
        ({"a": 19, "b": 1, "c": 40}, {"c": 40, "other": 20}),
        ({"other": 50, "a": 40}, {"a": 40, "other": 50}),
        ({"a": 0, "b": 25}, {"b": 25}),
    ],
)
def test_small_cells_are_merged_until_they_hide_each_other(counts, shown):
    assert merged(counts) == shown


def test_past_the_stated_share_of_refusals_the_command_ends_with_3(home, capsys):
    table = sample(ED_VISIT, 40, seed=1)
    age = table.column_names.index("age")
    table = table.set_column(age, "age", pa.array([500.0] * 4 + [50.0] * 36))
    with open_store(home.marts) as store:
        store.load(ED_VISIT, [table], origin("one"), key=KEY)

    assert caremodels.main(["mart", "check", "ed_visit"]) == 3
    assert "10.0% of the rows were refused" in capsys.readouterr().err
    assert caremodels.main(["mart", "check", "ed_visit", "--max-refused", "0.1"]) == 0
