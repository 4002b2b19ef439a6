from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from models import curves, metrics, plots


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    logit = rng.normal(-1.5, 1.2, 600)
    y = (rng.random(600) < 1 / (1 + np.exp(-logit))).astype(float)
    risks = {"Model": 1 / (1 + np.exp(-logit)), "NEWS2": (1 / (1 + np.exp(-0.5 * logit))).round(1)}
    return y, risks


def frames(case, of, *more):
    y, risks = case
    return {name: of(y, risk, *more) for name, risk in risks.items()}


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def words(figure):
    """All text on a figure that has been drawn."""
    assert png(figure).startswith(b"\x89PNG")
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))} - {
        ""
    }


def test_roc(case):
    figure = plots.roc(frames(case, curves.roc_curve), values={"Model": 0.789}, title="Admission")
    assert {"Model  0.79", "NEWS2", "1 − specificity", "Sensitivity"} <= words(figure)
    assert figure.axes[0].get_title(loc="left") == "Admission"
    _, model, comparator = figure.axes[0].lines
    assert (
        model.get_xydata().tolist()
        == curves.roc_curve(case[0], case[1]["Model"])[["fpr", "tpr"]].to_numpy().tolist()
    )
    assert model.get_linewidth() > comparator.get_linewidth()


def test_precision_recall(case):
    figure = plots.precision_recall(frames(case, curves.pr_curve), prevalence=case[0].mean())
    assert {"Model", "NEWS2", "prevalence", "Sensitivity (recall)"} <= words(figure)


def test_calibration_with_its_histogram_below(case):
    figure = plots.calibration(
        frames(case, curves.calibration_curve),
        histograms=frames(case, curves.risk_histogram),
        smooth=frames(case, curves.smoothed_calibration),
    )
    events = int(case[0].sum())
    counts = {f"with the outcome, n = {events}", f"without, n = {600 - events}"}
    assert {"Model", "NEWS2", "ideal", "Predicted risk"} | counts <= words(figure)
    above, below = figure.axes
    assert below.get_position().y1 < above.get_position().y0
    # Each of the two adds up to all of its own.
    heights = np.array([bar.get_height() for bar in below.patches])
    assert heights[heights > 0].sum() == pytest.approx(1)
    assert heights[heights < 0].sum() == pytest.approx(-1)


@pytest.mark.parametrize(("highest", "end"), [(0.04, 0.1), (0.18, 0.2), (0.6, 1.0)])
def test_calibration_ends_where_a_rare_outcome_does(highest, end):
    frame = pd.DataFrame({"risk": [0.01, highest], "observed": [0.01, highest]})
    frame = frame.assign(low=frame["observed"], high=frame["observed"])
    assert plots.furthest({"Model": frame}) == end
    assert plots.furthest({"Model": frame}, {"Model": frame.assign(observed=0.9)}) == 1
    axes = plots.calibration({"Model": frame}).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, end), (0, end))


def test_calibration_without_a_histogram_hides_its_axes(case):
    figure = plots.calibration(frames(case, curves.calibration_curve))
    assert {"Predicted risk", "Observed share"} <= words(figure)
    assert not figure.axes[1].get_visible()


def test_decision_curve(case):
    figure = plots.decision_curve(frames(case, curves.net_benefit, np.linspace(0.01, 0.5, 50)))
    assert {"Model", "NEWS2", "treat all", "treat none", "Net benefit"} <= words(figure)


def test_names_beside_a_decision_curve_do_not_cover_each_other(case):
    y, risks = case
    same = curves.net_benefit(y, risks["Model"], np.linspace(0.01, 0.5, 20))
    figure = plots.decision_curve(dict.fromkeys(["Model", "Twin", "Triplet"], same))
    png(figure)
    names = ("Model", "Twin", "Triplet", "treat none")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() in names]
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in itertools.pairwise(boxes))


def test_forest_says_which_groups_are_too_small(case):
    y, risks = case
    site = np.array(["A"] * 10 + ["B"] * 290 + ["C"] * 300)
    made = metrics.evaluate(y, risks["Model"], threshold=0.3, groups={"Site": site}, bootstrap=60)
    figure = plots.forest(made.by_group, overall=0.8)
    found = words(figure)
    assert {"Site", "A   n = 10", "B   n = 290", "too few to show", "AUROC", "all"} <= found
    b = made.by_group.query("level == 'B' and metric == 'auroc'").iloc[0]
    assert f"{b['value']:.2f}  ({b['low']:.2f}–{b['high']:.2f})" in found


def test_forest_names_its_measure(case):
    y, risks = case
    made = metrics.evaluate(y, risks["Model"], threshold=0.3, groups={"x": y * 0}, bootstrap=20)
    assert "Observed / expected" in words(plots.forest(made.by_group, metric="oe"))


def test_utility_shows_the_alert_and_cuts_off_what_never_ends():
    frame = pd.DataFrame({"threshold": [0.001, 0.01, 0.1], "utility": [-30.0, 0.4, 0.1]})
    figure = plots.utility({"Model": frame, "NEWS2": frame * 0.5}, chosen=0.02)
    assert {"Model", "NEWS2", "alert at 2 %", "Normalised utility"} <= words(figure)
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == pytest.approx(-0.4 * 0.4)
    assert axes.get_xlim()[0] >= 0.005
    assert png(plots.utility({"Model": frame.assign(utility=0.0)}))


def test_levels_show_counts_and_shares_of_the_true_level():
    table = pd.DataFrame([[3, 1, 0], [20, 1_980, 0], [0, 0, 0]], ["one", "two", "three"], [1, 2, 3])
    found = words(plots.levels(table))
    assert {"75%\n3", "25%\n1", "99%\n1,980", "one   n = 4", "two   n = 2,000"} <= found
    assert any("less urgent" in text for text in found)


def test_nothing_to_show_still_draws():
    y, risk = np.zeros(30), np.linspace(0.1, 0.9, 30)
    undefined = metrics.evaluate(y, risk, threshold=0.5, bootstrap=20, groups={"all": ["x"] * 30})
    assert "not defined" in words(plots.forest(undefined.by_group))
    assert png(plots.forest(metrics.evaluate(y, risk, threshold=0.5, bootstrap=0).by_group))
    assert png(plots.roc({"Model": curves.roc_curve(y, risk)}))
    assert png(plots.precision_recall({"Model": curves.pr_curve(y, risk)}))
    assert png(plots.calibration({"Model": curves.calibration_curve(y, risk)}))
    assert png(plots.decision_curve({"Model": curves.net_benefit(y, risk, [0.1, 0.2])}))


def test_inputs_are_left_as_they_were(case):
    given = frames(case, curves.calibration_curve)
    before = {name: frame.copy() for name, frame in given.items()}
    png(plots.calibration(given))
    for name, frame in given.items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; from models import plots; assert 'matplotlib' not in sys.modules;"
        "plots.roc({}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
