"""What drives the scores of a version in a window: the log in, a page and its figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import msgspec
import numpy as np

from data.home import Home
from data.log.read import Pointer
from data.log.schema import connect
from data.log.seal import load_keyring
from data.period import Period
from data.terminal import Stage
from models.artifact import Artifact
from monitoring import report
from monitoring.counting import MIN_ROWS
from monitoring.explain import drivers, page
from monitoring.explain.drivers import Driven, Explained
from monitoring.sampled import Sampled, grouped, sample
from monitoring.strata import SITE

MOST, MOST_OF_SITE = 20_000, 2_000
"""Rows that are explained, of all and of a site: a share is then known to half of a hundredth."""
SHOWN = 12
"""Features whose values are told."""


def explain(
    home: Home,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    pointer: Pointer = "champion",
    at_promotion: Mapping[str, Any] | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Driven:
    """Explain what ``version`` answered in ``period`` (the wall clock of the home's zone).

    ``at_promotion``: the version's ``evaluation.json``, for the shares at training. The same log gives
    the same page. Raises UnavailableError where the log cannot be read.
    """
    stage("reading the log", 0.0)
    engine = connect(home.log)
    try:
        read = sample(
            engine,
            loaded,
            version,
            period,
            keyring=load_keyring(home.path),
            pointer=pointer,
            zone=home.zone,
            most=MOST,
            most_of_site=MOST_OF_SITE,
            done=lambda share: stage("reading the log", 0.8 * share),
        )
    finally:
        engine.dispose()
    stage("explaining", 0.8)
    first, last = period.days
    silent = "_challenger" if pointer == "challenger" else ""
    folder = home.reports / loaded.spec.name / version / "explained" / f"{first}_{last}{silent}"
    found = Driven(
        model=loaded.spec.name,
        version=version,
        pointer=pointer,
        window={"from": first, "to": last},
        zone=home.zone.key,
        n=int(read.answers.scored.sum()),
        **told(read, loaded, at_promotion),
        report=str(folder / "index.html"),
    )
    files = {
        "explained.json": msgspec.json.format(msgspec.json.encode(asdict(found))),
        "index.html": page.window(found, loaded),
    }
    report.publish(folder, files)
    stage("done", 1.0)
    return found


def told(
    read: Sampled, loaded: Artifact, at_promotion: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of :class:`Driven`, without a file."""
    features = loaded.features.features
    names = [feature.name for feature in features]
    training = {row["feature"]: row["mean_abs"] for row in (at_promotion or {}).get("importance") or ()}
    together, of_sites = rows(read, loaded)
    enough = len(together) >= MIN_ROWS
    shown = together if enough else _take(together, np.zeros(len(together), dtype=bool))
    overall = drivers.overall(shown, features, training=training, alert_at=loaded.spec.alert_at)
    known = {"explained": len(together), "reason": None, "features": tuple(overall)}
    if not enough:
        reason = f"{len(together)} explanations in the window; at least {MIN_ROWS} are needed"
        return {**known, "reason": reason, "groups": (), "months": (), "values": ()}
    first = [row["feature"] for row in overall[:SHOWN]]
    return known | {
        "groups": (*drivers.by_group(of_sites, names), *drivers.by_group(together, names)),
        "months": tuple(drivers.by_month(together, names)),
        "values": tuple(drivers.by_value(together, features, loaded.mart, loaded.reference, first)),
    }


def rows(read: Sampled, loaded: Artifact) -> tuple[Explained, Explained]:
    """The explained rows of the sample of all sites, with the groups of the spec; and those of each
    site's own sample, with the site as their group.
    """
    answers, opened = read.answers.take(read.places), read.opened
    known = opened.readable & ~np.isnan(opened.contributions).any(axis=1)
    names = np.array([*answers.sites, None], dtype=object)[answers.site]
    every = Explained(
        contributions=opened.contributions,
        risk=answers.risk,
        patient=answers.patient,
        month=answers.at.astype("datetime64[M]"),
        inputs=opened.inputs,
        groups={SITE: names},
    )
    levels = grouped(loaded, opened.inputs, opened.groups)
    return (
        _take(replace(every, groups=levels), known & read.together),
        _take(every, known & (answers.site >= 0)),
    )


def _take(explained: Explained, mask: drivers.BoolArray) -> Explained:
    return Explained(
        contributions=explained.contributions[mask],
        risk=explained.risk[mask],
        patient=explained.patient[mask],
        month=explained.month[mask],
        inputs={name: values[mask] for name, values in explained.inputs.items()},
        groups={name: values[mask] for name, values in explained.groups.items()},
    )
