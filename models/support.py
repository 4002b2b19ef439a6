"""Whether a patient's inputs support a risk at all; where they do not, none is given, and why.

Three rules, declared in the spec (:class:`models.spec.Support`): too little was measured, what was
measured is unlike nearly everybody that the version learned from, or the prediction set rules too
little out. They are read off the matrix and the answers, so that a request and a mart are judged alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from data.contract import Rows, Text
from models.artifact import Artifact
from models.features import Matrix
from models.spec import Support

Rule = Literal["cohort", "missing", "novelty", "ambiguous"]
RULES: tuple[Rule, ...] = ("cohort", "missing", "novelty", "ambiguous")
EVERYTHING = "instance"
"""The field of a reason that concerns no single one."""
CONFORMAL = "conformal"
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """One reason why a row is given no risk."""

    rule: Rule
    field: str
    why: Text


_NOVEL = Text("unlike nearly every patient that the model was taught with", "与模型所学患者极少相似")
_UNCLEAR = Withheld(
    rule="ambiguous",
    field=CONFORMAL,
    why=Text("the inputs rule out too few outcomes", "现有输入可排除的结局过少"),
)


def broken(
    loaded: Artifact,
    rows: Rows,
    matrix: Matrix,
    margin: FloatArray,
    *,
    novelty: FloatArray | None = None,
    sets: BoolArray | None = None,
) -> dict[Rule, BoolArray]:
    """Rule -> mask of the rows (n,) that break it; a rule that the spec does not declare is not there.

    ``rows`` and ``matrix`` (n, parts) are of the same n rows, ``margin`` (n,) their log-odds.
    ``novelty`` (n,) and ``sets`` (n, classes), where they are at hand, are not computed again.
    """
    declared, found = loaded.spec.support, dict[Rule, BoolArray]()
    if declared.at_least:
        found["missing"] = too_little(loaded, matrix)
    if declared.novelty < 1:
        strange = loaded.novelty.percentile(rows) if novelty is None else novelty
        found["novelty"] = np.asarray(strange > declared.novelty)
    if declared.largest_set is not None:
        held = loaded.sets(rows, margin) if sets is None else sets
        found["ambiguous"] = np.asarray(held.sum(axis=1) > declared.largest_set)
    return found


def too_little(loaded: Artifact, matrix: Matrix) -> BoolArray:
    """(n,) mask of the rows of ``matrix`` of which too little was measured."""
    declared, features = loaded.spec.support, loaded.features
    # The first part of a feature is its value, of a series the last known one.
    places = [
        start
        for start, feature in zip(features.starts.tolist(), features.features, strict=True)
        if feature.name in declared.measured
    ]
    return np.asarray((~np.isnan(matrix[:, places])).sum(axis=1) < declared.at_least)


def reasons(loaded: Artifact, rows: Rows, rules: Mapping[Rule, BoolArray]) -> dict[int, list[Withheld]]:
    """Position of each row that is withheld -> why. ``rules``: what :func:`broken` found of ``rows``."""
    found: dict[int, list[Withheld]] = {}
    for rule, mask in rules.items():
        places = np.flatnonzero(mask)
        if rule == "novelty" and len(places):
            strange = loaded.novelty.drivers({name: values[places] for name, values in rows.items()})
            for place, drivers in zip(places.tolist(), strange, strict=True):
                # Two numbers that do not go together are one fault.
                names = dict.fromkeys(", ".join(driver.columns) for driver in drivers)
                said = [Withheld(rule=rule, field=name, why=_NOVEL) for name in names]
                found.setdefault(place, []).extend(said)
            continue
        why = _said_of(loaded.spec.support) if rule == "missing" else _UNCLEAR
        for place in places.tolist():
            found.setdefault(place, []).append(why)
    return found


def _said_of(declared: Support) -> Withheld:
    names = ", ".join(declared.measured)
    return Withheld(
        rule="missing",
        field=EVERYTHING,
        why=Text(
            f"too little was measured: of {names} at least {declared.at_least} must be",
            f"信息不足，以下各项至少需{declared.at_least}项：{names}",
        ),
    )
