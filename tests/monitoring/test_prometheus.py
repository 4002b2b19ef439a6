"""The gauges parse as Prometheus parses them; each rule is about metrics that are really exported."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.alarms import Opened
from monitoring.prometheus import GROUPS, OVERDUE_DAYS, Alert, Judged, rules, textfile
from serving.metrics import Metrics

NOW = datetime(2026, 2, 1, 3, 30, tzinfo=UTC)
ALERTS = {name: alert for group in GROUPS.values() for name, alert in group.items()}
WHICH = {"model", "version", "pointer"}
DURATION = re.compile(r"\d+[smhd]")


def opened(number, *, state="open", what="calibration", version="3", response="recalibrate"):
    return Opened(
        number=number,
        at="2026-02-01T03:30:00+00:00",
        model="sepsis",
        version=version,
        pointer="champion",
        alarm={"what": what, "site": "county-01", "response": response},
        window={"from": "2026-01-01", "to": "2026-01-31"},
        seen_to="2026-01-31",
        state=state,
    )


def judged(verdict="quiet", *, to="2026-01-31", pointer="champion"):
    return Judged(model="sepsis", version="3", pointer=pointer, to=to, verdict=verdict)


def families(found=(), alarms=(), *, failed=0, undelivered=0, now=NOW):
    text = textfile(found, alarms, failed=failed, undelivered=undelivered, now=now).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family):
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def exported():
    """Of every metric its samples' names and labels, from both places that export any."""
    metrics = Metrics()
    metrics.request("/v1/{model}/predict", 503, 0.1)
    metrics.stage("log", 0.1)
    metrics.prediction("sepsis", "3", "scored", band="high", rules=["age"])
    metrics.breach("sepsis", "3")
    metrics.shadow("sepsis", "3", "failed")
    metrics.unready("log")
    metrics.watch([("sepsis", "3", "champion")], [("sepsis", "challenger")])
    served = text_string_to_metric_families(metrics.show().decode())
    watched = families([judged()], [opened(1)]).values()
    found = {}
    for family in (*served, *watched):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_a_run_shows_when_it_was_and_what_came_of_it():
    shown = families(failed=2, undelivered=3)
    single = {name: values(family)[()] for name, family in shown.items() if family.samples}
    assert single == {
        "caremodels_monitor_run_timestamp_seconds": 1769916600.0,  # date -u -d '2026-02-01 03:30' +%s
        "caremodels_monitor_failed": 2.0,
        "caremodels_monitor_undelivered": 3.0,
        "caremodels_monitor_ledger_intact": 1.0,
    }
    assert {family.type for family in shown.values()} == {"gauge"}


def test_one_verdict_of_three_is_1():
    family = families([judged("insufficient")])["caremodels_monitor_verdict"]
    assert {sample.labels["verdict"]: sample.value for sample in family.samples} == {
        "quiet": 0.0,
        "alarm": 0.0,
        "insufficient": 1.0,
    }


@pytest.mark.parametrize(
    ("to", "end"),
    [("2026-01-31", 1769904000.0), ("9998-12-31", NOW.timestamp())],  # date -u -d 2026-02-01 +%s
)
def test_a_window_ends_with_its_last_day_and_never_in_the_future(to, end):
    family = families([judged(to=to)])["caremodels_monitor_window_timestamp_seconds"]
    assert list(values(family).values()) == [end]


def test_alarms_that_stand_are_counted_and_closed_ones_are_not():
    alarms = [
        opened(1),
        opened(2),
        opened(3, state="acknowledged"),
        opened(4, state="closed"),
        opened(5, what="net_benefit", response="withdraw"),
    ]
    family = families(alarms=alarms)["caremodels_monitor_alarms"]
    assert {
        (sample.labels["what"], sample.labels["state"], sample.labels["response"]): sample.value
        for sample in family.samples
    } == {
        ("calibration", "open", "recalibrate"): 2.0,
        ("calibration", "acknowledged", "recalibrate"): 1.0,
        ("net_benefit", "open", "withdraw"): 1.0,
    }
    assert "county-01" not in str(family.samples)


