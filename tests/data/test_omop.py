"""Marts from OMOP CDM 5.4: a database of fifteen people, written by hand, in three forms.

Every cell that is expected here was worked out from the rows beside it, with a calendar.
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from caremodels import main
from data import marts, source
from data.contract import check_mart
from data.engine import open_engine
from data.home import Home
from data.store import open_store

SPEC = Path(__file__).resolve().parents[1] / "spec"
SOURCES = {"ed_visit": "omop_ed_visit", "inpatient_stay": "omop_inpatient_stay"}
ARROW = {"id": pa.int64(), "date": pa.date32(), "time": pa.timestamp("us"), "num": pa.float64()}
POSTGRES = {"id": "integer", "date": "date", "time": "timestamp", "num": "numeric"}
# The columns of CDM 5.4 that the queries read, in its own types: by the ends of their names, or varchar.
COLUMNS = {
    "person": "person_id gender_concept_id year_of_birth month_of_birth day_of_birth race_concept_id "
    "ethnicity_concept_id race_source_value ethnicity_source_value",
    "visit_occurrence": "visit_occurrence_id person_id visit_concept_id visit_start_date "
    "visit_start_datetime visit_end_date visit_end_datetime care_site_id admitted_from_concept_id "
    "discharged_to_concept_id",
    "visit_detail": "visit_detail_id person_id visit_detail_concept_id visit_occurrence_id "
    "visit_detail_start_date visit_detail_start_datetime visit_detail_end_datetime",
    "measurement": "measurement_id person_id measurement_concept_id measurement_date "
    "measurement_datetime value_as_number unit_concept_id visit_occurrence_id "
    "measurement_type_concept_id operator_concept_id",
    "condition_occurrence": "condition_occurrence_id person_id condition_concept_id "
    "condition_start_date",
    "procedure_occurrence": "procedure_occurrence_id person_id procedure_date",
    "drug_exposure": "drug_exposure_id person_id drug_concept_id drug_exposure_start_date",
    "death": "person_id death_date death_datetime",
    "concept_ancestor": "ancestor_concept_id descendant_concept_id",
}
TABLES = {table: columns.split() for table, columns in COLUMNS.items()}
# Concepts by the words of the text file. The foreign unit is kilopascal.
NAMES = {
    "-": None, "man": 8507, "woman": 8532, "ed": 9203, "stay": 9201, "both": 262, "office": 9202,
    "temperature": 3020891, "heart": 3027018, "breath": 3024171, "systolic": 3004249,
    "diastolic": 3012888, "oxygen": 40762499, "pain": 43055141, "celsius": 8653, "fahrenheit": 9289,
    "per_minute": 8541, "mmhg": 8876, "percent": 8554, "mg_dl": 8840, "foreign": 44777602, "lab": 32856,
}  # fmt: skip


def kind_of(column: str) -> str:
    ends = {"_datetime": "time", "_date": "date", "_number": "num", "_id": "id", "_birth": "id"}
    return next((kind for end, kind in ends.items() if column.endswith(end)), "text")


class Cdm(dict):
    """Table -> its rows, as tuples. :meth:`say` takes a line of the text file."""

    def __init__(self):
        super().__init__({table: [] for table in TABLES})
        self.ids = count(1)

    def say(self, line: str) -> None:
        verb, *words = line.partition("--")[0].split()
        named = dict(word.split("=") for word in words if "=" in word)
        plain = [read(word) for word in words if "=" not in word]
        table, row = getattr(self, verb)(*plain, **{name: read(word) for name, word in named.items()})
        self[table].append(row)

    def person(self, number, sex, year, month=None, day=None, *, race=8527):
        return "person", (number, sex, year, month, day, race, 38003564, None, None)

    def visit(self, number, person, kind, start, end, *, site=1, came=0, went=0):
        times = day(start), moment(start), day(end), moment(end)
        return "visit_occurrence", (number, person, kind, *times, site, came, went)

    def part(self, person, kind, visit, start, end=None):
        times = day(start), moment(start), moment(end)
        return "visit_detail", (next(self.ids), person, kind, visit, *times)

    def value(self, person, concept, when, number, unit, *, visit=None, kind=32817, operator=None):
        what = concept, day(when), moment(when), number, unit
        return "measurement", (next(self.ids), person, *what, visit, kind, operator)

    def disease(self, person, concept, when):
        return "condition_occurrence", (next(self.ids), person, concept, day(when))

    def operation(self, person, when):
        return "procedure_occurrence", (next(self.ids), person, day(when))

    def drug(self, person, concept, when):
        return "drug_exposure", (next(self.ids), person, concept, day(when))

    def death(self, person, when):
        return "death", (person, day(when), moment(when))

    def ancestor(self, concept, descendant):
        return "concept_ancestor", (concept, descendant)

    def table(self, name: str) -> pa.Table:
        schema = pa.schema(
            [(column, ARROW.get(kind_of(column), pa.string())) for column in TABLES[name]]
        )
        return pa.Table.from_pylist(
            [dict(zip(TABLES[name], row, strict=True)) for row in self[name]], schema
        )


def read(word: str) -> object:
    if word in NAMES:
        return NAMES[word]
    return word if re.match(r"\d{4}-", word) else float(word) if "." in word else int(word)


def day(text: str | None) -> date | None:
    return date.fromisoformat(text[:10]) if text else None


def moment(text: str | None) -> datetime | None:
    """None where only a date is told: CDM allows that."""
    return datetime.fromisoformat(text) if text and len(text) > 10 else None


def people() -> Cdm:
    """The CDM of the text file."""
    cdm = Cdm()
    _, rows = (SPEC / "omop_cdm.txt").read_text(encoding="utf-8").split("-- Rows.\n")
    for line in rows.splitlines():
        if line.startswith("  "):
            cdm.say(line)
    return cdm


def expected() -> dict[str, dict[str, dict[str, object]]]:
    """Mart -> visit -> the cells that the table of cases names."""
    found: dict[str, dict[str, dict[str, object]]] = {mart: {} for mart in SOURCES}
    for line in (SPEC / "omop.txt").read_text(encoding="utf-8").splitlines():
        left, bar, right = line.partition("|")
        if bar and left.split()[0] in SOURCES:
            mart, row = left.split()
            cells = dict(cell.split("=", 1) for cell in shlex.split(right))
            read = {name: typed(marts.load(mart)[name].kind, text) for name, text in cells.items()}
            found[mart].setdefault(row, {}).update(read)
    return found


def typed(kind: str, text: str) -> object:
    if text == "missing":
        return None
    match kind:
        case "number" | "integer":
            return float(text)
        case "flag":
            return {"true": True, "false": False}[text]
        case "time":
            return datetime.fromisoformat(text)
    return text


EXPECTED = expected()
CASES = [(mart, row) for mart, rows in EXPECTED.items() for row in rows]
REFUSED = {
    "ed_visit": {"age: required": 1, "heart_rate: outside 20 to 300 /min": 1, "visit_id: duplicate": 1},
    "inpatient_stay": {},
}


def written(cdm: Cdm, folder, form: str):
    """The CDM as files, one a table, and the glob that finds them."""
    folder.mkdir()
    for name in TABLES:
        write = pq.write_table if form == "parquet" else csv.write_csv
        write(cdm.table(name), folder / f"{name}.{form}")
    return str(folder / f"*.{form}")


def into_postgres(cdm: Cdm, url: str) -> None:
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for name, columns in TABLES.items():
            typed = ", ".join(
                f"{column} {POSTGRES.get(kind_of(column), 'varchar')}" for column in columns
            )
            cursor.execute(f"CREATE TABLE {name} ({typed})")
            with cursor.copy(f"COPY {name} FROM STDIN") as copy:
                for row in cdm[name]:
                    copy.write_row(row)


def rows_of(mart: str, cdm: Cdm, folder, form="parquet") -> list[dict]:
    files = source.find(written(cdm, folder, form))
    return source.read(source.load(SOURCES[mart]), files).to_pylist()


def inputs(mart: str, rows: list[dict], key: str) -> dict[str, dict]:
    names = [column.name for column in marts.load(mart).columns if column.role == "input"]
    return {row[key]: {name: row[name] for name in names} for row in rows}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict[str, dict]]:
    """Mart -> id -> row, over Parquet files."""
    folder = tmp_path_factory.mktemp("cdm")
    rows = {mart: rows_of(mart, people(), folder / mart) for mart in SOURCES}
    return {mart: {row[marts.load(mart).encounter]: row for row in rows[mart]} for mart in SOURCES}


@pytest.mark.parametrize(("mart", "row"), CASES, ids=[f"{mart}-{row}" for mart, row in CASES])
def test_a_visit_becomes_the_row_worked_out_by_hand(found, mart, row):
    wanted = EXPECTED[mart][row]
    assert {name: found[mart][row][name] for name in wanted} == wanted


def test_every_discharge_is_a_row_and_no_open_stay_or_first_half_of_a_transfer(found):
    assert set(found["inpatient_stay"]) == set(EXPECTED["inpatient_stay"])
    assert set(found["ed_visit"]) == set(EXPECTED["ed_visit"]) | {"111", "112"}


@pytest.mark.parametrize("mart", SOURCES)
def test_the_query_gives_the_columns_of_the_mart_and_no_others(found, mart):
    assert set(next(iter(found[mart].values()))) == {column.name for column in marts.load(mart).columns}


@pytest.mark.parametrize("mart", SOURCES)
def test_csv_and_parquet_give_the_same_rows(mart, tmp_path):
    parquet = rows_of(mart, people(), tmp_path / "parquet")
    assert rows_of(mart, people(), tmp_path / "csv", "csv") == parquet


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_empty_table_is_nothing_recorded_and_not_a_no(form, tmp_path, found):
    cdm = people()
    for table in ("concept_ancestor", "visit_detail", "procedure_occurrence"):
        cdm[table].clear()
    visits = {row["visit_id"]: row for row in rows_of("ed_visit", cdm, tmp_path / "ed", form)}
    assert visits["101"]["copd"] is False  # it was found by what lies under the concept
    assert visits["101"]["hypertension"] is True
    assert {row["critical_care"] for row in visits.values()} == {None}
    assert visits["107"]["departed_at"] is None
    stays = rows_of("inpatient_stay", cdm, tmp_path / "stay", form)
    assert {row["procedures"] for row in stays} == {None}
    assert len(stays) == len(found["inpatient_stay"])


@pytest.mark.slow
@pytest.mark.parametrize("mart", SOURCES)
def test_a_database_and_its_files_give_the_same_rows(mart, tmp_path, postgres_url):
    into_postgres(people(), postgres_url)
    with open_engine(postgres_url, write=False) as database:
        rows = pa.concat_tables(database.rows(source.load(SOURCES[mart]).sql))
    refused = {reason: n for reason, n in REFUSED[mart].items() if "duplicate" not in reason}
    assert check_mart(marts.load(mart), rows).reasons == refused
    assert rows.to_pylist() == rows_of(mart, people(), tmp_path / "files")


def loaded(mart: str, capsys, *where: str) -> dict:
    assert main(["mart", "load", mart, "--source", SOURCES[mart], *where, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("mart", SOURCES)
def test_only_the_deliberately_bad_rows_are_refused(mart, tmp_path, home: Home, capsys):
    report = loaded(mart, capsys, "--files", written(people(), tmp_path / "cdm", "parquet"))
    assert report["reasons"] == REFUSED[mart]
    assert report["kept"] == len(EXPECTED[mart])
    with open_store(home.marts, write=False) as store:
        assert store.read(marts.load(mart)).num_rows == len(EXPECTED[mart])


@pytest.mark.slow
@pytest.mark.parametrize("mart", SOURCES)
def test_the_mart_is_the_same_from_a_database_and_from_files(
    mart, tmp_path, home: Home, capsys, postgres_url
):
    into_postgres(people(), postgres_url)
    kept = {}
    for name, where in (
        ("files", ["--files", written(people(), tmp_path / "cdm", "csv")]),
        ("database", ["--from", postgres_url]),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CAREMODELS_MARTS", f"duckdb://{tmp_path / name}.duckdb")
            # One key for both: patients and encounters are stored as keyed hashes.
            report = loaded(mart, capsys, *where)
            assert report["reasons"] == REFUSED[mart]
            with open_store(Home.from_env().marts, write=False) as store:
                kept[name] = store.read(marts.load(mart)).drop(["load_id"]).to_pylist()
    assert kept["files"] == kept["database"]


def later(text: datetime, **more: int) -> str:
    return (text + timedelta(**more)).isoformat()


def test_what_comes_after_triage_changes_no_input_of_the_visit(tmp_path, found):
    now = inputs("ed_visit", list(found["ed_visit"].values()), "visit_id")
    cdm = people()
    for number, row in found["ed_visit"].items():
        person, start = row["patient_id"], row["arrived_at"]
        for sign in ("temperature - celsius", "heart - per_minute", "systolic - mmhg", "pain - -"):
            concept, _, unit = sign.split()
            cdm.say(f"value {person} {concept} {later(start, hours=2, minutes=1)} 41 {unit}")
        cdm.say(f"value {person} oxygen {later(start, minutes=-1)} 55 percent")
        cdm.say(f"disease {person} 439727 {start.date()}")
        cdm.say(f"part {person} 32037 {number} {later(start, hours=3)}")
        cdm.say(f"visit {int(number) + 9000} {person} stay {later(start, days=500)} -")
        cdm.say(f"death {person} {later(start, days=600)}")
    then = inputs("ed_visit", rows_of("ed_visit", cdm, tmp_path / "then"), "visit_id")
    # What a visit found on its day is history at the next one.
    for visit in ("103", "108", "210"):
        assert then[visit].pop("hiv") == (visit != "108")
        now[visit].pop("hiv")
    assert then == now


def test_what_comes_after_discharge_changes_no_input_of_the_stay(tmp_path, found):
    now = inputs("inpatient_stay", list(found["inpatient_stay"].values()), "stay_id")
    cdm = people()
    for number, row in found["inpatient_stay"].items():
        person, after = row["patient_id"], later(row["discharged_at"], days=1)
        cdm.say(f"value {person} 3004410 {after} 12 percent kind=lab")
        cdm.say(f"value {person} 3004501 {after} 600 mg_dl kind=lab")
        cdm.say(f"operation {person} {after}")
        cdm.say(f"drug {person} 77 {after}")
        cdm.say(f"disease {person} 316139 {after}")
        cdm.say(f"visit {int(number) + 9000} {person} ed {after} {after}")
    cdm.say("visit 9999 12 stay 2024-05-20T08:00 2024-05-22T08:00")
    rows = rows_of("inpatient_stay", cdm, tmp_path / "then")
    then = inputs("inpatient_stay", rows, "stay_id")
    assert then.pop("9999")["inpatient_stays"] == 4
    for visit in ("202", "203", "205"):  # to the emergency department after the stay before
        assert then[visit].pop("emergency_visits") == now[visit].pop("emergency_visits") + {
            "202": 1, "203": 2, "205": 3,
        }[visit]  # fmt: skip
    assert then == now
    assert {row["stay_id"]: row["readmitted_30d"] for row in rows}["205"] is True
