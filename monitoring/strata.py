"""The groups that performance is measured in: each site, and each level of the spec's attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from models.metrics import SMALLEST_GROUP
from monitoring.window import Window

SITE = "site"
UNOPENED = "(not opened)"
"""Level of an answer whose inputs were not drawn; no group of its own."""

Ints = npt.NDArray[np.intp]
Texts = npt.NDArray[np.object_]


def at(window: Window, places: Ints) -> dict[str, Texts]:
    """Attribute -> level of each answer at ``places``; one that no answer tells is left out."""
    answers = window.answers
    names = np.array([*answers.sites, None], dtype=object)[answers.site[places]]
    found = {SITE: np.array([name or "(none named)" for name in names], dtype=object)}
    for attribute, levels in window.groups.items():
        level = np.array([UNOPENED if one is None else one for one in levels[places]], dtype=object)
        if (level != UNOPENED).any():
            found[attribute] = level
    return found


def shown(groups: Mapping[str, Texts], patient: Ints) -> Iterator[tuple[str, str, Ints]]:
    """Attribute, level and its places, of the levels of at least ``SMALLEST_GROUP`` patients."""
    for attribute, levels in groups.items():
        for level in sorted(set(levels.tolist()) - {UNOPENED}):
            rows = np.flatnonzero(levels == level)
            if len(np.unique(patient[rows])) >= SMALLEST_GROUP:
                yield attribute, level, rows


def sampled(places: Ints, patient: npt.NDArray[np.int64], most: int) -> Ints:
    """Those of about ``most`` answers, all of the patients who are drawn, the same each time."""
    if len(places) <= most:
        return places
    people, of = np.unique(patient[places], return_inverse=True)
    return places[(np.random.default_rng(0).random(len(people)) < most / len(places))[of]]
