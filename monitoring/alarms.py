"""Which signals are alarms: those of a kind that the spec declares, each with its response."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from models.alarms import PLACE
from models.spec import ModelSpec
from monitoring.signal import Signal


def raised(signals: Iterable[Signal], spec: ModelSpec) -> list[dict[str, Any]]:
    """One alarm for each condition (what, column, site, group), in the order in which the spec declares.

    Of two signals of one condition the value is that of the first, the messages stand together and the
    earlier ``since`` counts. A kind that the spec leaves out is no alarm; the figures tell it.

    >>> from models import catalog
    >>> found = raised([Signal(what="silence", message="nothing", site="a")], catalog.load("sepsis"))
    >>> found[0]["response"], found[0]["site"]
    ('inspect_inputs', 'a')
    """
    order = [alarm.what for alarm in spec.watch.alarms]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for signal in signals:
        declared = spec.watch.of(signal.what)
        if declared is None:
            continue
        place = tuple(getattr(signal, name) for name in PLACE)
        if place in found:
            _join(found[place], signal)
            continue
        found[place] = {
            **dict(zip(PLACE, place, strict=True)),
            "message": signal.message,
            "value": _finite(signal.value),
            "limits": [_finite(limit) for limit in signal.limits],
            "since": signal.since,
            "response": declared.response,
        }
    return sorted(found.values(), key=lambda alarm: order.index(alarm["what"]))


def where(alarm: Mapping[str, Any]) -> str:
    """The place of an alarm in few words.

    >>> where({"what": "input_drift", "column": "temperature", "site": "a", "group": None})
    'input drift, temperature, at a'
    """
    site = f"at {alarm['site']}" if alarm.get("site") else None
    words = (str(alarm["what"]).replace("_", " "), alarm.get("column"), alarm.get("group"), site)
    return ", ".join(word for word in words if word)


def _join(alarm: dict[str, Any], signal: Signal) -> None:
    if signal.message not in alarm["message"].split("; "):
        alarm["message"] += f"; {signal.message}"
    days = [day for day in (alarm["since"], signal.since) if day]
    alarm["since"] = min(days, default=None)


def _finite(value: float | None) -> float | None:
    """JSON has no number for what cannot be told."""
    return None if value is None or not math.isfinite(value) else float(value)
