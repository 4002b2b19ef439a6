"""Which released versions answer, kept in step with the pointers on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import CaremodelsError, NotFoundError, UnavailableError
from models import artifact, catalog, release
from serving.scorer import Scorer

logger = logging.getLogger(__name__)


@dataclass
class Deployed:
    """The champions. ``demo`` also loads models whose training data forbid care."""

    releases: Path
    key: bytes
    demo: bool = False
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    def refresh(self) -> None:
        """Load what is newly pointed to. A version that does not verify leaves the old one in place."""
        scorers: dict[str, Scorer] = {}
        faults: dict[str, str] = {}
        for model in release.models(self.releases):
            version = release.pointed(self.releases, model=model)
            known = self.scorers.get(model)
            if version is None or (known and known.version == version):
                scorers |= {model: known} if known and version else {}
                continue
            try:
                scorers[model] = self._load(model, version)
            except CaremodelsError as error:
                faults[model] = str(error)
                if self.faults.get(model) != faults[model]:
                    logger.error("%s %s is not served: %s", model, version, error)
                if known:
                    scorers[model] = known
        # One assignment: a request sees the old set or the new one, never half of each.
        self.scorers, self.faults = scorers, faults

    def __getitem__(self, model: str) -> Scorer:
        """Raises NotFoundError for a model that nobody declared, UnavailableError for one not served."""
        scorer = self.scorers.get(model)
        if scorer is not None:
            return scorer
        if model in self.faults:
            raise UnavailableError(self.faults[model])
        if model in catalog.names():
            raise UnavailableError(f"no version of {model} is released")
        raise NotFoundError("no such model")

    @property
    def ready(self) -> bool:
        """Whether something is served and nothing failed to load."""
        return bool(self.scorers) and not self.faults

    def _load(self, model: str, version: str) -> Scorer:
        loaded = artifact.load(self.releases / model / version)
        if loaded.manifest.provenance.use == "demonstration" and not self.demo:
            raise UnavailableError(
                f"{model} {version} is for demonstration, not for care: it is served with --demo only"
            )
        return Scorer(artifact=loaded, version=version, key=self.key)
