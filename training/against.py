"""A version beside the champion, on the rows that the version was tested on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data import marts
from data.contract import Mart
from data.errors import CaremodelsError, IntegrityError
from data.home import Home
from data.period import Period
from data.store import Slice
from models import artifact
from models.artifact import Artifact
from models.cohort import Cohort, columns
from models.metrics import paired_difference
from models.series import SERIES
from training import rows
from training import split as splits
from training.evaluate import BOOTSTRAP


def champion(
    home: Home, folder: Path, released: Path, *, bootstrap: int = BOOTSTRAP, threads: int = 2
) -> dict[str, Any]:
    """``figures["champion"]`` of the version in ``folder``: its AUROC less that of the one ``released``.

    Both are asked about the very same rows, resampled by patient. ``seen`` counts rows of the stretch
    of time that the champion learned from, which flatter it; None where it has no stretch of time.
    Where the comparison cannot be had the figures are None and ``why`` says it: the gate fails then.
    """
    found: dict[str, Any] = {"version": released.name}
    try:
        ours = artifact.load(folder, threads=threads)
        theirs = artifact.load(released, threads=threads)
        mart = marts.load(ours.spec.mart)
        for one in (ours, theirs):
            if one.mart.columns != mart.select([column.name for column in one.mart.columns]):
                raise IntegrityError(f"the contract of {mart.name} changed since a training")
        with tested(home, ours, mart, also=columns(theirs.spec, mart)) as test:
            gain = paired_difference(
                test.outcome,
                ours.risk(test.rows, test.site),
                theirs.risk(test.rows, test.site),
                cluster=test.cluster,
                bootstrap=bootstrap,
            )
            seen = _seen(theirs, test)
    except CaremodelsError as error:
        return {**found, "auroc": {"value": None, "low": None, "high": None}, "why": str(error)}
    bounds = {"value": gain.value, "low": gain.low, "high": gain.high}
    shown = {name: None if math.isnan(bound) else bound for name, bound in bounds.items()}
    return {**found, "auroc": shown, "seen": seen}


@contextmanager
def tested(home: Home, fitted: Artifact, mart: Mart, *, also: list[str]) -> Iterator[Cohort]:
    """The test rows of a version as they were then, with the columns ``also`` beside its own.

    Raises IntegrityError where the mart no longer gives the rows that it was made from.
    """
    spec, provenance = fitted.spec, fitted.manifest.provenance
    wide = replace(spec, subgroups=(*spec.subgroups, *also))
    periods = provenance.periods
    ends = [periods[part][1] for part in splits.PARTS if part in periods]
    which = Slice(
        period=Period.between(None, ends[-1] if ends else None),
        loads=provenance.load_ids,
        as_of=provenance.as_of,
    )
    with rows.read(home, wide, mart, which) as (cohort, _):
        own = {SERIES, *columns(spec, mart)}
        narrow = {name: values for name, values in cohort.rows.items() if name in own}
        if replace(cohort, rows=narrow).fingerprint != provenance.fingerprint:
            raise IntegrityError("the mart no longer gives the rows that it was tested on")
        split = splits.of(spec.split, cohort, splits.limits(*ends))
        yield cohort.take(split.test)


def _seen(champion: Artifact, test: Cohort) -> int | None:
    periods = champion.manifest.provenance.periods
    if "validate" not in periods:
        return None
    tuned_to = np.datetime64(periods["validate"][1])
    return int((test.time.astype("datetime64[D]") <= tuned_to).sum())
