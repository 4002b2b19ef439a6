"""Which rows teach, which tune and which test: never one patient on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from data.errors import ContractError, NotEnoughDataError, UsageError
from data.period import Period
from models.cohort import NOBODY, Cohort
from models.spec import SplitBy

BoolArray = npt.NDArray[np.bool_]
PARTS = ("train", "validate", "test")
SHARES = (0.7, 0.8)
"""Of the patients, where there are no dates to split by: up to which share they teach, and tune."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A mask of the rows of each part, and the rows left out because their patient came earlier.

    ``periods`` is empty where the parts are not stretches of time.
    """

    train: BoolArray
    validate: BoolArray
    test: BoolArray
    periods: Mapping[str, Period]
    seen_before: int = 0

    def __getitem__(self, part: str) -> BoolArray:
        mask: BoolArray = getattr(self, part)
        return mask


def limits(
    train_to: str | None = None, validate_to: str | None = None, test_to: str | None = None
) -> tuple[datetime, ...]:
    """The ends of the three parts; empty where none is given.

    Raises UsageError where only some are given or they do not rise.
    """
    given = [limit for limit in (train_to, validate_to, test_to) if limit]
    if not given:
        return ()
    if len(given) < len(PARTS):
        raise UsageError("--train-to, --validate-to and --test-to go together")
    ends = tuple(Period.between(None, limit).end for limit in given)
    if not ends[0] < ends[1] < ends[2]:
        raise UsageError(f"the limits must rise: {', '.join(given)}")
    return ends


def periods(times: npt.NDArray[np.datetime64], ends: Sequence[datetime]) -> dict[str, Period]:
    """The three stretches of time. Without ``ends`` the last twelve months test, those before tune.

    Raises NotEnoughDataError where there is no row.
    """
    if not len(times):
        raise NotEnoughDataError("no row is left to learn from")
    if not ends:
        last = times.max().astype("datetime64[M]")
        ends = limits(*(str(last - np.timedelta64(months, "M")) for months in (24, 12, 0)))
    first: datetime = times.min().astype("datetime64[us]").item()
    starts = [min(first, ends[0]), ends[0], ends[1]]
    return {part: Period(start, end) for part, start, end in zip(PARTS, starts, ends, strict=True)}


def by_time_and_patient(
    times: npt.NDArray[np.datetime64],
    patients: npt.NDArray[np.int64],
    stretches: Mapping[str, Period],
) -> Split:
    """Split rows by time; a later row of a patient who stands in an earlier part is left out.

    A patient whose visits span the limits would let the trees be tested on whom they learned
    from. Rows of NOBODY are strangers to each other. Raises NotEnoughDataError naming a part that
    stays empty.
    """
    masks: dict[str, BoolArray] = {}
    earlier = np.empty(0, dtype=np.int64)
    left_out = 0
    for part in PARTS:
        stretch = stretches[part]
        mask = (times >= np.datetime64(stretch.start)) & (times < np.datetime64(stretch.end))
        seen = mask & np.isin(patients, earlier)
        left_out += int(seen.sum())
        masks[part] = mask & ~seen
        earlier = np.union1d(earlier, patients[masks[part] & (patients != NOBODY)])
        if not masks[part].any():
            raise NotEnoughDataError(f"no rows to {part} on: {stretch}")
    return Split(**masks, periods=dict(stretches), seen_before=left_out)


def of(how: SplitBy, cohort: Cohort, ends: Sequence[datetime]) -> Split:
    """The split that a spec declares. ``ends`` as in :func:`limits`.

    Raises UsageError where dates are given to a split that has none, and as the splits do.
    """
    if how == "time":
        stretches = periods(cohort.time, ends)
        return by_time_and_patient(cohort.time, cohort.patient, stretches)
    if ends:
        raise UsageError("this model is split by patient, not by time: give no --train-to")
    order = cohort.order if np.isnat(cohort.time).any() else cohort.time.astype(np.float64)
    return by_patient(cohort.patient, order if how == "first_encounter" else None)


def by_patient(patients: npt.NDArray[np.int64], order: npt.NDArray[np.float64] | None) -> Split:
    """70, 10 and 20 % of the patients, in the ``order`` of their first rows; by their hash without it.

    The hash is a number below 2^63, the beginning of the SHA-256 of the identifier. Raises
    NotEnoughDataError naming a part that stays empty, ContractError where a row names no patient.
    """
    if (patients == NOBODY).any():
        raise ContractError("a split by patient needs a patient in every row")
    if order is None:
        place = patients / 2.0**63
    else:
        people, row = np.unique(patients, return_inverse=True)
        first = np.full(len(people), np.inf)
        np.minimum.at(first, row, order)
        ranks = np.empty(len(people))
        ranks[np.argsort(first, kind="stable")] = np.arange(len(people))
        place = ranks[row] / max(len(people), 1)
    part = np.searchsorted(SHARES, place, side="right")
    masks = {name: part == number for number, name in enumerate(PARTS)}
    for name, mask in masks.items():
        if not mask.any():
            raise NotEnoughDataError(f"no patient is left to {name} on, of {len(np.unique(patients))}")
    return Split(**masks, periods={})
