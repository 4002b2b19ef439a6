"""What the page tells of a model of levels, and of hourly alerts."""

from __future__ import annotations

import numpy as np

from models import catalog


def test_levels_are_told_by_table_and_by_group(told, promoted):
    def span(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    def edit(found):
        chief = {"kappa": span(0.4), "under_urgent": span(0.3), "over_urgent": None}
        rows = [
            {"group": "sex", "level": level, "n": 50, **chief, "kappa": span(kappa)}
            for level, kappa in (("female", 0.5), ("male", 0.35))
        ]
        table = np.arange(25).reshape(5, 5).tolist()
        found["performance"]["triage"] = {"reason": None, "table": table, "groups": rows, **chief}
        return found

    at_promotion = {
        "kappa": span(0.6),
        "under_urgent": 0.2,
        "intervals": {"under_urgent": {"low": 0.1, "high": 0.25}},
    }
    triage = catalog.load("ed_triage").triage
    read, _ = told(800, edit=edit, at_promotion=promoted | {"triage": at_promotion}, triage=triage)
    assert "Of the urgent 30% were given no urgent level, about as many as the 20%" in read.sound().text
    [kappa], [under] = read.rows("Kappa: quadratic, with the level that was right best 1"), [
        row for row in read.rows() if row[0].startswith("Under-triage: of the urgent")
    ]  # fmt: skip
    assert kappa[1::2] == ["0.40 (0.30 to 0.50)", "0.60 (0.50 to 0.70)"]
    assert under[1::2] == ["0.300 (0.200 to 0.400)", "0.200 (0.100 to 0.250)"]
    assert read.rows("Right level", "given 1", "given 2", "given 3", "given 4", "given 5")
    assert read.rows("2", "5", "6", "7", "8", "9")
    assert read.rows("female", "50", "0.50 (0.40–0.60)", "0.300 (0.200–0.400)", "–")


def test_what_hourly_alerts_were_worth_is_told(told):
    def edit(found):
        span = {"value": 0.4, "low": 0.3, "high": 0.5}
        sites = [
            {"group": "site", "level": name, "stays": 30, "events": 12, **span}
            for name in ("north", "south")
        ]
        found["performance"]["utility"] = {"reason": None, "threshold": 0.02, "groups": sites, **span}
        return found

    read, _ = told(800, edit=edit, lookback=24)
    assert "The utility of the alerts is 0.40, where 0 is never to alert" in read.sound().text
    [row] = read.rows("Utility of the alerts, of whole stays best 1, never to alert 0")
    assert row[1] == "0.40 (0.30 to 0.50)"
    assert read.rows("south", "30", "0.40 (0.30–0.50)")

    why = {"reason": "3 stays had the outcome", "value": None, "groups": []}

    def none(found):
        found["performance"]["utility"] = why
        return found

    read, _ = told(800, edit=none, lookback=24)
    assert "Not measured: 3 stays had the outcome." in read.sound().text
