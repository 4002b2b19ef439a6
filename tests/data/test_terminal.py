"""What a person at a terminal sees while a command runs, and that a pipe sees nothing of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from data.terminal import SHORTEST, SMALLEST, Pace, _clock, show

ROOT = Path(__file__).resolve().parents[2]
# The clock runs a hundred times as fast, so that a few tenths of a second are long enough to judge by.
SCRIPT = """
import time
from data import terminal

terminal.time = type("Clock", (), {"monotonic": lambda: 100 * time.monotonic()})
with terminal.progress() as stage:
    for name, done in (
        ("reading the mart", 0.0),
        ("search: trial 1 of 30", 0.25),
        ("search: trial 7 of 30, best 0.3121, 2 pruned", 0.5),
    ):
        stage(name, done)
        time.sleep(0.5)
print('{"done": true}')
"""
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def seen(columns):
    """What the script writes to a terminal of that width, and to its standard output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**environment, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        while piece := _read(ours):
            written += piece
        os.close(ours)
        return written, process.stdout.read()


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux's way to say that the other side has closed
        return b""


@pytest.mark.slow
def test_a_terminal_shows_stage_trial_best_and_the_time_left_on_one_line():
    written, out = seen(80)

    lines = [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub(b"", written).decode())]
    assert out == b'{"done": true}\n'
    assert any(re.fullmatch(r"reading the mart +━+ [\d:]+", line) for line in lines)
    assert any(
        re.fullmatch(
            r"search: trial 7 of 30, best 0.3121, 2 pruned +[━╸╺]+ [\d:]+ about \d+ (s|min) left", line
        )
        for line in lines
    )
    assert all(len(line) <= 80 for line in lines)
    starts = ("", "reading the mart", "search: trial", " ")
    assert all(line.startswith(starts) for line in lines)
    assert not any(line.strip() == "left" for line in lines)


@pytest.mark.slow
def test_a_pipe_sees_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert done.stdout == '{"done": true}\n'


def test_time_left_follows_from_the_pace_and_runs_down():
    pace = Pace(now=1000.0)
    pace.told(0.2, now=1060.0)

    assert pace.left(now=1060.0) == pytest.approx(240)
    assert pace.left(now=1160.0) == pytest.approx(140)

    pace.told(0.2, now=1160.0)
    assert pace.left(now=1160.0) == pytest.approx(140)
    pace.told(0.5, now=1200.0)
    assert pace.left(now=1200.0) == pytest.approx(200)


def test_nothing_is_said_too_early_nor_when_it_takes_longer_than_thought():
    pace = Pace(now=0.0)
    assert pace.left(now=100.0) is None

    pace.told(SMALLEST / 2, now=100.0)
    assert pace.left(now=100.0) is None
    quick = Pace(now=0.0)
    quick.told(0.5, now=SHORTEST / 2)
    assert quick.left(now=SHORTEST / 2) is None

    pace.told(0.5, now=200.0)
    assert pace.left(now=200.0) == pytest.approx(200)
    assert pace.left(now=401.0) is None
    pace.told(1.0, now=500.0)
    assert pace.left(now=500.0) is None


def test_a_part_with_a_bar_of_its_own_has_a_pace_of_its_own():
    pace = Pace(now=0.0)
    pace.told(0.05, now=20.0)
    for share, now in ((0.0, 30.0), (0.5, 330.0), (1.0, 630.0)):
        pace.told(share, now=now)
    pace.told(0.1, now=640.0)
    assert pace.left(now=640.0) is None

    pace.told(0.4, now=670.0)
    assert pace.left(now=670.0) == pytest.approx(60)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "10 s"),
        (41, "50 s"),
        (59.9, "60 s"),
        (60, "1 min"),
        (61, "2 min"),
        (3599, "1 h 0 min"),
        (5000, "1 h 24 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_time_left_is_told_as_coarsely_as_it_is_known(seconds, words):
    assert _clock(seconds) == words


def test_a_result_is_shown_as_lines_or_as_json(capsys):
    result = {"model": "x", "auroc": 0.85321, "none": None, "by": {"a": 1}, "rows": [{"n": 2, "v": 0.5}]}

    show(result, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "model: x",
        "auroc: 0.8532",
        "none: -",
        "by:",
        "  a: 1",
        "rows:",
        "  n 2, v 0.5",
    ]
    show(result, as_json=True)
    assert '"auroc": 0.85321' in capsys.readouterr().out
