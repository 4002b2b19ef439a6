"""The page of a window in each of its states: what a reader finds on it, and what never stands there."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pytest

from monitoring.drift import percent

YEAR = [f"2025-{month:02}" for month in range(6, 13)] + [f"2026-{month:02}" for month in range(1, 6)]


def sound(read):
    """What holds in every state."""
    return read.sound()


def test_a_quiet_month(told):
    read, _ = told(800)
    text = sound(read).text
    assert "Quiet Inputs and risks look as they did at training: of" in text
    assert "800 of 800 requests were given a risk; 0 were not and 0 were refused" in text
    assert "What was found" not in text
    assert "What to do" not in text
    assert "version 3, the champion" in text
    assert "outcomes known by 2026-06-02 04:05 UTC" in text


def test_the_order_is_verdict_finding_remedy_figures_causes(told):
    read, _ = told(900, YEAR, moved=1.2, faster=40, card=True)
    heads = re.findall(r"<h2>([^<]+)</h2>", sound(read).html)
    assert heads == [
        "What was found",
        "What to do",
        "How good the answers were",
        "Shown and not shown",
        "Window by window",
        "Sites side by side",
        "Subgroups",
        "What moved",
        "Inputs and risk, all sites together",
        "Inputs at each site",
        "Data quality",
        "Tests over the year",
        "More",
    ]


def test_each_alarm_stands_with_number_state_and_response(told):
    read, found = told(900, YEAR, moved=1.2, faster=40)
    assert f"Alarm: {len(found['alarms'])} things need a look" in read.text
    for alarm in found["alarms"]:
        assert f"{alarm['number']} · open" in read.text
        assert alarm["message"] in read.text
    assert "To do: look at how these inputs are measured and sent." in read.text
    numbers = ", ".join(
        str(one["number"]) for one in found["alarms"] if one["response"] == "recalibrate"
    )
    assert f"Recalibrate (alarm{'s' if ',' in numbers else ''} {numbers})" in read.text
    assert "A person must sign." in read.text


def test_a_recalibration_shows_each_site_before_and_after(told):
    read, found = told(900, YEAR, moved=1.2)
    details = next(one["details"] for one in found["proposed"] if one["action"] == "recalibrate")
    assert {row["site"] for row in details} == {"north", "south"}
    for row in details:
        shown = [cells for cells in read.rows(row["site"], f"{row['n']:,}") if len(cells) == 9]
        assert shown == [
            [
                row["site"],
                f"{row['n']:,}",
                f"{row['events']:,}",
                "+0.00",
                f"{row['shift']:+.2f}",
                *(f"{row[fit][name]:.2f}" for name in ("oe", "slope") for fit in ("before", "after")),
            ]
        ]


def test_a_site_that_is_left_as_it_is_says_why(told):
    read, _ = told(900, YEAR, moved=1.2, edit=_first_site_too_small)
    assert read.rows("north", "as it is: under 20 patients")


def _first_site_too_small(found):
    (recalibration,) = [one for one in found["proposed"] if one["action"] == "recalibrate"]
    recalibration["details"][0] |= {"reason": "under 20 patients"}
    return found


def test_closed_alarms_are_folded_and_need_no_look(told):
    def edit(found):
        by = {"by": "Dr Li", "reason": "a new thermometer", "at": "2026-06-01T00:00:00Z"}
        found["alarms"] = [one | {"state": "closed", "closed": by} for one in found["alarms"]]
        found["proposed"] = []
        return found

    read, found = told(900, faster=40, edit=edit)
    text = sound(read).text
    assert "Alarm: all of it was dealt with" in text
    assert f"{len(found['alarms'])} closed before" in text
    assert "Closed by Dr Li: a new thermometer." in text
    assert "To do:" not in text


@pytest.mark.parametrize("monthly", [0, 1, 30])
def test_a_window_too_small_to_judge(told, monthly):
    read, _ = told(monthly)
    text = sound(read).text
    assert f"Not enough data That is too little to judge: {monthly} predictions." in text
    assert "Not measured:" in text
    assert not read.rows("Measure")
    assert "Window by window" not in text


def test_no_outcome_known_yet_leaves_what_is_foreseen(told):
    read, found = told(400, known=False)
    text = sound(read).text
    oe = found["estimate"]["oe"]
    assert "No outcome is known yet" in text
    assert f"will be {oe['value']:.2f} ({oe['low']:.2f} to {oe['high']:.2f})" in text
    (row,) = [cells for cells in read.rows() if cells[0].startswith("Observed / expected events")]
    assert row[1:] == [
        "–",
        f"{oe['value']:.2f} ({oe['low']:.2f} to {oe['high']:.2f})",
        "1.00 (0.90 to 1.10)",
    ]


def test_measures_have_their_interval_where_it_is_known(told):
    read, found = told(800)
    measured = found["performance"]
    spans, at = measured["intervals"], measured["at_threshold"]
    rows = {cells[0].split(":")[0]: cells for cells in read.rows() if len(cells) == 4}
    auroc = measured["auroc"]
    now = f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})"
    assert rows["AUROC"][1] == now
    assert rows["AUROC"][3] == "0.700 (0.600 to 0.800)"
    nne = f"{at['nne']:.1f} ({spans['nne']['low']:.1f} to {spans['nne']['high']:.1f})"
    assert rows["Alerts answered for each patient found best 1"][1] == nne
    # Of the integrated index nothing but its value is known, of AUPRC nothing at promotion.
    assert rows["Integrated calibration index"][1] == f"{measured['calibration']['ici']:.3f}"
    assert rows["AUPRC"][3] == "–"


def test_what_is_no_number_is_a_dash(told):
    def edit(found):
        found["performance"]["brier_skill"] = float("nan")
        found["performance"]["intervals"]["nne"] = {"low": 1.5, "high": float("inf")}
        found["trend"][-1]["truth"]["slope"] = {"value": float("inf"), "low": None, "high": None}
        return found

    read, _ = told(400, YEAR[-2:], edit=edit)
    rows = {cells[0].split(":")[0]: cells for cells in sound(read).rows() if len(cells) == 4}
    assert rows["Brier skill"][1] == "–"
    assert "(from 1.5)" in rows["Alerts answered for each patient found best 1"][1]


def test_a_measure_beyond_its_limits_says_so_in_words(told):
    read, found = told(900, moved=1.2)
    assert found["performance"]["calibration"]["oe"] > 1.25
    over = re.findall(r'<tr class="over"><td>(.+?)</td>', read.html)
    assert [re.sub(r"<[^>]+>", "", row) for row in over if "Observed" in row] == [
        "Observed / expected events best 1; limits 0.8 to 1.25: outside"
    ]


def test_without_figures_of_the_promotion_nothing_is_held_against_them(told):
    read, _ = told(400, YEAR[-3:], at_promotion=None)
    text = sound(read).text
    assert "At promotion" not in text
    assert "It ranks patients with AUROC" in text


def test_of_one_window_there_is_no_trend(told):
    read, _ = told(400)
    assert "Window by window" not in read.text
    assert "Sites side by side" not in read.text
    assert read.rows("north")


def test_every_number_of_the_trend_stands_beside_the_picture(told):
    read, found = told(400, YEAR)
    assert len(found["trend"]) == 12
    forms = {"oe": ".2f", "auroc": ".2f", "slope": ".2f", "net_benefit": ".3f"}
    for row in found["trend"]:
        said = [
            (measure, *(_span(row[side], measure, form) for side in ("estimate", "truth")))
            for measure, form in forms.items()
        ]
        shown = [tuple(cells[1:]) for cells in read.rows(row["from"][:7]) if len(cells) == 3]
        assert shown == [(foreseen, truth) for _, foreseen, truth in said]
        (volume,) = [cells for cells in read.rows(row["from"][:7]) if len(cells) == 6]
        assert volume[1:4] == [f"{row['n']:,}", f"{row['outcomes']:,}", f"{row['alerts_per_100']:.1f}"]


def _span(side, measure, form):
    span = (side or {}).get(measure)
    if span is None:
        return "–"
    value, low, high = (format(span[name], form) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def test_every_number_of_the_sites_stands_beside_the_pictures(told):
    read, found = told(400, YEAR)
    for name in ("north", "south"):
        (row,) = [cells for cells in read.rows(name) if len(cells) == 13]
        for cell, one in zip(row[1:], found["trend"], strict=True):
            site = next(site for site in one["sites"] if site["site"] == name)
            assert cell == f"{_span(site, 'oe', '.2f')} n {site['n']}"


def test_sites_with_an_alarm_come_first(told):
    def edit(found):
        base = dict.fromkeys(("column", "group", "value", "since", "opened", "closed", "acknowledged"))
        found["alarms"] = [
            base
            | {"what": "silence", "site": "south", "state": "open", "number": 4, "message": "none sent"}
            | {"response": "inspect_inputs"}
        ]
        found["verdict"] = "alarm"
        return found

    read, _ = told(400, YEAR[-2:], edit=edit)
    captions = re.findall(
        r"<figcaption><b>(north|south)</b>( <span class=\"tag\">alarm</span>)?", read.html
    )
    assert captions == [("south", ' <span class="tag">alarm</span>'), ("north", "")]
    assert "Silent site south" in sound(read).text


def test_groups_of_under_20_patients_are_counted_and_not_shown(told):
    def levels(n):
        return np.where(np.arange(n) < 19, "Hui", np.where(np.arange(n) < 40, "Manchu", "Han")).astype(
            object
        )

    read, found = told(400, groups={"race": levels})
    (hui,) = [row for row in found["performance"]["groups"] if row["level"] == "Hui"]
    assert hui["suppressed"]
    assert not read.rows("Hui")
    assert read.rows("Manchu", "21")
    assert "1 subgroup of under 20 patients is not shown." in sound(read).text
    # The attribute has the name that its mart gives it.
    assert read.rows("Race")


def test_an_attribute_of_one_level_says_nothing(told):
    read, _ = told(400, groups={"ethnicity": lambda n: np.full(n, "not recorded", dtype=object)})
    assert not read.rows("Ethnicity")
    assert not read.rows("not recorded")
    assert read.rows("Sex")


def test_a_group_without_an_event_has_no_interval_that_is_none(told):
    def edit(found):
        row = next(row for row in found["performance"]["groups"] if row["level"] == "female")
        row |= {"events": 0, "oe": 0.0}
        row["intervals"]["oe"] = {"low": 0.0, "high": 0.0}
        return found

    read, _ = told(400, edit=edit)
    (row,) = sound(read).rows("female")
    assert row[3] == "0.00 (no event)"


def test_shown_answers_stand_apart(told):
    read, found = told(900, card=True, moved=-1.5)
    apart = found["performance"]["apart"]
    assert read.rows("shown as a card", f"{apart['shown']['n']}", f"{apart['shown']['events']}")
    assert read.rows("not shown", f"{apart['unshown']['n']}")
    text = sound(read).text
    assert f"Of {apart['unshown']['n']} answers that no clinician was shown and whose outcome" in text


def test_text_is_escaped_wherever_a_site_is_named(told):
    name = "<script>alert('x')</script> & 北京协和医院"
    read, _ = told(900, YEAR[-2:], names=("north", name), moved=1.2, faster=40)
    assert "<script" not in sound(read).html
    assert name in unescape(read.html)
    assert read.html.count("&lt;script&gt;") >= 4  # picture, table, inputs, recalibration


def test_a_challenger_says_that_it_answers_silently(told):
    assert "version 3, a challenger that answers silently" in told(400, pointer="challenger")[0].text


def test_of_the_risks_those_of_all_sites_are_drawn_in_percent(told):
    read, _ = told(800)
    assert re.search(r"The risks given .* Risk PSI", read.text)
    assert "Risk at" not in read.text
    labels = [row[0] for table in read.tables for row in table if len(row) == 3 and "→" in row[2]]
    assert labels[0].startswith("under ")
    assert all("%" in label for label in labels)


def test_a_shifted_input_is_drawn_and_marked(told):
    read, _ = told(900, faster=40)
    assert "What moved" in read.text
    assert re.search(r"<figcaption><b>Heart rate</b>", read.html)
    (row,) = read.rows("Heart rate heart_rate")
    assert float(row[1]) > float(row[2])


def test_links_lead_to_evidently_where_there_is_a_page(told):
    with_page, _ = told(400, links=["evidently.html", "evidently_outcomes.html"])
    assert 'href="evidently.html"' in sound(with_page).html
    assert "differ a little" in with_page.text
    assert "evidently" not in told(400)[0].html.lower()


def test_the_page_is_light(told):
    """Twelve windows of two sites: under 100 kB, where Evidently's page is some 5 MB."""
    read, _ = told(400, YEAR, moved=1.2, faster=40)
    assert len(read.html.encode()) < 100_000


def test_the_curves_stand_with_their_numbers(told):
    read, found = told(400)
    drawn = found["performance"]["curves"]
    assert read.html.count('viewBox="0 0 340 340"') == 2
    for row in drawn["calibration"]:
        interval = f"{percent(row['observed'])} ({percent(row['low'])} to {percent(row['high'])})"
        assert read.rows(percent(row["risk"]), interval, f"{row['n']}")
    for row in drawn["net_benefit"]:
        assert read.rows(percent(row["threshold"]), f"{row['model']:.3f}", f"{row['treat_all']:.3f}")


def test_the_same_window_gives_the_same_page(told):
    assert told(400, YEAR[-2:])[0].html == told(400, YEAR[-2:])[0].html
