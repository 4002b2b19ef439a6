"""Prediction window in, verdict and report out. It proposes and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from data.home import Home
from data.log.read import Pointer
from data.log.schema import connect
from data.log.seal import load_keyring
from data.period import Period
from data.terminal import Stage
from models.artifact import Artifact
from monitoring import drift, performance, report, window
from monitoring.drift import MIN_ROWS, Cells, Finding
from monitoring.window import Window

ACTIONS = {
    "refusals": "inspect_inputs",
    "input_drift": "inspect_inputs",
    "prediction_drift": "watch",
    "calibration": "recalibrate",
}
"""What each kind of alarm calls for. A person decides, and the command line carries it out."""

THINNED = 2.0
"""How much larger a statistic is at a site than over all, where the site accounts for both."""


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """What ``caremodels monitor --json`` prints, and ``report.json`` holds."""

    model: str
    version: str
    pointer: Pointer
    window: dict[str, str]
    n: int
    outcomes: int
    verdict: Literal["quiet", "alarm", "insufficient"]
    columns: tuple[Finding, ...]
    performance: dict[str, Any]
    alarms: tuple[dict[str, Any], ...]
    proposed: tuple[dict[str, str], ...]
    report: str


def monitor(
    home: Home,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    pointer: Pointer = "champion",
    at_promotion: Mapping[str, Any] | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Monitored:
    """Judge ``version`` by what the log holds of ``period`` (UTC, by ``at``), and write the report.

    ``pointer``: what it answered as champion, or said silently as challenger. ``at_promotion``: the
    version's ``evaluation.json``, shown beside. The same window gives the same result; a report that
    stands already is replaced. A window too small to judge is a verdict and no error. Raises
    UnavailableError where the log cannot be read.
    """
    stage("reading the log", 0.0)
    engine = connect(home.log)
    try:
        read = window.read(
            engine,
            loaded,
            version,
            period,
            keyring=load_keyring(home.path),
            pointer=pointer,
            done=lambda share: stage("reading the log", 0.3 * share),
        )
    finally:
        engine.dispose()

    files: dict[str, bytes] = {}
    cells, findings = _findings(read, files, stage)
    stage("measuring performance", 0.8)
    measured = performance.measure(read, loaded.spec, at_promotion=at_promotion)
    if measured["reason"] is None and cells:
        files["evidently_outcomes.html"] = report.outcomes(
            read, loaded.reference.risk, threshold=loaded.spec.alert_at
        )
    verdict, alarms = _verdict(read, loaded, cells, findings, measured)
    first, last = period.days
    silent = "_challenger" if pointer == "challenger" else ""
    folder = home.reports / loaded.spec.name / version / f"{first}_{last}{silent}"
    monitored = Monitored(
        model=loaded.spec.name,
        version=version,
        pointer=pointer,
        window={"from": first, "to": last},
        n=read.whole.rows,
        outcomes=read.whole.outcomes,
        verdict=verdict,
        columns=tuple(findings),
        performance=measured,
        alarms=tuple(alarms),
        proposed=tuple(_proposed(loaded, alarms)),
        report=str(folder / "index.html"),
    )
    stage("writing the report", 0.95)
    quality = window.quality(read)
    files["report.json"] = msgspec.json.format(msgspec.json.encode(asdict(monitored)))
    files["quality.json"] = msgspec.json.format(msgspec.json.encode(quality))
    files["index.html"] = report.page(
        asdict(monitored), loaded, cells, quality, links=[name for name in files if "evidently" in name]
    )
    report.publish(folder, files)
    stage("done", 1.0)
    return monitored


def _findings(read: Window, files: dict[str, bytes], stage: Stage) -> tuple[list[Cells], list[Finding]]:
    """Every test of the window. Evidently's page of those over all sites goes into ``files``."""
    slices = list(drift.tested(read))
    cells = [found for site, counts in slices for found in drift.cells_of(site, counts)]
    tests = max(1, len(cells) + sum(len(counts.refused) for _, counts in slices))
    findings = []
    together = [found for found in cells if found.site is None]
    if together:
        stage("testing for drift", 0.35)
        limits = {found.column: drift.threshold(found, tests=tests) for found in together}
        values, files["evidently.html"] = report.drift(together, limits)
        findings += [drift.judge(found, values[found.column], tests=tests) for found in together]
    # The same formula on the same rows (a test holds the two together): Evidently draws each of
    # its tests, which for every column of every site would take minutes.
    findings += [
        drift.judge(found, drift.psi(found.drawn_now, found.drawn_then), tests=tests)
        for found in cells
        if found.site is not None
    ]
    for site, counts in slices:
        findings += drift.refusals(site, counts, tests=tests)
        findings.append(drift.abstained(site, counts))
    return cells, findings


