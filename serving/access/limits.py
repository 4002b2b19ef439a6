"""How many requests a caller may send, counted by all workers of a host together.

The counts lie in one small file that every worker maps into its memory: a count costs a few
microseconds and no flush of the disk, and what a crash loses of it is worth nothing. Each caller has
one number, the moment at which all that it sent would have been sent at an even pace (the generic
cell rate algorithm, ITU-T I.371): a minute's worth may come at once, and then so much as the pace
gives back. Several hosts count apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from data.errors import RateLimitedError, UsageError

logger = logging.getLogger(__name__)
MINUTE = 60.0
RATE = 60_000
"""Requests a minute of one caller; ``CAREMODELS_RATE`` says otherwise, and 0 is any number."""
SLOTS = 4096
"""Callers and peers of the last minute that can be told apart."""
TRIES = 8
"""Places in which one of them may stand."""
_SLOT = struct.Struct("=Qd")
"""Who, and the moment in seconds of the monotonic clock, which all processes of a host share."""
ROUNDING = 1e-9
"""A minute's worth, added up, is a minute but for this."""
_SPINS = 50
"""Attempts at the lock, which is held for microseconds."""


class Limits:
    """Counts in the file at ``path``, or in this process's memory where there is none or it fails."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file: int | None = None
        self._slots: mmap.mmap | bytearray = bytearray(SLOTS * _SLOT.size)
        self._owed: deque[tuple[str, float]] = deque(maxlen=SLOTS)
        if path is not None:
            try:
                self._open(path)
            except (OSError, ValueError) as error:
                logger.warning(
                    "rates are counted by each worker apart: the shared counts cannot be opened (%s)",
                    type(error).__name__,
                )

    @property
    def shared(self) -> bool:
        return self._file is not None

    def count(self, who: str, *, rate: int) -> None:
        """One more request of ``who``, of whom ``rate`` a minute are allowed; 0 is any number.

        Raises RateLimitedError, and the request is then not counted.
        """
        wait = self._take(who, MINUTE / rate) if rate else 0.0
        if wait > 0:
            raise RateLimitedError(f"more than {rate} a minute", retry_after=math.ceil(wait))

    def spent(self, who: str, *, rate: int) -> None:
        """Raises RateLimitedError where one more of ``who`` would be too many; counts nothing."""
        if not rate:
            return
        wait = self._ahead(who, MINUTE / rate)
        if wait > 0:
            raise RateLimitedError(f"more than {rate} a minute", retry_after=math.ceil(wait))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Zeros are free slots, and a file that is long enough already keeps what it holds.
            if os.fstat(descriptor).st_size != len(self._slots):
                os.ftruncate(descriptor, len(self._slots))
            # Room that the disk has promised: a page that it cannot give would end the process.
            os.posix_fallocate(descriptor, 0, len(self._slots))
            self._slots = mmap.mmap(descriptor, len(self._slots))
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor

    def _take(self, who: str, pace: float) -> float:
        """Count one at ``pace`` seconds each; the seconds to wait where that is too many."""
        if not self._lock():
            # Its holder is not running now. Nobody waits for it: this one is counted with the next.
            wait = self._ahead(who, pace)
            if wait <= 0:
                self._owed.append((who, pace))
            return wait
        try:
            while self._owed:
                self._add(*self._owed.pop(), most=math.inf)
            return self._add(who, pace, most=MINUTE)
        finally:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _add(self, who: str, pace: float, *, most: float) -> float:
        now, tag = self._clock(), _tag(who)
        offset, reached = self._find(tag, now)
        reached += pace
        wait = reached - now - most
        if wait > ROUNDING:
            return wait
        _SLOT.pack_into(self._slots, offset, tag, reached)
        return 0.0

    def _ahead(self, who: str, pace: float) -> float:
        """The seconds after which one more would not be too many, as far as can be read unlocked."""
        now = self._clock()
        _, reached = self._find(_tag(who), now)
        return reached + pace - now - MINUTE - ROUNDING

    def _find(self, tag: int, now: float) -> tuple[int, float]:
        """Where ``tag`` stands or may stand, and how far it got, which is now or later."""
        free = None
        for step in range(TRIES):
            offset = ((tag + step) % SLOTS) * _SLOT.size
            found, reached = _SLOT.unpack_from(self._slots, offset)
            # More than two minutes ahead is of another boot, whose clock began anew.
            current = now < reached < now + 2 * MINUTE
            if found == tag:
                return offset, reached if current else now
            if not current and free is None:
                free = offset
        # All taken by others: share the first, which is strict on both.
        offset = (tag % SLOTS) * _SLOT.size
        return (free, now) if free is not None else (offset, _SLOT.unpack_from(self._slots, offset)[1])

    def _lock(self) -> bool:
        if self._file is None:
            return True
        for _ in range(_SPINS):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.sched_yield()
            except OSError:  # no locks on that file system: from now on this worker counts alone
                logger.warning("rates are counted by each worker apart: the file cannot be locked")
                self.close()
                self._slots = bytearray(SLOTS * _SLOT.size)
                return True
            else:
                return True
        return False


def rate() -> int:
    """``CAREMODELS_RATE``. Raises UsageError."""
    given = os.environ.get("CAREMODELS_RATE", "").strip()
    if given and not (given.isdecimal() and int(given) <= 10**9):
        raise UsageError("CAREMODELS_RATE: expected requests a minute, 0 for any number")
    return int(given) if given else RATE


def _tag(who: str) -> int:
    return int.from_bytes(hashlib.blake2b(who.encode(errors="replace"), digest_size=8).digest())
