"""The three engines keep and give the same rows and the same features, bit for bit."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import marts
from data.contract import Column, Mart, check, sample
from data.engine import open_engine
from data.errors import CaremodelsError, ContractError, UsageError
from data.period import Period
from data.source import Origin
from data.store import Slice, Store, open_store
from models.features import FeatureMap

KEY = b"0123456789abcdef"
MATRIX = pa.schema([("row", pa.binary())])
PERIOD = Period.between("2024-02", "2024-11")


def spoilt(mart: Mart, n: int, seed: int) -> pa.Table:
    """Rows of which some break each rule of each column, some repeat a key, and most are good."""
    rng = np.random.default_rng(seed)
    table = sample(mart, n, seed)
    for index, column in enumerate(mart.columns):
        kind = mart.arrow_schema.field(index).type
        cells = table[column.name].to_pylist()
        for value in mistakes(column):
            cells[rng.integers(n)] = value
        # Integers may come as doubles, and then need not be whole.
        kind = pa.float64() if column.kind == "integer" else kind
        table = table.set_column(index, column.name, pa.array(cells, kind))
    repeated = table.take(rng.integers(0, n, n // 10))
    return pa.concat_tables([table, repeated]).take(rng.permutation(n + len(repeated)))


def mistakes(column: Column) -> list[object]:
    match column.kind:
        case "number":
            return [None, np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308]
        case "integer":
            return [None, np.nan, np.inf, 0.5, -1.0, 1e15]
        case "flag":
            return [None]
        case "category":
            return [None, "", "no such category", "医院"]
        case "text":
            return [
                None,
                "",
                "a,b",
                'say "hi"',
                "two\nlines",
                "tab\there",
                "médecin 医院 🚑",
                "\\N",
                "NULL",
            ]
        case "time":
            return [None, datetime(1, 1, 1), datetime(9998, 12, 31, 23, 59, 59, 999999)]  # noqa: DTZ001


def featured(features: FeatureMap, table: pa.Table) -> pa.Table:
    """Each row of the matrix as bytes."""
    columns = features.mart.columns
    rows = check(columns, table.select([column.name for column in columns])).rows
    return pa.table({"row": [row.tobytes() for row in features.matrix(rows)]}, schema=MATRIX)


def loaded(store: Store, mart: Mart, table: pa.Table) -> dict[str, object]:
    """Two loads, of which the second overlaps the first, and all that can be asked of them."""
    half = len(table) // 2
    parts = {"one": table.slice(0, half), "two": table.slice(half - 20)}
    reports = [
        store.load(
            mart,
            [part.slice(0, 37), part.slice(37)],
            Origin(load_id=name, source="own", use="care"),
            key=KEY,
        )
        for name, part in parts.items()
    ]
    inputs = [c.name for c in mart.columns if c.role == "input" and c.kind not in ("text", "time")]
    features = FeatureMap.of(mart, inputs)
    function = partial(featured, features)
    as_of = datetime(2024, 9, 1)  # noqa: DTZ001
    return {
        "reports": reports,
        "rows": store.read(mart),
        "of one load": store.read(mart, Slice(loads=["two"])),
        "of a period": store.read(mart, Slice(period=PERIOD)),
        "as of": store.read(mart, Slice(as_of=as_of)),
        "some columns": store.read(mart, columns=[mart.encounter, mart.time]),
        "features": pa.concat_tables(store.mapped(mart, Slice(), function, MATRIX)),
        "features here": featured(features, store.read(mart)),
        "refused": refused(store, mart),
    }


def refused(store: Store, mart: Mart) -> list[dict[str, object]]:
    table = store.engine.table(f"{mart.name}_refused")
    rows = pa.concat_tables(store.engine.batches(table)).to_pylist()
    return sorted(rows, key=lambda row: (row["load_id"], row["row"], row["column"], row["rule"]))


def same(found: dict[str, object], expected: dict[str, object]) -> None:
    for name, value in expected.items():
        if not isinstance(value, pa.Table):
            assert found[name] == value, name
            continue
        assert found[name].schema.equals(value.schema), name
        for column in value.column_names:
            ours, theirs = found[name][column], value[column]
            assert bits(ours) == bits(theirs), f"{name}: {column}"


def bits(column: pa.ChunkedArray) -> object:
    """Doubles by their bits: -0.0 is not 0.0."""
    if pa.types.is_floating(column.type):
        return column.is_null().to_pylist(), column.fill_null(0).to_numpy().tobytes()
    return column.to_pylist()


@pytest.mark.parametrize("name", marts.names())
def test_every_engine_gives_what_memory_gives(marts_url, tmp_path, name):
    mart = marts.load(name)
    table = spoilt(mart, 400, seed=11)
    with open_store(f"duckdb://{tmp_path}/first.duckdb") as store:
        expected = loaded(store, mart, table)
    with open_store(marts_url) as store:
        same(loaded(store, mart, table), expected)
    assert expected["features"].equals(expected["features here"])
    assert expected["reports"][0].refused > 40
    assert expected["reports"][1].reasons[f"{', '.join(mart.key)}: already in the mart"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", marts.names())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_postgresql_gives_what_duckdb_gives(postgres_url, tmp_path_factory, name, seed):
    mart = marts.load(name)
    table = spoilt(mart, 150, seed=seed)
    folder = tmp_path_factory.mktemp("marts")
    with open_store(f"duckdb://{folder}/marts.duckdb") as store:
        expected = loaded(store, mart, table)
    with open_store(postgres_url) as store:
        for relation in store.engine.tables():
            store.engine._db.drop_table(relation)
        same(loaded(store, mart, table), expected)


def test_an_engine_that_is_not_known_is_told_the_known_ones():
    for url in ("mysql://host/db", "marts.duckdb", "", "://"):
        with pytest.raises(UsageError, match=r"known: duckdb://FILE, postgresql://"):
            open_engine(url).__enter__()


def test_a_query_of_the_users_own_runs_as_it_stands(marts_url):
    with open_engine(marts_url) as engine:
        sql = "SELECT 1 AS n, 'a ; b % {x}' AS t, CAST(NULL AS VARCHAR(9)) AS nothing -- the end"
        (table,) = engine.rows(sql)
        assert table.to_pylist() == [{"n": 1, "t": "a ; b % {x}", "nothing": None}]
        (empty,) = engine.rows("SELECT 1.5 AS x WHERE 1 = 0;")
        assert (empty.num_rows, empty.column_names) == (0, ["x"])
        for wrong in ("SELEC 1", "SELECT age FROM nowhere"):
            with pytest.raises(ContractError, match="the query does not fit"):
                list(engine.rows(wrong))


def test_a_query_that_fails_on_the_way_says_so_and_quotes_no_cell(marts_url):
    numbers = {
        "duckdb": "range(100000) AS t(id)",
        "postgresql": "generate_series(0, 99999) AS t(id)",
        "spark": "range(100000)",
    }[marts_url.partition(":")[0]]
    failing = "SELECT CAST(CASE WHEN id < 99999 THEN '1' ELSE 'canary' END AS INT) AS n FROM "
    with (
        open_engine(marts_url) as engine,
        pytest.raises(CaremodelsError, match="the query failed in") as caught,
    ):
        list(engine.rows(failing + numbers))
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.slow
def test_a_server_with_habits_of_its_own_gives_the_same_rows(postgres_url):
    mart = marts.load("ed_visit")
    table = sample(mart, 50, seed=3)
    with open_store(postgres_url) as store:
        found = loaded(store, mart, table)
        name = postgres_url.rpartition("/")[2]
        for habit in ("DateStyle = 'German'", "extra_float_digits = 0", "TimeZone = 'Asia/Shanghai'"):
            store.engine._db.raw_sql(f"ALTER DATABASE {name} SET {habit}")
    with open_store(postgres_url) as store:
        assert store.read(mart).equals(found["rows"])
        with pytest.raises(CaremodelsError, match="what no column of Arrow can") as caught:
            list(store.engine.rows("SELECT CAST('infinity' AS TIMESTAMP) AS arrived_at"))
        assert "infinity" not in str(caught.value)
