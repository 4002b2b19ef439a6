"""Keyed hashes for identifiers: two rows of one patient can be joined, the patient not be named.

Whoever holds the key can test a guessed identifier, so the key is kept as a secret is. Changing it
cuts every later row off from the earlier ones.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from data.errors import IntegrityError, UsageError

VARIABLE = "CAREMODELS_KEY"
SHORTEST = 16


def load_key(home: Path) -> bytes:
    """The key from the environment, else from ``home/key``, made on first use with mode 0600.

    White space around it is dropped: a mounted secret often ends in a newline.

    Raises:
        UsageError: the variable is set and too short. Set but empty counts too: a secret that was
            not mounted must not be replaced in silence by another.
        IntegrityError: the file holds too short a key, so it was cut or overwritten.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        if len(given.strip()) < SHORTEST:
            raise UsageError(f"{VARIABLE}: expected at least {SHORTEST} characters")
        return given.strip().encode(errors="surrogateescape")
    path = home / "key"
    if not path.exists():
        _make(path)
    key = path.read_bytes().strip()
    if len(key) < SHORTEST:
        raise IntegrityError(f"key file in the home: expected at least {SHORTEST} characters")
    return key


def keyed_hash(key: bytes, value: str, *, kind: str) -> str:
    """HMAC-SHA256 of ``value`` in hex, under a key of its own for each ``kind``.

    A patient and an encounter with the same number get unrelated hashes.

    >>> patient = keyed_hash(b"0123456789abcdef", "7", kind="patient")
    >>> len(patient), patient == keyed_hash(b"0123456789abcdef", "7", kind="encounter")
    (64, False)
    """
    return hasher(key, kind=kind)(value)


def hasher(key: bytes, *, kind: str) -> Callable[[str], str]:
    """:func:`keyed_hash` for many values of one kind."""
    own = hmac.digest(key, kind.encode(), "sha256")
    # JSON may carry a lone surrogate; the error that encode() raises would repeat the identifier.
    return lambda value: hmac.digest(own, value.encode(errors="surrogatepass"), "sha256").hex()


def _make(path: Path) -> None:
    """Put a new key at ``path``, whole and at once, unless another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".key.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace the key that the other process already uses.
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _keep_name(path.parent)
    finally:
        draft.unlink()


def _keep_name(folder: Path) -> None:
    """Hashes outlive a power cut, so the key's name must too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
