"""Logistic regression as plain numbers: the comparator that every model must beat.

Missing values are replaced by the training median and each column that had some gets an
indicator, so that the regression may use missingness as the trees do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.calibration import sigmoid

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Coefficients on standardised columns; ``indicators`` are positions of columns with gaps."""

    medians: tuple[float, ...]
    scales: tuple[float, ...]
    indicators: tuple[int, ...]
    coefficients: tuple[float, ...]
    intercept: float

    def risk(self, matrix: npt.NDArray[np.float32]) -> FloatArray:
        """(rows,) probabilities."""
        design = self.design(matrix, self.medians, self.scales, self.indicators)
        return sigmoid(design @ np.asarray(self.coefficients) + self.intercept)

    @staticmethod
    def design(
        matrix: npt.NDArray[np.float32],
        medians: tuple[float, ...],
        scales: tuple[float, ...],
        indicators: tuple[int, ...],
    ) -> FloatArray:
        """(rows, columns + indicators): imputed, centred, scaled; then the indicators."""
        missing = np.isnan(matrix)
        centred = np.where(missing, 0.0, matrix - np.asarray(medians)) / np.asarray(scales)
        return np.hstack([centred, missing[:, list(indicators)]])
