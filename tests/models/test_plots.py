from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from models import metrics, plots


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
    figure = plots.roc(frames(case, metrics.roc_curve), values={"Model": 0.789}, title="Admission")
    assert {"Model  0.79", "NEWS2", "1 − specificity", "Sensitivity"} <= words(figure)
    assert figure.axes[0].get_title(loc="left") == "Admission"
    _, model, comparator = figure.axes[0].lines
    assert (
        model.get_xydata().tolist()
        == metrics.roc_curve(case[0], case[1]["Model"])[["fpr", "tpr"]].to_numpy().tolist()
    )
    assert model.get_linewidth() > comparator.get_linewidth()


def test_precision_recall(case):
    figure = plots.precision_recall(frames(case, metrics.pr_curve), prevalence=case[0].mean())
    assert {"Model", "NEWS2", "prevalence", "Sensitivity (recall)"} <= words(figure)


def test_calibration_with_its_histogram_below(case):
    figure = plots.calibration(
        frames(case, metrics.calibration_curve),
        histograms=frames(case, metrics.risk_histogram),
        smooth=frames(case, metrics.smoothed_calibration),
    )
    assert {"Model", "NEWS2", "ideal", "with the outcome", "without", "Predicted risk"} <= words(figure)
    above, below = figure.axes
    assert below.get_position().y1 < above.get_position().y0
    assert sum(bar.get_height() for bar in below.patches if bar.get_height() > 0) == case[0].sum()


def test_calibration_without_a_histogram_hides_its_axes(case):
    figure = plots.calibration(frames(case, metrics.calibration_curve))
    assert {"Predicted risk", "Observed share"} <= words(figure)
    assert not figure.axes[1].get_visible()


def test_decision_curve(case):
    figure = plots.decision_curve(frames(case, metrics.net_benefit, np.linspace(0.01, 0.5, 50)))
    assert {"Model", "NEWS2", "treat all", "treat none", "Net benefit"} <= words(figure)


def test_names_beside_a_decision_curve_do_not_cover_each_other(case):
    y, risks = case
    same = metrics.net_benefit(y, risks["Model"], np.linspace(0.01, 0.5, 20))
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


def test_nothing_to_show_still_draws():
    y, risk = np.zeros(30), np.linspace(0.1, 0.9, 30)
    undefined = metrics.evaluate(y, risk, threshold=0.5, bootstrap=20, groups={"all": ["x"] * 30})
    assert "not defined" in words(plots.forest(undefined.by_group))
    assert png(plots.forest(metrics.evaluate(y, risk, threshold=0.5, bootstrap=0).by_group))
    assert png(plots.roc({"Model": metrics.roc_curve(y, risk)}))
    assert png(plots.precision_recall({"Model": metrics.pr_curve(y, risk)}))
    assert png(plots.calibration({"Model": metrics.calibration_curve(y, risk)}))
    assert png(plots.decision_curve({"Model": metrics.net_benefit(y, risk, [0.1, 0.2])}))


def test_inputs_are_left_as_they_were(case):
    curves = frames(case, metrics.calibration_curve)
    before = {name: frame.copy() for name, frame in curves.items()}
    png(plots.calibration(curves))
    for name, frame in curves.items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; from models import plots; assert 'matplotlib' not in sys.modules;"
        "plots.roc({}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
