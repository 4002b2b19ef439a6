"""The API keys that this worker knows, read again every second.

A key that is revoked stops to count in every worker within seconds. One that was just made counts at
once: a name that is not known is looked up before it is refused. While the database cannot be read,
what was read last counts for ``TRUSTED`` seconds; after that nobody is let in.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sqlalchemy import Engine

from data.errors import UnauthorizedError, UnavailableError
from data.log import access
from data.log.access import ApiKey
from serving.access.caller import Caller

TRUSTED = 60.0
PAUSE = 0.25
"""Seconds between two readings that unknown names bring about."""

MOST_MISSING = 4096


class Keys:
    """Read when it is made. Raises UnavailableError where that fails."""

    def __init__(
        self, engine: Engine, key: bytes, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self._key, self._clock = engine, key, clock
        self._known: Mapping[str, ApiKey] = {}
        self._missing: set[str] = set()
        self._looking = asyncio.Lock()
        self._read_at = float("-inf")
        self.exist = False
        self.refresh()

    def refresh(self) -> None:
        """Read them again. Raises UnavailableError."""
        began = self._clock()
        known = {key.key_id: key for key in access.keys(self._engine)}
        # For good: a table that was emptied must not open what was closed.
        self.exist = self.exist or bool(known)
        if began >= self._read_at:  # a slow reading in another thread is older than the last
            self._known, self._read_at = known, began

    def current(self) -> None:
        """Raises UnavailableError where what is known is too old to go by."""
        if self._clock() - self._read_at > TRUSTED:
            raise UnavailableError("the API keys cannot be read")

    def knows(self, key_id: str) -> bool:
        return key_id in self._known

    async def look(self, key_id: str) -> None:
        """Read them again for a name that is not known; those who ask at once share one reading.

        Once for each name: should it come to be later, the reading of every second finds it. Raises
        UnavailableError.
        """
        if key_id in self._missing:
            return
        asked = self._clock()
        async with self._looking:
            if self._read_at <= asked:
                await asyncio.sleep(max(0.0, self._read_at + PAUSE - asked))
                await asyncio.to_thread(self.refresh)
        if key_id not in self._known:
            if len(self._missing) >= MOST_MISSING:
                self._missing.clear()
            self._missing.add(key_id)

    def caller(self, key_id: str, secret: str, *, now: datetime | None = None) -> Caller:
        """Raises UnauthorizedError for a key that is wrong, revoked or expired."""
        known = self._known.get(key_id)
        given = access.digest(self._key, key_id, secret)
        # Also for a name that is not known, so that both take the same time.
        same = hmac.compare_digest(given, known.digest if known else _NOBODY)
        if known is None or not same:
            raise UnauthorizedError("no such API key")
        ended = known.ended(now or datetime.now(UTC))
        if ended:
            raise UnauthorizedError(f"the API key is {ended}")
        return Caller(name=f"{known.name} ({key_id})", scopes=known.scopes, sites=known.sites)


_NOBODY = "0" * 64
