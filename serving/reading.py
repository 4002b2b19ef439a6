"""From a request to typed rows: in the contract's units, and with what is wrong with which.

The check is the same for instances that stand alone and for the rows of a series. What differs is
what is asked: every instance, or the last row in the light of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.contract import Checked, Rows, check
from data.errors import ContractError, FieldError
from data.units import converter
from models.artifact import Artifact
from models.series import recent
from serving.answers import Fault
from serving.schema import INSTANCE, Context, Instance, PredictRequest, named, read_instance

NOBODY = Context()
MOST_UNKNOWN = 20
"""Unknown fields of one instance that are named to the caller; the rest are only counted."""
REFUSED = -1
"""Place of the row of an instance that cannot be answered."""
RISES = "must rise from row to row of a series"

Faults = dict[int, tuple[Fault, ...]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked, by one request or several: one prediction for each of ``contexts``.

    ``rows`` are typed. ``place`` (predictions,) is the row that each prediction is about, or
    ``REFUSED``, and then ``faults`` say why; of a series it is the last of the rows, the others are
    those that it looks back on.
    """

    contexts: Sequence[Context]
    rows: Rows
    place: npt.NDArray[np.intp]
    faults: Faults


Converters = Mapping[str, Callable[[float], float]]
"""Field -> how its numbers come into the contract's unit."""


def read(loaded: Artifact, requests: Sequence[tuple[PredictRequest, Converters]]) -> Asked:
    """Hold the instances of some requests to the contract, all in one go."""
    checked, faults = _checked(loaded, requests)
    place = np.cumsum(checked.kept) - 1
    place[list(faults)] = REFUSED
    contexts = [
        context
        for request, _ in requests
        for context in request.context or [NOBODY] * len(request.instances)
    ]
    return Asked(contexts=contexts, rows=checked.rows, place=place, faults=faults)


def read_series(loaded: Artifact, request: PredictRequest, convert: Converters) -> Asked:
    """The last row of the one series and the hours that it looks back on.

    A fault of any row is one of the series.
    """
    lookback, hour = loaded.spec.lookback, loaded.mart.order
    assert lookback  # without either there are no features of a series
    assert hour
    checked, faults = _checked(loaded, [(request, convert)])
    rows = checked.rows
    steps = np.diff(rows[hour], prepend=-np.inf)
    for position in np.flatnonzero(checked.kept)[steps < 1].tolist():
        faults[position] = (*faults.get(position, ()), Fault(hour, RISES))
    found = tuple(
        Fault(fault.field, fault.reason, position)
        for position, of_row in sorted(faults.items())
        for fault in of_row
    )
    last = len(checked) - 1
    if found:
        rows, last = {name: values[:0] for name, values in rows.items()}, REFUSED
    else:
        rows = recent(rows, last, list(rows), hour, lookback)
        last = len(rows[hour]) - 1
    return Asked(
        contexts=request.context or [NOBODY],
        rows=rows,
        place=np.array([last]),
        faults={0: found} if found else {},
    )


def _checked(
    loaded: Artifact, requests: Sequence[tuple[PredictRequest, Converters]]
) -> tuple[Checked, Faults]:
    """The instances as typed rows, and what is wrong with which."""
    fields = loaded.mart.by_name.keys()
    instances: list[Instance] = []
    unread: Faults = {}
    unknown: Faults = {}
    for request, convert in requests:
        for raw in request.instances:
            position, instance = len(instances), read_instance(raw)
            if isinstance(instance, FieldError):
                unread[position] = (Fault(instance.field, instance.reason),)
                instance = {}
            if strangers := instance.keys() - fields:
                unknown[position] = _strangers(strangers)
                instance = {name: instance[name] for name in instance.keys() & fields}
            for name in convert.keys() & instance.keys():
                if type(instance[name]) in (int, float):
                    with suppress(OverflowError):  # the check refuses what no float holds
                        instance[name] = convert[name](instance[name])
            instances.append(instance)
    checked = check(loaded.mart.columns, instances)
    faults = {
        position: tuple(Fault(fault.field, fault.reason) for fault in found)
        for position, found in checked.faults().items()
    }
    for position, strange in unknown.items():
        faults[position] = (*faults.get(position, ()), *strange)
    return checked, faults | unread


def converters(loaded: Artifact, units: Mapping[str, str]) -> Converters:
    """How numbers in ``units`` are read. Raises ContractError for one that no instance could have."""
    convert: dict[str, Callable[[float], float]] = {}
    faults = []
    for name, unit in units.items():
        column = loaded.mart.by_name.get(name)
        if column is None:
            faults.append(FieldError(field=f"units.{named(name)}", reason="unknown field"))
            continue
        how = converter(unit, column.unit)
        if how is None or column.kind not in ("number", "integer"):
            wanted = f"cannot be converted to {column.unit}" if column.unit else "has no unit"
            faults.append(FieldError(field=f"units.{name}", reason=wanted))
            continue
        convert[name] = how
    if faults:
        raise ContractError("a unit that cannot be", errors=tuple(faults[:MOST_UNKNOWN]))
    return convert


def _strangers(names: set[str]) -> tuple[Fault, ...]:
    faults = [Fault(named(name), "unknown field") for name in sorted(names)[:MOST_UNKNOWN]]
    if len(names) > MOST_UNKNOWN:
        faults.append(Fault(INSTANCE, f"{len(names) - MOST_UNKNOWN} more unknown fields"))
    return tuple(faults)