def _verdict(
    read: Window,
    loaded: Artifact,
    cells: list[Cells],
    findings: list[Finding],
    measured: Mapping[str, Any],
) -> tuple[Literal["quiet", "alarm", "insufficient"], list[dict[str, Any]]]:
    if read.whole.rows < MIN_ROWS:
        return "insufficient", [_too_few(f"{read.whole.rows} predictions in the window")]
    alarms = _drift_alarms(loaded, cells, [finding for finding in findings if finding.drifted])
    alarms += [
        {
            "what": "calibration",
            "column": None,
            "site": None,
            "message": f"Over {measured['n']:,} outcomes {breach}",
        }
        for breach in performance.breaches(measured, loaded.spec)
    ]
    if alarms:
        return "alarm", alarms
    if not cells:
        return "insufficient", [_too_few(f"{read.whole.scored} scored predictions to hold to training")]
    return "quiet", []


def _too_few(found: str) -> dict[str, Any]:
    message = f"{found}; at least {MIN_ROWS} are needed"
    return {"what": "insufficient", "column": None, "site": None, "message": message}


def _drift_alarms(loaded: Artifact, cells: list[Cells], drifted: list[Finding]) -> list[dict[str, Any]]:
    """One alarm for each column and statistic: at the site that it is about, if it is one alone."""
    labels = {column.name: column.label.en for column in loaded.mart.columns} | {"risk": "Risk"}
    tested = {(found.column, found.site): found for found in cells}
    together: dict[tuple[str, str], list[Finding]] = {}
    for finding in drifted:
        together.setdefault((finding.column, finding.statistic), []).append(finding)
    alarms = []
    for (column, statistic), found in together.items():
        shown, sites = _attributed(found)
        place = "over all sites together"
        if sites:
            place = (
                f"at {shown.site}" if len(sites) == 1 else f"at {len(sites)} sites, most at {shown.site}"
            )
        label, limit = labels.get(column, column), shown.threshold or 0.0
        if statistic == "refused_share":
            what = "refusals"
            message = (
                f"{label}: {drift.percent(shown.value)} of requests {place} are refused for this field; "
                f"up to {drift.percent(limit)} is expected"
            )
        else:
            what = "prediction_drift" if column == "risk" else "input_drift"
            message = (
                f"{label} has shifted {place}: {tested[column, shown.site].moved} "
                f"(PSI {shown.value:.2f}, limit {limit:.2f})"
            )
        alarms.append(
            {
                "what": what,
                "column": column,
                "site": shown.site if len(sites) == 1 else None,
                "message": message,
            }
        )
    return alarms


def _attributed(found: list[Finding]) -> tuple[Finding, list[Finding]]:
    """Of one column's findings the one to show, and the sites that account for them; none: all do.

    A shift of the whole network measures about the same at each site; one of a few sites is thinned
    out over all together.
    """
    sites = [finding for finding in found if finding.site is not None]
    together = [finding for finding in found if finding.site is None]
    if together:
        sites = [finding for finding in sites if finding.value > THINNED * together[0].value]
    return max(sites or together, key=lambda finding: finding.value / (finding.threshold or 1)), sites


def _proposed(loaded: Artifact, alarms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One proposal for each action, with all that speaks for it."""
    labels = {column.name: column.label.en for column in loaded.mart.columns} | {"risk": "Risk"}
    reasons: dict[str, dict[str, None]] = {}
    for alarm in alarms:
        if alarm["what"] not in ACTIONS:
            continue
        why = alarm["message"]
        if alarm["column"]:
            why = labels.get(alarm["column"], alarm["column"])
            why += f" at {alarm['site']}" if alarm["site"] else ""
        reasons.setdefault(ACTIONS[alarm["what"]], {})[why] = None
    return [{"action": action, "why": "; ".join(why)} for action, why in reasons.items()]
