"""What is kept of calls that were refused: when, which route, which rule, who as far as known.

Never the token and never the path, which are the caller's own words. A flood must not fill the disk:
of one minute a worker keeps ``MOST`` one by one, and counts the rest in one row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine

from data.errors import UnavailableError
from data.log import access
from data.log.access import Refusal

logger = logging.getLogger(__name__)
MOST = 600
WAITING = 5_000
"""Rows kept in memory while the database cannot be written."""
SEVERAL = "(several)"


class Refusals:
    """``add`` costs nothing to speak of; ``write`` is called in the background."""

    def __init__(
        self, engine: Engine, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine, self._clock = engine, clock
        self._rows: list[Refusal] = []
        self._minute = clock().replace(second=0, microsecond=0)
        self._kept = self._more = 0
        self._lock = threading.Lock()

    def add(self, *, route: str, status: int, reason: str, caller: str | None, peer: str | None) -> None:
        now = self._clock()
        with self._lock:
            self._turn(now)
            if self._kept >= MOST or len(self._rows) >= WAITING:
                self._more += 1
                return
            self._kept += 1
            self._rows.append(
                Refusal(at=now, route=route, status=status, reason=reason, caller=caller, peer=peer)
            )

    def write(self, *, last: bool = False) -> None:
        """Write what waits; it waits on where that fails. ``last``: also the count of this minute."""
        with self._lock:
            self._turn(self._clock(), last=last)
            rows, self._rows = self._rows, []
        try:
            access.record_refusals(self._engine, rows)
        except UnavailableError:  # logged where it was raised
            with self._lock:
                self._rows = rows + self._rows

    def _turn(self, now: datetime, *, last: bool = False) -> None:
        minute = now.replace(second=0, microsecond=0)
        if minute == self._minute and not last:
            return
        if self._more:
            reason = f"{self._more} more in the minute of {self._minute:%H:%M} UTC"
            logger.warning("calls refused: %s", reason)
            self._rows.append(
                Refusal(at=now, route=SEVERAL, status=0, reason=reason, caller=None, peer=None)
            )
        self._minute, self._kept, self._more = minute, 0, 0
