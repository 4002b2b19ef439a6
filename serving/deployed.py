"""Which released versions answer, kept in step with the pointers on disk."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import CaremodelsError, NotFoundError, UnavailableError
from models import artifact, catalog, release
from models.release import Pointer
from serving.scorer import Scorer

logger = logging.getLogger(__name__)
HEADLINE = ("n", "events", "auroc", "auprc", "brier", "calibration", "at_threshold")
RETRY_SECONDS = 15.0
"""A version that cannot be served is tried again: its files may be put right under it."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why ``version`` is not served, as callers may be told, and when it was tried."""

    version: str
    reason: str
    tried: float


@dataclass
class Deployed:
    """The champions, and the challengers beside them. ``demo`` also loads models whose training data
    forbid care.
    """

    releases: Path
    key: bytes
    demo: bool = False
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    challengers: Mapping[str, Scorer] = field(default_factory=dict)
    faults: Mapping[str, Fault] = field(default_factory=dict)
    silent_faults: Mapping[str, Fault] = field(default_factory=dict)
    """Of challengers: no caller waits for one, so that it makes nothing unready."""

    def refresh(self) -> None:
        """Load what is newly pointed to. A version that does not verify leaves the old one in place;
        one to which no pointer leads any more was withdrawn and answers nothing.
        """
        # One assignment each: a request sees the old set or the new one, never half of each.
        self.scorers, self.faults = self._follow("champion", self.scorers, self.faults)
        found = self._follow("challenger", self.challengers, self.silent_faults)
        self.challengers, self.silent_faults = found

    def _follow(
        self, pointer: Pointer, before: Mapping[str, Scorer], failed: Mapping[str, Fault]
    ) -> tuple[dict[str, Scorer], dict[str, Fault]]:
        scorers: dict[str, Scorer] = {}
        faults: dict[str, Fault] = {}
        for model in release.models(self.releases, pointer):
            known, fault = before.get(model), failed.get(model)
            version = self._pointed(model, pointer)
            if version is None:  # withdrawn since the pointers were listed
                continue
            if known:
                scorers[model] = known
            if known and known.version == version:
                continue
            if fault and fault.version == version and time.monotonic() < fault.tried + RETRY_SECONDS:
                faults[model] = fault
                continue
            try:
                scorers[model] = self._load(model, version)
            except Exception as error:  # noqa: BLE001 the other models must still be looked at
                faults[model] = _fault(model, version, error)
                if not fault or (fault.version, fault.reason) != (version, faults[model].reason):
                    what = error if isinstance(error, CaremodelsError) else type(error).__name__
                    logger.error("%s %s is not served: %s", model, version, what)
        return scorers, faults

    def __getitem__(self, model: str) -> Scorer:
        """Raises NotFoundError for a model that nobody declared, UnavailableError for one not served."""
        scorer = self.scorers.get(model)
        if scorer is not None:
            return scorer
        if model in self.faults:
            raise UnavailableError(self.faults[model].reason)
        if model in catalog.names() or model in release.known(self.releases):
            raise UnavailableError(f"no version of {model} is released")
        raise NotFoundError("no such model")

    @property
    def ready(self) -> bool:
        """Whether something is served and nothing failed to load."""
        return bool(self.scorers) and not self.faults

    def _pointed(self, model: str, pointer: Pointer) -> str | None:
        try:
            return release.pointed(self.releases, model=model, pointer=pointer)
        except ValueError:  # not text
            return ""

    def _load(self, model: str, version: str) -> Scorer:
        folder = self.releases / model / version
        loaded = artifact.load(folder)
        if loaded.manifest.provenance.use == "demonstration" and not self.demo:
            raise UnavailableError(
                f"{model} {version} is for demonstration, not for care: it is served with --demo only"
            )
        return Scorer(artifact=loaded, version=version, key=self.key, metrics=_headline(folder))


def _headline(folder: Path) -> dict[str, Any]:
    """What a version's evaluation says of it at a glance."""
    file = folder / "evaluation.json"
    figures = json.loads(file.read_bytes()) if file.is_file() else {}
    return {name: figures[name] for name in HEADLINE if name in figures}


def _fault(model: str, version: str, error: Exception) -> Fault:
    # Of an integrity error callers learn that there is one; the files' names are for the log.
    told = str(error) if isinstance(error, UnavailableError) else f"{model} {version} cannot be loaded"
    return Fault(version=version, reason=told, tried=time.monotonic())
