"""One check at both doors: Arrow and JSON get the same answer, and no value is repeated."""

from __future__ import annotations

import random
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import marts
from data.contract import Category, Checked, Column, Mart, Text, check, check_mart, sample
from data.errors import ContractError
from data.marts.ed_visit import MART

CANARY = "canary-8c41"
LABEL = Text("A column", "列")


def column(name, kind, **more):
    return Column(name=name, kind=kind, role="input", available="triage", label=LABEL, **more)


NUMBER = column("temperature", "number", unit="Cel", low=25, high=45)
FREE = column("lactate", "number")
INTEGER = column("pain", "integer", unit="{score}", low=0, high=10)
FLAG = column("asthma", "flag")
CATEGORY = column(
    "sex",
    "category",
    categories=(Category(id="female", label=LABEL), Category(id="male", label=LABEL)),
)
TEXT = column("site", "text", required=True)
TIME = column("arrived_at", "time")
COLUMNS = (NUMBER, FREE, INTEGER, FLAG, CATEGORY, TEXT, TIME)
STORED = pa.schema(
    [
        ("temperature", pa.float64()),
        ("lactate", pa.float64()),
        ("pain", pa.float64()),  # a file's integers may come as doubles, and then not be whole
        ("asthma", pa.int8()),
        ("sex", pa.string()),
        ("site", pa.string()),
        ("arrived_at", pa.timestamp("us")),
    ]
)


def as_json(table: pa.Table) -> list[dict[str, object]]:
    """The rows as a request would carry them; a null is left out or sent, by turns."""
    rows = []
    for index, row in enumerate(table.to_pylist()):
        cells = {
            name: cell.isoformat() if isinstance(cell, datetime) else cell for name, cell in row.items()
        }
        rows.append({n: c for n, c in cells.items() if c is not None or index % 2})
    return rows


def same(left: Checked, right: Checked) -> None:
    """Equal bit for bit."""
    assert left.kept.tolist() == right.kept.tolist()
    assert left.faults() == right.faults()
    assert left.rows.keys() == right.rows.keys()
    for name, values in left.rows.items():
        other = right.rows[name]
        assert values.dtype == other.dtype, name
        if values.dtype == object:
            assert values.tolist() == other.tolist(), name
        else:
            assert values.tobytes() == other.tobytes(), name


@st.composite
def tables(draw):
    """Rows good and bad, as a file could hold them."""
    size = draw(st.integers(0, 6))
    ids = ["", "site-1", "site-2", "ß", "医院"]
    cells = {
        "temperature": st.one_of(st.floats(), st.floats(25, 45)),
        "lactate": st.floats(),
        "pain": st.one_of(st.integers(-1, 11).map(float), st.floats()),
        "asthma": st.integers(-1, 2),
        "sex": st.sampled_from(["female", "male", "Female", "", "other"]),
        "site": st.sampled_from(ids),
        "arrived_at": st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001
    }
    columns = {
        name: draw(st.lists(st.none() | values, min_size=size, max_size=size))
        for name, values in cells.items()
    }
    return pa.table(columns, schema=STORED)


@pytest.mark.parametrize("name", marts.names())
@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 40), seed=st.integers(0, 2**32))
def test_a_sample_fits_its_contract_and_both_doors_read_it_alike(name, n, seed):
    mart = marts.load(name)
    table = sample(mart, n, seed)

    arrow = check(mart.columns, table)

    assert len(arrow) == n
    assert arrow.reasons == {}
    same(arrow, check(mart.columns, as_json(table)))


@settings(max_examples=150, deadline=None)
@given(table=tables())
def test_whatever_a_file_holds_both_doors_judge_it_alike(table):
    same(check(COLUMNS, table), check(COLUMNS, as_json(table)))


@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_a_batch_is_checked_as_its_rows_are_one_by_one(table):
    batch = check(COLUMNS, table)
    alone = [check(COLUMNS, table.slice(i, 1)) for i in range(len(table))]

    assert batch.kept.tolist() == [bool(one.kept[0]) for one in alone]
    assert batch.faults() == {i: one.faults()[0] for i, one in enumerate(alone) if not one.kept[0]}
    for name, values in batch.rows.items():
        joined = np.concatenate([one.rows[name] for one in alone] or [values[:0]])
        assert values.tolist() == joined.tolist() or values.tobytes() == joined.tobytes()


