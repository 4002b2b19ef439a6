"""One quantity in another unit. Factors by hand: molar masses from CIAAW's atomic weights."""

from __future__ import annotations

import pytest

from data.marts import icu_hour
from data.units import as_code, converter, dimensionless

ICU = icu_hour.MART


@pytest.mark.parametrize(
    ("given", "wanted", "value", "expected"),
    [
        ("[degF]", "Cel", 98.6, 37.0),
        ("K", "Cel", 310.15, 37.0),
        ("kPa", "mm[Hg]", 16.0, 120.009869),
        ("[lb_av]", "kg", 154.0, 69.853225),
        ("1", "%", 0.97, 97.0),
        ("%", "1", 21.0, 0.21),
        ("{beats}/min", "/min", 80.0, 80.0),
        ("/min{breaths}", "/min", 18.0, 18.0),
        ("{score}", "{score}", 4.0, 4.0),
        ("1", "{score}", 4.0, 4.0),
        ("10*9/L", "10*3/uL", 6.2, 6.2),
        ("g/L", "g/dL", 140.0, 14.0),
        ("ug/L", "ng/mL", 0.4, 0.4),
    ],
)
def test_a_number_is_taken_into_the_unit_that_is_wanted(given, wanted, value, expected):
    assert converter(given, wanted)(value) == pytest.approx(expected, rel=1e-8)


# The factors that laboratories print, to the digits that they print.
@pytest.mark.parametrize(
    ("column", "given", "value", "expected"),
    [
        ("glucose", "mmol/L", 1.0, 18.0),
        ("creatinine", "umol/L", 88.4, 1.0),
        ("urea_nitrogen", "mmol/L", 1.0, 2.8),
        ("bilirubin_total", "umol/L", 17.1, 1.0),
        ("calcium", "mmol/L", 1.0, 4.0),
        ("magnesium", "mmol/L", 1.0, 2.43),
        ("phosphate", "mmol/L", 1.0, 3.1),
        ("lactate", "mg/dL", 9.0, 1.0),
    ],
)
def test_a_substance_is_the_same_by_mass_and_by_amount(column, given, value, expected):
    of = ICU[column]
    converted = converter(given, of.unit, molar_mass=of.molar_mass)(value)
    assert converted == pytest.approx(expected, rel=0.005)


def test_an_amount_of_nobody_knows_what_is_no_mass():
    assert ICU["potassium"].molar_mass is None
    assert converter("mg/dL", ICU["potassium"].unit) is None
    assert converter("mmol/L", "mg/dL") is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("kPa", "Cel"), ("mg/dL", "U/L"), ("furlong", "/min"), ("", "Cel"), ("/min", None), ("C", "Cel")],
)
def test_what_is_another_quantity_is_not_converted(given, wanted):
    assert converter(given, wanted) is None


def test_a_unit_as_a_person_writes_it_has_a_code():
    assert [as_code(unit) for unit in ("mmHg", "°F", "beats/min", " % ", "furlong")] == [
        "mm[Hg]", "[degF]", "/min", "%", "furlong",
    ]  # fmt: skip


def test_only_scores_and_fractions_need_no_unit():
    assert [dimensionless(unit) for unit in ("{score}", "1", None, "%", "/min")] == [
        True, True, True, False, False,
    ]  # fmt: skip
