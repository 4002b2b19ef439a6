"""What a run found is told once to everybody whom ``sinks.toml`` names, whatever fails meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from data.home import Home
from models import release
from monitoring import sinks, states
from monitoring.run import monitor

MODEL = "ed_admission"
JANUARY = {"from": "2026-01-01", "to": "2026-01-31"}
FEBRUARY = {"from": "2026-02-01", "to": "2026-02-28"}
MARCH = {"from": "2026-03-01", "to": "2026-03-31"}
NOW = datetime(2026, 4, 1, 3, 30, tzinfo=UTC)
SIGNED = {"by": "Dr Chen", "reason": "a new ward"}
GAUGES = "prometheus/caremodels.prom"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent by path; ``status`` is what it answers, by path where it is named."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Taking)
        self.got, self.status, self.act = [], {}, lambda: None

    def messages(self, path="/a"):
        return [message for at, message in self.got if at == path]


class Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        message = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, message))
        self.server.act()
        self.send_response(self.server.status.get(self.path, 204))
        self.end_headers()

    def log_message(self, format, *args):  # noqa: A002 the name of the base class
        """Nothing on the terminal."""


@pytest.fixture
def start():
    """Start a receiver, on the port that is asked for; all of them end with the test."""
    started = []

    def start(port=0):
        server = Receiver(port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver(start):
    return start()


@pytest.fixture
def home(tmp_path):
    """With a released champion and challenger."""
    home = Home(tmp_path / "home")
    for version, pointer in (("3", "champion"), ("4", "challenger")):
        folder = home.releases / MODEL / version
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        release.point(home.releases, model=MODEL, pointer=pointer, version=version)
    return home


def told_at(home, *ports, on="alarm", more="", path="/a"):
    hooks = [f'[[webhook]]\nurl = "http://127.0.0.1:{port}{path}"\non = "{on}"\n' for port in ports]
    (home.path / "sinks.toml").write_text("".join(hooks) + more)


def alarm(number=1, state="open", **more):
    about = {"what": "calibration", "column": None, "site": None, "group": None, "since": None}
    figures = {"message": "off by 1.4", "value": 1.4, "limits": [0.8, 1.25], "response": "recalibrate"}
    return {"number": number, "state": state, **about, **figures, **more}


def result(*alarms, window=JANUARY, version="3", pointer="champion", **more):
    return {
        "model": MODEL, "version": version, "pointer": pointer, "window": window, "n": 900,
        "outcomes": 700, "verdict": "alarm" if alarms else "quiet", "report": "index.html",
        "alarms": list(alarms), "proposed": [], **more,
    }  # fmt: skip


def missed(**more):
    about = {"model": MODEL, "version": "3", "pointer": "champion", "window": "January"}
    return {**about, "error": "it was never released", **more}


def deliver(home, *results, failed=(), now=NOW):
    return sinks.deliver(home, results, failed, now=now)


def gauges(home):
    """Name and labels -> value."""
    families = text_string_to_metric_families((home.path / GAUGES).read_text())
    return {
        (sample.name.removeprefix("caremodels_monitor_"), *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_the_file_nobody_is_told_and_nothing_is_kept(home):
    assert deliver(home, result(alarm())) == []
    assert not (home.path / "outbox").exists()


def test_an_alarm_is_told_with_all_that_one_needs_to_act(home, receiver):
    told_at(home, receiver.server_port)
    proposal = {"action": "recalibrate", "why": "off", "alarms": [1], "signature": True, "command": "c"}
    found = result(alarm(), columns=[{"column": "age"}], proposed=[{**proposal, "details": [1]}])
    assert deliver(home, found) == []
    [message] = receiver.messages()
    assert message["headline"] == f"alarm: {MODEL}"
    assert (message["made_at"], message["ledger"]) == ("2026-04-01T03:30:00+00:00", None)
    [one] = message["results"]
    assert (one["model"], one["window"], one["n"], one["outcomes"]) == (MODEL, JANUARY, 900, 700)
    assert one["alarms"] == [{name: value for name, value in alarm().items() if name != "response"}]
    assert one["proposed"] == [proposal]
    assert "columns" not in one
    assert sinks.waiting(home) == []


def test_a_real_result_is_told_as_it_is(log, loaded, may, receiver):
    told_at(log.home, receiver.server_port, on="always")
    found = monitor(log.home, loaded, "3", may)
    assert sinks.deliver(log.home, [found]) == []
    [message] = receiver.messages()
    [one] = message["results"]
    assert (message["headline"], one["verdict"], one["n"]) == ("no alarm", "insufficient", 0)
    assert "at least 100 are needed" in one["alarms"][0]["message"]


def test_a_window_that_is_judged_again_is_told_once_alone_or_with_others(home, receiver):
    told_at(home, receiver.server_port)
    deliver(home, result(alarm()), result(alarm(2), version="4", pointer="challenger"))
    deliver(home, result(alarm()))
    moved = alarm(message="off by 1.5", value=1.5)
    deliver(home, result(moved, n=950, outcomes=800))
    deliver(home, result(alarm(state="acknowledged")))
    assert len(receiver.messages()) == 1
    deliver(home, result(alarm(), alarm(3, site="county-01")), result(alarm(2, "open"), window=MARCH))
    assert [len(message["results"]) for message in receiver.messages()] == [2, 2]


def test_what_goes_on_in_a_later_window_is_told_again(home, receiver):
    told_at(home, receiver.server_port)
    for window in (JANUARY, FEBRUARY):
        deliver(home, result(alarm(), window=window))
    assert [one["results"][0]["window"] for one in receiver.messages()] == [JANUARY, FEBRUARY]
    assert len({one["id"] for one in receiver.messages()}) == 2


@pytest.mark.parametrize(
    ("found", "failed", "heard"),
    [
        (result(), [], False),
        (result(alarm(state="acknowledged")), [], False),
        (result(alarm(state="closed")), [], False),
        (result(alarm(state="acknowledged"), alarm(2)), [], True),
        (result(), [missed()], True),
    ],
    ids=["quiet", "acknowledged", "closed", "one of two", "not judged"],
)
def test_who_wants_alarms_alone_hears_what_nobody_looks_into(home, start, found, failed, heard):
    some, all_ = start(), start()
    told_at(home, all_.server_port, on="always")
    with (home.path / "sinks.toml").open("a") as file:
        file.write(f'[[webhook]]\nurl = "http://127.0.0.1:{some.server_port}/a"\n')
    assert deliver(home, found, failed=failed) == []
    assert (len(some.messages()), len(all_.messages())) == (int(heard), 1)


def test_the_headline_tells_a_challenger_from_who_answers_and_what_was_not_judged(home, receiver):
    told_at(home, receiver.server_port)
    silent = result(alarm(2), version="4", pointer="challenger")
    deliver(home, silent, failed=[missed(model="sepsis")])
    [message] = receiver.messages()
    assert message["headline"] == f"alarm: {MODEL} (challenger); not judged: sepsis"
    assert message["failed"] == [missed(model="sepsis")]


def test_a_sink_that_is_down_is_told_by_the_next_run_and_the_other_not_again(home, receiver, start):
    port = free_port()
    told_at(home, receiver.server_port, port)
    [lost] = deliver(home, result(alarm()))
    assert lost == f"webhook http://127.0.0.1:{port}: ConnectError; it is told with the next run"
    assert len(sinks.waiting(home)) == 1
    late = start(port)
    assert deliver(home, result(alarm())) == []
    assert late.messages() == receiver.messages()
    assert len(late.messages()) == 1
    assert sinks.waiting(home) == []


def test_a_sink_that_answers_500_is_asked_once_a_run_and_keeps_its_messages_in_order(home, receiver):
    told_at(home, receiver.server_port)
    receiver.status["/a"] = 500
    for day, window in enumerate((JANUARY, FEBRUARY, MARCH), start=1):
        deliver(home, result(alarm(), window=window), now=NOW.replace(day=day))
        assert len(receiver.got) == day
    receiver.status.clear()
    receiver.got.clear()
    assert deliver(home, result()) == []
    windows = [one["results"][0]["window"] for one in receiver.messages()]
    assert windows == [JANUARY, FEBRUARY, MARCH]


def test_a_message_that_a_sink_does_not_take_holds_up_no_later_one(home, receiver):
    told_at(home, receiver.server_port)
    receiver.status["/a"] = 413
    deliver(home, result(alarm()))
    receiver.act = lambda: receiver.status.update({"/a": 413 if len(receiver.got) < 3 else 204})
    [lost] = deliver(home, result(alarm(), window=FEBRUARY), now=NOW.replace(day=2))
    assert "413" in lost
    assert [one["results"][0]["window"] for one in receiver.messages()] == [JANUARY, JANUARY, FEBRUARY]
    assert len(sinks.waiting(home)) == 1


def test_an_address_that_was_mistyped_is_told_once_it_is_mended(home, receiver):
    told_at(home, receiver.server_port, path="/mistyped")
    receiver.status["/mistyped"] = 404
    deliver(home, result(alarm()))
    told_at(home, receiver.server_port)
    assert deliver(home, result(alarm())) == []
    assert len(receiver.messages()) == 1
    assert sinks.waiting(home) == []


def test_a_sink_that_was_taken_out_of_the_file_is_waited_for_no_more(home, receiver):
    told_at(home, receiver.server_port, free_port())
    deliver(home, result(alarm()))
    told_at(home, receiver.server_port)
    assert deliver(home, result()) == []
    assert sinks.waiting(home) == []
    assert len(receiver.messages()) == 1


def test_a_file_that_cannot_be_read_keeps_what_was_to_be_told(home, receiver):
    (home.path / "sinks.toml").write_text("[[webhook")
    [lost] = deliver(home, result(alarm()))
    assert lost.startswith("sinks.toml: ")
    assert lost.endswith("what was to be told is kept")
    told_at(home, receiver.server_port)
    assert deliver(home, result(alarm())) == []
    assert len(receiver.messages()) == 1


def test_an_outbox_that_was_cut_is_named_and_holds_up_nothing(home, receiver):
    told_at(home, receiver.server_port)
    receiver.status["/a"] = 503
    deliver(home, result(alarm()))
    receiver.status.clear()
    [cut] = sinks.waiting(home)
    cut.write_bytes(cut.read_bytes()[:-20])
    (home.path / "outbox" / "state.json").write_bytes(b'{"told": ["')
    assert deliver(home, result(alarm()), now=NOW.replace(day=2)) == [
        f"outbox/{cut.name} cannot be read"
    ]
    assert len(receiver.messages()) == 2
    assert sinks.waiting(home) == [cut]


def test_what_waits_is_for_the_owners_eyes(home):
    told_at(home, free_port())
    deliver(home, result(alarm()))
    for file in (home.path / "outbox").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_outbox_that_cannot_be_written_is_said_and_raises_nothing(home, receiver):
    told_at(home, receiver.server_port)
    (home.path / "outbox").write_text("in the way")
    assert deliver(home, result(alarm())) == ["outbox: File exists: not everything was told or kept"]


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_tells_is_told_again_under_the_same_id(home, receiver):
    told_at(home, receiver.server_port)
    found = msgspec.json.encode(result(alarm())).decode()
    code = (
        "import json, sys; from pathlib import Path; from data.home import Home\n"
        "from monitoring import sinks\n"
        "sinks.deliver(Home(Path(sys.argv[1])), [json.loads(sys.argv[2])])\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(home.path), found])
    receiver.act = lambda: os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    receiver.act = lambda: None
    assert deliver(home, result(alarm())) == []
    first, second = receiver.messages()
    assert first["id"] == second["id"]
    assert sinks.waiting(home) == []


@pytest.mark.parametrize("gone", ["middle", "end", "all"])
def test_a_ledger_that_was_tampered_with_is_told_and_shown(home, receiver, gone):
    told_at(home, receiver.server_port, more="[prometheus]\n")
    states.record(home, MODEL, "3", "champion", [alarm(), alarm(what="slope")], JANUARY)
    assert deliver(home, result()) == []
    assert (receiver.messages(), gauges(home)["ledger_intact",]) == ([], 1.0)
    lines = home.ledger.read_bytes().splitlines(keepends=True)
    if gone == "middle":
        home.ledger.write_bytes(b"".join(lines).replace(b"off by 1.4", b"off by 1.0"))
    elif gone == "end":
        home.ledger.write_bytes(lines[0])
    else:
        home.ledger.unlink()
    for _ in range(2):
        assert deliver(home, result(window=FEBRUARY)) == []
    [message] = receiver.messages()
    assert message["headline"] == "the ledger cannot be trusted"
    assert message["ledger"].startswith("ledger: ")
    assert gauges(home)["ledger_intact",] == 0.0


def test_prometheus_is_shown_the_latest_window_of_who_answers_and_the_alarms_that_stand(home):
    told_at(home, more="[prometheus]\n")
    states.record(home, MODEL, "3", "champion", [alarm(), alarm(what="slope")], FEBRUARY)
    states.close(home, 2, **SIGNED)
    deliver(home, result(alarm(), window=FEBRUARY), result(version="2", window=MARCH))
    deliver(home, result(window=JANUARY))  # an earlier window, looked at again
    shown = gauges(home)
    who = ("3", "champion", MODEL)
    assert shown["verdict", "3", "alarm", "champion", MODEL] == 1.0
    assert shown["verdict", "3", "champion", MODEL, "quiet"] == 0.0
    assert shown["window_timestamp_seconds", *who] == 1772323200.0  # date -u -d 2026-03-01 +%s
    assert not [key for key in shown if "2" in key]
    assert {key: value for key, value in shown.items() if key[0] == "alarms"} == {
        ("alarms", "3", "calibration", "champion", MODEL, "open", "recalibrate"): 1.0
    }
    assert stat.S_IMODE((home.path / GAUGES).stat().st_mode) == 0o644
    release.point(home.releases, model=MODEL, pointer="champion", version="4")
    deliver(home)
    assert not [key for key in gauges(home) if key[0] in ("verdict", "window_timestamp_seconds")]


def test_a_window_without_an_end_keeps_no_later_one_from_being_shown(home):
    told_at(home, more="[prometheus]\n")
    endless = {"from": "2026-01-01", "to": "9998-12-31"}
    deliver(home, result(alarm(), window=endless), now=NOW)
    deliver(home, result(window={**MARCH, "to": "2026-04-30"}), now=NOW.replace(month=5))
    assert gauges(home)["verdict", "3", "champion", MODEL, "quiet"] == 1.0


def test_what_could_not_be_judged_is_shown_until_it_is(home):
    told_at(home, more="[prometheus]\n")
    other = {"version": "4", "pointer": "challenger"}
    deliver(home, failed=[missed(), missed(**other)])
    assert gauges(home)["failed",] == 2.0
    deliver(home, result())
    assert gauges(home)["failed",] == 1.0
    release.unpoint(home.releases, model=MODEL, pointer="challenger")
    deliver(home)
    assert gauges(home)["failed",] == 0.0


def test_an_alarm_that_was_acknowledged_between_two_runs_is_shown_so(home):
    told_at(home, free_port(), more="[prometheus]\n")
    assert sinks.refresh(home) == []
    assert not (home.path / GAUGES).exists()
    states.record(home, MODEL, "3", "champion", [alarm()], JANUARY)
    deliver(home, result(alarm()))
    states.acknowledge(home, 1, **SIGNED)
    assert sinks.refresh(home) == []
    shown = gauges(home)
    standing = [key for key in shown if key[0] == "alarms"]
    assert standing == [("alarms", "3", "acknowledged", "calibration", "champion", MODEL, "recalibrate")]
    assert shown["run_timestamp_seconds",] == NOW.timestamp()
    assert shown["undelivered",] == 1.0


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("sinks.toml/x.prom", "File exists"),
        ("releases", "Is a directory"),
        ("a\\u0000b", "ValueError"),
    ],
)
def test_where_prometheus_cannot_be_written_everything_else_is_told(home, receiver, place, says):
    told_at(home, receiver.server_port, more=f'[prometheus]\ntextfile = "{place}"\n')
    [lost] = deliver(home, result(alarm()))
    assert lost.startswith("prometheus: ")
    assert lost.endswith(f": {says}")
    assert len(receiver.messages()) == 1
    assert (home.path / "prometheus/caremodels.rules.yml").exists()
    assert not list(Path(home.path).glob(".releases*"))
