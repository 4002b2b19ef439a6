"""The survey's query against the table of cases, and over the real files where they lie."""

from __future__ import annotations

import os
import re
import shlex
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import source
from data.contract import check_mart
from data.marts.ed_visit import HISTORY, MART

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "spec" / "nhamcs_ed.txt"
REAL = Path(os.environ.get("CAREMODELS_DATA") or ROOT.parent / "shared" / "data") / "nhamcs_ed"
CHRONIC = [
    "ETOHAB",
    "ALZHD",
    "ASTHMA",
    "CANCER",
    "CEBVD",
    "CKD",
    "COPD",
    "CHF",
    "CAD",
    "DEPRN",
    "DIABTYP1",
    "DIABTYP2",
    "DIABTYP0",
    "ESRD",
    "HPE",
    "EDHIV",
    "HYPLIPID",
    "HTN",
    "OBESITY",
    "OSA",
    "OSTPRSIS",
    "SUBSTAB",
]
BOXES = [
    "ADMITHOS",
    "OBSHOS",
    "OBSDIS",
    "TRANOTH",
    "DIEDED",
    "DOA",
    "LEFTBTRI",
    "LEFTATRI",
    "LEFTAMA",
    "NODISP",
]
ORDINARY = {
    "YEAR": 2019, "VMONTH": 6, "VDAYR": 2, "ARRTIME": 1430, "HOSPCODE": 1, "PATCODE": 1, "PATWT": 1.0,
    "REGION": 1, "AGE": 50, "SEX": 1, "ETHUN": 2, "RACEUN": 1, "RESIDNCE": 1, "ARREMS": 2,
    "AMBTRANSFER": -7, "PAYTYPER": 1, "TEMPF": 986, "PULSE": 80, "RESPR": 16, "BPSYS": 120, "BPDIAS": 80,
    "POPCT": 98, "IMMEDR": 3, "PAINSCALE": 2, "SEEN72": 2, "EPISODE": 1, "RFV1": 10500, "RFV2": -9,
    "RFV3": -9, "RFV4": -9, "RFV5": -9, "ADMIT": -7, "HDSTAT": -7, "LOV": 90, "LOS": -7,
    **dict.fromkeys(CHRONIC, 0), **dict.fromkeys(BOXES, 0),
}  # fmt: skip


def cases() -> list[tuple[str, dict[str, float], dict[str, object]]]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        left, bar, right = line.partition("|")
        if not bar or not re.match(r"[A-Z]+\d*=", left):
            continue
        raw = {name: float(value) for name, value in (cell.split("=") for cell in left.split())}
        wanted = dict(cell.split("=", 1) for cell in shlex.split(right))
        found.append((left.strip(), raw, wanted))
    return found


CASES = cases()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> pa.Table:
    """All cases in one file of raw variables, through the query."""
    file = tmp_path_factory.mktemp("raw") / "ed2019.parquet"
    visits = []
    for position, (_, raw, _) in enumerate(CASES):
        # A code for the case, where the case itself does not set one, keeps the rows apart.
        visit = {**ORDINARY, "PATCODE": 1000 + position, **raw}
        visits.append({name: value if name == "PATWT" else int(value) for name, value in visit.items()})
    pq.write_table(pa.Table.from_pylist(visits), file)
    return source.read(source.load("nhamcs_ed"), [file])


def typed(name: str, text: str) -> object:
    if text == "missing":
        return None
    match MART[name].kind:
        case "number" | "integer":
            return float(text)
        case "flag":
            return {"true": True, "false": False}[text]
        case "time":
            return datetime.fromisoformat(text)
    return text


