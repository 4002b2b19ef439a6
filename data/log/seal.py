"""Encryption at rest of what the prediction log holds in the clear of a patient.

Inputs, comments and stored answers are sealed with AES-256-GCM (NIST SP 800-38D), each bound to the
row that it belongs to: moved to another it does not open. The newest key seals, every key opens.

The keyring is a JSON object ``{"id": "64 hex digits", …}``, the newest last. It comes from the
environment variable CAREMODELS_LOG_KEYS, which holds it or, beginning with "/", names a mounted file
that does; else from ``home/log-keys.json``, made on first use. Who loses a key loses what it sealed,
so it is backed up apart from the log.
"""

from __future__ import annotations

import binascii
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import (
    CaremodelsError,
    ConflictError,
    IntegrityError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:  # a tenth of a second to import, and not every command opens the log
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "CAREMODELS_LOG_KEYS"
FILE = "log-keys.json"
MARK = "s1."
"""How a sealed text begins: then the key's id, a dot, and nonce and ciphertext in base64."""
_NONCE = 12
_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")

_log = logging.getLogger(__name__)


class SealedError(CaremodelsError):
    """A text that cannot be opened: its key is not here, or it is not what was sealed."""

    status = 503
    title = "A sealed text cannot be opened"


class KeyReplacedError(CaremodelsError):
    """While a transaction sealed with a key, a newer one came."""


Seal = Callable[[str, str], str]
"""(text, bound_to) -> sealed"""


@dataclass(frozen=True)
class _Keys:
    """What the keyring held when its file was last read."""

    ciphers: Mapping[str, AESGCM]
    newest: str
    prefix: str
    stamp: tuple[int, int, int] | None


class Keyring:
    """Keys by id. Threads may share it; a changed file is read again by :meth:`refresh`.

    ``path``: the file that the keys came from, None where nothing can change them.
    """

    def __init__(self, text: str, *, path: Path | None, where: str, ours: bool = False) -> None:
        self.path = path
        self.ours = ours
        self._where = where
        self._keys = _parsed(text, where, stamp=_stamp(path) if path else None)

    @property
    def ids(self) -> tuple[str, ...]:
        """The keys that can open, the newest last."""
        return tuple(self._keys.ciphers)

    @property
    def newest(self) -> str:
        """The key that seals."""
        return self._keys.newest

    def refresh(self) -> None:
        """Read the file again if it changed.

        A file that is gone or does not parse changes nothing: the keys in memory still serve, and
        the log says so.
        """
        if self.path is None:
            return
        before, stamp = self._keys, _stamp(self.path)
        if stamp == before.stamp or stamp is None:
            return
        try:
            self._keys = _parsed(_read(self.path, self._where), self._where, stamp=stamp)
        except CaremodelsError as error:
            _log.error("the former keys stay in use: %s", error)
            self._keys = replace(before, stamp=stamp)

    def seal(self, text: str, *, bound_to: str) -> str:
        """``text`` under the newest key; only ``bound_to`` opens it again.

        The nonce is random: a key is for at most 2**32 texts (SP 800-38D, 8.3), after which it must
        have been changed.
        """
        return _sealer(self._keys)(text, bound_to)

    @contextmanager
    def sealing(self) -> Iterator[Seal]:
        """:meth:`seal` with one key throughout a transaction, which it surrounds inside.

        Looks for a new key at the end, at the cost of one look at the file's stamp. So each worker
        knows a new key with its next transaction, and nothing is committed under one that was
        replaced before: as soon as the transactions of that moment are over, nobody seals with the
        former key.

        Raises:
            KeyReplacedError: at the end, where another key seals now: roll back, and do it again.
        """
        keys = self._keys
        yield _sealer(keys)
        self.refresh()
        if self._keys.newest != keys.newest:
            raise KeyReplacedError("another key seals now")

    def open(self, sealed: str, *, bound_to: str) -> str:
        """The text that was sealed. One that never was, of an older log, is returned as it is.

        Raises:
            SealedError: the key is not here, or the text is not what was sealed for ``bound_to``.
        """
        key, dot, body = sealed.removeprefix(MARK).partition(".")
        if not sealed.startswith(MARK) or not dot:
            return sealed
        cipher = self._keys.ciphers.get(key)
        if cipher is None:
            self.refresh()
            cipher = self._keys.ciphers.get(key)
        if cipher is None:
            raise SealedError("sealed with a key that is not here")
        from cryptography.exceptions import InvalidTag

        try:
            content = binascii.a2b_base64(body)
            opened = cipher.decrypt(content[:_NONCE], content[_NONCE:], bound_to.encode())
        except (InvalidTag, ValueError):
            raise SealedError("not what was sealed") from None
        return opened.decode(errors="surrogatepass")

    def open_all(
        self, sealed: Iterable[str | None], bound_to: Iterable[str]
    ) -> tuple[list[str | None], int]:
        """:meth:`open` for a column: null where a text cannot be opened, and how many those are."""
        opened: list[str | None] = []
        lost = 0
        for text, bound in zip(sealed, bound_to, strict=True):
            try:
                opened.append(None if text is None else self.open(text, bound_to=bound))
            except SealedError:
                opened.append(None)
                lost += 1
        return opened, lost

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other rotations out: two that change the file at once would lose a key in use.

        Raises:
            ConflictError: another one is under way.
        """
        if self.path is None or not self.ours:
            yield
            return
        lock = self.path.with_name(f"{self.path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError("another rotation of the log's keys is under way") from None
            self.refresh()
            yield
        finally:
            os.close(descriptor)

    def add(self) -> str:
        """A new newest key in the file; its id. Only within :meth:`alone`, as :meth:`retire`.

        Raises:
            UsageError: the keys are given from outside, and are added there.
        """
        own = self._own_file()
        key = _new_id()
        _put(own, {**_held(own), key: secrets.token_hex(_BYTES)})
        self.refresh()
        return key

    def retire(self, keys: Iterable[str]) -> None:
        """Take ``keys`` out of the file for good. The newest stays. Raises UsageError as :meth:`add`."""
        own = self._own_file()
        gone = set(keys) - {self.newest}
        _put(own, {key: value for key, value in _held(own).items() if key not in gone})
        self.refresh()

    def _own_file(self) -> Path:
        if self.path is None or not self.ours:
            raise UsageError(f"the keys are given by {VARIABLE}: change them there")
        return self.path


def comment_of(prediction_id: str) -> str:
    """What the comments on a prediction are bound to: no prediction has such an id."""
    return f"comment {prediction_id}"


def answer_of(key_hash: str) -> str:
    """What the answer stored under the keyed hash of an Idempotency-Key is bound to."""
    return f"answer {key_hash}"


def load_keyring(home: Path) -> Keyring:
    """The keyring from the environment, else from ``home/log-keys.json``, made with mode 0600.

    Raises:
        UsageError: the variable is set and holds no keyring. Empty counts too: a secret that was not
            mounted must not be replaced in silence by another.
        IntegrityError: the file holds none, so it was cut or overwritten.
        UnavailableError: the file cannot be read.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        path = home / FILE
        if not path.exists():
            _make(path)
        return Keyring(_read(path, FILE), path=path, where=f"{FILE} in the home", ours=True)
    if given.strip().startswith("/"):
        path = Path(given.strip())
        return Keyring(_read(path, VARIABLE), path=path, where=f"the file that {VARIABLE} names")
    try:
        return Keyring(given, path=None, where=VARIABLE)
    except IntegrityError as error:
        raise UsageError(str(error)) from None


def _sealer(keys: _Keys) -> Seal:
    encrypt, prefix = keys.ciphers[keys.newest].encrypt, keys.prefix

    def seal(text: str, bound_to: str) -> str:
        nonce = os.urandom(_NONCE)
        sealed = nonce + encrypt(nonce, text.encode(errors="surrogatepass"), bound_to.encode())
        return prefix + binascii.b2a_base64(sealed, newline=False).decode()

    return seal


def _parsed(text: str, where: str, *, stamp: tuple[int, int, int] | None) -> _Keys:
    """Raises IntegrityError without a word of what was found."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    wrong = IntegrityError(f'{where}: expected a JSON object {{"id": "64 hex digits", …}}')
    try:
        pairs = json.loads(text, object_pairs_hook=list)
        keys = {key: bytes.fromhex(value) for key, value in pairs}
    except (ValueError, TypeError):
        raise wrong from None
    sound = all(_ID.fullmatch(key) and len(value) == _BYTES for key, value in keys.items())
    if not keys or len(keys) != len(pairs) or not sound:
        raise wrong
    newest = next(reversed(keys))
    return _Keys(
        ciphers={key: AESGCM(value) for key, value in keys.items()},
        newest=newest,
        prefix=f"{MARK}{newest}.",
        stamp=stamp,
    )


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise UnavailableError(f"{where}: {error.strerror or type(error).__name__}") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _held(path: Path) -> dict[str, str]:
    held: dict[str, str] = json.loads(path.read_text(encoding="ascii"))
    return held


def _new_id() -> str:
    return f"k{secrets.token_hex(4)}"


def _make(path: Path) -> None:
    """Put a first key at ``path``, whole and at once, unless another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, {_new_id(): secrets.token_hex(_BYTES)})
    try:
        # A link fails where a rename would replace the key that the other process already uses.
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _keep_name(path.parent)
    finally:
        draft.unlink()


def _put(path: Path, keys: Mapping[str, str]) -> None:
    """Replace the file, whole and at once."""
    draft = _draft(path, keys)
    draft.replace(path)
    _keep_name(path.parent)


def _draft(path: Path, keys: Mapping[str, str]) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(keys, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    return draft


def _keep_name(folder: Path) -> None:
    """What was sealed outlives a power cut, so the file's name must too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
