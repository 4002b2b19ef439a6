"""What a version does with poor inputs: whom it gives no risk, and how it fares as inputs go missing.

The measure behind the card's words on missing data (TRIPOD+AI, item 27a).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models import metrics, support
from models.artifact import Artifact
from models.calibration import sigmoid
from models.cohort import Cohort
from training.answers import around

ROWS = 20_000
"""Test rows that are looked at; of more, so many drawn at random."""
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Of the features that are withheld, each at random."""
FloatArray = npt.NDArray[np.float64]


def measure(artifact: Artifact, cohort: Cohort, *, seed: int = 0) -> dict[str, Any]:
    """``abstained``: share of the rows by rule, and of any. ``withheld``: how the version fares on all
    rows, and which share it would answer, when a share of the features goes missing.
    """
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(len(cohort), min(ROWS, len(cohort)), replace=False))
    near, at = around(cohort, positions)
    matrix = artifact.features.matrix(near)[at]
    rows = {name: values[at] for name, values in near.items()}
    site, outcome = cohort.site[positions], cohort.outcome[positions]
    margin = artifact.margin(matrix, site)
    rules = support.broken(artifact, rows, matrix, margin)
    none = np.any([np.zeros(len(positions), dtype=bool), *rules.values()], axis=0)
    told = []
    for share in SHARES:
        poorer = matrix.copy()
        for start, feature in zip(artifact.features.starts, artifact.features.features, strict=True):
            gone = rng.random(len(poorer)) < share
            poorer[gone, start : start + len(feature.parts)] = np.nan
        risk = sigmoid(artifact.margin(poorer, site))
        answered = np.mean(~support.too_little(artifact, poorer))
        told.append({"share": share, "answered": float(answered), **_fares(outcome, risk)})
    return {
        "rows": len(positions),
        "abstained": {"any": float(none.mean()), **{r: float(m.mean()) for r, m in rules.items()}},
        "withheld": told,
    }


def _fares(outcome: FloatArray, risk: FloatArray) -> dict[str, float | None]:
    events = float(outcome.sum())
    if not 0 < events < len(outcome):
        return {"auroc": None, "oe": None}
    return {"auroc": float(metrics.auroc(outcome, risk)), "oe": events / float(risk.sum())}
