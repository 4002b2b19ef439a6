"""What Prometheus is told, by one worker and by several."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serving.metrics import CONTENT_TYPE, Metrics
from serving.tracing import Stages

MODEL = ("ed_admission", "3")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


def shown(metrics) -> set[str]:
    return set(metrics.show().decode().splitlines())


def test_predictions_bands_and_abstentions_are_counted_by_version():
    metrics = Metrics()
    metrics.prediction(*MODEL, "scored", band="high")
    metrics.prediction(*MODEL, "abstained", rules=("age", "missing"))
    assert {
        'caremodels_predictions_total{model="ed_admission",status="scored",version="3"} 1.0',
        'caremodels_predictions_total{model="ed_admission",status="abstained",version="3"} 1.0',
        'caremodels_bands_total{band="high",model="ed_admission",version="3"} 1.0',
        'caremodels_abstentions_total{model="ed_admission",rule="age",version="3"} 1.0',
        'caremodels_abstentions_total{model="ed_admission",rule="missing",version="3"} 1.0',
    } <= shown(metrics)


def test_refused_calls_breaches_and_unready_workers_are_counted():
    metrics = Metrics()
    for status in (200, 401, 401, 503):
        metrics.request("/v1/{model}/predict", status, 0.01)
    metrics.breach(*MODEL, 2)
    metrics.unready("log")
    assert {
        'caremodels_refused_calls_total{status="401"} 2.0',
        'caremodels_refused_calls_total{status="503"} 1.0',
        'caremodels_additivity_breaches_total{model="ed_admission",version="3"} 2.0',
        'caremodels_unready_total{reason="log"} 1.0',
        'caremodels_request_seconds_count{route="/v1/{model}/predict",status="401"} 2.0',
    } <= shown(metrics)
    assert not [line for line in shown(metrics) if 'refused_calls_total{status="200"' in line]


def test_a_stage_is_timed_though_it_fails():
    stages = Stages(Metrics())
    with stages("read"):
        pass
    with pytest.raises(ValueError, match="no"), stages("score", *MODEL):
        raise ValueError("no")
    said = shown(stages.metrics)
    assert 'caremodels_stage_seconds_count{stage="read"} 1.0' in said
    assert 'caremodels_stage_seconds_count{stage="score"} 1.0' in said


def test_the_lag_of_the_log_is_that_of_the_oldest_answer_that_waits():
    stages = Stages(Metrics())
    with stages("log"), stages("log"):
        stages.metrics.watch((), ())
        said = shown(stages.metrics)
        [lag] = [line for line in said if line.startswith("caremodels_log_lag_seconds ")]
        assert "caremodels_log_waiting 2.0" in said
        assert float(lag.split()[1]) > 0
    stages.metrics.watch((), ())
    assert {"caremodels_log_waiting 0.0", "caremodels_log_lag_seconds 0.0"} <= shown(stages.metrics)


def test_a_version_that_is_no_longer_served_is_shown_as_0():
    metrics = Metrics()
    metrics.watch([("sepsis", "1", "champion")], [("sepsis", "challenger")])
    metrics.watch([("sepsis", "2", "champion")], [])
    assert {
        'caremodels_version_served{model="sepsis",pointer="champion",version="1"} 0.0',
        'caremodels_version_served{model="sepsis",pointer="champion",version="2"} 1.0',
        'caremodels_version_faults{model="sepsis",pointer="challenger"} 0.0',
    } <= shown(metrics)


def test_workers_are_added_up_and_one_that_was_killed_counts_but_serves_no_more(tmp_path, monkeypatch):
    code = (
        "from serving.metrics import Metrics; import os, signal; m = Metrics()\n"
        "m.prediction('sepsis', '1', 'scored'); m.watch([('sepsis', '1', 'champion')], [])\n"
        "print(m.show().decode(), flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for number in (1, 2):
        ran = subprocess.run(
            [sys.executable, "-c", code], env=settings, text=True, capture_output=True, check=False
        )
        assert (
            f'caremodels_predictions_total{{model="sepsis",status="scored",version="1"}} {number}.0'
            in (ran.stdout)
        ), ran.stderr
        served = 'caremodels_version_served{model="sepsis",pointer="champion",version="1"} 1.0'
        assert served in ran.stdout


def test_it_is_the_text_that_prometheus_reads():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
