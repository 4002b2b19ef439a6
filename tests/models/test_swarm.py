from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from models import swarm


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def words(figure):
    assert png(figure).startswith(b"\x89PNG")
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.fixture
def points():
    """Two features with an order, one of them missing at times, and a category."""
    rng = np.random.default_rng(0)
    rank = rng.random(300)
    lactate = np.where(rng.random(300) < 0.4, np.nan, rank)
    frames = [
        pd.DataFrame({"feature": name, "contribution": moved, "rank": of, "ordered": ordered})
        for name, moved, of, ordered in (
            ("Age", rank - 0.5, rank, True),
            ("Lactate", np.nan_to_num(lactate) ** 2, lactate, True),
            ("Unit", rng.choice([-0.1, 0.1], 300), np.full(300, 0.5), False),
        )
    ]
    return pd.concat(frames)


def test_beeswarm_has_a_line_a_feature_and_says_what_its_colours_mean(points):
    figure = swarm.beeswarm(points, title="Sepsis")
    found = words(figure)
    assert {"Age", "Lactate", "Unit", "low", "high", "missing", "category, has no order"} <= found
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Age", "Lactate", "Unit"]
    assert axes.get_title(loc="left") == "Sepsis"


def test_beeswarm_colours_by_rank_missing_and_category(points):
    age, lactate, unit = swarm.beeswarm(points).axes[0].collections
    rank = points.loc[points["feature"] == "Age", "rank"].to_numpy()
    colours = age.get_facecolors()
    low, high = colours[rank.argmin(), :3], colours[rank.argmax(), :3]
    assert low == pytest.approx(to_rgba(swarm.LOW)[:3], abs=0.03)
    assert high == pytest.approx(to_rgba(swarm.HIGH)[:3], abs=0.03)
    missing = points.loc[points["feature"] == "Lactate", "rank"].isna().to_numpy()
    grey = np.isclose(lactate.get_facecolors()[:, :3], to_rgba(swarm.MISSING)[:3]).all(axis=1)
    assert (grey == missing).all()
    assert np.isclose(unit.get_facecolors()[:, :3], to_rgba(swarm.UNORDERED)[:3]).all()


def test_beeswarm_keeps_each_feature_in_its_line_and_each_contribution_in_its_place(points):
    for k, (name, drawn) in enumerate(
        zip(("Age", "Lactate", "Unit"), swarm.beeswarm(points).axes[0].collections, strict=True)
    ):
        x, y = np.asarray(drawn.get_offsets()).T
        assert x.tolist() == points.loc[points["feature"] == name, "contribution"].tolist()
        assert np.abs(y - k).max() < 0.5
        assert len(np.unique(y)) > 5


def test_dependence_sets_the_missing_apart():
    value = np.r_[np.linspace(10, 20, 50), [np.nan] * 10]
    frame = pd.DataFrame({"feature": "lactate", "label": "Lactate, mmol/L", "value": value})
    frame["contribution"] = np.linspace(-1, 1, 60)
    figure = swarm.dependence(pd.concat([frame, frame.assign(feature="age", label="Age, years")]))
    assert {"Lactate, mmol/L", "Age, years", "missing"} <= words(figure)
    assert len(figure.axes) == 2
    known, missing = figure.axes[0].collections[:2]
    left = np.asarray(missing.get_offsets())[:, 0]
    assert len(left) == 10
    assert left.max() < 10 <= np.asarray(known.get_offsets())[:, 0].min()
    assert all(tick >= 9 for tick in figure.axes[0].get_xticks())


def test_dependence_without_gaps_or_of_one_feature_still_draws():
    frame = pd.DataFrame({"feature": "a", "label": "A", "value": [1.0, 2.0], "contribution": [0.1, 0.2]})
    figure = swarm.dependence(frame, title="Age")
    assert "missing" not in words(figure)
    assert len(figure.axes) == 1


def test_contributions_that_are_all_alike_still_draw():
    frame = pd.DataFrame(
        {"feature": ["a"] * 5, "contribution": [0.0] * 5, "rank": [np.nan] * 5, "ordered": [True] * 5}
    )
    assert png(swarm.beeswarm(frame)).startswith(b"\x89PNG")
