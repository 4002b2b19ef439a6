"""Counts that all workers share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data.errors import RateLimitedError
from serving.access import limits
from serving.access.limits import Limits


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def most(counts: Limits, who: str, rate: int) -> int:
    """How many pass at one moment."""
    for number in range(rate + 10):
        try:
            counts.count(who, rate=rate)
        except RateLimitedError:
            return number
    return -1


def test_a_minutes_worth_passes_at_once_and_then_the_pace(clock):
    counts = Limits(None, clock=clock)
    assert most(counts, "a", 6) == 6
    with pytest.raises(RateLimitedError) as refused:
        counts.count("a", rate=6)
    assert refused.value.retry_after == 10  # six a minute
    clock.now += 10
    assert most(counts, "a", 6) == 1
    clock.now += 600
    assert most(counts, "a", 6) == 6


def test_callers_are_counted_apart(clock):
    counts = Limits(None, clock=clock)
    assert most(counts, "a", 3) == 3
    assert most(counts, "b", 3) == 3


def test_none_is_refused_where_there_is_no_limit():
    counts = Limits(None)
    for _ in range(1_000):
        counts.count("a", rate=0)
        counts.spent("a", rate=0)


def test_asking_whether_a_limit_is_reached_counts_nothing(clock):
    counts = Limits(None, clock=clock)
    for _ in range(10):
        counts.spent("a", rate=2)
    assert most(counts, "a", 2) == 2
    with pytest.raises(RateLimitedError):
        counts.spent("a", rate=2)


def test_two_workers_count_together(tmp_path, clock):
    one, other = (Limits(tmp_path / "limits", clock=clock) for _ in range(2))
    assert one.shared
    assert other.shared
    for number in range(10):
        (one, other)[number % 2].count("a", rate=10)
    for counts in (one, other):
        with pytest.raises(RateLimitedError):
            counts.count("a", rate=10)
        counts.close()


RACE = """
import sys
from pathlib import Path
from data.errors import RateLimitedError
from serving.access.limits import Limits
counts = Limits(Path(sys.argv[1]), clock=lambda: 1000.0)
print("here", flush=True)
sys.stdin.readline()
passed = 0
for _ in range(20_000):
    try:
        counts.count("a", rate=10_000)
        passed += 1
    except RateLimitedError:
        pass
print(passed)
"""


def test_workers_at_the_same_time_let_no_more_pass_than_one_would(tmp_path):
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "limits")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in racing:
        process.stdout.readline()
    passed = [int(process.communicate("\n")[0]) for process in racing]
    # One whose turn it was not to write is counted with its worker's next.
    assert 10_000 <= sum(passed) <= 10_200


def test_a_file_that_cannot_be_had_leaves_each_worker_its_own_counts(tmp_path, clock, caplog):
    counts = Limits(tmp_path, clock=clock)  # a folder
    assert not counts.shared
    assert "each worker apart" in caplog.text
    assert most(counts, "a", 4) == 4


def test_what_another_boot_left_behind_limits_nobody(tmp_path, clock):
    clock.now = 1e9
    before = Limits(tmp_path / "limits", clock=clock)
    assert most(before, "a", 4) == 4
    before.close()
    clock.now = 5.0
    after = Limits(tmp_path / "limits", clock=clock)
    assert most(after, "a", 4) == 4
    after.close()


def test_more_callers_than_places_share_them(clock, monkeypatch):
    monkeypatch.setattr(limits, "SLOTS", 4)
    counts = Limits(None, clock=clock)
    for number in range(100):
        counts.count(f"caller {number}", rate=200)
    clock.now += 3_600
    assert most(counts, "a", 4) == 4


def test_a_lock_that_is_held_by_one_who_does_not_run_stops_nobody(tmp_path, clock):
    import fcntl

    counts = Limits(tmp_path / "limits", clock=clock)
    with (tmp_path / "limits").open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        for _ in range(8):
            counts.count("a", rate=10)
    assert most(counts, "a", 10) == 2  # what was owed is counted
    counts.close()
