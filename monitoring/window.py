"""A stretch of the prediction log, counted: no input of a row goes further than this module.

Inputs become counts on the cells of the version's own reference, for all sites together and for each
site that the reference knows. Status, sites, risks and outcomes are of every row; inputs and
explanations, which are sealed and nearly all of a row, are opened of a sample, the larger of a small
site. ``answers`` holds what performance is measured by. The risk is that of the model's event: of an
ordinal model the log's own ``risk`` is that of the level which was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from data.contract import Rows
from data.log.read import Pointer
from data.log.seal import Keyring
from data.period import Period
from models.artifact import Artifact
from models.reference import Binned, Reference, worth
from monitoring import counting
from monitoring.answers import STATUS, Answers, Lost
from monitoring.counting import BoolArray, Faults, FloatArray, Ints
from monitoring.sampled import MOST, MOST_OF_SITE, UTC_ZONE, grouped, sample

Texts = npt.NDArray[np.object_]


@dataclass(kw_only=True)
class Counts:
    """One site, or all together. ``cells``: column -> rows in each cell of ``reference``.

    ``cells`` are of the drawn rows, those of "risk" of all that were scored; ``daily`` are the same by
    day (days, cells), the first the period's first. ``refusals`` counts rows by (field, rule),
    ``refused`` rows by field: a row that breaks two rules of one field counts once. ``abstentions``
    counts rows by rule. ``reasons``: feature -> drawn rows, the sum of its contributions' absolute
    values and of their squares. ``alerts``: risks at or over the alert's threshold. ``outcomes``:
    answers that can be held against one. ``unreadable``: rows in which something makes no sense.
    ``last_at``: the latest row, on the wall clock. ``reference`` is None for a site that the version
    never knew, whose ``cells`` are those of all sites. ``people`` numbers the patient of each row whose
    cells are counted. ``earlier``: rows of before the window, which complete the ``cells`` of a small
    site and its ``people``, and are counted nowhere else.
    """

    reference: Reference | None
    status: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    abstentions: Counter[str] = field(default_factory=Counter)
    cells: dict[str, Ints] = field(default_factory=dict)
    daily: dict[str, Ints] = field(default_factory=dict)
    reasons: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    people: list[npt.NDArray[np.int64]] = field(default_factory=list)
    alerts: int = 0
    outcomes: int = 0
    earlier: int = 0
    unreadable: int = 0
    last_at: datetime | None = None

    @property
    def rows(self) -> int:
        return self.status.total()

    @property
    def scored(self) -> int:
        return self.status["scored"]

    @property
    def patients(self) -> float:
        """What the rows behind the cells are worth in patients; one that names none stands alone."""
        return worth(np.concatenate(self.people)) if self.people else 0.0

    def add(self, binned: Binned, cells: Ints, days: counting.Days, rows: Ints) -> None:
        """Count the cells of a column, given of ``rows``."""
        counted, daily = counting.tally(binned, cells, days.day[rows], days.days)
        self.cells[binned.column] = counted
        if daily is not None:
            self.daily[binned.column] = daily

    def complete(self, binned: Binned, cells: Ints) -> None:
        """Count cells of before the window."""
        self.cells[binned.column] += np.bincount(cells, minlength=len(binned.labels))


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is known of a window as of a moment.

    ``answers`` are those of the window, ``past`` those of the year before, or of the share
    ``past_share`` of its days. ``groups``: attribute -> level of each answer, None where it was not
    drawn for all sites together. ``share``: of the scored rows, that whose inputs were to be opened for
    all sites together. ``as_of`` is naive UTC, ``zone`` names that of ``period``.
    """

    period: Period
    zone: str = "UTC"
    as_of: datetime = datetime(9999, 1, 1)  # noqa: DTZ001 naive UTC
    whole: Counts
    sites: Mapping[str, Counts]
    answers: Answers = field(default_factory=Answers.none)
    past: Answers = field(default_factory=Answers.none)
    past_share: float = 1.0
    groups: Mapping[str, Texts] = field(default_factory=dict)
    share: float = 1.0

    @property
    def outcome(self) -> FloatArray:
        """0 or 1, of the answers that can be held against one; as are the next two."""
        return self.answers.outcome[self.answers.labelled]

    @property
    def risk(self) -> FloatArray:
        return self.answers.risk[self.answers.labelled]

    @property
    def patient(self) -> npt.NDArray[np.int64]:
        return self.answers.patient[self.answers.labelled]


