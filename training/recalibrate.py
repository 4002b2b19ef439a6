"""One site's own intercept, from a few hundred outcomes: a new version of the same trees.

A new hospital's patients are sicker than the inputs tell, or its beds fewer, and every risk there is
off by about the same in log-odds. That one number is measured on the site's own rows and shrunk
towards 0; nothing else of the version changes, so that its explanations stay exact and its figures
elsewhere stay true. Sources: see ``models.sites``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data import marts
from data.contract import Mart
from data.errors import IntegrityError, NotEnoughDataError
from data.home import Home
from data.log.read import warned_of
from data.log.schema import connect, exists
from data.period import Period
from data.pseudonym import load_key
from data.source import Origin
from data.store import EVERYTHING, Slice, Store, open_store
from data.terminal import Stage
from models import artifact, ledger, registry, release, sites
from models.artifact import Artifact
from models.cohort import Cohort, columns, gathered
from models.signature import Signature
from models.sites import Estimate, Fit
from training import card, promotion, rows
from training.evaluate import flat


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """What ``caremodels recalibrate --json`` prints: an :class:`Estimate`, and what came of it.

    ``learned_from`` counts rows of the site that were left out because ``from_version`` was trained or
    tuned on them, ``shown`` those of encounters of which a clinician was shown a card: a warning changes
    the outcome that it warned of. ``entry`` is the number in the ledger and ``mlflow`` why MLflow could
    not be told.
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
    shown: int
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
    version itself learned from are left out, and encounters of which a card of the model was shown.

    The new version keeps the figures of the one it comes from, since at every other site it answers
    the same; what is known of it at this site stands beside them under ``recalibration``, and the gate
    holds both. To measure it on the old test rows again would be to test it on rows that may have
    taught it.

    Nothing is promoted. Raises NotEnoughDataError where the site has too few outcomes, UsageError where
    a mart without dates is asked for a period or nobody signs, IntegrityError where the mart's contract
    changed since training.
    """
    (done,) = recalibrate_sites(
        home, model, sites=[site], by=by, reason=reason, version=version, period=period, stage=stage
    )
    return done


def recalibrate_sites(
    home: Home,
    model: str,
    *,
    sites: Sequence[str] | None,
    by: str,
    reason: str,
    version: str | None = None,
    period: Period | None = None,
    as_of: datetime | None = None,
    fewest_events: int = 0,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> list[Recalibrated]:
    """:func:`recalibrate` for several ``sites`` in one version; None: for all that have rows.

    ``as_of``: learn only from what was known before that time. Of several sites those with too few
    outcomes, or under ``fewest_events``, stay as they are. Raises NotEnoughDataError where none is left,
    with the reason of the first.
    """
    signed = Signature.of(by, reason)
    stage("fetching the version", 0.0)
    base = version or release.pointed(home.releases, model=model) or registry.latest(home, model)
    folder = registry.fetch(home, model, base)
    fitted = artifact.load(folder, threads=2)
    mart = marts.load(fitted.spec.mart)
    if fitted.mart.columns != mart.select([column.name for column in fitted.mart.columns]):
        raise IntegrityError(f"{model}: the contract of {mart.name} changed since training")
    stage("reading the mart", 0.1)
    which = Slice(period=period or EVERYTHING.period, as_of=as_of)
    asked = list(sites) if sites is not None else _sites(home, mart, which)
    notes: dict[str, dict[str, Any]] = {}
    found: dict[str, Estimate] = {}
    missed: list[NotEnoughDataError] = []
    new = fitted
    for done, site in enumerate(asked):
        stage(f"measuring {site}", 0.1 + 0.5 * done / len(asked))
        try:
            estimated, about, origins = _measured(home, fitted, mart, site, which, fewest_events)
        except NotEnoughDataError as error:
            missed.append(error)
            continue
        found[site] = estimated
        told = {"period": period.days if period else None, "as_of": str(as_of) if as_of else None}
        notes[site] = {"from_version": base, **told, **about, **asdict(estimated)}
        new = _with(new, site, estimated.shift, origins)
    if not found:
        raise missed[0] if missed else NotEnoughDataError(f"{model}: no row of any site to learn from")
    stage("registering", 0.6)
    registered, files = _register(home, new, folder, notes)
    only = next(iter(notes.items())) if len(notes) == 1 else None
    with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
        entry = book.append(
            act=ledger.RECALIBRATE,
            model=model,
            version=registered,
            by=signed.by,
            reason=signed.reason,
            evidence={
                **({"site": only[0], **only[1]} if only else {"from_version": base, "sites": notes}),
                "files": files,
            },
        )
        ledger.anchor(home.releases, entry)
    mlflow = promotion.told(home, entry, alias=None, version=None)
    return [
        Recalibrated(
            model=model,
            version=registered,
            from_version=base,
            site=site,
            n=estimated.n,
            events=estimated.events,
            before=estimated.before,
            after=estimated.after,
            shift=estimated.shift,
            previous=estimated.previous,
            learned_from=notes[site]["learned_from"],
            shown=notes[site]["shown"],
            entry=entry.number,
            mlflow=mlflow,
        )
        for site, estimated in found.items()
    ]


def estimate(fitted: Artifact, cohort: Cohort, site: str) -> Estimate:
    """What ``cohort``, rows of one site, says of its intercept beside the overall line.

    Raises NotEnoughDataError where there are too few outcomes.
    """
    return sites.estimate(
        _without(fitted, site).margin(fitted.features.matrix(cohort.rows), cohort.site),
        cohort.outcome,
        cohort.person,
        between=fitted.calibration.spread,
        previous=fitted.calibration.sites.get(site, 0.0),
    )


def _measured(
    home: Home, fitted: Artifact, mart: Mart, site: str, which: Slice, fewest_events: int
) -> tuple[Estimate, dict[str, Any], list[Origin]]:
    """What the site's fresh rows say, what they are, and where they came from."""
    model = fitted.spec.name
    with _rows(home, fitted, mart, site, which) as (cohort, left_out, origins):
        if not len(cohort):
            raise NotEnoughDataError(
                f"{model}: no row of site {site} with a known outcome to learn from{left_out}"
            )
        if cohort.outcome.sum() < fewest_events:
            raise NotEnoughDataError(f"{model}: under {fewest_events} events at {site}")
        about = {
            "learned_from": left_out.learned_from,
            "shown": left_out.shown,
            "loads": list(cohort.load_ids),
            "fingerprint": cohort.fingerprint,
        }
        return estimate(fitted, cohort, site), about, origins


