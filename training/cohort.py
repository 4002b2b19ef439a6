"""The rows that a model is about, and the count of every exclusion on the way to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.contract import Mart, Rows, check
from models.spec import ModelSpec

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Typed rows with a known outcome, who stands in them, and the flow that led here."""

    rows: Rows
    outcome: FloatArray
    patient: npt.NDArray[np.object_]
    site: npt.NDArray[np.object_]
    time: npt.NDArray[np.datetime64]
    weight: FloatArray | None
    load_ids: tuple[str, ...]
    flow: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.outcome)

    def take(self, mask: npt.NDArray[np.bool_]) -> Cohort:
        """The rows of ``mask``."""
        return Cohort(
            rows={name: values[mask] for name, values in self.rows.items()},
            outcome=self.outcome[mask],
            patient=self.patient[mask],
            site=self.site[mask],
            time=self.time[mask],
            weight=None if self.weight is None else self.weight[mask],
            load_ids=self.load_ids,
            flow=self.flow,
        )

    @property
    def person(self) -> npt.NDArray[np.intp]:
        """Who each row is, numbered; a row without a patient id is a person of its own."""
        known = np.array([patient is not None for patient in self.patient], dtype=bool)
        codes = np.arange(len(self), dtype=np.intp)
        named = np.unique(self.patient[known].astype(str), return_inverse=True)[1]
        codes[known] = named + len(self)
        return np.unique(codes, return_inverse=True)[1]

    @property
    def cluster(self) -> npt.NDArray[np.intp]:
        """What the bootstrap resamples: patients; where nobody has an id, sites."""
        if all(patient is None for patient in self.patient):
            return np.unique(self.site, return_inverse=True)[1]
        return self.person


def select(spec: ModelSpec, mart: Mart, table: pa.Table) -> Cohort:
    """Apply the spec's criteria in order, then leave out rows whose outcome is not known."""
    checked = check(mart.columns, table.drop_columns(["load_id"]))
    rows = checked.rows
    flow = [("rows in the mart", table.num_rows)]
    if not checked.kept.all():
        flow.append(("no longer fits the contract", int((~checked.kept).sum())))
    within = np.ones(len(checked), dtype=bool)
    for criterion in spec.cohort:
        met = criterion.met(mart[criterion.column], rows)
        flow.append((criterion.reason.en, int((within & ~met).sum())))
        within &= met
    outcome = spec.outcome.of(mart[spec.outcome.column], rows)
    unknown = np.isnan(outcome)
    flow.append(("outcome not known", int((within & unknown).sum())))
    within &= ~unknown
    flow.append(("in the cohort", int(within.sum())))
    weight = rows[mart.weight] if mart.weight else None
    loads = table["load_id"].filter(pa.array(checked.kept)).unique().to_pylist()
    everything = Cohort(
        rows=rows,
        outcome=outcome,
        patient=rows[mart.patient],
        site=rows[mart.site],
        time=rows[mart.time],
        # A mart that mixes weighted and unweighted rows has no population to speak of.
        weight=None if weight is None or np.isnan(weight[within]).any() else weight,
        load_ids=tuple(sorted(loads)),
        flow=tuple(flow),
    )
    return everything.take(within)
