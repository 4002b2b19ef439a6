"""Every mart's declaration makes sense, and a source maps to what it declares."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from data import marts, source
from data.contract import ARROW_TYPES, check_mart, sample
from data.errors import NotFoundError
from data.marts.complaint import COMPLAINTS
from data.marts.diagnosis import DIAGNOSES

MARTS = [pytest.param(marts.load(name), id=name) for name in marts.names()]
COLUMNS = [
    pytest.param(column, id=f"{name}.{column.name}")
    for name in marts.names()
    for column in marts.load(name).columns
]
# UCUM, case sensitive, as far as the marts use it: https://ucum.org/ucum
UCUM = re.compile(
    r"1|%|a|h|d|s|min|Cel|kg|cm|/min|mm\[Hg\]|\[pH\]|[mu]?mol/L|[mnu]?g/[dm]?L|U/L|10\*3/uL|\{[a-z]+\}"
)


@pytest.mark.parametrize("mart", MARTS)
def test_names_are_unique_and_the_special_ones_exist(mart):
    names = [column.name for column in mart.columns]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    for special in (mart.encounter, mart.patient, mart.site, mart.time):
        assert mart[special].role == "id"
    assert mart[mart.encounter].kind == "text"
    assert [c.name for c in mart.columns if c.identity == "encounter"] == [mart.encounter]
    assert [c.name for c in mart.columns if c.identity == "patient"] == [mart.patient]
    assert mart.encounter in mart.key
    assert all(mart[name].required for name in (*mart.key, mart.site))
    assert mart[mart.time].kind == "time"
    if mart.order is None:
        assert mart[mart.time].required
    else:
        assert mart[mart.order].kind == "integer"
    assert mart.weight is None or mart[mart.weight].role == "audit"
    assert mart.row.en
    assert mart.row.zh


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_says_what_a_person_and_a_machine_need(column):
    assert column.kind in ARROW_TYPES
    assert column.label.en.strip()
    assert re.search("[\u4e00-\u9fff]", column.label.zh)
    if column.role == "outcome":
        assert column.available == "after"
        assert column.kind in ("flag", "category")
    if column.available == "after":
        assert column.role in ("outcome", "audit")
    if column.unit is not None:
        assert UCUM.fullmatch(column.unit), column.unit
    if column.loinc is not None:
        assert loinc_digit_fits(column.loinc), column.loinc


@pytest.mark.parametrize("mart", MARTS)
def test_an_outcome_says_when_it_is_known(mart):
    outcomes = [column for column in mart.columns if column.role == "outcome"]
    assert outcomes
    for outcome in outcomes:
        assert (mart[outcome.known_at].kind, mart[outcome.known_at].role) == ("time", "audit")
        assert outcome.known_within is not None


@pytest.mark.parametrize("mart", MARTS)
def test_a_sample_of_the_mart_fits_it(mart):
    checked = check_mart(mart, sample(mart, 200, seed=7))
    assert checked.reasons == {}
    assert len(checked) == 200


@pytest.mark.parametrize("mart", MARTS)
def test_no_two_columns_of_a_mart_carry_one_code(mart):
    codes = [column.loinc for column in mart.columns if column.loinc]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_number_has_a_range_and_a_category_its_values(column):
    numeric = column.kind in ("number", "integer")
    assert (column.low is None) == (column.high is None), "a range with one end is not held"
    assert (column.low is not None) == numeric
    if numeric:
        assert column.low < column.high
        assert column.role != "input" or column.unit
    assert bool(column.categories) == (column.kind == "category")
    ids = [category.id for category in column.categories]
    assert len(set(ids)) == len(ids)
    for category in column.categories:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", category.id)
        assert category.label.en.strip()
        assert re.search("[\u4e00-\u9fff]", category.label.zh)


@pytest.mark.parametrize(
    ("name", "unit", "loinc"),
    # https://loinc.org: Body temperature, Heart rate, Respiratory rate, Systolic and Diastolic blood
    # pressure, Oxygen saturation by pulse oximetry (with 59408-5), Pain severity 0-10
    [
        ("temperature", "Cel", "8310-5"),
        ("heart_rate", "/min", "8867-4"),
        ("respiratory_rate", "/min", "9279-1"),
        ("sbp", "mm[Hg]", "8480-6"),
        ("dbp", "mm[Hg]", "8462-4"),
        ("spo2", "%", "2708-6"),
        ("pain", "{score}", "72514-3"),
    ],
)
def test_vital_signs_carry_their_unit_and_code(name, unit, loinc):
    column = marts.load("ed_visit")[name]
    assert (column.unit, column.loinc) == (unit, loinc)


def test_an_unknown_mart_is_told_the_known_ones():
    with pytest.raises(NotFoundError, match=r"no mart 'lab'; known: .*ed_visit"):
        marts.load("lab")
    assert marts.names() == ["ed_visit", "icu_hour", "inpatient_stay"]


@pytest.mark.parametrize("groups", [COMPLAINTS, DIAGNOSES], ids=["complaints", "diagnoses"])
def test_groups_are_unique_in_both_languages(groups):
    for attribute in (lambda c: c.id, lambda c: c.label.en, lambda c: c.label.zh):
        values = [attribute(group) for group in groups]
        assert len(set(values)) == len(values)


@pytest.fixture(scope="module")
def classes():
    """(low, high, complaint) of the survey's reason-for-visit classes."""
    found = re.findall(r"\((\d{5}), (\d{5}), '(\w+)'\)", source.load("nhamcs_ed").sql)
    assert len(found) > 200
    return sorted((int(low), int(high), complaint) for low, high, complaint in found)


