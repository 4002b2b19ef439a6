"""The rows that a version is made from, out of the mart, and how to find the very same again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

import numpy as np
import numpy.typing as npt

from data.contract import Mart
from data.errors import IntegrityError
from data.home import Home
from data.period import Period
from data.source import Origin
from data.store import Slice, open_store
from models.artifact import Artifact
from models.cohort import Cohort, columns, gathered
from models.manifest import Provenance
from models.spec import ModelSpec
from training import split as splits
from training.split import PARTS, Split


@contextmanager
def read(home: Home, spec: ModelSpec, mart: Mart, which: Slice) -> Iterator[tuple[Cohort, list[Origin]]]:
    """A cohort of the mart, and where its rows came from."""
    with ExitStack() as until_used:
        # The mart is let go before the fitting, which may take hours.
        with open_store(home.marts, write=False) as store:
            tables = store.batches(mart, which, columns=columns(spec, mart))
            cohort = until_used.enter_context(gathered(spec, mart, tables, scratch=home.scratch))
            origins = store.origins(cohort.load_ids)
        yield cohort, origins


@contextmanager
def rebuilt(home: Home, fitted: Artifact, *, mart: Mart) -> Iterator[Cohort]:
    """The cohort that a version was made from, as it was then, whatever was loaded since.

    Raises IntegrityError where the mart no longer gives the same rows.
    """
    provenance = fitted.manifest.provenance
    period = Period.between(None, provenance.periods["test"][1]) if provenance.periods else None
    which = Slice(
        period=period or Period.between(None, None),
        loads=provenance.load_ids,
        as_of=provenance.as_of,
    )
    with read(home, fitted.spec, mart, which) as (cohort, _):
        if cohort.fingerprint != provenance.fingerprint:
            raise IntegrityError(f"{fitted.spec.name}: the mart no longer gives the rows learned from")
        yield cohort


def taught(home: Home, fitted: Artifact, *, mart: Mart) -> npt.NDArray[np.int64]:
    """The patients whom a version that was split by patient learned from or was tuned on.

    None where the mart holds no row of its loads: in another hospital's mart all are strangers.
    """
    past = fitted.manifest.provenance
    loads = Slice(loads=past.load_ids, as_of=past.as_of)
    with read(home, fitted.spec, mart, loads) as (cohort, _):
        if not len(cohort):
            return np.empty(0, dtype=np.int64)
        split = splits.of(fitted.spec.split, cohort, ())
        return np.unique(cohort.patient[split.train | split.validate])


def provenance(
    cohort: Cohort, split: Split, origins: list[Origin], as_of: datetime | None, seed: int
) -> Provenance:
    """What a version learned from, and what it may be used for."""
    flow = [*cohort.flow, ("patient seen in an earlier part", split.seen_before)]
    return Provenance(
        # One source whose terms forbid care is enough.
        use="demonstration" if any(o.use == "demonstration" for o in origins) else "care",
        terms=tuple(sorted({origin.terms for origin in origins if origin.terms})),
        attribution=tuple(sorted({origin.attribution for origin in origins if origin.attribution})),
        load_ids=cohort.load_ids,
        periods={part: stretch.days for part, stretch in split.periods.items()},
        rows={part: int(split[part].sum()) for part in PARTS},
        flow=tuple(flow),
        fingerprint=cohort.fingerprint,
        as_of=as_of,
        seed=seed,
    )
