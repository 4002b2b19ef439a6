"""Which rows teach, which tune and which test: by time, and never one patient on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError, UsageError
from data.period import Period
from models.cohort import NOBODY

BoolArray = npt.NDArray[np.bool_]
PARTS = ("train", "validate", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A mask of the rows of each part, and the rows left out because their patient came earlier."""

    train: BoolArray
    validate: BoolArray
    test: BoolArray
    periods: Mapping[str, Period]
    seen_before: int

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
