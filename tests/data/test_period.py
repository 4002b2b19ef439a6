"""Periods as people name them, units as devices send them, and where a run keeps its things."""

from __future__ import annotations

from datetime import datetime

import pytest

from data import units
from data.errors import UsageError
from data.home import Home
from data.period import Period


@pytest.mark.parametrize(
    ("first", "last", "start", "end", "days"),
    [
        ("2021-01", "2021-12", (2021, 1, 1), (2022, 1, 1), ("2021-01-01", "2021-12-31")),
        ("2020-02", "2020-02", (2020, 2, 1), (2020, 3, 1), ("2020-02-01", "2020-02-29")),
        ("2021-02", "2021-02", (2021, 2, 1), (2021, 3, 1), ("2021-02-01", "2021-02-28")),
        ("2021-12-31", "2021-12-31", (2021, 12, 31), (2022, 1, 1), ("2021-12-31", "2021-12-31")),
        ("2021-01-15", "2021-02", (2021, 1, 15), (2021, 3, 1), ("2021-01-15", "2021-02-28")),
    ],
)
def test_both_ends_are_inclusive(first, last, start, end, days):
    period = Period.between(first, last)
    assert (period.start, period.end) == (datetime(*start), datetime(*end))  # noqa: DTZ001
    assert period.days == days
    assert str(period) == " to ".join(days)


def test_an_open_side_has_no_limit():
    everything = Period.between(None, None)
    assert everything.start.year == 1
    assert everything.end.year == 9999


@pytest.mark.parametrize("text", ["2021", "2021-13", "2021-02-30", "01-2021", "0000-01", "9999-12", "x"])
def test_what_is_no_month_or_day_is_shown(text):
    with pytest.raises(UsageError, match=f"YYYY-MM.*{text!r}"):
        Period.between(text, None)


@pytest.mark.parametrize(("first", "last"), [("2021-02", "2021-01"), ("2021-01-02", "2021-01-01")])
def test_a_period_that_ends_before_it_starts(first, last):
    with pytest.raises(UsageError, match=f"ends before it starts: {first} to {last}"):
        Period.between(first, last)


@pytest.mark.parametrize(
    ("given", "wanted", "value", "expected"),
    [
        ("[degF]", "Cel", 98.6, 37.0),
        ("[degF]", "Cel", 32.0, 0.0),
        ("K", "Cel", 310.15, 37.0),
        ("kPa", "mm[Hg]", 16.0, 120.00987),  # 1 Torr is 101.325 / 760 kPa
        ("1", "%", 0.97, 97.0),
        ("/s", "/min", 1.5, 90.0),
        ("Hz", "/min", 0.25, 15.0),
        ("mo", "a", 18.0, 1.5),
        ("[lb_av]", "kg", 1.0, 0.45359237),  # exact by definition
        ("Cel", "Cel", 36.6, 36.6),
    ],
)
def test_a_number_in_another_unit_of_the_same_quantity(given, wanted, value, expected):
    assert units.converter(given, wanted)(value) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "wanted"), [("Cel", "%"), ("mm[Hg]", "Cel"), ("bpm", "/min"), ("K", None)]
)
def test_another_quantity_or_an_unknown_unit_converts_to_nothing(given, wanted):
    assert units.converter(given, wanted) is None


def test_a_home_is_a_plan_and_creates_nothing(home, tmp_path):
    places = [home.scratch, home.artifacts, home.releases, home.ledger, home.reports, home.bench]
    assert all(place.is_relative_to(tmp_path / "home") for place in places)
    assert home.marts == f"duckdb://{tmp_path / 'home' / 'marts.duckdb'}"
    assert home.log == f"sqlite:///{tmp_path / 'home' / 'log.db'}"
    assert home.tracking_uri == f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
    assert list(tmp_path.iterdir()) == []


def test_without_a_setting_home_is_var_in_this_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Home.from_env().path == tmp_path / "var"
    monkeypatch.setenv("CAREMODELS_HOME", "")
    assert Home.from_env().path == tmp_path / "var"


def test_each_place_may_be_set_apart(home, monkeypatch, tmp_path):
    monkeypatch.setenv("CAREMODELS_MARTS", f"duckdb://{tmp_path}/m.duckdb")
    monkeypatch.setenv("CAREMODELS_LOG", "sqlite:///elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert home.marts == f"duckdb://{tmp_path}/m.duckdb"
    assert home.log == "sqlite:///elsewhere.db"
    assert home.tracking_uri == "http://127.0.0.1:5000"
