"""Numbers that come in another unit of the same quantity. UCUM codes."""

from __future__ import annotations

from collections.abc import Callable

CONVERSIONS: dict[tuple[str, str], Callable[[float], float]] = {
    ("[degF]", "Cel"): lambda value: (value - 32) / 1.8,
    ("K", "Cel"): lambda value: value - 273.15,
    ("kPa", "mm[Hg]"): lambda value: value * 7.500616827,
    ("1", "%"): lambda value: value * 100,
    ("/s", "/min"): lambda value: value * 60,
    ("Hz", "/min"): lambda value: value * 60,
    ("mo", "a"): lambda value: value / 12,
    ("[lb_av]", "kg"): lambda value: value * 0.45359237,
}
"""(from, to) -> how."""


def converter(given: str, wanted: str | None) -> Callable[[float], float] | None:
    """How to turn a number in ``given`` into ``wanted``; None where they are not one quantity.

    >>> round(converter("[degF]", "Cel")(98.6), 6)
    37.0
    """
    if given == wanted:
        return lambda value: value
    return CONVERSIONS.get((given, wanted or ""))
