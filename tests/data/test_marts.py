"""Every mart's declaration makes sense, and a source maps to what it declares."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from data import marts, source
from data.contract import ARROW_TYPES
from data.errors import NotFoundError
from data.marts.complaint import COMPLAINTS

MARTS = [pytest.param(marts.load(name), id=name) for name in marts.names()]
COLUMNS = [
    pytest.param(column, id=f"{name}.{column.name}")
    for name in marts.names()
    for column in marts.load(name).columns
]
# UCUM, case sensitive, as far as the marts use it: https://ucum.org/ucum
UCUM = re.compile(r"1|%|a|h|d|min|Cel|kg|cm|/min|mm\[Hg\]|m?mol/L|u?mol/L|[mnu]?g/d?L|\{[a-z]+\}")


@pytest.mark.parametrize("mart", MARTS)
def test_names_are_unique_and_the_special_ones_exist(mart):
    names = [column.name for column in mart.columns]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    for special in (mart.key, mart.patient, mart.site, mart.time):
        assert mart[special].role == "id"
    assert mart[mart.key].required
    assert mart[mart.key].kind == "text"
    assert mart[mart.site].required
    assert mart[mart.time].required
    assert mart[mart.time].kind == "time"
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
    if column.available == "after":
        assert column.role in ("outcome", "audit")
    if column.unit is not None:
        assert UCUM.fullmatch(column.unit), column.unit
    if column.loinc is not None:
        assert loinc_digit_fits(column.loinc), column.loinc


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
    assert "complaint" not in marts.names()


def test_complaints_are_unique_in_both_languages():
    for attribute in (lambda c: c.id, lambda c: c.label.en, lambda c: c.label.zh):
        values = [attribute(complaint) for complaint in COMPLAINTS]
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


def loinc_digit_fits(code: str) -> bool:
    """LOINC's last digit checks the others (mod 10, Luhn): LOINC Users' Guide, appendix C."""
    number, _, digit = code.partition("-")
    doubled = int("".join(number[::-2][::-1])) * 2
    rest = number[-2::-2][::-1]
    total = sum(map(int, str(doubled))) + sum(map(int, rest))
    return (-total) % 10 == int(digit)