def read(
    engine: Engine,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    keyring: Keyring,
    pointer: Pointer = "champion",
    zone: ZoneInfo = UTC_ZONE,
    as_of: datetime | None = None,
    most: int = MOST,
    most_of_site: int = MOST_OF_SITE,
    salt: int = 0,
    done: Callable[[float], None] = lambda share: None,  # noqa: ARG005 a listener that does not listen
) -> Window:
    """Count the window. ``period`` is the wall clock of ``zone`` and goes by the log's ``at``.

    ``pointer``: a version's own answers, or what it silently said to another's requests; never both.
    ``as_of``: outcomes recorded later are not known yet; by default now. The same ``as_of`` gives the
    same window. Inputs are opened of ``most`` rows or so, and of ``most_of_site`` of each site; which,
    follows from the predictions' ids and ``salt``. Inputs that ``keyring`` does not open count as
    unreadable.

    Raises UnavailableError where the log cannot be read.
    """
    sampled = sample(
        engine,
        loaded,
        version,
        period,
        keyring=keyring,
        pointer=pointer,
        zone=zone,
        as_of=as_of,
        most=most,
        most_of_site=most_of_site,
        salt=salt,
        done=done,
    )
    answers, places, opened = sampled.answers, sampled.places, sampled.opened
    unreadable = np.zeros(len(answers), dtype=bool)
    unreadable[places] = ~(opened.readable & opened.sound)
    declared = {column.name for column in loaded.mart.columns}
    faults, unread = counting.faults_of(declared, answers, sampled.stretch.reasons)
    unreadable |= unread
    drawn = np.zeros(len(answers), dtype=bool)
    drawn[places] = opened.readable
    past, before = sampled.stretch.past, sampled.opened_earlier
    completing = np.zeros(len(past), dtype=bool)
    completing[sampled.earlier] = before.readable
    found = count(
        loaded,
        period,
        replace(answers, drawn=drawn),
        inputs={name: values[opened.readable] for name, values in opened.inputs.items()},
        earlier={name: values[before.readable] for name, values in before.inputs.items()},
        contributions=opened.contributions[opened.readable],
        together=sampled.together[opened.readable],
        groups={name: values[opened.readable] for name, values in opened.groups.items()},
        faults=faults,
        unreadable=unreadable,
        lost=sampled.stretch.lost,
        past=replace(past, drawn=completing),
        past_share=sampled.stretch.share,
        zone=zone.key,
        as_of=sampled.as_of,
    )
    done(1.0)
    # What was asked for, also where it could not be opened.
    return replace(found, share=int(sampled.together.sum()) / max(1, int(answers.scored.sum())))


