"""The public keys of an issuer: a JSON Web Key Set (RFC 7517), from its one address or from a file.

The address stands in the reviewed file, never in a token. Keys are asked for again when they are
``FRESH`` seconds old, so that one that was taken away stops to count, and sooner when a token names a
key that is not known, so that a new one counts at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from data.errors import UnavailableError
from serving.access.trust import Issuer

logger = logging.getLogger(__name__)
FRESH = 300.0
STALE = 3600.0
"""How long keys count whose issuer cannot be reached."""
AGAIN = 10.0
"""Seconds between two askings that unknown keys or failures bring about."""
TIMEOUT = 3.0
LARGEST = 256 * 1024
HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
KINDS = {"RS384": "RSA", "ES384": "EC"}
"""The algorithms that are accepted, and the kind of key that each takes."""

Key = Mapping[str, Any]


@dataclass
class _Known:
    keys: tuple[Key, ...]
    got: float
    tried: float


class KeySets:
    """Thread-safe; what is asked of the network blocks the thread that asks."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str | Path, _Known] = {}
        # One each: an issuer that does not answer holds up its own clients only.
        self._locks: dict[str | Path, threading.Lock] = {}

    def find(self, issuer: Issuer, kid: str, algorithm: str) -> list[Key]:
        """The keys of ``issuer`` by that name that fit ``algorithm``, and may verify signatures.

        Raises UnavailableError where the issuer's keys were never to be had.
        """
        keys = self._keys(issuer, unknown=None)
        if not any(key.get("kid") == kid for key in keys):
            keys = self._keys(issuer, unknown=kid)
        return [key for key in keys if key.get("kid") == kid and fits(key, algorithm)]

    def _keys(self, issuer: Issuer, *, unknown: str | None) -> Sequence[Key]:
        source = issuer.jku or issuer.jwks_file
        assert source is not None  # a reviewed issuer has one of them
        with self._locks.setdefault(source, threading.Lock()):
            known, now = self._known.get(source), self._clock()
            old = known is None or unknown is not None or now - known.got > FRESH
            if old and (known is None or now - known.tried >= AGAIN):
                known = self._asked(source, known, now)
            if known is None or now - known.got > STALE:
                raise UnavailableError("the keys of this issuer cannot be read")
            return known.keys

    def _asked(self, source: str | Path, known: _Known | None, now: float) -> _Known:
        try:
            text = fetch(source) if isinstance(source, str) else _file(source)
            keys = msgspec.json.decode(text, type=dict[str, Any])["keys"]
            if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
                raise ValueError  # noqa: TRY301 said below, as the others are
        except Exception as error:  # noqa: BLE001 whatever comes from outside must not end a worker
            # Neither the address nor the answer: an answer may be anything.
            logger.warning("the keys of an issuer cannot be read: %s", type(error).__name__)
            known = known or _Known(keys=(), got=float("-inf"), tried=now)
            known.tried = now
        else:
            known = _Known(keys=tuple(keys), got=now, tried=now)
        self._known[source] = known
        return known


def fits(key: Key, algorithm: str) -> bool:
    """Whether ``key`` is a public key for ``algorithm``: its kind, its curve or length, its use."""
    kind = KINDS.get(algorithm)
    if kind is None or key.get("kty") != kind or "d" in key:
        return False
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return False
    if "verify" not in key.get("key_ops", ("verify",)):
        return False
    return key.get("crv") == "P-384" if kind == "EC" else isinstance(key.get("n"), str)


def fetch(url: str) -> bytes:
    """What stands at ``url``: no redirect followed, no proxy of the environment, size and time bounded.

    Raises:
        ValueError: any answer but 200, one that is too large, or one that trickles.
        httpx.HTTPError: nobody answers.
    """
    import httpx

    started, received = time.monotonic(), bytearray()
    with (
        httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
        client.stream("GET", url, headers=HEADERS) as response,
    ):
        if response.status_code != 200:
            raise ValueError("not 200")
        for chunk in response.iter_raw():
            received += chunk
            if len(received) > LARGEST or time.monotonic() - started > TIMEOUT:
                raise ValueError("too large or too slow")
    return bytes(received)


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST)
