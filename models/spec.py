"""What a model is: one frozen declaration, from which everything else follows.

A spec is data. It is stored with each version, so that a version served years later still says
which rows it was for, what its bands meant and what it must not be used for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.contract import Column, Mart, Rows, Text
from data.errors import ContractError
from data.parse import MISSING

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A row belongs to the cohort when ``column`` is ``at_least`` a number or ``not_in`` a list.

    On a column known at triage it is asked of every request too, and a row that fails is not
    scored; on one known only afterwards it selects the rows to learn from.
    """

    column: str
    reason: Text
    at_least: float | None = None
    not_in: tuple[str, ...] = ()

    def met(self, column: Column, rows: Rows) -> BoolArray:
        """Mask of the rows that meet it. A missing value meets no ``at_least``."""
        values = rows[column.name]
        if self.at_least is not None:
            with np.errstate(invalid="ignore"):
                return np.asarray(values >= self.at_least)
        return ~np.isin(values, [column.codes[name] for name in self.not_in])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the model predicts: that a category ``column`` holds one of ``positive``."""

    column: str
    positive: tuple[str, ...]
    label: Text
    horizon: Text

    def of(self, column: Column, rows: Rows) -> FloatArray:
        """1 where it came about, 0 where it did not, NaN where that is not known."""
        codes = rows[column.name]
        came = np.isin(codes, [column.codes[name] for name in self.positive]).astype(np.float64)
        came[MISSING[column.kind](codes)] = np.nan
        return came


@dataclass(frozen=True, kw_only=True)
class Band:
    """A range of risk from ``at_least`` up to the next band, and what to do in it."""

    id: str
    at_least: float
    label: Text
    action: Text


@dataclass(frozen=True, kw_only=True)
class Boosting:
    """How XGBoost fits: few enough leaves a tree that a contribution stays readable."""

    max_depth: int = 5
    learning_rate: float = 0.07
    min_child_weight: float = 5.0
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    rounds: int = 2000
    early_stopping_rounds: int = 40


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What the model is worth without some of its features."""

    name: str
    without: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a version must reach on its test period before it may be promoted."""

    events: int = 100
    slope: tuple[float, float] = (0.8, 1.25)
    oe: tuple[float, float] = (0.8, 1.25)
    auroc_over_logistic: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model. ``features`` are mart columns or names in ``models.features.DERIVED``."""

    name: str
    title: Text
    mart: str
    cohort: tuple[Criterion, ...]
    outcome: Outcome
    features: tuple[str, ...]
    bands: tuple[Band, ...]
    alert_at: float
    subgroups: tuple[str, ...]
    intended_use: Text
    cautions: tuple[Text, ...]
    ablations: tuple[Ablation, ...] = ()
    boosting: Boosting = field(default_factory=Boosting)
    limits: Limits = field(default_factory=Limits)

    def band(self, risk: float) -> Band:
        """The band that ``risk`` falls into."""
        return next(band for band in reversed(self.bands) if risk >= band.at_least)

    def at_triage(self, mart: Mart) -> tuple[Criterion, ...]:
        """The criteria that can be asked of a request. A stored mart has no other columns."""
        known = {column.name for column in mart.columns if column.available != "after"}
        return tuple(criterion for criterion in self.cohort if criterion.column in known)

    def hold(self, mart: Mart, inputs: tuple[str, ...]) -> None:
        """Refuse a spec that makes no sense on ``mart``. ``inputs``: the columns it reads.

        Raises ContractError naming the column: one that the mart lacks, that is not an input, or
        that is known only after the fact; a category that a column lacks; and bands that leave a
        risk without one.
        """
        for name in inputs:
            column = mart[name]
            if column.role != "input":
                raise ContractError(f"{self.name}: {name} has role {column.role} and is never a feature")
            if column.available == "after":
                raise ContractError(f"{self.name}: {name} is known only afterwards")
        for name in (self.outcome.column, *(c.column for c in self.cohort), *self.subgroups):
            mart[name]  # raises where there is none
        named = [(criterion.column, criterion.not_in) for criterion in self.cohort]
        for name, categories in (*named, (self.outcome.column, self.outcome.positive)):
            if unknown := set(categories) - mart[name].codes.keys():
                raise ContractError(f"{self.name}: {name} has no category {', '.join(sorted(unknown))}")
        if mart[self.outcome.column].role != "outcome":
            raise ContractError(f"{self.name}: {self.outcome.column} is not an outcome")
        starts = [band.at_least for band in self.bands]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ContractError(f"{self.name}: bands start at 0 and rise")


def to_json(value: Any) -> bytes:
    """A declaration as JSON, fields in their order."""
    return msgspec.json.format(msgspec.json.encode(asdict(value)), indent=1)
