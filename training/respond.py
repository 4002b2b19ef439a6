"""What alarms call for, carried out: recalibrate, train again, or withdraw.

Somebody signs, or the change control plan of the home lets it happen within its bounds. What comes of
it enters as challenger at most: its answers are recorded and shown to nobody, and a person promotes it.
The bounds are held to what came out, before it enters; a version that breaks one stays registered
and is pointed to by nothing.

A recalibration learns from the mart, over the days that monitoring looked at, with the outcomes known
today. What monitoring showed beforehand comes from the log: the patients whom this version answered
and whose card nobody saw. Of the same patients both give the same intercept; the mart has more of them,
from before the release and those who were warned of, and numbers patients otherwise, so that the
cross-validated figures differ a little even then.

A process that is ended on the way leaves a version that nothing points to, or a challenger; the alarm
counts as not answered, and what the plan signed by then counts as one of its year.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from data import marts
from data.errors import ConflictError
from data.home import Home
from data.period import Period
from data.pseudonym import load_key
from data.store import open_store
from data.terminal import Stage
from models import alarms, catalog, ledger, registry
from models.change_control import FILE, YEAR, Action
from models.spec import ModelSpec
from training import against, promotion, recalibrate, run
from training import called as calls
from training.called import CHALLENGER, Called
from training.recalibrate import Recalibrated


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was carried out. ``acts``: entries of the ledger; ``refused`` why nothing points to it."""

    version: str | None = None
    pointed: str | None = None
    refused: list[str] = field(default_factory=list)
    acts: list[int] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    gate: list[dict[str, Any]] = field(default_factory=list)
    mlflow: str | None = None


@dataclass(frozen=True, kw_only=True)
class Responded:
    """What ``caremodels respond --json`` prints.

    ``version`` is the new one and ``pointed`` the pointer that names it; both None after a withdrawal.
    ``change_control`` is what the act rests on, None where a person signed; ``refused`` why the version
    is registered and not pointed to; ``entry`` and ``acts`` are numbers in the ledger.
    """

    alarms: list[int]
    model: str
    action: Action
    from_version: str
    by: str
    change_control: dict[str, Any] | None
    version: str | None
    pointed: str | None
    refused: list[str]
    details: list[dict[str, Any]]
    gate: list[dict[str, Any]]
    acts: list[int]
    entry: int
    mlflow: str | None