@settings(max_examples=40, deadline=None)
@given(table=tables(), seed=st.integers())
def test_the_order_of_the_columns_is_irrelevant(table, seed):
    names = list(table.column_names)
    random.Random(seed).shuffle(names)
    same(check(COLUMNS, table), check(COLUMNS, table.select(names)))
    shuffled = [{n: row[n] for n in names if n in row} for row in as_json(table)]
    same(check(COLUMNS, as_json(table)), check(COLUMNS, shuffled))


def test_a_sample_stays_within_a_range_finer_than_a_tenth():
    narrow = column("fio2", "number", low=0.21, high=0.24)
    key = column("id", "text", required=True)
    mart = type(MART)(
        name="narrow",
        row=LABEL,
        columns=(key, narrow),
        key=("id",),
        encounter="id",
        patient="id",
        site="id",
        time="id",
    )
    assert check(mart.columns, sample(mart, 200, 1)).reasons == {}


JSON_FAULTS = [
    (NUMBER, CANARY, "not a number"),
    (NUMBER, True, "not a number"),
    (NUMBER, [37.0], "not a number"),
    (NUMBER, {"value": 37.0}, "not a number"),
    (NUMBER, float("nan"), "not a number"),
    (NUMBER, float("inf"), "not a number"),
    (NUMBER, float("-inf"), "not a number"),
    (NUMBER, 10**400, "not a number"),
    (FREE, 10**400, "not a number"),
    (FREE, float("inf"), "not a number"),
    (NUMBER, 98.6, "outside 25 to 45 Cel"),
    (NUMBER, 24.999, "outside 25 to 45 Cel"),
    (INTEGER, 2**63, "outside 0 to 10 {score}"),
    (INTEGER, 7.5, "not a whole number"),
    (INTEGER, True, "not a integer"),
    (INTEGER, "7", "not a integer"),
    (FLAG, 2, "not a flag"),
    (FLAG, 1.0, "not a flag"),
    (FLAG, "yes", "not a flag"),
    (CATEGORY, CANARY, "not an allowed value"),
    (CATEGORY, "Male", "not an allowed value"),
    (CATEGORY, 1, "not an allowed value"),
    (CATEGORY, ["male"], "not an allowed value"),
    (TEXT, 12, "not a text"),
    (TEXT, None, "required"),
    (TIME, CANARY, "not a time"),
    (TIME, 1704067200, "not a time"),
    (TIME, "2024-02-30T10:00:00", "not a time"),
    (TIME, "2024-01-01T25:00:00", "not a time"),
]


@pytest.mark.parametrize(
    ("declared", "value", "rule"), JSON_FAULTS, ids=lambda part: getattr(part, "name", None)
)
def test_each_rule_refuses_its_row_with_field_and_rule_and_never_the_value(declared, value, rule):
    good = {"temperature": 37, "site": "site-1"}
    checked = check(COLUMNS, [good, {**good, declared.name: value}, good])

    assert checked.kept.tolist() == [True, False, True]
    assert checked.reasons == {f"{declared.name}: {rule}": 1}
    ((fault,),) = checked.faults().values()
    assert (fault.field, fault.reason) == (declared.name, rule)
    assert CANARY not in repr(checked)


@pytest.mark.parametrize("value", [25, 45, 25.0, 45.0, 36.6])
def test_the_ends_of_a_range_belong_to_it(value):
    assert check([NUMBER], [{"temperature": value}]).rows["temperature"].tolist() == [value]


def test_a_field_that_no_column_declares_refuses_its_row_only():
    checked = check([NUMBER], [{"temperature": 37}, {"temperature": 37, "temprature": 38}])
    assert checked.kept.tolist() == [True, False]
    assert checked.reasons == {"temprature: unknown field": 1}


def test_a_row_may_have_several_faults_and_counts_once():
    checked = check([NUMBER, CATEGORY], [{"temperature": 98.6, "sex": "x", "pian": 3}])
    assert len(checked) == 0
    faults = {(fault.field, fault.reason) for fault in checked.faults()[0]}
    assert faults == {
        ("temperature", "outside 25 to 45 Cel"),
        ("sex", "not an allowed value"),
        ("pian", "unknown field"),
    }


