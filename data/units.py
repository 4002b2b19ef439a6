"""Numbers that come in another unit of the same quantity. UCUM codes."""

from __future__ import annotations

import re
from collections.abc import Callable

Convert = Callable[[float], float]
CONVERSIONS: dict[tuple[str, str], Convert] = {
    ("[degF]", "Cel"): lambda value: (value - 32) / 1.8,
    ("K", "Cel"): lambda value: value - 273.15,
    ("kPa", "mm[Hg]"): lambda value: value * 7.500616827,
    ("1", "%"): lambda value: value * 100,
    ("%", "1"): lambda value: value / 100,
    ("/s", "/min"): lambda value: value * 60,
    ("Hz", "/min"): lambda value: value * 60,
    ("mo", "a"): lambda value: value / 12,
    ("[lb_av]", "kg"): lambda value: value * 0.45359237,
    ("g", "kg"): lambda value: value / 1000,
    ("min", "h"): lambda value: value / 60,
    ("10*9/L", "10*3/uL"): lambda value: value,
    ("/uL", "10*3/uL"): lambda value: value / 1000,
    ("L/L", "%"): lambda value: value * 100,
    ("meq/L", "mmol/L"): lambda value: value,
}
"""(from, to) -> how. An equivalent is a mole only of ions of one charge, which are all that the marts
have in mmol/L: bicarbonate, chloride, potassium, and the base excess."""

_MASS = {
    "g/L": 1.0,
    "g/dL": 10.0,
    "mg/dL": 0.01,
    "mg/L": 1e-3,
    "mg/mL": 1.0,
    "ug/dL": 1e-5,
    "ug/L": 1e-6,
    "ng/mL": 1e-6,
    "ng/L": 1e-9,
    "pg/mL": 1e-9,
}
_AMOUNT = {"mol/L": 1.0, "mmol/L": 1e-3, "umol/L": 1e-6, "nmol/L": 1e-9}
"""Concentrations in g/L and in mol/L."""

_WRITTEN = {
    "mmHg": "mm[Hg]",
    "mm Hg": "mm[Hg]",
    "°C": "Cel",
    "C": "Cel",
    "degC": "Cel",
    "°F": "[degF]",
    "F": "[degF]",
    "degF": "[degF]",
    "bpm": "/min",
    "beats/min": "/min",
    "beats/minute": "/min",
    "breaths/min": "/min",
    "breaths/minute": "/min",
    "per minute": "/min",
    "1/min": "/min",
    "percent": "%",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "mEq/L": "meq/L",
    "µmol/L": "umol/L",
    "μmol/L": "umol/L",
    "µg/L": "ug/L",
    "μg/L": "ug/L",
    "10^9/L": "10*9/L",
    "x10^9/L": "10*9/L",
    "10^3/uL": "10*3/uL",
    "K/uL": "10*3/uL",
    "pH": "[pH]",
    "IU/L": "U/L",
    "[IU]/L": "U/L",
    "years": "a",
    "year": "a",
    "yr": "a",
    "months": "mo",
}
"""How people write a unit where no code is given. C and F are coulomb and farad in UCUM."""


def converter(given: str, wanted: str | None, *, molar_mass: float | None = None) -> Convert | None:
    """How to turn a number in ``given`` into ``wanted``; None where they are not one quantity.

    ``molar_mass`` (g/mol) makes one of a substance's mass and its amount: of glucose it is 180.156.

    >>> round(converter("[degF]", "Cel")(98.6), 6)
    37.0
    >>> round(converter("mmol/L", "mg/dL", molar_mass=180.156)(10), 2)
    180.16
    """
    have, want = _bare(given), _bare(wanted or "")
    if given == wanted or (wanted and have == want):
        return lambda value: value
    known = CONVERSIONS.get((have, want))
    if known is not None:
        return known
    for_mass = _MASS.get(have), _MASS.get(want)
    for_amount = _AMOUNT.get(have), _AMOUNT.get(want)
    match (*for_mass, *for_amount):
        case (float(a), float(b), _, _) | (_, _, float(a), float(b)):
            return _times(a / b)
        case (_, float(mass), float(amount), _) if molar_mass:
            return _times(amount * molar_mass / mass)
        case (float(mass), _, _, float(amount)) if molar_mass:
            return _times(mass / molar_mass / amount)
    return None


def as_code(written: str) -> str:
    """The UCUM code of a unit as a person writes it; what is not known is handed back as it is.

    >>> as_code("mmHg"), as_code("beats/min"), as_code("Cel")
    ('mm[Hg]', '/min', 'Cel')
    """
    return _WRITTEN.get(written.strip(), written.strip())


def dimensionless(unit: str | None) -> bool:
    """Whether a number says all without a unit: a score, a count, a level.

    >>> dimensionless("{score}"), dimensionless("%")
    (True, False)
    """
    return _bare(unit or "1") == "1"


def _times(factor: float) -> Convert:
    return lambda value: value * factor


def _bare(unit: str) -> str:
    """The unit without its annotations, which in UCUM change nothing: {beats}/min is /min."""
    bare = re.sub(r"\{[^{}]*\}", "", unit)
    return "1" if unit and not bare else bare