def test_a_ledger_that_cannot_be_trusted_shows_no_alarm_as_gone_but_itself():
    shown = families(alarms=None)
    assert values(shown["caremodels_monitor_ledger_intact"]) == {(): 0.0}
    assert shown["caremodels_monitor_alarms"].samples == []


def test_the_same_gives_the_same_file():
    given = [judged(), judged("alarm", pointer="challenger")]
    once = textfile(given, [opened(1)], failed=0, undelivered=0, now=NOW)
    assert once == textfile(given, [opened(1)], failed=0, undelivered=0, now=NOW)
    assert once.endswith(b"\n")  # the node exporter's collector leaves out a file that does not


def test_the_rules_are_yaml_as_prometheus_reads_it():
    read = yaml.safe_load(rules())
    assert list(read) == ["groups"]
    assert [group["name"] for group in read["groups"]] == list(GROUPS)
    for group in read["groups"]:
        assert set(group) == {"name", "rules"}
        for rule in group["rules"]:
            alert = GROUPS[group["name"]][rule["alert"]]
            expected = {
                "alert": rule["alert"],
                "expr": alert.expression,
                "labels": {"severity": alert.severity},
                "annotations": {"summary": alert.summary},
            }
            assert rule == expected | ({"for": alert.lasting} if alert.lasting else {})


def test_every_metric_of_a_rule_is_exported_and_has_the_labels_that_it_asks_for():
    known = exported()
    for name, alert in ALERTS.items():
        used = re.findall(r"(caremodels_\w+)(?:\{(.*?)\})?", alert.expression)
        assert used, name
        for metric, matchers in used:
            assert metric in known, f"{name}: {metric}"
            asked = set(re.findall(r"(\w+)!?[=~]", matchers))
            assert asked <= known[metric], f"{name}: {metric}{matchers}"


def test_what_a_summary_names_is_left_by_its_expression():
    known = exported()
    for name, alert in ALERTS.items():
        metric = re.search(r"caremodels_\w+", alert.expression)[0]
        grouped = re.search(r"by \(([\w, ]+)\)", alert.expression)
        aggregated = re.match(r"\(?(sum|max|histogram_quantile)\b", alert.expression)
        left = known[metric]
        if aggregated:
            left = set(grouped[1].split(", ")) if grouped else set()
        named = set(re.findall(r"\$labels\.(\w+)", alert.summary))
        assert named <= left, name
        if grouped:
            assert set(grouped[1].split(", ")) <= known[metric], name


def test_severities_and_durations_are_those_that_prometheus_knows():
    for name, alert in ALERTS.items():
        assert alert.severity in ("warning", "critical"), name
        for text in (alert.lasting, *re.findall(r"\[(.*?)\]", alert.expression)):
            assert text is None or DURATION.fullmatch(text), name


@pytest.mark.parametrize(
    ("name", "severity"),
    [("CaremodelsAlarmOpen", "warning"), ("CaremodelsWithdrawalCalledFor", "critical")],
)
def test_an_open_alarm_is_one_alert_or_the_other(name, severity):
    alert = ALERTS[name]
    assert alert.severity == severity
    other = "!=" if severity == "warning" else "="
    assert f'state="open", response{other}"withdraw"' in alert.expression


def test_a_month_of_31_days_and_a_run_that_starts_late_are_not_overdue():
    assert OVERDUE_DAYS > 31 + 2
    assert f"> {OVERDUE_DAYS} * 86400" in ALERTS["CaremodelsMonitorOverdue"].expression


def test_quotes_of_an_expression_survive_yaml(monkeypatch):
    trick = Alert(expression="a{b='c', d=\"e: #f\"} > 0", summary="it's {{ $value }}: \\n")
    monkeypatch.setattr("monitoring.prometheus.GROUPS", {"tricky": {"Trick": trick}})
    [rule] = yaml.safe_load(rules())["groups"][0]["rules"]
    assert (rule["expr"], rule["annotations"]["summary"]) == (trick.expression, trick.summary)