def test_the_survey_maps_only_to_known_complaints(classes):
    unknown = {complaint for *_, complaint in classes} - {complaint.id for complaint in COMPLAINTS}
    assert not unknown


def test_every_complaint_is_reached_from_the_survey(classes):
    assert {complaint.id for complaint in COMPLAINTS} == {complaint for *_, complaint in classes}


def test_no_class_of_the_survey_falls_into_two_complaints(classes):
    assert all(low <= high for low, high, _ in classes)
    assert [(a, b) for a, b in pairwise(classes) if b[0] <= a[1]] == []


@pytest.fixture(scope="module")
def icd9():
    """(low, high, diagnosis) of the ICD-9 codes."""
    found = re.findall(r"\(([\d.]+), ([\d.]+), '(\w+)'\)", source.load("diabetes130").sql)
    assert len(found) > 100
    return sorted((float(low), float(high), diagnosis) for low, high, diagnosis in found)


def test_icd9_reaches_every_diagnosis_and_no_other(icd9):
    assert {diagnosis for *_, diagnosis in icd9} == {diagnosis.id for diagnosis in DIAGNOSES}


def test_every_icd9_code_falls_into_one_diagnosis(icd9):
    assert all(low <= high for low, high, _ in icd9)
    assert [(a, b) for a, b in pairwise(icd9) if b[0] <= a[1]] == []
    covered = {code for code in range(2000) for low, high, _ in icd9 if low <= code <= high}
    # ICD-9-CM runs from 001 to 999 and V01 to V91, and leaves these classes empty.
    empty = {166, 167, 168, 169, 247, 248, 399, 400, *range(406, 410), 418, 419, 439, 450, 489}
    empty |= {497, 498, 499, *range(544, 550), 554, 687, 688, 689}
    assert covered >= {*range(1, 1000), *range(1001, 1092)} - empty


def loinc_digit_fits(code: str) -> bool:
    """LOINC's last digit checks the others (mod 10, Luhn): LOINC Users' Guide, appendix C."""
    number, _, digit = code.partition("-")
    doubled = int("".join(number[::-2][::-1])) * 2
    rest = number[-2::-2][::-1]
    total = sum(map(int, str(doubled))) + sum(map(int, rest))
    return (-total) % 10 == int(digit)
