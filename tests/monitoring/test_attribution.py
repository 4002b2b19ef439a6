"""Which column, at which site, since when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from models.watch import Watch
from monitoring import attribution, drift, history
from monitoring.attribution import attributed, important, parted, since
from monitoring.drift import Finding
from monitoring.window import count

DAYS = 31


@pytest.fixture
def found(make, loaded, visits):
    """Window, cells and findings of the answers to ``made`` visits, evenly over the days of May."""

    def found(made, *, spec=None):
        used = loaded if spec is None else replace(loaded, spec=spec)
        n = len(made.site)
        risk = used.risk(made.rows)
        at = np.datetime64("2026-05-01", "s") + np.arange(n) * (DAYS * 86_400 // n)
        site = (made.site == "south").astype(np.intp)
        drawn = np.ones(n, dtype=bool)
        answers = make.answers(risk, made.outcome, at=at, site=site, drawn=drawn)
        window = count(used, make.window(answers).period, answers, inputs=made.rows)
        return window, *drift.findings(window, used)

    return found


def of_day(made):
    return np.arange(len(made.site)) * DAYS // len(made.site)


def one(statistic="psi", value=0.5, site=None, column="heart_rate"):
    return Finding(
        column=column, site=site, statistic=statistic, value=value, threshold=0.2, drifted=True
    )


def test_the_day_of_a_change_is_found_within_a_day_or_two(found, loaded, visits):
    made = visits(6000, 5)
    made.rows["heart_rate"] = made.rows["heart_rate"] + 14.0 * (of_day(made) >= 12)
    window, cells, findings = found(made)
    signals = attribution.signals(window, loaded, cells, findings)
    heart = next(signal for signal in signals if signal.column == "heart_rate")
    assert heart.since in {"2026-05-12", "2026-05-13", "2026-05-14"}
    assert heart.site is None
    assert f"since {heart.since}" in heart.message


def test_a_change_of_the_whole_window_began_with_it(found, loaded, visits):
    made = visits(4000, 5)
    made.rows["heart_rate"] += 14
    signals = attribution.signals(*_with(found(made), loaded))
    assert {signal.since for signal in signals if signal.column == "heart_rate"} == {"2026-05-01"}


def test_or_with_the_first_of_the_windows_before_that_had_it(found, loaded, visits):
    made = visits(4000, 5)
    made.rows["heart_rate"] += 14
    row = {"column": "heart_rate", "site": None, "drifted": True}
    reports = [
        {"window": {"from": f"2026-0{month}-01"}, "columns": rows, "alarms": []}
        for month, rows in ((2, [row]), (3, [{**row, "drifted": False}]), (4, [row]))
    ]
    signals = attribution.signals(*_with(found(made), loaded), reports)
    assert {signal.since for signal in signals if signal.column == "heart_rate"} == {"2026-04-01"}


def _with(what, loaded):
    window, cells, findings = what
    return window, loaded, cells, findings


def test_values_that_get_lost_are_told_apart_from_values_that_shift(found, loaded, visits):
    made = visits(4000, 5)
    lost = (made.site == "south") & (np.arange(4000) % 2 == 0)
    made.rows["heart_rate"][lost] = np.nan
    (signal,) = [s for s in attribution.signals(*_with(found(made), loaded)) if s.what == "input_drift"]
    assert (signal.column, signal.site) == ("heart_rate", "south")
    assert "less often recorded at south: not recorded in 0.0% at training, 5" in signal.message


def test_an_input_that_hardly_matters_is_told_and_no_alarm(found, loaded, visits):
    made = visits(3000, 5)
    made.rows["pain"] = np.clip(made.rows["pain"] + 4, 0, 10)
    window, cells, findings = found(made)
    assert any(row.column == "pain" and row.drifted for row in findings)
    importance = {"pain": 0.004, "heart_rate": 0.5}
    signals = attribution.signals(window, loaded, cells, findings, importance=importance)
    assert "pain" not in {signal.column for signal in signals}
    assert "pain" in {s.column for s in attribution.signals(window, loaded, cells, findings)}


def test_the_importance_of_a_column_is_that_of_the_weightiest_feature_that_reads_it(loaded):
    rows = [{"feature": "age", "mean_abs": 3.0}, {"feature": "heart_rate", "mean_abs": 1.0}]
    found = important(loaded, {"importance": rows})
    assert (found["age"], found["heart_rate"], found["pain"]) == (0.75, 0.25, 0)
    assert important(loaded, None) is None


def test_one_site_is_named_where_it_explains_all():
    shown, sites = attributed([one(value=0.3), one(value=0.9, site="a"), one(value=0.25, site="b")])
    assert (shown.site, [s.site for s in sites]) == ("a", ["a"])


def test_what_is_the_same_at_every_site_is_of_the_network():
    shown, sites = attributed([one(value=0.5), one(value=0.6, site="a"), one(value=0.5, site="b")])
    assert (shown.site, sites) == (None, [])


def test_the_likelihood_ratio_is_that_of_scipy():
    before, after = np.array([40, 60]), np.array([90, 30])
    g, p, _, _ = stats.chi2_contingency(
        np.stack([before, after]), correction=False, lambda_="log-likelihood"
    )
    own = 2 * (
        attribution._likelihood(before) + attribution._likelihood(after)
        - attribution._likelihood(before + after)
    )  # fmt: skip
    assert own == pytest.approx(g)
    assert p < 1e-3


def test_chance_parts_a_quiet_window_hardly_ever():
    rng = np.random.default_rng(0)
    parts = [parted(rng.multinomial(60, [0.2] * 5, size=DAYS)) for _ in range(300)]
    assert sum(part is not None for part in parts) <= 3


@pytest.mark.parametrize(
    "daily", [np.zeros((31, 4), int), np.array([[5, 0]]), np.array([[500, 0]] * 31)]
)
def test_where_nothing_can_be_parted_no_day_is(daily):
    assert parted(daily) is None


def test_refusals_are_dated_by_the_days_of_the_refused(make):
    now = make.answers(
        np.full(3100, 0.2), at=np.repeat(np.arange("2026-05-01", "2026-06-01", dtype="M8[D]"), 100)
    )
    status = np.where((now.at >= np.datetime64("2026-05-20")) & (np.arange(3100) % 3 == 0), 2, 0)
    window = make.window(replace(now, status=status.astype(np.int8)))
    assert since(window, one(statistic="refused_share")) == "2026-05-20"


def test_no_false_drift_in_quiet_windows(found, loaded, visits):
    for seed in range(40, 46):
        window, cells, findings = found(visits(1500, seed), spec=replace(loaded.spec, watch=Watch()))
        assert attribution.signals(window, loaded, cells, findings) == []


def test_reports_that_are_none_are_passed_over(tmp_path):
    from data.home import Home
    from data.period import Period

    home = Home(tmp_path)
    place = home.reports / "m" / "1"
    for name, text in (
        (
            "2026-01-01_2026-01-31",
            '{"pointer": "champion", "window": {"from": "2026-01-01", "to": "2026-01-31"}}',
        ),
        (
            "2026-02-01_2026-02-28",
            '{"pointer": "champion", "window": {"from": "2026-02-01", "to": "2026-02-28"}}',
        ),
        (
            "2026-03-01_2026-03-31",
            '{"pointer": "challenger", "window": {"from": "2026-03-01", "to": "2026-03-31"}}',
        ),
        ("2026-04-01_2026-04-30", '{"pointer": "cham'),
        (
            "2026-05-01_2026-05-31",
            '{"pointer": "champion", "window": {"from": "2026-05-01", "to": "2026-05-31"}}',
        ),
    ):
        (place / name).mkdir(parents=True)
        (place / name / "report.json").write_text(text)
    found = history.earlier(home, "m", "1", "champion", Period.between("2026-05", "2026-05"))
    assert [report["window"]["from"] for report in found] == ["2026-01-01", "2026-02-01"]