def count(
    loaded: Artifact,
    period: Period,
    answers: Answers,
    *,
    inputs: Rows,
    earlier: Rows | None = None,
    contributions: FloatArray | None = None,
    together: BoolArray | None = None,
    groups: Mapping[str, Texts] | None = None,
    faults: Faults | None = None,
    unreadable: BoolArray | None = None,
    lost: Sequence[Lost] = (),
    past: Answers | None = None,
    past_share: float = 1.0,
    zone: str = "UTC",
    as_of: datetime = datetime(9999, 1, 1),  # noqa: DTZ001 naive UTC
) -> Window:
    """The window of ``answers``: pure, from arrays. Simulations come in here.

    Of the k rows that ``answers.drawn`` marks: ``inputs`` typed columns (k,) as ``data.contract.Rows``
    has them, a column left out is not counted; ``contributions`` (k, features), NaN in a row without;
    ``together`` (k,), which of them also count for all sites together, by default each; ``groups``,
    attribute -> level (k,), besides those of ``spec.subgroups`` that are among ``inputs``. ``earlier``:
    typed columns of the rows that ``past.drawn`` marks, which complete small sites. ``faults``:
    place in ``answers`` of a row without a risk -> (field, rule) of each of its reasons.
    ``unreadable``: mask of ``answers``.
    """
    drawn = np.flatnonzero(answers.drawn)
    shown = np.ones(len(drawn), dtype=bool) if together is None else together
    whole, sites = _counted(loaded.reference, answers, loaded.spec.alert_at)
    _lost(whole, sites, lost)
    slices = {"": whole, **sites}
    _faulty(slices, answers, faults or {})
    if unreadable is not None:
        for site, many in Counter(answers.site[unreadable].tolist()).items():
            for counts in _of(slices, answers, site):
                counts.unreadable += many
    days = counting.Days.of(period, answers)
    names = [feature.name for feature in loaded.features.features]
    at_site = counting.by_site(answers, drawn)
    scored = np.flatnonzero(answers.scored)
    risks_at = counting.by_site(answers, scored)
    parts = [("", np.flatnonzero(shown), scored)]
    parts += [(name, at_site[name], scored[risks_at[name]]) for name in at_site]
    for name, rows, risks in parts:
        if name not in slices:
            continue
        counts = slices[name]
        reference = counts.reference or loaded.reference
        typed = [
            (binned, counting.cells_of(binned, loaded.mart[binned.column], inputs[binned.column][rows]))
            for binned in reference.columns
            if binned.column in inputs
        ]
        for binned, cells in typed:
            counts.add(binned, cells, days, drawn[rows])
        risk = reference.risk
        counts.add(risk, risk.assign(answers.risk[risks]), days, risks)
        counts.people.append(answers.patient[drawn[rows]])
        if contributions is not None:
            counts.reasons = counting.sums(names, contributions[rows])
    if past is not None and earlier is not None:
        _complete(loaded, sites, past, earlier)
    return Window(
        period=period,
        zone=zone,
        as_of=as_of,
        whole=whole,
        sites=dict(sorted(sites.items())),
        answers=answers,
        past=Answers.none(answers.sites) if past is None else past,
        past_share=past_share,
        groups=_groups(loaded, answers, inputs, groups or {}, drawn[shown], np.flatnonzero(shown)),
        share=int(shown.sum()) / max(1, len(scored)),
    )


def quality(window: Window) -> dict[str, Any]:
    """Rows by status, refusals by field and rule, shares not recorded beside training, sites."""
    whole = window.whole
    assert whole.reference is not None
    return {
        "rows": whole.rows,
        "status": {name: whole.status[name] for name in ("scored", "abstained", "refused")},
        "outcomes": whole.outcomes,
        "unreadable": whole.unreadable,
        "refusals": [
            {
                "field": name,
                "rule": rule,
                "rows": rows,
                "sites": {
                    site: counts.refusals[name, rule]
                    for site, counts in window.sites.items()
                    if counts.refusals[name, rule]
                },
            }
            for (name, rule), rows in whole.refusals.most_common()
        ],
        "missing": [
            {
                "column": binned.column,
                "label": binned.label.en,
                "training": _last_share(binned.counts),
                "window": _last_share(whole.cells.get(binned.column, ())),
            }
            for binned in whole.reference.columns
        ],
        "sites": [
            {
                "site": site,
                "rows": counts.rows,
                **{name: counts.status[name] for name in ("scored", "abstained", "refused")},
                "outcomes": counts.outcomes,
                "earlier": counts.earlier,
                "training_rows": counts.reference.rows if counts.reference else None,
            }
            for site, counts in window.sites.items()
        ],
    }


def _last_share(counts: Sequence[int] | npt.NDArray[np.intp]) -> float | None:
    """The share of the last cell, which holds the missing."""
    total = int(sum(counts))
    return int(counts[-1]) / total if total else None


