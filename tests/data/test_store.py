"""Marts are kept whole or not at all, once, and beside them what was refused and why."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime

import duckdb
import pyarrow as pa
import pytest

from data import store as stores
from data.contract import sample
from data.errors import CaremodelsError, ContractError, NotEnoughDataError
from data.marts.ed_visit import MART
from data.period import Period
from data.store import LoadReport, Origin, open_store

ALWAYS = Period.between(None, None)
CANARY = "canary-8c41"


def origin(load_id: str, **more: object) -> Origin:
    return Origin(load_id=load_id, source="own", **{"use": "care", **more})


def changed(table: pa.Table, name: str, position: int, value: object) -> pa.Table:
    cells = table[name].to_pylist()
    cells[position] = value
    index = table.column_names.index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(cells, field.type))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "marts.duckdb"


@pytest.fixture
def store(path):
    with open_store(path) as opened:
        yield opened


@pytest.fixture
def visits():
    return sample(MART, 30, seed=3)


def test_what_was_loaded_is_read_back_in_order_of_time(store, visits):
    store.load(MART, visits, origin("one"))
    read = store.read(MART, ALWAYS)

    assert read.column_names == [*(column.name for column in MART.columns), "load_id"]
    assert read["load_id"].to_pylist() == ["one"] * 30
    by_time = visits.sort_by([("arrived_at", "ascending"), ("visit_id", "ascending")])
    assert read.drop_columns(["load_id"]).to_pylist() == by_time.to_pylist()


def test_the_order_of_a_files_columns_is_irrelevant(store, visits):
    store.load(MART, visits.select(visits.column_names[::-1]), origin("one"))
    assert store.read(MART, ALWAYS).sort_by("visit_id")["age"].to_pylist() == (
        visits.sort_by("visit_id")["age"].to_pylist()
    )


def test_a_period_and_columns_are_picked(store, visits):
    visits = changed(visits, "arrived_at", 0, datetime(2021, 1, 31, 23, 59))  # noqa: DTZ001
    visits = changed(visits, "arrived_at", 1, datetime(2021, 2, 1))  # noqa: DTZ001
    store.load(MART, visits, origin("one"))
    january = store.read(MART, Period.between("2021-01", "2021-01"), columns=["visit_id"])
    assert january.to_pydict() == {"visit_id": ["ed_visit-3-0"], "load_id": ["one"]}


def test_the_same_load_twice_adds_nothing_twice(store, visits):
    visits = changed(visits, "age", 4, 200.0)
    visits = changed(visits, "spo2", 4, 3.0)
    first = store.load(MART, visits, origin("one"))
    again = store.load(MART, visits, origin("one"))

    assert first == again
    assert first == LoadReport(
        load_id="one", mart="ed_visit", read=30, kept=29, refused=1,
        reasons={"age: outside 0 to 120 a": 1, "spo2: outside 40 to 100 %": 1},
    )  # fmt: skip
    assert len(store.read(MART, ALWAYS)) == 29
    assert [o.load_id for o in store.origins(["one"])] == ["one"]


def test_refused_rows_are_kept_by_position_field_and_rule_without_the_value(path, visits):
    with open_store(path) as store:
        store.load(MART, changed(visits, "sex", 4, CANARY), origin("one"))
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("SELECT * FROM ed_visit_refused").fetchall() == [
            ("one", 4, "sex", "not an allowed value")
        ]
    assert CANARY.encode() not in path.read_bytes()


def test_a_visit_that_the_mart_holds_is_refused(store, visits):
    store.load(MART, visits.slice(0, 20), origin("one"))
    report = store.load(MART, visits.slice(10, 20), origin("two"))

    assert (report.read, report.kept, report.refused) == (20, 10, 10)
    assert report.reasons == {"visit_id: already in the mart": 10}
    read = store.read(MART, ALWAYS)
    assert sorted(read["visit_id"].to_pylist()) == sorted(visits["visit_id"].to_pylist())
    assert store.load(MART, visits.slice(10, 20), origin("two")) == report


def test_a_known_visit_with_a_fault_is_refused_for_its_fault(store, visits):
    store.load(MART, visits.slice(0, 2), origin("one"))
    report = store.load(MART, changed(visits.slice(0, 2), "age", 0, None), origin("two"))
    assert (report.kept, report.refused) == (0, 2)
    assert report.reasons == {"age: required": 1, "visit_id: already in the mart": 1}


def test_a_load_of_no_rows_or_of_bad_ones_only(store, visits):
    nothing = store.load(MART, visits.slice(0, 0), origin("none"))
    assert (nothing.read, nothing.kept) == (0, 0)
    report = store.load(MART, changed(visits.slice(0, 1), "age", 0, None), origin("bad"))
    assert (report.read, report.kept, report.reasons) == (1, 0, {"age: required": 1})
    assert len(store.read(MART, ALWAYS)) == 0


def test_terms_travel_with_the_load(store, visits):
    store.load(MART, visits, origin("one", use="demonstration", terms="Ask.", attribution="Them."))
    assert store.origins(["one", "unknown"]) == [
        Origin(load_id="one", source="own", use="demonstration", terms="Ask.", attribution="Them.")
    ]


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("before", [0, 5], ids=["first load", "second load"])
def test_a_load_that_fails_half_way_leaves_nothing(path, visits, monkeypatch, failing, before):
    """Rows, refused rows and the entry in ``loads`` are three inserts: each in turn breaks."""
    visits = changed(visits, "age", 20, None)
    with open_store(path) as store:
        if before:
            store.load(MART, visits.slice(0, before), origin("before"))
        append, calls = stores.Store._append, []

        def breaks(self, name, rows):
            calls.append(name)
            if len(calls) == failing:
                raise OSError("disk full")
            append(self, name, rows)

        with monkeypatch.context() as patch:
            patch.setattr(stores.Store, "_append", breaks)
            with pytest.raises(OSError, match="disk full"):
                store.load(MART, visits.slice(before), origin("broken"))

    with duckdb.connect(path) as connection:
        counts = {
            name: connection.sql(f"SELECT count(*) FROM {name} WHERE load_id = 'broken'").fetchone()[0]
            for (name,) in connection.sql("SHOW TABLES").fetchall()
        }
    assert not any(counts.values())
    with open_store(path) as store:
        assert store.load(MART, visits.slice(before), origin("broken")).kept == 29 - before
        assert len(store.read(MART, ALWAYS)) == 29


def test_a_table_that_does_not_fit_stores_nothing(store, visits):
    with pytest.raises(ContractError, match="column missing: age"):
        store.load(MART, visits.drop_columns(["age"]), origin("one"))
    with pytest.raises(ContractError, match="does not declare: wait"):
        store.load(MART, visits.append_column("wait", [[1] * 30]), origin("one"))
    with pytest.raises(NotEnoughDataError, match="mart ed_visit is empty: load it"):
        store.read(MART, ALWAYS)


def test_whole_numbers_and_flags_of_other_types_are_stored_as_the_contract_says(store, visits):
    for name, kind in (("age", pa.int32()), ("pain", pa.float64()), ("asthma", pa.int8())):
        index = visits.column_names.index(name)
        column = visits[name].cast(pa.float64() if name == "age" else kind).cast(kind, safe=False)
        visits = visits.set_column(index, name, column)
    assert store.load(MART, visits, origin("one")).kept == 30
    read = store.read(MART, ALWAYS).drop_columns(["load_id"])
    assert read.schema.types == MART.arrow_schema.types


def test_a_file_that_is_no_database(path):
    path.parent.mkdir()
    path.write_text(f"age,note\n71,{CANARY}\n" * 1000)
    with pytest.raises(
        CaremodelsError, match=r"marts\.duckdb cannot be opened: it is no DuckDB"
    ) as caught:
        open_store(path).__enter__()
    assert CANARY not in str(caught.value)


def test_a_folder_with_lock_in_its_name_is_no_lock(tmp_path):
    path = tmp_path / "blocked" / "marts.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CaremodelsError, match="it is no DuckDB database"):
        open_store(path).__enter__()


def test_a_database_that_another_process_holds_open(path, store):
    script = (
        "import sys\nfrom pathlib import Path\nfrom data.store import open_store\n"
        "from data.errors import CaremodelsError\n"
        "try:\n    open_store(Path(sys.argv[1])).__enter__()\n"
        "except CaremodelsError as error:\n    print(error)\n"
    )
    root = str(stores.Path(stores.__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={"PYTHONPATH": root},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"the marts at {path} cannot be opened: another process has it open\n"