def test_an_unreadable_required_field_is_a_mistake_and_not_missing():
    assert check([TEXT], [{"site": 3}]).reasons == {"site: not a text": 1}


def test_a_row_without_a_time_needs_its_place_in_the_order():
    order = column("number", "integer", low=1, high=9)
    mart = Mart(
        name="own", row=LABEL, columns=(TEXT, TIME, order), key=("site",), encounter="site",
        patient="site", site="site", time="arrived_at", order="number",
    )  # fmt: skip
    when = datetime(2021, 5, 1)  # noqa: DTZ001
    table = pa.table(
        {
            "site": ["a", "b", "c"],
            "arrived_at": pa.array([when, None, None], pa.timestamp("us")),
            "number": [None, 1.0, None],
        }
    )
    checked = check_mart(mart, table)
    assert checked.kept.tolist() == [True, True, False]
    assert checked.reasons == {"arrived_at: required, or number": 1}


@pytest.mark.parametrize(
    ("text", "wall_clock"),
    [
        ("2024-05-01T08:30:00", "2024-05-01T08:30:00"),
        ("2024-05-01T08:30:00Z", "2024-05-01T08:30:00"),
        ("2024-05-01T08:30:00+08:00", "2024-05-01T08:30:00"),
        ("2024-05-01T08:30:00.123456-05:00", "2024-05-01T08:30:00.123456"),
        ("2024-05-01 08:30", "2024-05-01T08:30:00"),
        ("2024-05-01", "2024-05-01T00:00:00"),
    ],
)
def test_a_time_keeps_the_wall_clock_of_the_site(text, wall_clock):
    assert check([TIME], [{"arrived_at": text}]).rows["arrived_at"][0] == np.datetime64(wall_clock)


@pytest.mark.parametrize(
    ("name", "stored", "found"),
    [
        ("temperature", pa.array([CANARY]), "expected number, found string"),
        ("temperature", pa.array([True]), "expected number, found bool"),
        ("temperature", pa.array([[37.0]]), r"expected number, found list<item: double>"),
        ("pain", pa.array([CANARY]), "expected integer, found string"),
        ("pain", pa.array([True]), "expected integer, found bool"),
        ("asthma", pa.array(["true"]), "expected flag, found string"),
        ("sex", pa.array([1]), "expected category, found int64"),
        ("sex", pa.array([1]).dictionary_encode(), "expected category, found dictionary<values=int64"),
        ("sex", pa.array([b"\xff"]).dictionary_encode(), "expected category, found dictionary"),
        ("site", pa.array([7]), "expected text, found int64"),
        ("site", pa.array(["a"]).dictionary_encode(), "expected text, found dictionary"),
        ("arrived_at", pa.array(["2024-05-01"]), "expected time, found string"),
        ("arrived_at", pa.array([0], pa.date32()), "expected time, found date32"),
        ("arrived_at", pa.array([0], pa.timestamp("us", "UTC")), "expected time, found timestamp"),
        ("arrived_at", pa.array([2**62], pa.timestamp("s")), "a time that no calendar holds"),
    ],
)
def test_an_arrow_column_of_another_type_is_named_and_its_values_are_not(name, stored, found):
    good = pa.table({c.name: pa.nulls(1) for c in COLUMNS})
    table = good.set_column(good.column_names.index(name), name, stored)
    with pytest.raises(ContractError, match=f"column {name}: {found}") as caught:
        check(COLUMNS, table)
    assert CANARY not in str(caught.value)
    assert str(2**62) not in str(caught.value)


def test_missing_undeclared_and_repeated_columns_are_named():
    table = pa.table({"temperature": [37.0], "sex": ["male"]})
    with pytest.raises(ContractError, match="column missing: site, arrived_at"):
        check([NUMBER, TEXT, CATEGORY, TIME], table)
    with pytest.raises(ContractError, match="does not declare: sex"):
        check([NUMBER], table)
    twice = pa.Table.from_arrays([pa.array([37.0]), pa.array([38.0])], names=["temperature"] * 2)
    with pytest.raises(ContractError, match="stands twice: temperature"):
        check([NUMBER], twice)


