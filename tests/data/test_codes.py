"""The codes by which columns are found in a FHIR record: well formed, and of one column each."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import msgspec
import pytest

from data import marts
from data.contract import Column, Mart
from models.spec import to_json

MARTS = [marts.load(name) for name in marts.names()]
COLUMNS = [column for mart in MARTS for column in mart.columns]


def luhn(code: str) -> bool:
    """Whether the check digit of a LOINC code is the one of its number (modulus 10)."""
    number, _, check = code.partition("-")
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(number))]
    return (10 - sum(value // 10 + value % 10 for value in doubled) % 10) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Whether a SNOMED CT identifier ends in its check digit (Verhoeff 1969, the dihedral group D5)."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
        return (a - b) % 5 + 5 if b < 5 else (a - b) % 5

    moved = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(place % 8):
            value = moved[value]
        check = times(check, value)
    return check == 0


def test_the_check_digits_tell_a_code_from_a_slip():
    assert luhn("8867-4")
    assert not luhn("8867-5")
    assert verhoeff("22298006")
    assert not verhoeff("22298007")


@pytest.mark.parametrize("code", sorted({code for column in COLUMNS for code in column.loincs}))
def test_a_loinc_code_has_its_check_digit(code):
    assert luhn(code)


@pytest.mark.parametrize("code", sorted({code for column in COLUMNS for code in column.snomed}))
def test_a_snomed_code_has_its_check_digit(code):
    assert verhoeff(code)


@pytest.mark.parametrize("mart", MARTS, ids=lambda mart: mart.name)
def test_a_code_is_of_one_column(mart):
    found = Counter(chain.from_iterable(column.loincs for column in mart.columns))
    assert [code for code, times in found.items() if times > 1] == []


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_what_is_found_by_code_is_an_input_that_can_be_read(column):
    if column.loincs:
        assert column.kind in ("number", "integer")
        assert column.unit
    if column.loincs or column.place:
        assert column.role == "input"
    if column.molar_mass:
        assert column.unit in ("mg/dL", "mmol/L")
    if column.icd10 or column.snomed:
        assert (column.place, column.kind) == ("Condition", "flag")
    for _, said in column.terms:
        assert said == "true" if column.kind == "flag" else said in column.codes


def test_a_mart_that_was_stored_before_there_were_such_codes_is_still_read():
    stored = msgspec.json.decode(to_json(marts.load("ed_visit")))
    new = {"loinc_also", "current_for", "molar_mass", "place", "terms", "icd10", "snomed"}
    for column in stored["columns"]:
        for name in new:
            del column[name]
    read = msgspec.convert(stored, Mart)
    assert read["spo2"].loincs == ("2708-6",)
    assert {getattr(read["spo2"], name) for name in new} == {(), None}
    assert isinstance(read["age"], Column)
