"""One site's own intercept, from a few hundred outcomes: a new version of the same trees.

A new hospital's patients are sicker than the inputs tell, or its beds fewer, and every risk there is
off by about the same in log-odds. That one number is measured on the site's own rows and shrunk
towards 0; nothing else of the version changes, so that its explanations stay exact and its figures
elsewhere stay true. Sources: see ``models.sites``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data import marts
from data.contract import Mart
from data.errors import IntegrityError, NotEnoughDataError
from data.home import Home
from data.period import Period
from data.pseudonym import load_key
from data.source import Origin
from data.store import Slice, Store, open_store
from data.terminal import Stage
from models import artifact, ledger, metrics, registry, release, sites
from models.artifact import Artifact
from models.calibration import sigmoid
from models.cohort import Cohort, columns, gathered
from models.signature import Signature
from training import card, promotion, rows
from training.evaluate import flat

FloatArray = npt.NDArray[np.float64]
FOLDS = 5
SPREAD = 0.5
"""Standard deviation between sites, in log-odds, where a version saw no sites that differ: two in three
sites within a factor of 1.65 of the overall odds. Wide enough for a few hundred outcomes to speak."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the risks at a site agree with what happened there: ideal is 1, 0 and 1."""

    oe: float | None
    intercept: float | None
    slope: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``n`` rows of a site say. ``shift`` is to be added to the log-odds there instead of
    ``previous``; ``before`` is measured with the latter, ``after`` with the former, cross-validated.
    """

    n: int
    events: int
    before: Fit
    after: Fit
    shift: float
    previous: float


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """What ``caremodels recalibrate --json`` prints: an :class:`Estimate`, and what came of it.

    ``learned_from`` counts rows of the site that were left out because ``from_version`` was trained or
    tuned on them, ``entry`` is the number in the ledger and ``mlflow`` why MLflow could not be told.
    """

    model: str
    version: str
    from_version: str
    site: str
    n: int
    events: int
    before: Fit
    after: Fit
    shift: float
    previous: float
    learned_from: int
    entry: int
    mlflow: str | None = None


def recalibrate(
    home: Home,
    model: str,
    *,
    site: str,
    by: str,
    reason: str,
    version: str | None = None,
    period: Period | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Recalibrated:
    """Register a version with the intercept of ``site`` measured on its rows in ``period``.

    ``version``: by default the champion, or the newest where there is none. ``before`` is what that
    version does at the site. ``after`` is an estimate for patients who did not teach the intercept: of
    five parts of the patients each is scored with the intercept of the other four. Rows that the
    version itself learned from are left out.

    The new version keeps the figures of the one it comes from, since at every other site it answers
    the same; what is known of it at this site stands beside them under ``recalibration``, and the gate
    holds both. To measure it on the old test rows again would be to test it on rows that may have
    taught it.

    Nothing is promoted. Raises NotEnoughDataError where the site has too few outcomes, UsageError where
    a mart without dates is asked for a period or nobody signs, IntegrityError where the mart's contract
    changed since training.
    """
    signed = Signature.of(by, reason)
    stage("fetching the version", 0.0)
    base = version or release.pointed(home.releases, model=model) or registry.latest(home, model)
    folder = registry.fetch(home, model, base)
    fitted = artifact.load(folder, threads=2)
    mart = marts.load(fitted.spec.mart)
    if fitted.mart.columns != mart.select([column.name for column in fitted.mart.columns]):
        raise IntegrityError(f"{model}: the contract of {mart.name} changed since training")
    stage("reading the mart", 0.2)
    with _rows(home, fitted, mart, site, period) as (cohort, left_out, origins):
        if not len(cohort):
            raise NotEnoughDataError(
                f"{model}: no row of site {site} with a known outcome to learn from"
                + (f"; {left_out} were learned from before" if left_out else "")
            )
        stage("measuring the site", 0.4)
        found = estimate(fitted, cohort, site)
        about = {
            "from_version": base,
            "learned_from": left_out,
            "period": period.days if period else None,
            "loads": list(cohort.load_ids),
            "fingerprint": cohort.fingerprint,
        }
    stage("registering", 0.6)
    note = {**about, **asdict(found)}
    new = _with(fitted, site, found.shift, origins)
    registered, files = _register(home, new, folder, site=site, note=note)
    with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
        entry = book.append(
            act=ledger.RECALIBRATE,
            model=model,
            version=registered,
            by=signed.by,
            reason=signed.reason,
            evidence={"site": site, **note, "files": files},
        )
        ledger.anchor(home.releases, entry)
    return Recalibrated(
        model=model,
        version=registered,
        from_version=base,
        site=site,
        n=found.n,
        events=found.events,
        before=found.before,
        after=found.after,
        shift=found.shift,
        previous=found.previous,
        learned_from=left_out,
        entry=entry.number,
        mlflow=promotion.told(home, entry, alias=None, version=None),
    )


def estimate(fitted: Artifact, cohort: Cohort, site: str) -> Estimate:
    """What ``cohort``, rows of one site, says of its intercept beside the overall line.

    Raises NotEnoughDataError where there are too few outcomes.
    """
    overall = _without(fitted, site).margin(fitted.features.matrix(cohort.rows), cohort.site)
    between = fitted.calibration.spread or SPREAD
    previous = fitted.calibration.sites.get(site, 0.0)
    after = crossed(overall, cohort.outcome, cohort.person, between=between)
    return Estimate(
        n=len(cohort),
        events=int(cohort.outcome.sum()),
        before=measured(cohort.outcome, overall + previous),
        after=measured(cohort.outcome, after),
        shift=sites.shrunk(sites.intercept(overall, cohort.outcome), between),
        previous=previous,
    )


def measured(outcome: FloatArray, log_odds: FloatArray) -> Fit:
    """O/E, intercept and slope of the risks at one site.

    >>> found = measured(np.array([0.0, 0.0, 0.0, 1.0] * 25), np.full(100, -np.log(3)))
    >>> round(found.oe, 6), found.slope is None
    (1.0, True)
    """
    found = metrics.calibration(outcome, sigmoid(log_odds))
    known = {name: getattr(found, name) for name in ("oe", "intercept", "slope")}
    return Fit(**{name: value if math.isfinite(value) else None for name, value in known.items()})


def crossed(
    log_odds: FloatArray,
    outcome: FloatArray,
    person: npt.NDArray[np.intp],
    *,
    between: float,
    seed: int = 0,
) -> FloatArray:
    """(rows,) log-odds with the shrunken intercept of the other patients' rows, in ``FOLDS`` parts.

    ``person`` (rows,) numbers the patients from 0. Raises NotEnoughDataError where the others have too
    few outcomes.
    """
    people = int(person.max()) + 1
    part = (np.random.default_rng(seed).permutation(people) % FOLDS)[person]
    shifted = log_odds.copy()
    for fold in range(FOLDS):
        taught = part != fold
        shifted[~taught] += sites.shrunk(sites.intercept(log_odds[taught], outcome[taught]), between)
    return shifted


def _without(fitted: Artifact, site: str) -> Artifact:
    """The version without what it adds at ``site``."""
    others = {name: shift for name, shift in fitted.calibration.sites.items() if name != site}
    return replace(fitted, calibration=replace(fitted.calibration, sites=others))


def _with(fitted: Artifact, site: str, shift: float, origins: list[Origin]) -> Artifact:
    """The version with another shift at ``site``, under the terms of the rows that gave it as well."""
    provenance = fitted.manifest.provenance
    terms = {*provenance.terms, *(origin.terms for origin in origins if origin.terms)}
    named = {*provenance.attribution, *(origin.attribution for origin in origins if origin.attribution)}
    forbidden = any(origin.use == "demonstration" for origin in origins)
    return replace(
        fitted,
        calibration=replace(fitted.calibration, sites={**fitted.calibration.sites, site: shift}),
        manifest=replace(
            fitted.manifest,
            provenance=replace(
                provenance,
                use="demonstration" if forbidden else provenance.use,
                terms=tuple(sorted(terms)),
                attribution=tuple(sorted(named)),
            ),
        ),
    )


@contextmanager
def _rows(
    home: Home, fitted: Artifact, mart: Mart, site: str, period: Period | None
) -> Iterator[tuple[Cohort, int, list[Origin]]]:
    """The site's rows that the version did not learn from, how many it did, and where they came from."""
    spec, provenance = fitted.spec, fitted.manifest.provenance
    names = columns(spec, mart)
    which = Slice(period=period) if period else Slice()
    learned = 0

    def of_site(store: Store) -> Iterator[pa.Table]:
        nonlocal learned
        for table in store.batches(mart, which, columns=names):
            there = table.filter(pc.equal(table[mart.site], site))
            if spec.split == "time":
                tuned_to = Period.between(None, provenance.periods["validate"][1]).end
                taught = pc.and_(
                    pc.is_in(there["load_id"], pa.array(provenance.load_ids, pa.string())),
                    pc.less(there[mart.time], pa.scalar(tuned_to)),
                )
                learned += pc.sum(taught).as_py() or 0
                there = there.filter(pc.invert(taught))
            yield there

    seen = rows.taught(home, fitted, mart=mart) if spec.split != "time" else None
    with (
        open_store(home.marts, write=False) as store,
        gathered(spec, mart, of_site(store), scratch=home.scratch) as cohort,
    ):
        fresh = np.ones(len(cohort), dtype=bool)
        if seen is not None:
            fresh = ~np.isin(cohort.patient, seen)
            learned = int((~fresh).sum())
        yield cohort.take(fresh), learned, store.origins(cohort.load_ids)


def _register(
    home: Home, new: Artifact, old: Path, *, site: str, note: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """Register ``new`` with the old version's figures and card, and the note of its recalibration.

    Returns the version, and the hashes of its files.
    """
    figures = msgspec.json.decode((old / "evaluation.json").read_bytes())
    figures["recalibration"] = {**(figures.get("recalibration") or {}), site: note}
    files = card.again(old, new, figures=figures)
    with tempfile.TemporaryDirectory() as scratch:
        folder, evidence = Path(scratch, "artifact"), Path(scratch, "evidence")
        artifact.write(folder, new, evidence=files)
        hashes = dict(artifact.load(folder).manifest.files)
        evidence.mkdir()
        for name, content in files.items():
            (evidence / name).write_bytes(content)
        registered = registry.register(
            home,
            new,
            folder,
            params={
                **asdict(new.spec.boosting),
                "seed": new.manifest.provenance.seed,
                "trees": new.booster.num_boosted_rounds() * new.spec.boosting.trees_a_round,
                "recalibrated_site": site,
                "recalibrated_from": note["from_version"],
            },
            metrics=flat(figures),
            evidence=evidence,
        )
    return registered.version, hashes
