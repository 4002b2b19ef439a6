"""Which reasons drive the scores, held against training: drift of the explanations.

Inputs may look as ever and weigh otherwise: a rare finding became common among the sick. The share of
a feature is its mean absolute contribution over that of all features. Its standard error is that of a
mean, on both sides: the figures at training rest on ``EXPLAINED`` rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri

from models.artifact import Artifact
from monitoring.counting import MIN_ROWS
from monitoring.drift import percent
from monitoring.signal import Signal
from monitoring.window import Window

EXPLAINED = 1000
"""Test rows that the shares at training were measured on."""
MOVED = 0.04
"""Of all the weight of the explanations: by so much a feature must gain or lose to be told."""


def shares(
    window: Window, loaded: Artifact, at_promotion: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """``{feature, label, training, window, limit, drifted}`` of each feature, the weightiest first.

    ``limit``: by how much the share may differ. Empty without figures of training, or under
    ``MIN_ROWS`` explanations.
    """
    trained = {row["feature"]: row["mean_abs"] for row in (at_promotion or {}).get("importance") or ()}
    counted = window.whole.reasons
    rows = max((row[0] for row in counted.values()), default=0)
    total = sum(row[1] for row in counted.values())
    before = sum(trained.values())
    if rows < MIN_ROWS or not total or not before:
        return []
    labels = {feature.name: feature.label for feature in loaded.features.features}
    watch = loaded.spec.watch
    z = -ndtri(watch.alpha / watch.looks / (2 * len(counted)))
    found = []
    for feature, (n, size, squares) in counted.items():
        share, then = size / total, trained.get(feature, 0.0) / before
        spread = np.sqrt(max(squares / n - (size / n) ** 2, 0.0)) / (total / rows)
        limit = float(MOVED + z * spread * np.sqrt(1 / n + 1 / EXPLAINED))
        found.append(
            {
                "feature": feature,
                "label": {"en": labels[feature].en, "zh": labels[feature].zh},
                "training": then,
                "window": share,
                "limit": limit,
                "drifted": abs(share - then) > limit,
            }
        )
    return sorted(found, key=lambda row: (-max(row["window"], row["training"]), row["feature"]))


def signals(window: Window, found: list[dict[str, Any]]) -> list[Signal]:
    """One for each feature whose weight has moved."""
    return [
        Signal(
            what="reason_drift",
            message=(
                f"{row['label']['en']} carries {percent(row['window'])} of the explanations, "
                f"{percent(row['training'])} at training"
            ),
            column=row["feature"],
            value=row["window"],
            limits=(row["training"] - row["limit"], row["training"] + row["limit"]),
            since=window.period.days[0],
        )
        for row in found
        if row["drifted"]
    ]
