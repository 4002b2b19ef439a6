"""Prediction window in, verdict and report out. It proposes; all that it writes down are alarms."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from data.errors import IntegrityError
from data.home import Home
from data.log.read import Pointer
from data.log.schema import connect
from data.log.seal import load_keyring
from data.period import Period
from data.terminal import Stage
from models import change_control
from models.artifact import Artifact
from models.watch import What
from monitoring import (
    alarms,
    attribution,
    breaches,
    case_mix,
    drift,
    history,
    new_sites,
    page,
    performance,
    rates,
    reasons,
    report,
    respond,
    silence,
    states,
    trend,
    window,
)
from monitoring.attribution import RISK
from monitoring.counting import MIN_ROWS
from monitoring.drift import Cells, Finding
from monitoring.estimate import estimate
from monitoring.signal import Signal
from monitoring.window import Window

_log = logging.getLogger(__name__)

BY_OUTCOMES: frozenset[What] = frozenset(
    ("calibration", "slope", "discrimination", "net_benefit", "subgroup")
)
"""Alarms that cannot come to rest in a window of which too few outcomes are known."""
LEDGER, INSUFFICIENT = "ledger", "insufficient"
"""What a report tells besides the alarms of the spec: neither is opened in the ledger."""


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """What ``caremodels monitor --json`` prints, and ``report.json`` holds."""

    model: str
    version: str
    pointer: Pointer
    window: dict[str, str]
    zone: str
    as_of: str
    n: int
    outcomes: int
    share: float
    verdict: Literal["quiet", "alarm", "insufficient"]
    columns: tuple[Finding, ...]
    performance: dict[str, Any]
    estimate: dict[str, Any]
    trend: tuple[dict[str, Any], ...]
    sequential: tuple[dict[str, Any], ...]
    reasons: tuple[dict[str, Any], ...]
    alarms: tuple[dict[str, Any], ...]
    proposed: tuple[dict[str, Any], ...]
    report: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Everything that is told of a window, before anybody is told. Pure: the same window, the same."""

    cells: list[Cells]
    findings: list[Finding]
    measured: dict[str, Any]
    foreseen: dict[str, Any]
    trend: list[dict[str, Any]]
    bets: list[dict[str, Any]]
    reasons: list[dict[str, Any]]
    signals: list[Signal]