def respond(
    home: Home,
    numbers: Sequence[int],
    *,
    by: str | None = None,
    reason: str | None = None,
    now: datetime | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Responded:
    """Carry out what the alarms of these ``numbers`` call for; they are of one version and response.

    Without ``by`` and ``reason`` the change control plan signs, if it allows the action. Raises
    UsageError where it does not, where half a signature is given, or where the response is a person's
    look; NotFoundError for a number that is no alarm's; ConflictError for alarms that are closed, that
    were answered and not raised since, or whose version is not pointed to any more, and without a
    signature for those that came to rest; GateRefusedError where the plan's year is used up or a
    person's challenger is in the way; IntegrityError where the ledger was tampered with; and as
    recalibrating, training, promoting and withdrawing do.
    """
    if not home.path.is_dir():
        alarms.named({}, numbers[0])  # which raises; no home is made for a wrong number
    with _alone(home):
        return _respond(home, numbers, by, reason, now or datetime.now(UTC), stage)


def _respond(
    home: Home,
    numbers: Sequence[int],
    by: str | None,
    reason: str | None,
    now: datetime,
    stage: Stage,
) -> Responded:
    called = calls.called(home, numbers, by, reason, now=now)
    spec = catalog.load(called.about.model)
    carry = {"recalibrate": _recalibrate, "retrain": _retrain, "withdraw": _withdraw}
    done = carry[called.action](home, spec, called, now, stage)
    stage("writing it down", 0.95)
    with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
        entry = book.append(
            act=ledger.ALARM_ANSWERED,
            model=called.about.model,
            version=called.about.version,
            by=called.signed.by,
            reason=called.because,
            evidence={
                "alarms": [one.number for one in called.alarms],
                "action": called.action,
                "change_control": called.evidence,
                "version": done.version,
                "pointed": done.pointed,
                "refused": done.refused,
                "acts": done.acts,
            },
        )
        ledger.anchor(home.releases, entry)
    return Responded(
        alarms=[one.number for one in called.alarms],
        model=called.about.model,
        action=called.action,
        from_version=called.about.version,
        by=called.signed.by,
        change_control=called.evidence,
        version=done.version,
        pointed=done.pointed,
        refused=done.refused,
        details=done.details,
        gate=done.gate,
        acts=done.acts,
        entry=entry.number,
        mlflow=done.mlflow,
    )


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Nobody else answers an alarm of this home meanwhile, which would be answered twice."""
    with (home.path / "respond.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("another response is under way in this home") from None
        yield


def _recalibrate(home: Home, spec: ModelSpec, called: Called, now: datetime, stage: Stage) -> Done:
    named = {one.alarm["site"] for one in called.alarms}
    as_of = _today(home, spec, now)
    found = recalibrate.recalibrate_sites(
        home,
        spec.name,
        sites=None if None in named else sorted(named),
        version=called.about.version,
        period=_stretch(called.window, as_of.date(), called.since) if as_of else None,
        as_of=as_of,
        fewest_events=called.rule.fewest_events or 0,
        by=called.signed.by,
        reason=called.because,
        stage=_part(stage, 0.0, 0.7),
    )
    done = Done(
        version=found[0].version,
        acts=[found[0].entry],
        details=[_shown(one) for one in found],
        mlflow=found[0].mlflow,
        refused=called.rule.broken(
            shifts={one.site: one.shift - one.previous for one in found},
            events={one.site: one.events for one in found},
        ),
    )
    return done if done.refused else _entered(home, spec, called, done, _part(stage, 0.7, 0.95))


def _retrain(home: Home, spec: ModelSpec, called: Called, now: datetime, stage: Stage) -> Done:
    trained = run.train(home, spec, as_of=_today(home, spec, now), stage=_part(stage, 0.0, 0.7))
    done = Done(
        version=trained.version,
        details=[{"n": trained.metrics["n"], "events": trained.metrics["events"]}],
    )
    if called.plan is not None:
        stage("beside the version that alarms", 0.7)
        folder = registry.fetch(home, spec.name, trained.version)
        beside = against.champion(home, folder, home.releases / spec.name / called.about.version)
        gain = beside["auroc"]["value"]
        refused = called.rule.broken(
            events={"test period": trained.metrics["events"]},
            auroc_loss=None if gain is None else -gain,
        )
        if gain is None:
            refused.append(f"AUROC beside version {called.about.version}: {beside.get('why')}")
        done = replace(done, refused=refused, details=[{**done.details[0], "beside": beside}])
    return done if done.refused else _entered(home, spec, called, done, _part(stage, 0.75, 0.95))


def _withdraw(home: Home, spec: ModelSpec, called: Called, now: datetime, stage: Stage) -> Done:
    del now
    moved = promotion.withdraw(
        home,
        spec.name,
        pointer=called.pointer,
        by=called.signed.by,
        reason=called.because,
        stage=stage,
    )
    return Done(acts=[moved.entry], mlflow=moved.mlflow)


def _entered(home: Home, spec: ModelSpec, called: Called, done: Done, stage: Stage) -> Done:
    """The new version as challenger, if it passes the gate that holds for every version."""
    assert done.version is not None
    # Training takes its time, in which a person may have made another one challenger.
    if called.plan and (other := calls.in_the_way(home, spec.name, calls.read(home))):
        return replace(done, refused=[f"version {other} became challenger, and not by {FILE}"])
    promoted = promotion.promote(
        home,
        spec,
        done.version,
        pointer=CHALLENGER,
        by=called.signed.by,
        reason=called.because,
        stage=stage,
    )
    failed = [finding for finding in promoted.gate if not finding.passed]
    return replace(
        done,
        pointed=CHALLENGER if promoted.promoted else None,
        refused=[f"gate: {finding.criterion}, {finding.limit}" for finding in failed],
        acts=[*done.acts, *([promoted.entry] if promoted.entry is not None else [])],
        gate=[
            {"criterion": one.criterion, "value": one.value, "limit": one.limit, "passed": one.passed}
            for one in promoted.gate
        ],
        mlflow=done.mlflow or promoted.mlflow,
    )


def _today(home: Home, spec: ModelSpec, now: datetime) -> datetime | None:
    """``now`` on the wall clock of the mart; None where its rows have an order and no dates."""
    mart = marts.load(spec.mart)
    if mart.order is not None:
        with open_store(home.marts, write=False) as store:
            tables = store.batches(mart, columns=[mart.time])
            if not any(table[mart.time].null_count < len(table) for table in tables):
                return None
    return now.astimezone(home.zone).replace(tzinfo=None)


def _stretch(window: Mapping[str, str], today: date, since: str | None = None) -> Period:
    """The days that monitoring looks at for what it proposes.

    From the day ``since`` when it was so, where that is known; else the window and the year before it.

    >>> june = {"from": "2021-06-01", "to": "2021-06-30"}
    >>> _stretch(june, date(2021, 7, 5)).days, _stretch(june, date(2021, 7, 5), "2021-04-01").days
    (('2020-06-01', '2021-06-30'), ('2021-04-01', '2021-06-30'))
    """
    try:
        first = (date.fromisoformat(window["from"]) - YEAR).isoformat()
    except (ValueError, OverflowError):  # it was given no start: the calendar begins there
        first = None
    return Period.between(
        max(filter(None, (first, since)), default=None), min(window["to"], today.isoformat())
    )


def _shown(one: Recalibrated) -> dict[str, Any]:
    return {
        "site": one.site,
        "n": one.n,
        "events": one.events,
        "shift": one.shift,
        "previous": one.previous,
        "before": vars(one.before),
        "after": vars(one.after),
    }


def _part(stage: Stage, start: float, end: float) -> Stage:
    """The progress of a part, as one of the whole."""
    return lambda name, done: stage(name, start + (end - start) * done)
