"""For Prometheus: rules over the service's metrics and over ours, and ours as a file.

The service is scraped. Monitoring runs once a month and has no port: its gauges are a file that the
node exporter's textfile collector reads (``caremodels.prom``). Neither names a patient or a count of
a small group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from models.alarms import Opened

VERDICTS = ("quiet", "alarm", "insufficient")
WHICH = ("model", "version", "pointer")
OVERDUE_DAYS = 40
"""A month and some days of grace, after which the monthly run did not come."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a version's latest run said: ``to`` is the last day of its window."""

    model: str
    version: str
    pointer: str
    to: str
    verdict: str


def textfile(
    judged: Iterable[Judged],
    alarms: Iterable[Opened] | None,
    *,
    failed: int,
    undelivered: int,
    now: datetime,
) -> bytes:
    """The gauges of a run at ``now`` (UTC). ``alarms``: None where the ledger was tampered with."""
    import prometheus_client as prometheus

    shown = prometheus.CollectorRegistry()

    def gauge(name: str, what: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(f"caremodels_monitor_{name}", what, labels, registry=shown)

    gauge("run_timestamp_seconds", "When monitoring last ran").set(now.timestamp())
    gauge("failed", "Versions that could not be judged when last tried").set(failed)
    gauge("undelivered", "Messages that wait for a sink").set(undelivered)
    gauge("ledger_intact", "Whether the ledger holds what was signed").set(alarms is not None)
    window = gauge("window_timestamp_seconds", "End of the latest window that was judged", *WHICH)
    verdict = gauge("verdict", "1 for the verdict of the latest window", *WHICH, "verdict")
    for one in judged:
        which = (one.model, one.version, one.pointer)
        end = datetime.fromisoformat(one.to).replace(tzinfo=UTC)
        # A window without an end is one up to now.
        window.labels(*which).set(min(end, now - timedelta(days=1)).timestamp() + 86_400)
        for name in VERDICTS:
            verdict.labels(*which, name).set(name == one.verdict)
    standing = gauge("alarms", "Alarms that stand", *WHICH, "what", "response", "state")
    counted = Counter(
        (one.model, one.version, one.pointer, one.alarm["what"], one.alarm["response"], one.state)
        for one in alarms or ()
        if one.state != "closed"
    )
    for labels, count in counted.items():
        standing.labels(*labels).set(count)
    return prometheus.generate_latest(shown)


def rules() -> str:
    """Alerting rules, as a file that ``rule_files`` in Prometheus's configuration names."""
    lines = [
        "# Alerting rules of caremodels: over the service's /metrics, and over caremodels.prom, which",
        "# monitoring writes for the node exporter's textfile collector.",
        "groups:",
    ]
    for group, alerts in GROUPS.items():
        lines += [f"  - name: {group}", "    rules:"]
        for name, alert in alerts.items():
            lines += [
                f"      - alert: {name}",
                f"        expr: {_quoted(alert.expression)}",
                *([f"        for: {alert.lasting}"] if alert.lasting else []),
                "        labels:",
                f"          severity: {alert.severity}",
                "        annotations:",
                f"          summary: {_quoted(alert.summary)}",
            ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One rule. ``lasting``: how long the expression must hold before it alerts."""

    expression: str
    summary: str
    severity: str = "warning"
    lasting: str | None = None


_MODEL = "{{ $labels.model }} {{ $labels.version }}"
_SERVED = 'caremodels_version_served{pointer="champion"} > 0'
_SERVED_BEFORE = 'caremodels_version_served{pointer="champion"} offset 1d > 0'
GROUPS: Mapping[str, Mapping[str, Alert]] = {
    "caremodels-service": {
        "CaremodelsExplanationsDoNotAddUp": Alert(
            expression="increase(caremodels_additivity_breaches_total[15m]) > 0",
            summary=f"{_MODEL}: an explanation does not add up to its risk",
            severity="critical",
        ),
        "CaremodelsReleaseNotServed": Alert(
            expression="max by (model, pointer) (caremodels_version_faults) > 0",
            summary="{{ $labels.model }}: a worker cannot serve the {{ $labels.pointer }} released",
            severity="critical",
            lasting="2m",
        ),
        "CaremodelsLogSlow": Alert(
            expression="max(caremodels_log_lag_seconds) > 5",
            summary="Answers wait {{ $value | humanizeDuration }} for the prediction log's disk",
            severity="critical",
            lasting="1m",
        ),
        "CaremodelsNotReady": Alert(
            expression="sum by (reason) (increase(caremodels_unready_total[5m])) > 0",
            summary="A worker is not ready: {{ $labels.reason }}",
            lasting="5m",
        ),
        "CaremodelsErrors": Alert(
            expression=(
                'sum(rate(caremodels_request_seconds_count{status=~"5.."}[5m])) '
                "> 0.01 * sum(rate(caremodels_request_seconds_count[5m]))"
            ),
            summary="{{ $value | humanize }} answers a second are errors of the service",
            severity="critical",
            lasting="5m",
        ),
        "CaremodelsSlow": Alert(
            expression=(
                "histogram_quantile(0.99, "
                "sum by (le, route) (rate(caremodels_request_seconds_bucket[5m]))) > 0.5"
            ),
            summary="{{ $labels.route }}: one answer in a hundred takes over half a second",
            lasting="10m",
        ),
        "CaremodelsCallersTurnedAway": Alert(
            expression='sum(rate(caremodels_refused_calls_total{status=~"401|403"}[15m])) > 1',
            summary="Over one call a second is refused for who calls",
            lasting="15m",
        ),
        "CaremodelsSilent": Alert(
            # One that was released today has not been silent for a day.
            expression=(
                f"({_SERVED} and {_SERVED_BEFORE}) unless on (model, version) "
                "(sum by (model, version) (increase(caremodels_predictions_total[1d])) > 0)"
            ),
            summary=f"{_MODEL}: released, and asked nothing for a day",
            lasting="1h",
        ),
        "CaremodelsAbstains": Alert(
            expression=(
                "sum by (model, version) "
                '(increase(caremodels_predictions_total{status="abstained"}[1d])) '
                "> 0.5 * sum by (model, version) (increase(caremodels_predictions_total[1d]))"
            ),
            summary=f"{_MODEL}: more than half of what is asked gets no risk",
            lasting="6h",
        ),
        "CaremodelsChallengerFails": Alert(
            expression=(
                "sum by (model, version) "
                '(increase(caremodels_challenger_requests_total{fate="failed"}[1h])) > 0'
            ),
            summary=f"{_MODEL}: the challenger fails",
        ),
    },
    "caremodels-monitoring": {
        "CaremodelsAlarmOpen": Alert(
            expression='caremodels_monitor_alarms{state="open", response!="withdraw"} > 0',
            summary=(
                f"{_MODEL} ({{{{ $labels.pointer }}}}): {{{{ $labels.what }}}} calls for "
                "{{ $labels.response }}; nobody has acknowledged it"
            ),
        ),
        "CaremodelsWithdrawalCalledFor": Alert(
            expression='caremodels_monitor_alarms{state="open", response="withdraw"} > 0',
            summary=f"{_MODEL} ({{{{ $labels.pointer }}}}): {{{{ $labels.what }}}} calls for withdrawal",
            severity="critical",
        ),
        "CaremodelsMonitorOverdue": Alert(
            expression=(
                f"time() - caremodels_monitor_run_timestamp_seconds > {OVERDUE_DAYS} * 86400 "
                "or absent(caremodels_monitor_run_timestamp_seconds)"
            ),
            summary="Monitoring has not run for over a month",
            severity="critical",
            lasting="1h",
        ),
        "CaremodelsMonitorFailed": Alert(
            expression="caremodels_monitor_failed > 0",
            summary="Versions that monitoring could not judge: {{ $value }}",
        ),
        "CaremodelsMessagesWait": Alert(
            expression="caremodels_monitor_undelivered > 0",
            summary="Messages of monitoring that no sink took: {{ $value }}",
        ),
        "CaremodelsLedgerBroken": Alert(
            expression="caremodels_monitor_ledger_intact == 0",
            summary="The ledger does not hold what was signed: caremodels ledger verify",
            severity="critical",
        ),
    },
}
"""Group -> name of the alert -> its rule."""


def _quoted(text: str) -> str:
    """A scalar of YAML in single quotes, in which only a quote needs care.

    >>> _quoted("a{b='c'} > 0")
    "'a{b=''c''} > 0'"
    """
    return "'" + text.replace("'", "''") + "'"
