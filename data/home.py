"""Where a run keeps what it makes: one folder, ``CAREMODELS_HOME``, by default ``./var``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from data.errors import UsageError


@dataclass(frozen=True)
class Home:
    """The places under the home. Nothing is created before it is written to."""

    path: Path

    @classmethod
    def from_env(cls) -> Home:
        return cls(Path(os.environ.get("CAREMODELS_HOME") or "var").resolve())

    @property
    def marts(self) -> Path:
        """The DuckDB file of the marts. Raises UsageError for an engine that is not embedded."""
        url = os.environ.get("CAREMODELS_MARTS")
        if not url:
            return self.path / "marts.duckdb"
        scheme, _, place = url.partition("://")
        if scheme != "duckdb" or not place:
            raise UsageError(f"CAREMODELS_MARTS: only duckdb://FILE is supported, found {scheme}://")
        return Path(place)

    @property
    def log(self) -> str:
        """The prediction log's database, as a URL."""
        return os.environ.get("CAREMODELS_LOG") or f"sqlite:///{self.path / 'log.db'}"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.path / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.path / "mlartifacts"

    @property
    def releases(self) -> Path:
        return self.path / "releases"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    @property
    def bench(self) -> Path:
        return self.path / "bench"
