"""The evidence that fills every document: what is known of one version, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data.contract import Mart
from models.artifact import Artifact
from models.calibration import Calibration
from models.cohort import NOBODY, Cohort
from models.ledger import Entry
from models.manifest import Provenance
from models.reference import Binned
from models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One version: what it is, what it learned from, how it did and what a person wrote of it.

    ``mart`` holds the columns that a request may tell, ``inputs`` those that the model reads.
    ``learned`` counts the training rows by input, ``missing`` a cell of its own. ``figures`` is what
    ``evaluation.json`` holds; a key that is absent or null is a figure that is not defined.
    ``patients`` counts the people in the test rows, None where rows name none. ``people`` is what
    :func:`training.documents.people.read` gives; ``ledger`` the acts on this version.
    """

    spec: ModelSpec
    mart: Mart
    inputs: tuple[str, ...]
    provenance: Provenance
    libraries: Mapping[str, str]
    trees: int
    calibration: Calibration
    learned: tuple[Binned, ...]
    figures: Mapping[str, Any]
    patients: int | None = None
    people: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    ledger: tuple[Entry, ...] = ()

    @classmethod
    def of(
        cls,
        fitted: Artifact,
        figures: Mapping[str, Any],
        *,
        patients: int | None,
        people: Mapping[str, str],
        version: str | None = None,
        ledger: Sequence[Entry] = (),
    ) -> Bundle:
        return cls(
            spec=fitted.spec,
            mart=fitted.mart,
            inputs=fitted.features.inputs,
            provenance=fitted.manifest.provenance,
            libraries=fitted.manifest.libraries,
            trees=fitted.booster.num_boosted_rounds() * fitted.spec.boosting.trees_a_round,
            calibration=fitted.calibration,
            learned=fitted.reference.columns,
            figures=figures,
            patients=patients,
            people=people,
            version=version,
            ledger=tuple(ledger),
        )

    @property
    def demonstration(self) -> bool:
        return self.provenance.use == "demonstration"

    @property
    def resampled(self) -> str:
        """What the bootstrap draws: see :attr:`models.cohort.Cohort.cluster`."""
        return "sites" if self.patients is None else "patients"

    @property
    def comparators(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> its figures."""
        return self.figures.get("comparators") or {}

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """The figures of each level of each attribute, the suppressed among them."""
        return list(self.figures.get("groups") or [])

    def missing(self, name: str) -> float | None:
        """The share of training rows without a value of input ``name``; None where not counted."""
        for binned in self.learned:
            total = sum(binned.counts)
            if binned.column == name and total > 0:
                return binned.counts[-1] / total
        return None


def patients(cohort: Cohort) -> int | None:
    """How many people stand in ``cohort``; None where its rows name nobody."""
    if (cohort.patient == NOBODY).all():
        return None
    return len(np.unique(cohort.person))
