"""Marts are kept whole or not at all, once, and beside them what was refused and why."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from data import store as stores
from data.contract import sample
from data.engine import collect
from data.errors import CaremodelsError, ContractError, NotEnoughDataError
from data.marts.ed_visit import MART
from data.marts.icu_hour import MART as ICU_HOUR
from data.period import Period
from data.pseudonym import keyed_hash
from data.source import Origin
from data.store import LoadReport, Slice, open_store

KEY = b"0123456789abcdef"
CANARY = "canary-8c41"
WRITES = 6
"""Of a load in one batch: refused rows (twice), arriving rows, duplicates, the mart, the load."""


def origin(load_id: str, **more: object) -> Origin:
    return Origin(load_id=load_id, source="own", **{"use": "care", **more})


def load(store: stores.Store, table: pa.Table | list[pa.Table], load_id: str) -> LoadReport:
    tables = table if isinstance(table, list) else [table]
    return store.load(MART, tables, origin(load_id), key=KEY)


def changed(table: pa.Table, name: str, position: int, value: object) -> pa.Table:
    cells = table[name].to_pylist()
    cells[position] = value
    index = table.column_names.index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(cells, field.type))


def hashed(table: pa.Table) -> pa.Table:
    """The rows as the mart holds them."""
    for name, kind in (("visit_id", "encounter"), ("patient_id", "patient")):
        hashes = [cell and keyed_hash(KEY, cell, kind=kind) for cell in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(hashes, pa.string()))
    return table


def refusals(store: stores.Store) -> list[tuple[object, ...]]:
    rows = collect(store.engine, store.engine.table("ed_visit_refused").order_by("row", "column"))
    return [tuple(row.values()) for row in rows.to_pylist()]


def visit(number: int) -> str:
    return keyed_hash(KEY, f"ed_visit-3-{number}", kind="encounter")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "marts.duckdb"


@pytest.fixture
def store(path):
    with open_store(f"duckdb://{path}") as opened:
        yield opened


@pytest.fixture
def visits():
    return sample(MART, 30, seed=3)


def test_every_engine_keeps_the_same_rows_once_and_whole(marts_url, visits):
    """One walk over what the tests below hold for DuckDB alone: an operation of Spark takes long."""
    visits = changed(visits, "sex", 4, CANARY)
    twice = pa.concat_tables([visits, changed(visits.slice(2, 1), "age", 0, 1.0)])
    with open_store(marts_url) as store:
        first = load(store, [twice.slice(0, 20), twice.slice(20)], "one")
        assert first == load(store, twice, "one")
        assert (first.read, first.kept, first.refused) == (31, 29, 2)
        assert first.reasons == {"sex: not an allowed value": 1, "visit_id: duplicate": 1}
        second = load(store, sample(MART, 32, seed=3).slice(28), "two")
        assert second.reasons == {"visit_id: already in the mart": 2}
        assert refusals(store) == [
            ("two", 0, visit(28), "visit_id", "already in the mart"),
            ("two", 1, visit(29), "visit_id", "already in the mart"),
            ("one", 4, visit(4), "sex", "not an allowed value"),
            ("one", 30, visit(2), "visit_id", "duplicate"),
        ]
        read = store.read(MART, Slice(loads=["one"]))
        kept = pa.concat_tables([visits.slice(0, 4), visits.slice(5)])
        expected = hashed(kept).sort_by([("arrived_at", "ascending"), ("visit_id", "ascending")])
        assert read.drop_columns(["load_id"]).to_pylist() == expected.to_pylist()
        assert read.schema.types[:-1] == MART.arrow_schema.types
        assert CANARY not in str(read.to_pylist())


@pytest.mark.parametrize("failing", [5, 6], ids=["the mart", "the load"])
def test_every_engine_drops_a_load_that_fails_at_its_end(marts_url, visits, monkeypatch, failing):
    with open_store(marts_url) as store:
        load(store, visits.slice(0, 5), "before")
        with monkeypatch.context() as patch:
            breaks_at(patch, store, failing)
            with pytest.raises(OSError, match="disk full"):
                load(store, changed(visits, "age", 20, None), "broken")
        assert len(store.read(MART)) == 5
        assert refusals(store) == []
        assert load(store, visits, "broken").kept == 25
        assert len(store.read(MART)) == 30


def breaks_at(patch, store, failing):
    """The ``failing``-th write of a load ends as on a full disk."""
    writes = Counter()

    def breaking(method):
        def write(*arguments, **options):
            writes["n"] += 1
            if writes["n"] == failing:
                raise OSError("disk full")
            return method(*arguments, **options)

        return write

    for name in ("append", "insert"):
        patch.setattr(store.engine, name, breaking(getattr(store.engine, name)))
    return writes


def test_what_was_loaded_is_read_back_in_order_of_time(store, visits):
    load(store, visits, "one")
    read = store.read(MART)

    assert read.column_names == [*(column.name for column in MART.columns), "load_id"]
    assert read["load_id"].to_pylist() == ["one"] * 30
    by_time = hashed(visits).sort_by([("arrived_at", "ascending"), ("visit_id", "ascending")])
    assert read.drop_columns(["load_id"]).to_pylist() == by_time.to_pylist()


@pytest.mark.parametrize("size", [1, 7, 30])
def test_batches_of_any_size_give_the_same_as_one(store, tmp_path, visits, size):
    visits = pa.concat_tables([visits, visits.slice(3, 9)])
    visits = changed(visits, "age", 3, None)
    whole = load(store, visits, "one")
    seen = []
    with open_store(f"duckdb://{tmp_path / 'other.duckdb'}") as other:
        parts = (visits.slice(start, size) for start in range(0, len(visits), size))
        assert other.load(MART, parts, origin("one"), key=KEY, heard=seen.append) == whole
        assert other.read(MART).equals(store.read(MART))
        assert refusals(other) == refusals(store)
    assert seen[-1] == 39
    assert seen == sorted(seen)


def test_of_two_rows_with_one_key_the_first_that_fits_is_kept(store, visits):
    row = visits.slice(0, 1)
    tables = [changed(row, "age", 0, age) for age in (None, 40.0, 50.0)]
    report = load(store, tables, "one")

    assert report.reasons == {"age: required": 1, "visit_id: duplicate": 1}
    assert store.read(MART)["age"].to_pylist() == [40.0]
    assert [entry[1] for entry in refusals(store)] == [0, 2]


def test_identifiers_join_the_prediction_log_and_stand_nowhere_as_they_came(path, visits):
    visits = visits.set_column(0, "visit_id", [[f"{CANARY}-v{i}" for i in range(30)]])
    visits = changed(visits, "patient_id", 0, f"{CANARY}-p")
    with open_store(f"duckdb://{path}") as store:
        load(store, changed(visits, "age", 3, None), "one")
        read = store.read(MART)
        (refused,) = refusals(store)

    assert keyed_hash(KEY, f"{CANARY}-v0", kind="encounter") in read["visit_id"].to_pylist()
    assert keyed_hash(KEY, f"{CANARY}-p", kind="patient") in read["patient_id"].to_pylist()
    assert refused[2] == keyed_hash(KEY, f"{CANARY}-v3", kind="encounter")
    assert CANARY.encode() not in path.read_bytes()


def test_the_order_of_a_files_columns_is_irrelevant(store, visits):
    load(store, visits.select(visits.column_names[::-1]), "one")
    assert store.read(MART).sort_by("visit_id")["age"].to_pylist() == (
        hashed(visits).sort_by("visit_id")["age"].to_pylist()
    )


def test_a_period_loads_and_columns_are_picked(store, visits):
    visits = changed(visits, "arrived_at", 0, datetime(2021, 1, 31, 23, 59))  # noqa: DTZ001
    visits = changed(visits, "arrived_at", 1, datetime(2021, 2, 1))  # noqa: DTZ001
    load(store, visits.slice(0, 10), "one")
    load(store, visits.slice(10), "two")
    january = Slice(period=Period.between("2021-01", "2021-01"))

    assert store.read(MART, january, columns=["visit_id"]).to_pydict() == {
        "visit_id": [visit(0)],
        "load_id": ["one"],
    }
    assert len(store.read(MART, Slice(loads=["two"]))) == 20
    assert len(store.read(MART, Slice(loads=["two", "one", "none"]))) == 30
    assert store.read(MART, Slice(loads=[])).num_rows == 0
    assert store.read(MART, Slice(loads=[])).column_names == store.read(MART).column_names


def test_the_same_load_twice_adds_nothing_twice(store, visits):
    visits = changed(visits, "age", 4, 200.0)
    visits = changed(visits, "spo2", 4, 3.0)
    first = load(store, visits, "one")
    again = load(store, visits, "one")

    assert first == again
    assert first == LoadReport(
        load_id="one", mart="ed_visit", read=30, kept=29, refused=1,
        reasons={"age: outside 0 to 120 a": 1, "spo2: outside 40 to 100 %": 1},
    )  # fmt: skip
    assert len(store.read(MART)) == 29
    assert [o.load_id for o in store.origins(["one"])] == ["one"]


def test_a_load_that_was_made_is_not_read_again(store, visits):
    first = load(store, visits, "one")

    def unread():
        raise AssertionError
        yield

    assert store.load(MART, unread(), origin("one"), key=KEY) == first


def test_refused_rows_are_kept_by_position_field_and_rule_without_the_value(path, visits):
    with open_store(f"duckdb://{path}") as store:
        load(store, changed(visits, "sex", 4, CANARY), "one")
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("SELECT * FROM ed_visit_refused").fetchall() == [
            ("one", 4, visit(4), "sex", "not an allowed value")
        ]
    assert CANARY.encode() not in path.read_bytes()


def test_a_visit_that_the_mart_holds_is_refused(store, visits):
    load(store, visits.slice(0, 20), "one")
    report = load(store, visits.slice(10, 20), "two")

    assert (report.read, report.kept, report.refused) == (20, 10, 10)
    assert report.reasons == {"visit_id: already in the mart": 10}
    read = store.read(MART)
    assert sorted(read["visit_id"].to_pylist()) == sorted(hashed(visits)["visit_id"].to_pylist())
    assert load(store, visits.slice(10, 20), "two") == report


def test_a_known_visit_that_comes_twice_is_refused_twice(store, visits):
    load(store, visits.slice(0, 1), "one")
    report = load(store, [visits.slice(0, 1), visits.slice(0, 1)], "two")

    assert (report.read, report.kept, report.refused) == (2, 0, 2)
    assert sum(report.reasons.values()) == 2
    assert len(store.read(MART)) == 1


def test_a_known_visit_with_a_fault_is_refused_for_its_fault(store, visits):
    load(store, visits.slice(0, 2), "one")
    report = load(store, changed(visits.slice(0, 2), "age", 0, None), "two")
    assert (report.kept, report.refused) == (0, 2)
    assert report.reasons == {"age: required": 1, "visit_id: already in the mart": 1}


def test_a_load_of_no_rows_or_of_bad_ones_only(store, visits):
    nothing = load(store, visits.slice(0, 0), "none")
    assert (nothing.read, nothing.kept) == (0, 0)
    report = load(store, changed(visits.slice(0, 1), "age", 0, None), "bad")
    assert (report.read, report.kept, report.reasons) == (1, 0, {"age: required": 1})
    assert len(store.read(MART)) == 0


def test_terms_travel_with_the_load(store, visits):
    terms = {"use": "demonstration", "terms": "Ask.", "attribution": "Them."}
    store.load(MART, [visits], origin("one", **terms), key=KEY)
    assert store.origins(["one", "unknown"]) == [
        Origin(load_id="one", source="own", use="demonstration", terms="Ask.", attribution="Them.")
    ]


@pytest.mark.parametrize("failing", range(1, WRITES + 1))
@pytest.mark.parametrize("before", [0, 5], ids=["first load", "second load"])
def test_a_load_that_fails_half_way_leaves_nothing(path, visits, monkeypatch, failing, before):
    visits = changed(visits, "age", 20, None)
    with open_store(f"duckdb://{path}") as store:
        if before:
            load(store, visits.slice(0, before), "before")
        with monkeypatch.context() as patch:
            breaks_at(patch, store, failing)
            with pytest.raises(OSError, match="disk full"):
                load(store, visits.slice(before), "broken")

    with duckdb.connect(path) as connection:
        counts = {
            name: connection.sql(f"SELECT count(*) FROM {name} WHERE load_id = 'broken'").fetchone()[0]
            for (name,) in connection.sql("SHOW TABLES").fetchall()
        }
    assert not any(counts.values())
    with open_store(f"duckdb://{path}") as store:
        writes = breaks_at(monkeypatch, store, None)
        assert load(store, visits.slice(before), "broken").kept == 29 - before
        assert writes["n"] == WRITES
        assert len(store.read(MART)) == 29


def test_a_source_that_fails_half_way_leaves_nothing(store, visits):
    def torn():
        yield visits.slice(0, 10)
        raise ContractError("torn")

    with pytest.raises(ContractError, match="torn"):
        store.load(MART, torn(), origin("one"), key=KEY)
    assert store.engine.tables() == []
    assert load(store, visits, "one").kept == 30


def test_a_table_that_does_not_fit_stores_nothing(store, visits):
    with pytest.raises(ContractError, match="column missing: age"):
        load(store, visits.drop_columns(["age"]), "one")
    with pytest.raises(ContractError, match="does not declare: wait"):
        load(store, visits.append_column("wait", [[1] * 30]), "one")
    with pytest.raises(NotEnoughDataError, match="mart ed_visit is empty: load it"):
        store.read(MART)


def test_whole_numbers_and_flags_of_other_types_are_stored_as_the_contract_says(store, visits):
    for name, kind in (("age", pa.int32()), ("pain", pa.float64()), ("asthma", pa.int8())):
        index = visits.column_names.index(name)
        column = visits[name].cast(pa.float64() if name == "age" else kind).cast(kind, safe=False)
        visits = visits.set_column(index, name, column)
    assert load(store, visits, "one").kept == 30
    read = store.read(MART).drop_columns(["load_id"])
    assert read.schema.types == MART.arrow_schema.types


def test_a_mart_is_known_once_it_is_loaded(path, visits):
    with pytest.raises(NotEnoughDataError, match="there are no marts at"):
        open_store(f"duckdb://{path}", write=False).__enter__()
    assert not path.exists()
    with open_store(f"duckdb://{path}") as store:
        load(store, visits, "one")
    with open_store(f"duckdb://{path}", write=False) as store:
        assert len(store.read(MART)) == 30
        with pytest.raises(NotEnoughDataError, match="mart icu_hour is empty"):
            store.read(ICU_HOUR)


def test_a_file_that_is_no_database(path):
    path.parent.mkdir()
    path.write_text(f"age,note\n71,{CANARY}\n" * 1000)
    with pytest.raises(
        CaremodelsError, match=r"marts\.duckdb cannot be opened: it is no DuckDB"
    ) as caught:
        open_store(f"duckdb://{path}").__enter__()
    assert CANARY not in str(caught.value)


def test_a_folder_with_lock_in_its_name_is_no_lock(tmp_path):
    path = tmp_path / "blocked" / "marts.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CaremodelsError, match="it is no DuckDB database"):
        open_store(f"duckdb://{path}").__enter__()


def test_a_database_that_another_process_holds_open(path, store):
    script = (
        "import sys\nfrom data.store import open_store\n"
        "from data.errors import CaremodelsError\n"
        "try:\n    open_store('duckdb://' + sys.argv[1]).__enter__()\n"
        "except CaremodelsError as error:\n    print(error)\n"
    )
    root = str(Path(stores.__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={"PYTHONPATH": root},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"the marts at {path} cannot be opened: another process has it open\n"