def _counted(
    reference: Reference, answers: Answers, alert_at: float
) -> tuple[Counts, dict[str, Counts]]:
    """Status, alerts, outcomes and the latest row: of every row, together and at each site."""
    n = len(answers.sites)
    site = np.where(answers.site < 0, n, answers.site)  # the last place is of no site
    kinds = np.bincount(site * len(STATUS) + answers.status, minlength=(n + 1) * len(STATUS))
    status = kinds.reshape(n + 1, len(STATUS))
    with np.errstate(invalid="ignore"):
        alerts = np.bincount(site[answers.risk >= alert_at], minlength=n + 1)
    outcomes = np.bincount(site[answers.labelled], minlength=n + 1)
    latest = np.full(n + 1, np.datetime64("NaT"), dtype="datetime64[s]")
    np.fmax.at(latest, site, answers.at)

    def one(own: Reference | None, rows: slice) -> Counts:
        last = np.fmax.reduce(latest[rows])
        kind = status[rows].sum(axis=0).tolist()
        return Counts(
            reference=own,
            status=Counter({name: of for name, of in zip(STATUS, kind, strict=True) if of}),
            alerts=int(alerts[rows].sum()),
            outcomes=int(outcomes[rows].sum()),
            last_at=None if np.isnat(last) else last.item(),
        )

    sites = {
        name: one(reference.sites.get(name), slice(place, place + 1))
        for place, name in enumerate(answers.sites)
        if status[place].any()
    }
    return one(reference, slice(None)), sites


def _complete(loaded: Artifact, sites: Mapping[str, Counts], past: Answers, inputs: Rows) -> None:
    """Add to the small sites the rows before the window that ``past.drawn`` marks."""
    drawn = np.flatnonzero(past.drawn)
    for name, rows in counting.by_site(past, drawn).items():
        counts = sites.get(name)
        if counts is None or counts.reference is None or not len(rows):
            continue
        for binned in counts.reference.columns:
            if binned.column in counts.cells:
                values = inputs[binned.column][rows]
                counts.complete(binned, counting.cells_of(binned, loaded.mart[binned.column], values))
        risk = counts.reference.risk
        counts.complete(risk, risk.assign(past.risk[drawn[rows]]))
        counts.people.append(past.patient[drawn[rows]])
        counts.earlier = len(rows)


def _of(slices: Mapping[str, Counts], answers: Answers, site: int) -> Iterator[Counts]:
    """All sites together, and the one of number ``site``."""
    yield slices[""]
    if site >= 0:
        yield slices[answers.sites[site]]


def _faulty(slices: Mapping[str, Counts], answers: Answers, faults: Faults) -> None:
    """Count refusals and abstentions; rows that tell the same are counted in one go."""
    places = np.fromiter(faults, dtype=np.intp, count=len(faults))
    site, status = (column[places].tolist() for column in (answers.site, answers.status))
    alike = Counter(zip(site, status, map(frozenset, faults.values()), strict=True))
    refused = STATUS.index("refused")
    for (at, kind, told), rows in alike.items():
        pairs = sorted(told)  # a set has another order in every process, and ties are listed by it
        for counts in _of(slices, answers, at):
            if kind == refused:
                counts.refusals.update(dict.fromkeys(pairs, rows))
                counts.refused.update(dict.fromkeys((name for name, _ in pairs), rows))
            else:
                counts.abstentions.update(dict.fromkeys((rule for _, rule in pairs), rows))


def _lost(whole: Counts, sites: dict[str, Counts], lost: Sequence[Lost]) -> None:
    """Count what makes no sense, at a site that may have sent nothing else."""
    assert whole.reference is not None
    for row in lost:
        found = [whole]
        if row.site:
            own = whole.reference.sites.get(row.site)
            found.append(sites.setdefault(row.site, Counts(reference=own)))
        for counts in found:
            counts.unreadable += 1
            if row.status is not None:
                counts.status[row.status] += 1


def _groups(
    loaded: Artifact,
    answers: Answers,
    inputs: Rows,
    told: Mapping[str, Texts],
    places: Ints,
    shown: Ints,
) -> dict[str, Texts]:
    """Attribute -> level of each answer, in the order of the spec."""
    found: dict[str, Texts] = {}
    for name, level in grouped(loaded, inputs, told).items():
        found[name] = np.full(len(answers), None, dtype=object)
        found[name][places] = level[shown]
    return found
