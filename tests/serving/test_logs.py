"""Log lines: an object each, nothing in them that a caller wrote."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from serving import logs

VALUE = "sbp=88"


def record(name, message, *args, error=None, **extra):
    made = logging.getLogger(name).makeRecord(
        name, logging.ERROR, "file.py", 3, message, args, error, extra=extra
    )
    made.created = 0.0
    return made


def raised(text):
    try:
        float(text)
    except ValueError:
        return sys.exc_info()


def test_an_event_of_ours_is_an_object_of_one_line():
    said = logs.Json().format(record("serving.deployed", "%s %s is not served\n", "ed_admission", "3"))
    assert "\n" not in said
    told = json.loads(said)
    assert told.pop("process") > 0
    assert told == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "error",
        "logger": "serving.deployed",
        "event": "ed_admission 3 is not served\n",
    }


@pytest.mark.parametrize("form", [logs.Json(), logs.Line()])
def test_an_exception_is_told_by_its_type_and_place(form):
    said = form.format(record("serving.app", "failed", error=raised(VALUE)))
    assert VALUE not in said
    assert "ValueError" in said
    assert "tests/serving/test_logs.py:" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("form", [logs.Json(), logs.Line()])
@pytest.mark.parametrize(
    ("name", "message", "args"),
    [
        ("uvicorn.error", "Invalid request: %s", (VALUE,)),
        ("asyncio", f"Task exception was never retrieved\nfuture: ValueError({VALUE!r})", ()),
        ("uvicorn.error", f"Traceback (most recent call last):\n  {VALUE}\nValueError: {VALUE}", ()),
    ],
)
def test_what_another_package_quotes_is_left_out(form, name, message, args):
    assert VALUE not in form.format(record(name, message, *args))


def test_ids_that_come_as_extra_are_kept_and_nothing_else_is():
    told = logs.said(record("serving.x", "answered", model="sepsis", version="2", sbp=88))
    assert (told["model"], told["version"]) == ("sepsis", "2")
    assert "sbp" not in told


@pytest.mark.parametrize(("form", "first"), [("json", "{"), ("text", "2"), ("", "{")])
def test_every_package_writes_through_the_one_handler(form, first):
    code = (
        "import logging, sys; from serving import logs\n"
        "mine = logging.getLogger('other'); mine.addHandler(logging.StreamHandler(sys.stdout))\n"
        "mine.propagate = False\n"
        "logs.set_up(); mine.error('a'); logging.getLogger('serving.x').info('b')\n"
        "logging.getLogger('uvicorn.access').critical('/v1/canary')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"CAREMODELS_LOG_FORMAT": form},
    )
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert [line[0] for line in lines] == [first, first]
    assert "canary" not in ran.stderr
