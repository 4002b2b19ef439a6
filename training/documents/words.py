"""How figures read: one place for decimals, intervals and names, so that no two documents differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.artifact import LOGISTIC, TREES
from models.comparator import MAJORITY
from models.scores import SCORES

NONE = "–"
"""Where a figure is not defined."""

COMPARATORS = {
    LOGISTIC: "Logistic regression",
    TREES: "Boosted trees",
    MAJORITY: "The same risk for everybody",
    **{name: score.label.en for name, score in SCORES.items()},
}


def comparator(name: str) -> str:
    """What a reader calls it; a name that is not known is shown as it is."""
    return COMPARATORS.get(name, plain(name))


def plain(name: str) -> str:
    """A column's or feature's name as words."""
    return name.replace("_", " ")


UNITS = {"a": "years", "d": "days", "h": "hours", "Cel": "°C", "mm[Hg]": "mmHg", "[pH]": "pH", "1": ""}


def unit(ucum: str | None) -> str:
    """A unit as people write it; what UCUM puts in braces is a remark.

    >>> unit("mm[Hg]"), unit("{score}"), unit(None)
    ('mmHg', 'score', '')
    """
    return "" if ucum is None else UNITS.get(ucum, ucum.strip("{}"))


def number(value: float | None, digits: int = 3) -> str:
    """Rounded, and never minus nothing.

    >>> number(0.85249), number(-0.0001, 2), number(None)
    ('0.852', '0.00', '–')
    """
    return NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def count(value: float | None) -> str:
    """A whole number as people read it.

    >>> count(12765)
    '12,765'
    """
    return NONE if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Two digits that tell: one decimal below ten per cent, two below one.

    >>> percent(0.3), percent(0.034), percent(0.0021), percent(0.0), percent(None)
    ('30%', '3.4%', '0.21%', '0%', '–')
    """
    if share is None:
        return NONE
    size = abs(share)
    digits = 0 if size >= 0.0995 or size == 0 else 1 if size >= 0.00995 else 2
    return f"{share:.{digits}%}"


def interval(row: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A value with its 95% interval.

    >>> interval({"value": 0.8525, "low": 0.8404, "high": 0.8631})
    '0.853 (0.840 to 0.863)'
    >>> interval({"value": 0.8525, "low": None, "high": None}), interval(None)
    ('0.853', '–')
    """
    if row is None or row.get("value") is None:
        return NONE
    value = number(row["value"], digits)
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return value
    return f"{value} ({number(low, digits)} to {number(high, digits)})"


def share(row: Any) -> str:
    """A share with its interval, in per cent; a bare number as it is.

    >>> share({"value": 0.81, "low": 0.785, "high": 0.84}), share(0.05), share(None)
    ('81% (78% to 84%)', '5.0%', '–')
    """
    if not isinstance(row, Mapping):
        return percent(row)
    value, low, high = (row.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return percent(value)
    return f"{percent(value)} ({percent(low)} to {percent(high)})"


def measured(figures: Mapping[str, Any], metric: str, value: float | None) -> dict[str, Any]:
    """``value`` with the interval that the figures hold for ``metric``, if any."""
    return {"value": value, **at(figures, "intervals", metric, default={})}


def at(figures: Any, *path: str, default: Any = None) -> Any:
    """The figure at ``path``; ``default`` where it or anything on the way is absent or null.

    >>> at({"auroc": {"value": 0.8}, "utility": None}, "utility", "value") is None
    True
    """
    for name in path:
        if not isinstance(figures, Mapping) or figures.get(name) is None:
            return default
        figures = figures[name]
    return figures


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names as a sentence has them.

    >>> listed(["age", "sex", "pain"]), listed([])
    ('age, sex and pain', '')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def sentence(text: str) -> str:
    """With a capital and a full stop, so that texts can follow each other.

    >>> sentence("under 18 years")
    'Under 18 years.'
    """
    text = text.strip()
    if not text:
        return text
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "。", "!", "?", ":")) else ".")
