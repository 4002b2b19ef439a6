"""How a prediction is put into words, for whoever reads it on a screen."""

from __future__ import annotations

from data.contract import Text
from serving.answers import Contribution, Value

NOT_MEASURED = "not measured"
_WRITTEN = {
    "a": "years",
    "d": "days",
    "mo": "months",
    "Cel": "°C",
    "mm[Hg]": "mmHg",
    "[pH]": "",
    "1": "",
    "10*3/uL": "×10³/µL",
}
"""UCUM codes as people write them, where that differs."""


def percent(share: float) -> float:
    """A share of one as a percentage.

    >>> percent(0.6312), percent(1.0)
    (63.12, 100.0)
    """
    return min(100.0, round(share * 100, 6))


def rounded(share: float) -> str:
    """A risk as people read it: no more digits than mean anything, and never a certainty.

    >>> rounded(0.6312), rounded(0.0234), rounded(0.0004), rounded(0.9996)
    ('63 %', '2.3 %', 'under 0.1 %', 'over 99.9 %')
    """
    if share < 0.001:
        return "under 0.1 %"
    if share > 0.999:
        return "over 99.9 %"
    return f"{share * 100:.1f} %" if share < 0.1 or share > 0.99 else f"{share * 100:.0f} %"


def shown(value: Value) -> str:
    """A feature's value.

    >>> shown(True), shown(None), shown(88), shown(["fever", "cough"])
    ('yes', 'not measured', '88', 'fever, cough')
    """
    match value:
        case None:
            return NOT_MEASURED
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(value)
        case float():
            return f"{value:g}"
    return str(value)


def measured(one: Contribution) -> str:
    """The value with its unit, where it has one: not of a score or a level.

    >>> from data.contract import Text
    >>> measured(Contribution("sbp", Text("", ""), 88, "mm[Hg]", 0.6))
    '88 mmHg'
    """
    if one.value is None or isinstance(one.value, bool) or "{" in (one.unit or ""):
        return shown(one.value)
    unit = one.unit or ""
    return f"{shown(one.value)} {_WRITTEN.get(unit, unit)}".rstrip()


def at_least(level: Text, value: int) -> Text:
    """A level and those more urgent; of the first there are none."""
    if value == 1:
        return level
    return Text(f"{level.en}, or more urgent", f"{level.zh}或更急")


def reason_of(one: Contribution) -> str:
    """One contribution: what, its value, and which way it moves the risk."""
    way = "raises" if one.contribution > 0 else "lowers"
    return f"{one.label.en} {measured(one)} {way} the risk ({one.contribution:+.2f})"
