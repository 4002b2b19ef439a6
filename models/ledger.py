"""Who promoted what, when and why: append-only, each entry chained to the one before.

An entry's ``mac`` is a keyed hash over its content and the previous mac, so that a change, a
removal or a reordering in the middle breaks every entry after it, and nobody without the key can
mend the chain. The number and mac of the last entry are anchored in each release: a cut tail shows.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from data.errors import IntegrityError

GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One act on a model. ``evidence``: what the person saw, and the hashes of the files."""

    number: int
    at: str
    act: str
    model: str
    version: str
    by: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    mac: str = ""


def append(
    path: Path, key: bytes, *, act: str, model: str, version: str, by: str, reason: str,
    evidence: dict[str, Any],
) -> Entry:  # fmt: skip
    """Add an entry, on disk when this returns. Raises IntegrityError where the chain is broken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        entries = _verified(_lines(path), key)
        last = entries[-1].mac if entries else GENESIS
        entry = Entry(
            number=len(entries) + 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            act=act,
            model=model,
            version=version,
            by=by,
            reason=reason,
            evidence=evidence,
        )
        entry = Entry(**{**asdict(entry), "mac": _mac(key, entry, last)})
        stream.write(msgspec.json.encode(asdict(entry)) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return entry


def verify(path: Path, key: bytes) -> list[Entry]:
    """The entries. Raises IntegrityError naming the first that does not follow from its past."""
    return _verified(_lines(path), key) if path.exists() else []


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def _verified(lines: list[bytes], key: bytes) -> list[Entry]:
    entries: list[Entry] = []
    last = GENESIS
    for position, line in enumerate(lines, start=1):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError:
            raise IntegrityError(f"ledger: line {position} is no entry") from None
        # Byte for byte: a field beside ours, or one given twice, would be read over.
        if line != msgspec.json.encode(asdict(entry)):
            raise IntegrityError(f"ledger: line {position} is not as it was written")
        if entry.number != position or not hmac.compare_digest(entry.mac, _mac(key, entry, last)):
            raise IntegrityError(f"ledger: entry {position} does not follow from the one before")
        entries.append(entry)
        last = entry.mac
    return entries


def _mac(key: bytes, entry: Entry, last: str) -> str:
    content = {**asdict(entry), "mac": last}
    return hmac.new(key, b"ledger" + msgspec.json.encode(content), hashlib.sha256).hexdigest()