def monitor(
    home: Home,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    pointer: Pointer = "champion",
    at_promotion: Mapping[str, Any] | None = None,
    as_of: datetime | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Monitored:
    """Judge ``version`` by what the log holds of ``period``, write down its alarms, and the report.

    ``period`` is the wall clock of the home's zone and goes by ``at``. ``pointer``: what it answered as
    champion, or said silently as challenger. ``at_promotion``: the version's ``evaluation.json``.
    ``as_of``: with what the log held by then (a naive time is UTC); by default now. The same window as
    of the same moment gives the same result; a report that stands already is replaced. A window too
    small to judge is a verdict and no error, and a ledger that was tampered with an alarm. Raises
    UnavailableError where the log cannot be read, UsageError where ``change-control.toml`` makes no
    sense.
    """
    plan = change_control.read(home.path)
    read = _read(home, loaded, version, period, pointer=pointer, as_of=as_of, stage=stage)
    stage("judging", 0.5)
    earlier = history.earlier(home, loaded.spec.name, version, pointer, period)
    judged = judge(read, loaded, at_promotion=at_promotion, earlier=earlier)
    first, last = period.days
    silent = "_challenger" if pointer == "challenger" else ""
    key = f"{version}/{first}_{last}{silent}"
    files = _evidently(home, read, loaded, judged, key=key, stage=stage)
    raised = alarms.raised(judged.signals, loaded.spec)
    lacking = _lacking(read, loaded, judged)
    folder = home.reports / loaded.spec.name / key
    told, broken = _recorded(
        home,
        loaded,
        version,
        pointer,
        raised,
        period,
        judged=lacking is None,
        unjudged=() if judged.measured["reason"] is None else BY_OUTCOMES,
    )
    verdict = _verdict(alarm=bool(raised) or broken is not None, lacking=lacking)
    monitored = Monitored(
        model=loaded.spec.name,
        version=version,
        pointer=pointer,
        window={"from": first, "to": last},
        zone=read.zone,
        as_of=f"{read.as_of:%Y-%m-%dT%H:%M:%SZ}",
        n=read.whole.rows,
        outcomes=read.whole.outcomes,
        share=read.share,
        verdict=verdict,
        columns=tuple(judged.findings),
        performance=judged.measured,
        estimate=judged.foreseen,
        trend=tuple(judged.trend),
        sequential=tuple(judged.bets),
        reasons=tuple(judged.reasons),
        alarms=(
            *told,
            *([_besides(LEDGER, broken, state="open")] if broken else []),
            *([_besides(INSUFFICIENT, lacking)] if lacking and verdict == INSUFFICIENT else []),
        ),
        proposed=tuple(respond.proposals(read, loaded, told, plan)),
        report=str(folder / "index.html"),
    )
    stage("writing the report", 0.9)
    quality = window.quality(read)
    files["report.json"] = msgspec.json.format(msgspec.json.encode(asdict(monitored)))
    files["quality.json"] = msgspec.json.format(msgspec.json.encode(quality))
    files["index.html"] = page.page(
        asdict(monitored),
        loaded,
        judged.cells,
        quality,
        links=[name for name in files if "evidently" in name],
    )
    report.publish(folder, files)
    stage("done", 1.0)
    return monitored


def judge(
    read: Window,
    loaded: Artifact,
    *,
    at_promotion: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> Judged:
    """What a window says, without a database or a file. ``earlier``: reports of windows before it."""
    spec = loaded.spec
    cells, tested = drift.findings(read, loaded)
    findings = [*tested, *new_sites.findings(read, loaded)]
    shares = reasons.shares(read, loaded, at_promotion)
    rated = rates.findings(read, loaded, at_promotion)
    measured = performance.measure(read, spec, at_promotion=at_promotion)
    broken, bets = breaches.signals(read, spec)
    importance = attribution.important(loaded, at_promotion)
    signals = [
        *attribution.signals(read, loaded, cells, findings, earlier, importance=importance),
        *case_mix.signals(read, spec, at_promotion),
        *reasons.signals(read, shares),
        *rates.signals(read, rated),
        *silence.signals(read, spec),
        *broken,
    ]
    return Judged(
        cells=cells,
        findings=[*findings, *rated],
        measured=measured,
        foreseen=estimate(read.answers, read.past, spec, at_promotion),
        trend=trend.trend(read, spec, at_promotion=at_promotion),
        bets=bets,
        reasons=shares,
        signals=signals,
    )


def _read(
    home: Home,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    pointer: Pointer,
    as_of: datetime | None,
    stage: Stage,
) -> Window:
    stage("reading the log", 0.0)
    engine = connect(home.log)
    try:
        return window.read(
            engine,
            loaded,
            version,
            period,
            keyring=load_keyring(home.path),
            pointer=pointer,
            zone=home.zone,
            as_of=as_of,
            done=lambda share: stage("reading the log", 0.5 * share),
        )
    finally:
        engine.dispose()


def _evidently(
    home: Home, read: Window, loaded: Artifact, judged: Judged, *, key: str, stage: Stage
) -> dict[str, bytes]:
    """Evidently's pages: of every test over all sites, and of the outcomes where they are measured.

    The first is kept in its workspace too.
    """
    files: dict[str, bytes] = {}
    limits = {
        one.column: one.threshold or 0.0
        for one in judged.findings
        if one.statistic == "psi" and one.site is None
    }
    together = [one for one in judged.cells if one.site is None]
    if together:
        stage("testing for drift", 0.6)
        _, files["evidently.html"], kept = report.drift(
            together, limits, tags=[key], at=min(read.period.end, read.as_of)
        )
        try:
            report.keep(home, loaded.spec.name, key, kept)
        except (OSError, ValueError, AttributeError) as error:  # as it fails on a file that was cut
            _log.error("Evidently's workspace takes no run: %s", type(error).__name__)
    if judged.measured["reason"] is None and together:
        stage("measuring performance", 0.8)
        files["evidently_outcomes.html"] = report.outcomes(
            read, loaded.reference.risk, threshold=loaded.spec.alert_at
        )
    return files


def _verdict(*, alarm: bool, lacking: str | None) -> Literal["quiet", "alarm", "insufficient"]:
    """A site that fell silent is an alarm, though nothing is there to judge."""
    if alarm:
        return "alarm"
    return "quiet" if lacking is None else "insufficient"


def _lacking(read: Window, loaded: Artifact, judged: Judged) -> str | None:
    """Why the window cannot be held to training, None where it can."""
    whole, needed = read.whole, f"at least {MIN_ROWS} are needed"
    if whole.rows < MIN_ROWS:
        return f"{whole.rows} predictions in the window; {needed}"
    if whole.scored < MIN_ROWS:
        return f"{whole.scored} scored predictions to hold to training; {needed}"
    if not any(one.column != RISK for one in judged.cells):
        columns = [binned.column for binned in loaded.reference.columns]
        held = max((sum(binned.counts) for binned in loaded.reference.columns), default=0)
        if held < MIN_ROWS:
            return f"{held} rows in the reference of the version's training; {needed}"
        # A log whose key is not here must not look quiet.
        opened = max(
            (int(whole.cells[name].sum()) for name in columns if name in whole.cells), default=0
        )
        return f"{opened} scored predictions whose inputs can be read back; {needed}"
    return None


def _besides(what: str, message: str | None, *, state: str | None = None) -> dict[str, Any]:
    """A row beside the alarms of the spec."""
    return {
        "number": None,
        "state": state,
        "opened": None,
        "acknowledged": None,
        "closed": None,
        "what": what,
        **dict.fromkeys(("column", "site", "group", "value", "since", "response")),
        "limits": [None, None],
        "message": message,
    }


def _recorded(
    home: Home,
    loaded: Artifact,
    version: str,
    pointer: Pointer,
    raised: Sequence[Mapping[str, Any]],
    period: Period,
    *,
    judged: bool,
    unjudged: Collection[str],
) -> tuple[list[dict[str, Any]], str | None]:
    """The alarms with number and state, and why they are not in the ledger, None where they are.

    A ledger that was tampered with, or cannot be written, must hide none of them.
    """
    first, last = period.days
    window = {"from": first, "to": last}
    try:
        return states.record(
            home,
            loaded.spec.name,
            version,
            pointer,
            raised,
            window,
            judged=judged,
            unjudged=unjudged,
        ), None
    except IntegrityError as error:
        why = f"The ledger was tampered with, and alarms are not written down ({error})"
    except OSError as error:
        why = f"Alarms are not written down: the ledger: {error.strerror or type(error).__name__}"
    _log.error("%s", why)
    return states.unrecorded(raised), why