def _sites(home: Home, mart: Mart, which: Slice) -> list[str]:
    """The sites with rows in the mart, by name."""
    found: set[str] = set()
    with open_store(home.marts, write=False) as store:
        for table in store.batches(mart, which, columns=[mart.site]):
            found |= set(pc.unique(table[mart.site]).to_pylist())
    return sorted(name for name in found if name is not None)


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


@dataclass
class _LeftOut:
    learned_from: int = 0
    shown: int = 0

    def __str__(self) -> str:
        learned = f"; {self.learned_from} were learned from before" if self.learned_from else ""
        return learned + (f"; of {self.shown} a card was shown" if self.shown else "")


@contextmanager
def _rows(
    home: Home, fitted: Artifact, mart: Mart, site: str, which: Slice
) -> Iterator[tuple[Cohort, _LeftOut, list[Origin]]]:
    """The site's rows that may teach its intercept, how many may not, and where they came from."""
    spec, provenance = fitted.spec, fitted.manifest.provenance
    names = columns(spec, mart)
    left_out = _LeftOut()
    shown = pa.array(_shown(home, spec.name, site), pa.string())

    def of_site(store: Store) -> Iterator[pa.Table]:
        asked = dict.fromkeys([*names, mart.encounter])
        for table in store.batches(mart, which, columns=list(asked)):
            there = table.filter(pc.equal(table[mart.site], site))
            warned = pc.is_in(there[mart.encounter], shown)
            left_out.shown += pc.sum(warned).as_py() or 0
            there = there.filter(pc.invert(warned)).select([*names, "load_id"])
            if spec.split == "time":
                tuned_to = Period.between(None, provenance.periods["validate"][1]).end
                taught = pc.and_(
                    pc.is_in(there["load_id"], pa.array(provenance.load_ids, pa.string())),
                    pc.less(there[mart.time], pa.scalar(tuned_to)),
                )
                left_out.learned_from += pc.sum(taught).as_py() or 0
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
            left_out.learned_from = int((~fresh).sum())
        yield cohort.take(fresh), left_out, store.origins(cohort.load_ids)


def _shown(home: Home, model: str, site: str) -> list[str]:
    """Encounters of which a card was shown, by the log; none where nothing was ever predicted."""
    if not exists(home.log):
        return []
    engine = connect(home.log)
    try:
        return warned_of(engine, model=model, site=site)
    finally:
        engine.dispose()


def _register(
    home: Home, new: Artifact, old: Path, notes: Mapping[str, Mapping[str, Any]]
) -> tuple[str, dict[str, str]]:
    """Register ``new`` with the old version's figures and card, and a note for each site.

    Returns the version, and the hashes of its files.
    """
    figures = msgspec.json.decode((old / "evaluation.json").read_bytes())
    figures["recalibration"] = {**(figures.get("recalibration") or {}), **notes}
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
                # MLflow takes 6,000 characters at most.
                "recalibrated_site": ", ".join(notes)[:1000],
                "recalibrated_from": next(iter(notes.values()))["from_version"],
            },
            metrics=flat(figures),
            evidence=evidence,
        )
    return registered.version, hashes