@pytest.mark.parametrize("position", range(len(CASES)), ids=[case[0] for case in CASES])
def test_a_visit_becomes_the_row_in_the_table(mapped, position):
    _, raw, wanted = CASES[position]
    code = {"YEAR": 2019, "HOSPCODE": 1, "PATCODE": 1000 + position} | raw
    visit_id = "{YEAR:.0f}-{HOSPCODE:.0f}-{PATCODE:.0f}".format(**code)
    (row,) = (row for row in mapped.to_pylist() if row["visit_id"] == visit_id)

    assert {name: row[name] for name in wanted} == {n: typed(n, text) for n, text in wanted.items()}


def test_the_table_walks_every_column_and_every_condition(mapped):
    assert len(CASES) == len(mapped)
    assert set(mapped.column_names) == {column.name for column in MART.columns}
    walked = {name for _, _, wanted in CASES for name in wanted}
    assert {column.name for column in HISTORY} <= walked
    # The fourth reason is only ever seen missing, the others by name.
    assert {column.name for column in MART.columns} <= walked


def test_the_contract_keeps_all_but_the_visit_without_an_age(mapped):
    checked = check_mart(MART, mapped)
    assert checked.reasons == {"age: required": 1}


def test_the_query_states_that_it_is_not_for_care():
    nhamcs = source.load("nhamcs_ed")
    assert nhamcs.use == "demonstration"
    assert "not for care" in nhamcs.terms
    assert "National Center for Health Statistics" in nhamcs.attribution


def test_the_query_takes_text_fractions_and_a_year_without_some_boxes(tmp_path):
    """As Stata ships it: ARRTIME is text, a column with gaps is fractions, 2019 has no LEFTBTRI."""
    visit = {
        name: float(value) for name, value in ORDINARY.items() if name not in ("LEFTBTRI", "LEFTATRI")
    }
    pq.write_table(pa.Table.from_pylist([visit | {"ARRTIME": "0152"}]), tmp_path / "ed2019.parquet")
    (row,) = source.read(source.load("nhamcs_ed"), [tmp_path / "ed2019.parquet"]).to_pylist()

    assert (row["visit_id"], row["site"]) == ("2019-1-1", "2019-1")
    assert (row["arrived_at"], row["disposition"]) == (
        datetime.fromisoformat("2019-06-03T01:52"),
        "discharged",
    )


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the survey's files are not on this machine")
def test_a_year_as_the_agency_ships_it_gives_the_same_rows():
    nhamcs = source.load("nhamcs_ed")
    ours = source.read(nhamcs, [REAL / "ed2019.parquet"])
    shipped = source.read(nhamcs, [REAL / "original" / "ED2019-stata.zip"])

    assert ours.num_rows == 19_481
    assert shipped.cast(ours.schema).equals(ours)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the survey's files are not on this machine")
def test_the_real_visits_are_all_read_and_few_refused():
    table = source.read(source.load("nhamcs_ed"), source.find(str(REAL / "ed*.parquet")))
    checked = check_mart(MART, table)

    assert table.num_rows == 128_076  # ../shared/data/README.md
    refused = {position for refusal in checked.refused for position in refusal.positions.tolist()}
    assert len(checked) + len(refused) == table.num_rows
    assert len(refused) < 0.01 * table.num_rows
    # Zeros and other slips of the survey's own coders; the counts were found, not prescribed.
    assert checked.reasons == {
        "heart_rate: outside 20 to 300 /min": 172,
        "respiratory_rate: outside 4 to 80 /min": 409,
        "sbp: outside 30 to 300 mm[Hg]": 21,
        "dbp: outside 10 to 220 mm[Hg]": 29,
        "spo2: outside 40 to 100 %": 378,
    }
    # Medians of adults at an emergency department: nothing was read in another unit.
    medians = {"temperature": (36.5, 37.0), "heart_rate": (75, 100), "sbp": (125, 145), "spo2": (97, 99)}
    for name, (low, high) in medians.items():
        values = checked.rows[name]
        middle = sorted(values[values == values].tolist())  # noqa: PLR0124 NaN is not itself
        assert low <= middle[len(middle) // 2] <= high