def test_nan_and_infinity_in_a_file_are_refused_and_null_is_missing():
    checked = check([FREE], pa.table({"lactate": [1.0, float("nan"), float("inf"), None]}))
    assert checked.kept.tolist() == [True, False, False, True]
    assert checked.reasons == {"lactate: not a number": 2}
    np.testing.assert_array_equal(checked.rows["lactate"], [1.0, np.nan])


def test_infinity_breaks_one_rule_and_not_the_range_besides():
    infinite = pa.table({"temperature": [float("inf"), 98.6]})
    reasons = {"temperature: not a number": 1, "temperature: outside 25 to 45 Cel": 1}
    assert check([NUMBER], infinite).reasons == reasons


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (pa.array([7, -1, 11, None], pa.int8()), [True, False, False, True]),
        (pa.array([2**64 - 1, 10], pa.uint64()), [False, True]),
        (pa.array([-(2**63), 2**63 - 1, 0], pa.int64()), [False, False, True]),
        (pa.array([7.0, 7.5], pa.float32()), [True, False]),
    ],
)
def test_integers_of_any_width_are_held_to_their_range(values, kept):
    assert check([INTEGER], pa.table({"pain": values})).kept.tolist() == kept


def test_flags_may_be_booleans_or_zeros_and_ones():
    for values in ([True, False, None], pa.array([1, 0, None]), pa.array([1.0, 0.0, None])):
        flags = check([FLAG], pa.table({"asthma": values})).rows["asthma"]
        np.testing.assert_array_equal(flags, [1.0, 0.0, np.nan])
    assert check([FLAG], pa.table({"asthma": [0.5]})).reasons == {"asthma: not a flag": 1}


def test_a_column_of_nulls_only_is_missing_in_every_row():
    checked = check(COLUMNS, pa.table({c.name: pa.nulls(2) for c in COLUMNS}))
    assert checked.reasons == {"site: required": 2}
    optional = check(COLUMNS[:5], pa.table({c.name: pa.nulls(2) for c in COLUMNS[:5]}))
    assert [values.dtype.kind for values in optional.rows.values()] == ["f", "f", "f", "f", "i"]
    assert optional.rows["sex"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    "stored",
    [
        pa.array(["male", None, "female", "x"]),
        pa.array(["male", None, "female", "x"], pa.large_string()),
        pa.array(["male", None, "female", "x"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays([1, 0, 2, 3], ["unused", "male", "female", "x"]).take(
            pa.array([0, None, 2, 3])
        ),
        pa.chunked_array([["male", None], [], ["female", "x"]]),
        pa.chunked_array(
            [pa.array(["male", None]).dictionary_encode(), pa.array(["female", "x"]).dictionary_encode()]
        ),
    ],
    ids=["string", "large", "dictionary", "foreign dictionary", "chunks", "dictionary chunks"],
)
def test_categories_however_they_are_stored(stored):
    checked = check([CATEGORY], pa.table({"sex": stored}))
    assert checked.rows["sex"].tolist() == [1, -1, 0]
    assert checked.kept.tolist() == [True, True, True, False]


def test_finer_times_lose_what_is_under_a_microsecond():
    stored = pa.array([1_704_067_200_123_456_789, None], pa.timestamp("ns"))
    times = check([TIME], pa.table({"arrived_at": stored})).rows["arrived_at"]
    assert times[0] == np.datetime64("2024-01-01T00:00:00.123456", "us")
    assert np.isnat(times[1])


@pytest.mark.parametrize("rows", [[], MART.arrow_schema.empty_table()], ids=["json", "arrow"])
def test_no_rows_are_no_error(rows):
    checked = check(MART.columns, rows)
    assert len(checked) == 0
    assert all(len(values) == 0 for values in checked.rows.values())


def test_a_column_without_rows_may_have_no_chunk():
    table = pa.table(
        {"sex": pa.chunked_array([], pa.string()), "site": pa.chunked_array([], pa.string())}
    )
    assert check([CATEGORY, TEXT], table).rows["sex"].tolist() == []


def test_the_contract_names_a_column_it_lacks():
    with pytest.raises(ContractError, match="mart ed_visit has no column lactate"):
        MART["lactate"]
    with pytest.raises(ContractError, match="lactate"):
        MART.select(["age", "lactate"])


def test_columns_are_selected_in_the_order_of_the_mart():
    assert [c.name for c in MART.select(["sex", "age", "site"])] == ["site", "age", "sex"]
