"""What a model is: one frozen declaration, from which everything else follows.

A spec is data. It is stored with each version, so that a version served years later still says
which rows it was for, what its bands meant and what it must not be used for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from data.contract import Column, Mart, Rows, Text
from data.errors import ContractError
from data.parse import MISSING
from models.watch import Watch

Card = Literal["info", "warning", "critical"]
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
class Event:
    """That a category ``column`` holds one of ``positive``, a number is ``at_most``, a flag is set."""

    column: str
    positive: tuple[str, ...] = ()
    at_most: float | None = None

    def of(self, column: Column, rows: Rows) -> FloatArray:
        """1 where it came about, 0 where it did not, NaN where that is not known."""
        values = rows[column.name]
        if column.kind == "category":
            came = np.isin(values, [column.codes[name] for name in self.positive]).astype(np.float64)
        elif self.at_most is not None:
            with np.errstate(invalid="ignore"):
                came = (values <= self.at_most).astype(np.float64)
        else:
            came = np.array(values, dtype=np.float64)
        came[MISSING[column.kind](values)] = np.nan
        return came


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the model predicts: that any of some events comes about."""

    any_of: tuple[Event, ...]
    label: Text
    horizon: Text

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is told from."""
        return tuple(event.column for event in self.any_of)

    def of(self, mart: Mart, rows: Rows) -> FloatArray:
        """1 where one came about, 0 where none did, NaN where that is not known of all of them."""
        found = np.stack([event.of(mart[event.column], rows) for event in self.any_of])
        came = np.asarray(np.nanmax(np.vstack([found, np.zeros(found.shape[1])]), axis=0))
        came[(came == 0) & np.isnan(found).any(axis=0)] = np.nan
        return came


@dataclass(frozen=True, kw_only=True)
class Band:
    """A range of risk from ``at_least`` up to the next band, and what to do in it.

    ``card`` is how urgently a card in the clinician's workflow says so; None where none is shown.
    """

    id: str
    at_least: float
    label: Text
    action: Text
    card: Card | None = None


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of triage, ``value`` 1 the most urgent; ``national`` its place among China's four."""

    value: int
    national: str
    label: Text
    action: Text
    card: Card | None = None


