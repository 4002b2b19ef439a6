"""Logistic regression as plain numbers: the comparator of the trees, or the model itself.

Missing values are replaced by the training median and each column that had some gets an
indicator, so that the regression may use missingness as the trees do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data.errors import IntegrityError
from models.calibration import sigmoid

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Coefficients on standardised columns; ``indicators`` are positions of columns with gaps.

    ``means`` are those of the design's columns over the training rows; older versions have none.
    """

    medians: tuple[float, ...]
    scales: tuple[float, ...]
    indicators: tuple[int, ...]
    coefficients: tuple[float, ...]
    intercept: float
    means: tuple[float, ...] = ()

    def risk(self, matrix: Matrix) -> FloatArray:
        """(rows,) probabilities."""
        return sigmoid(self.log_odds(matrix))

    def log_odds(self, matrix: Matrix) -> FloatArray:
        """(rows,) of each row the same in whatever company: no product of BLAS, which blocks rows."""
        design = self.design(matrix, self.medians, self.scales, self.indicators)
        return np.asarray((design * self.coefficients).sum(axis=1) + self.intercept)

    @staticmethod
    def design(
        matrix: Matrix,
        medians: tuple[float, ...],
        scales: tuple[float, ...],
        indicators: tuple[int, ...],
    ) -> FloatArray:
        """(rows, columns + indicators): imputed, centred, scaled; then the indicators."""
        missing = np.isnan(matrix)
        centred = np.where(missing, 0.0, matrix - np.asarray(medians)) / np.asarray(scales)
        return np.hstack([centred, missing[:, list(indicators)]])


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """Explains a logistic regression: exact SHAP of a linear model whose columns are taken one by one.

    What a column adds to the log-odds is its coefficient times how far it is from its training mean
    (Štrumbelj & Kononenko 2014, Knowl Inf Syst 41:647); an indicator of missingness adds to the output
    of the column that is missing. ``output`` (columns,): the sum that each column's contributions go
    to.
    """

    logistic: Logistic
    output: npt.NDArray[np.intp]

    @cached_property
    def _means(self) -> FloatArray:
        """Raises IntegrityError where the version was fitted before they were kept."""
        if len(self.logistic.means) != len(self.logistic.coefficients):
            raise IntegrityError("the logistic regression has no training means to be explained by")
        return np.asarray(self.logistic.means)

    @property
    def bias(self) -> float:
        """The mean log-odds of the training rows."""
        return float((self._means * self.logistic.coefficients).sum() + self.logistic.intercept)

    def contributions(self, matrix: Matrix) -> FloatArray:
        """(rows, outputs) that add up, with ``bias``, to the log-odds.

        >>> fitted = Logistic(medians=(5.0,), scales=(2.0,), indicators=(0,), coefficients=(1.0, -3.0),
        ...                   intercept=0.5, means=(0.25, 0.125))
        >>> explained = Weighed(logistic=fitted, output=np.array([0]))
        >>> explained.bias, explained.contributions(np.array([[9.0], [np.nan]])).tolist()
        (0.375, [[2.125], [-2.875]])
        """
        fitted = self.logistic
        design = fitted.design(matrix, fitted.medians, fitted.scales, fitted.indicators)
        parts = (design - self._means) * fitted.coefficients
        found = np.zeros((len(matrix), int(self.output.max(initial=-1)) + 1))
        into = [*self.output, *self.output[list(fitted.indicators)]]
        for column, output in enumerate(into):
            found[:, output] += parts[:, column]
        return found
