"""Where a run keeps what it makes: one folder, ``CAREMODELS_HOME``, by default ``./var``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data.errors import UsageError

ZONE = "CAREMODELS_TIMEZONE"


@dataclass(frozen=True)
class Home:
    """The places under the home. Nothing is created before it is written to."""

    path: Path

    @classmethod
    def from_env(cls) -> Home:
        return cls(Path(os.environ.get("CAREMODELS_HOME") or "var").resolve())

    @property
    def marts(self) -> str:
        """The database of the marts, as a URL; by default a DuckDB file."""
        return os.environ.get("CAREMODELS_MARTS") or f"duckdb://{self.path / 'marts.duckdb'}"

    @property
    def log(self) -> str:
        """The prediction log's database, as a URL."""
        return os.environ.get("CAREMODELS_LOG") or f"sqlite:///{self.path / 'log.db'}"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.path / 'mlflow.db'}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which a month and a day begin; by default UTC.

        Raises UsageError where ``CAREMODELS_TIMEZONE`` names none.
        """
        name = os.environ.get(ZONE) or "UTC"
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageError(
                f"{ZONE}: expected a time zone such as Asia/Shanghai, not {name!r}"
            ) from None

    @property
    def scratch(self) -> Path:
        """Files of a run that end with it; on the home's disk, which is sized for its data."""
        return self.path / "scratch"

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
    def evidently(self) -> Path:
        """Evidently's workspace."""
        return self.path / "evidently"

    @property
    def bench(self) -> Path:
        return self.path / "bench"
