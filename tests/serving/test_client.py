"""The client in ``docs/``, as somebody runs it who has nothing of caremodels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CLIENT = Path(__file__).resolve().parents[2] / "docs" / "client.py"


def run(served, instance, *options):
    return subprocess.run(
        [sys.executable, CLIENT, served.url, "ed_admission", *options],
        input=json.dumps(instance),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )


def test_it_shows_the_risk_with_its_reasons_and_reports_the_outcome(served, visit):
    before = served.rows("SELECT count(*) FROM outcome")[0][0]
    ran = run(served, visit, "--outcome", "1")
    assert ran.returncode == 0, ran.stderr
    first, action, *reasons, last = ran.stdout.splitlines()
    answer = served.predict(visit, top=5).json()["predictions"][0]
    assert first == f"risk {answer['risk']:.1%}, {answer['band']['label']['en']}"
    assert action == answer["band"]["action"]["en"]
    told = [f"{c['contribution']:+.2f}" for c in answer["explanation"]["contributions"]]
    assert [reason.split()[0] for reason in reasons] == told
    assert last == "outcome joined"
    assert served.rows("SELECT count(*) FROM outcome")[0][0] == before + 1


def test_another_unit_is_converted_by_the_service(served, visit):
    celsius, fahrenheit = visit | {"temperature": 40.0}, visit | {"temperature": 104.0}
    assert run(served, fahrenheit, "--unit", "temperature=[degF]").stdout == run(served, celsius).stdout


def test_what_does_not_fit_is_told_before_anything_is_sent(served, visit):
    before = served.rows("SELECT count(*) FROM prediction")
    wrong = visit | {"sbp": 888, "sex": "unknown to all", "blood": 1, "age": None, "spo2": True}
    ran = run(served, wrong, "--unit", "sex=kg")
    assert ran.returncode == 2
    assert ran.stdout == ""
    named = {line.partition(":")[0] for line in ran.stderr.splitlines()}
    assert named == {"sbp", "sex", "blood", "age", "spo2"}
    assert "888" not in ran.stderr
    assert served.rows("SELECT count(*) FROM prediction") == before


def test_a_refusal_of_the_service_is_told_by_field_and_rule(served, visit):
    ran = run(served, visit, "--unit", "temperature=kg")
    assert ran.returncode == 1
    assert ran.stderr.startswith("422 ")
    assert "units.temperature: cannot be converted to Cel" in ran.stderr