@dataclass(frozen=True, kw_only=True)
class Triage:
    """An ordinal outcome: the level in ``column``, predicted by one margin and ordered cut-points.

    The model's event is a level of ``urgent`` or more urgent, so that its risk, its bands and its
    explanation are those of any other model. The cut-points are chosen on the tuning rows, at the
    least mean cost: the square of the levels missed, times ``under_weight`` where an urgent patient is
    given a less urgent level. ``harm`` is what under-triage is held against, besides the level.
    """

    column: str
    levels: tuple[Level, ...]
    urgent: int
    under_weight: float
    harm: Outcome

    def bands(self, cuts: Sequence[float]) -> tuple[Band, ...]:
        """The levels as bands of the event's risk; ``cuts`` rise, from the least urgent level up."""
        starts = (0.0, *cuts)
        return tuple(
            Band(
                id=str(level.value),
                at_least=start,
                label=level.label,
                action=level.action,
                card=level.card,
            )
            for level, start in zip(reversed(self.levels), starts, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Boosting:
    """How XGBoost fits: few enough leaves a tree that a contribution stays readable.

    A round grows ``trees_a_round``; several steady an outcome that is rare in rows that are alike.
    """

    max_depth: int = 5
    learning_rate: float = 0.07
    min_child_weight: float = 5.0
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    reg_lambda: float = 1.0
    trees_a_round: int = 1
    rounds: int = 3000
    early_stopping_rounds: int = 40


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What the model is worth without some of its features.

    ``imputed`` hides which values were not measured: the median stands in for each. A test that was
    not done is a clinician's decision, and what the model learns from it is worth knowing.
    """

    name: str
    without: tuple[str, ...] = ()
    imputed: bool = False


@dataclass(frozen=True, kw_only=True)
class Support:
    """What a row's inputs must be for a risk to be given; where they are not, the version abstains.

    Of the features ``measured`` at least ``at_least`` must be known. ``novelty`` is the share of
    training rows that may be less strange. A prediction set holds ``largest_set`` classes at most; None:
    it may hold all, as it often does of an outcome that is hard to foresee.
    """

    measured: tuple[str, ...] = ()
    at_least: int = 0
    novelty: float = 1.0
    largest_set: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a version must reach on its test rows before it may be promoted.

    The two margins bound how much worse than logistic regression and than the champion it may be:
    the lower 95 % bound of the paired difference in AUROC is held to minus the margin. Subgroups of
    fewer than ``subgroup_events`` events are shown and not held. ``sensitivity`` is that of the
    alert, ``utility`` the sepsis challenge's; None where the model is not held to it.
    """

    events: int = 100
    auroc: float = 0.6
    slope: tuple[float, float] = (0.8, 1.25)
    intercept: tuple[float, float] = (-0.25, 0.25)
    oe: tuple[float, float] = (0.8, 1.25)
    logistic_margin: float = 0.02
    champion_margin: float = 0.01
    subgroup_events: int = 50
    subgroup_auroc: float = 0.6
    subgroup_oe: tuple[float, float] = (0.67, 1.5)
    alerts_per_100: float = 100.0
    sensitivity: float | None = None
    utility: float | None = None


SplitBy = Literal["time", "first_encounter", "patient_hash"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model. ``features`` are mart columns or names in ``models.derived.DERIVED``.

    ``lookback`` makes it a model of a series: each hourly feature looks back that many hours, in
    training as in a request. ``monotone`` maps a feature, or a part of one, to 1 (the risk never falls
    with it) or -1. ``split`` says which rows teach, tune and test: by time; or 70, 10 and 20 % of
    patients, by their first encounter or by the SHA-256 of their identifier. ``benefit`` is the range
    of thresholds that a clinician might reasonably act on. ``alert_by``: the alert's threshold is the
    one declared, or the one of the greatest utility on the tuning rows. ``learner``: which of the two
    that learn from the same rows answers; the other is a rival. ``watch``: what production is held to.
    """

    name: str
    title: Text
    mart: str
    cohort: tuple[Criterion, ...]
    outcome: Outcome
    features: tuple[str, ...]
    alert_at: float
    subgroups: tuple[str, ...]
    intended_use: Text
    cautions: tuple[Text, ...]
    bands: tuple[Band, ...] = ()
    benefit: tuple[float, float] = (0.05, 0.5)
    triage: Triage | None = None
    lookback: int | None = None
    split: SplitBy = "time"
    monotone: Mapping[str, Literal[-1, 1]] = field(default_factory=dict)
    alert_by: Literal["declared", "utility"] = "declared"
    comparators: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    coverage: float = 0.9
    support: Support = field(default_factory=Support)
    learner: Literal["boosting", "logistic"] = "boosting"
    boosting: Boosting = field(default_factory=Boosting)
    limits: Limits = field(default_factory=Limits)
    watch: Watch = field(default_factory=Watch)

    def band(self, risk: float) -> Band:
        """The band that ``risk`` falls into."""
        return next(band for band in reversed(self.bands) if risk >= band.at_least)

    def at_request(self, mart: Mart) -> tuple[Criterion, ...]:
        """The criteria that can be asked of a request. A stored mart has no other columns."""
        known = {column.name for column in mart.columns if column.available != "after"}
        return tuple(criterion for criterion in self.cohort if criterion.column in known)

    def alerting_at(self, threshold: float) -> ModelSpec:
        """The same, with the alert and the band that it starts moved to ``threshold``.

        A band that would no longer rise is left out.
        """
        moved = [
            replace(band, at_least=threshold) if band.at_least == self.alert_at else band
            for band in self.bands
        ]
        place = [band.at_least for band in self.bands].index(self.alert_at)
        kept = [band for band in moved[:place] if band.at_least < threshold] + [moved[place]]
        kept += [band for band in moved[place + 1 :] if band.at_least > threshold]
        return replace(self, bands=tuple(kept), alert_at=threshold)

    @property
    def told(self) -> tuple[str, ...]:
        """The columns that outcome, level and harm are told from."""
        if self.triage is None:
            return self.outcome.columns
        return tuple(
            dict.fromkeys([*self.outcome.columns, self.triage.column, *self.triage.harm.columns])
        )

    def hold(self, mart: Mart, inputs: tuple[str, ...]) -> None:
        """Refuse a spec that makes no sense on ``mart``. ``inputs``: the columns it reads.

        Raises ContractError naming the column: one that the mart lacks, that is not an input, that is
        known only after the fact or is what the model predicts; a category that a column lacks; bands
        that leave a risk without one, and a range of thresholds that is none.
        """
        for name in inputs:
            column = mart[name]
            if column.role != "input":
                raise ContractError(f"{self.name}: {name} has role {column.role} and is never a feature")
            if column.available == "after":
                raise ContractError(f"{self.name}: {name} is known only afterwards")
            if name in self.told:
                raise ContractError(f"{self.name}: {name} is what it predicts and never a feature")
        for name in (*self.told, *(c.column for c in self.cohort), *self.subgroups):
            mart[name]  # raises where there is none
        self._hold_events(mart)
        starts = [band.at_least for band in self.bands]
        if self.triage is None and (not starts or starts[0] != 0 or starts != sorted(set(starts))):
            raise ContractError(f"{self.name}: bands start at 0 and rise")
        if strangers := set(self.support.measured) - set(self.features):
            raise ContractError(f"{self.name}: support names {', '.join(sorted(strangers))}, no feature")
        if self.support.at_least > len(self.support.measured):
            raise ContractError(f"{self.name}: support asks for more than it names")
        if not 0 < self.benefit[0] < self.benefit[1] < 1:
            raise ContractError(f"{self.name}: benefit is a range of thresholds between 0 and 1")

    def _hold_events(self, mart: Mart) -> None:
        harm = self.triage.harm.any_of if self.triage else ()
        named = [(criterion.column, criterion.not_in) for criterion in self.cohort]
        told = [(event.column, event.positive) for event in (*self.outcome.any_of, *harm)]
        for name, categories in (*named, *told):
            if unknown := set(categories) - mart[name].codes.keys():
                raise ContractError(f"{self.name}: {name} has no category {', '.join(sorted(unknown))}")
        for event in self.outcome.any_of:
            # A level that a nurse gives is an input to other models and may be this one's outcome.
            if mart[event.column].role != "outcome" and self.triage is None:
                raise ContractError(f"{self.name}: {event.column} is not an outcome")
            if mart[event.column].kind == "category" and not event.positive:
                raise ContractError(f"{self.name}: {event.column} needs the categories that count")


def to_json(value: Any) -> bytes:
    """A declaration, or several, as JSON, fields in their order."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
