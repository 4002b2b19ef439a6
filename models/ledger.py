"""Who did what to which version, when and why: append-only, each entry chained to the one before.

An entry's ``mac`` is a keyed hash over its content and the previous mac, so that a change, a
removal or a reordering in the middle breaks every entry after it, and nobody without the key can
mend the chain. Its end has nothing after it: the number and mac of the last entry are therefore
anchored in each release of the model (``ledger.json`` beside the artifact) and in the tags of the
MLflow version. An anchor that the chain does not hold shows a tail that was cut, or a rewrite.

The file is replaced whole: a process that is killed leaves the old ledger or the new one, and an
entry that was not anchored any more is an entry all the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from data.errors import IntegrityError
from models.release import Pointer

GENESIS = "0" * 64
ANCHOR = "ledger.json"
ROLL_BACK = "roll back"
RECALIBRATE = "recalibrate"
ALARM_OPENED = "alarm opened"
ALARM_SEEN = "alarms seen"
ALARM_ACKNOWLEDGED = "alarm acknowledged"
ALARM_CLOSED = "alarm closed"
ALARM_ANSWERED = "alarm answered"
POINTS_NOWHERE = frozenset(
    {RECALIBRATE, ALARM_OPENED, ALARM_SEEN, ALARM_ACKNOWLEDGED, ALARM_CLOSED, ALARM_ANSWERED}
)
"""Acts that are about a version and move no pointer."""


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


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The number and mac of an entry, as they are kept in ``place``."""

    place: str
    number: int
    mac: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a pointer named, by the ledger.

    ``present`` is the entry that put the version there, None where there is none; ``past`` are those
    of the versions before it that a rollback may return to, oldest first; ``withdrawn`` the version
    that was taken away last, where no other has come since.
    """

    present: Entry | None = None
    past: tuple[Entry, ...] = ()
    withdrawn: str | None = None


class Book:
    """The ledger while it is held for writing. Use :func:`opened`."""

    def __init__(self, path: Path, key: bytes, releases: Path | None) -> None:
        self._path, self._key = path.resolve(), key
        self._content = _read(path)
        self.entries = _verified(self._content, key)
        if releases is not None:
            hold(self.entries, anchors(releases))

    def append(
        self, *, act: str, model: str, version: str, by: str, reason: str, evidence: dict[str, Any]
    ) -> Entry:
        """Add an entry, on disk when this returns."""
        last = self.entries[-1].mac if self.entries else GENESIS
        entry = Entry(
            number=len(self.entries) + 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            act=act,
            model=model,
            version=version,
            by=by,
            reason=reason,
            evidence=evidence,
        )
        entry = Entry(**{**asdict(entry), "mac": _mac(self._key, entry, last)})
        content = self._content + msgspec.json.encode(asdict(entry)) + b"\n"
        _replace(self._path, content)
        self._content = content
        self.entries.append(entry)
        return entry


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else acts on a model of this home until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the ledger, whose own file is replaced under the lock.
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def opened(path: Path, key: bytes, *, releases: Path | None = None) -> Iterator[Book]:
    """The ledger, verified and held for writing until the block ends.

    Raises IntegrityError where the chain is broken or an anchor in ``releases`` is not in it: nothing
    is built on a ledger that was tampered with.
    """
    with locked(path):
        yield Book(path, key, releases)


def append(
    path: Path, key: bytes, *, act: str, model: str, version: str, by: str, reason: str,
    evidence: dict[str, Any],
) -> Entry:  # fmt: skip
    """Add one entry, on disk when this returns. Raises IntegrityError where the chain is broken."""
    with opened(path, key) as book:
        return book.append(
            act=act, model=model, version=version, by=by, reason=reason, evidence=evidence
        )


def verify(path: Path, key: bytes) -> list[Entry]:
    """The entries. Raises IntegrityError naming the first that does not follow from its past."""
    return _verified(_read(path), key)


def places(releases: Path, *, model: str = "*", holding: str = "manifest.json") -> dict[str, Path]:
    """Folder of each release that holds a file of that name, by what messages call it."""
    found = sorted(file.parent for file in releases.glob(f"{model}/[!.]*/{holding}"))
    return {f"release {folder.parent.name} {folder.name}": folder for folder in found}


def anchor(releases: Path, entry: Entry) -> None:
    """Keep the entry's number and mac in every release of its model."""
    content = msgspec.json.encode({"number": entry.number, "mac": entry.mac}) + b"\n"
    for folder in places(releases, model=entry.model).values():
        _replace(folder / ANCHOR, content)


def anchors(releases: Path) -> list[Anchor]:
    """What the releases keep of the ledger. Raises IntegrityError naming one that cannot be read."""
    found = []
    for place, folder in places(releases, holding=ANCHOR).items():
        try:
            kept = msgspec.json.decode((folder / ANCHOR).read_bytes(), type=_Kept)
        except msgspec.MsgspecError:
            raise IntegrityError(f"ledger: what {place} keeps of it was changed") from None
        found.append(Anchor(place=place, number=kept.number, mac=kept.mac))
    return found


def hold(entries: Sequence[Entry], anchors: Iterable[Anchor]) -> None:
    """Raises IntegrityError naming the place and the entry of an anchor that the chain lacks."""
    numbers = {entry.mac: entry.number for entry in entries}
    for kept in anchors:
        if kept.mac in numbers and kept.number <= numbers[kept.mac]:
            # Of two tags the mac is written first: until the second is, the number is an older one.
            continue
        if kept.number > len(entries):
            end = f"ends at {len(entries)}" if entries else "is empty or gone"
            raise IntegrityError(
                f"ledger: it {end}, and {kept.place} knows of entry {kept.number}: entries were removed"
            )
        raise IntegrityError(
            f"ledger: entry {kept.number} is not the one that {kept.place} knows of: one of them "
            "was rewritten"
        )


def standing(entries: Iterable[Entry], model: str, pointer: Pointer = "champion") -> Standing:
    """What ``pointer`` names after all ``entries``, and what a rollback would return to.

    A version stands in the past once, and not at all after it was rolled back from or withdrawn: only
    a gate brings such a version back.
    """
    present: Entry | None = None
    past: list[Entry] = []
    withdrawn: str | None = None
    for entry in entries:
        if entry.model != model:
            continue
        if entry.act in (f"promote to {pointer}", f"override to {pointer}"):
            past = [*past, present] if present else past
            past = [earlier for earlier in past if earlier.version != entry.version]
            present, withdrawn = entry, None
        elif entry.act == ROLL_BACK and pointer == "champion" and past:
            present, withdrawn = past.pop(), None
        elif entry.act == f"withdraw {pointer}":
            past = [earlier for earlier in past if earlier.version != entry.version]
            present, withdrawn = None, entry.version
    return Standing(present=present, past=tuple(past), withdrawn=withdrawn)


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    mac: str


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _replace(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step, and on disk."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if path.exists():
        shutil.copymode(path, draft)
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _verified(content: bytes, key: bytes) -> list[Entry]:
    entries: list[Entry] = []
    last = GENESIS
    *lines, rest = content.split(b"\n")
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
    if rest:
        raise IntegrityError(f"ledger: line {len(lines) + 1} was cut: it has no end")
    return entries


def _mac(key: bytes, entry: Entry, last: str) -> str:
    content = {**asdict(entry), "mac": last}
    return hmac.new(key, b"ledger" + msgspec.json.encode(content), hashlib.sha256).hexdigest()
