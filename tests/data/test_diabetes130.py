"""The query over Diabetes 130-US hospitals: the table of cases, and the real file where it lies."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest

from data import source
from data.contract import check_mart
from data.marts.inpatient_stay import MART

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "spec" / "diabetes130.txt"
REAL = Path(os.environ.get("CAREMODELS_DATA") or ROOT.parent / "shared" / "data") / "diabetes130"
DRUGS = (
    "metformin repaglinide nateglinide glimepiride glipizide glyburide glyburide-metformin pioglitazone"
    " rosiglitazone acarbose insulin"
)
ORDINARY = {
    "encounter_id": "1", "patient_nbr": "2", "race": "Other", "gender": "Female", "age": "[60-70)",
    "admission_type_id": "1", "discharge_disposition_id": "1", "admission_source_id": "7",
    "time_in_hospital": "3", "payer_code": "MC", "medical_specialty": "?", "num_lab_procedures": "40",
    "num_procedures": "1", "num_medications": "12", "number_outpatient": "0", "number_emergency": "0",
    "number_inpatient": "0", "diag_1": "428", "diag_2": "250", "diag_3": "401", "number_diagnoses": "9",
    "max_glu_serum": "None", "A1Cresult": "None", "change": "No", "diabetesMed": "Yes",
    "readmitted": "NO",
    **dict.fromkeys(DRUGS.split(), "No"),
}  # fmt: skip


def cases() -> list[tuple[str, dict[str, str], dict[str, str]]]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        left, bar, right = line.partition("|")
        if bar and re.match(r"[a-zA-Z_\d-]+=", left):
            sides = [dict(cell.split("=", 1) for cell in side.split()) for side in (left, right)]
            found.append((left.strip(), *sides))
    return found


CASES = cases()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    file = tmp_path_factory.mktemp("raw") / "diabetic_data.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ORDINARY)
        writer.writeheader()
        writer.writerows({**ORDINARY, **raw} for _, raw, _ in CASES)
    return source.read(source.load("diabetes130"), [file])


def typed(name: str, text: str) -> object:
    if text == "missing":
        return None
    match MART[name].kind:
        case "number" | "integer":
            return float(text)
        case "flag":
            return {"true": True, "false": False}[text]
    return text


@pytest.mark.parametrize("position", range(len(CASES)), ids=[case[0] for case in CASES])
def test_a_stay_becomes_the_row_in_the_table(mapped, position):
    wanted = CASES[position][2]
    row = mapped.slice(position, 1).to_pylist()[0]

    assert {name: row[name] for name in wanted} == {n: typed(n, text) for n, text in wanted.items()}


def test_the_table_walks_every_raw_variable_and_every_column(mapped):
    assert set(mapped.column_names) == {column.name for column in MART.columns}
    assert {name for _, raw, _ in CASES for name in raw} == ORDINARY.keys()
    assert {name for *_, wanted in CASES for name in wanted} == {column.name for column in MART.columns}


def test_the_contract_keeps_every_case(mapped):
    assert check_mart(MART, mapped).reasons == {}


def test_the_query_states_that_it_is_not_for_care():
    diabetes = source.load("diabetes130")
    assert diabetes.use == "demonstration"
    assert "CC BY 4.0" in diabetes.terms
    assert "Strack" in diabetes.attribution


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the data are not on this machine")
def test_the_real_stays_are_all_kept_as_they_come_in_their_zip():
    table = source.read(source.load("diabetes130"), source.find(str(REAL / "*.zip")))
    checked = check_mart(MART, table)
    rows = checked.rows

    assert table.num_rows == len(checked) == 101_766  # ../shared/data/README.md
    assert table["stay_id"][:3].to_pylist() == ["2278392", "149190", "64410"]
    assert rows["readmitted_30d"].sum() == 11_357
    assert not np.isnan(rows["readmitted_30d"]).any()
    gone = np.isin(
        rows["discharge_disposition"],
        [MART["discharge_disposition"].codes[name] for name in ("died", "hospice")],
    )
    assert gone.sum() == 1642 + 399 + 372 + 8 + 2  # codes 11, 13, 14, 19, 20
    # Every ICD-9 code fell into a group: only "?" is missing.
    assert [int((rows[f"diagnosis_{n}"] < 0).sum()) for n in (1, 2, 3)] == [21, 358, 1423]
