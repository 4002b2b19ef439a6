"""Signed tokens: of CDS clients and SMART clients, and the access tokens that the latter get.

A client's token is a JWT, signed with RS384 or ES384 by a key of its reviewed issuer. ``none`` and
HMAC are refused before anything else is looked at. It is for one address, lives for minutes, and is
used once on all hosts together. An access token of ours is no JWT and names no algorithm, so that
neither can pass for the other.

Sources: CDS Hooks 3.0, "Trusting CDS Clients"; SMART App Launch 2.2, "Client Authentication:
Asymmetric (public key)"; RFC 8725 (JWT best current practices).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from sqlalchemy import Engine

from data.errors import UnauthorizedError
from data.log import access
from data.log.access import Scope
from data.pseudonym import keyed_hash
from serving.access.caller import Caller
from serving.access.jwks import KINDS, Key, KeySets
from serving.access.trust import Issuer, Kind, Reviewed

if TYPE_CHECKING:  # 0.1 s, and most services trust no issuer
    import jwt

LONGEST = 300
"""Seconds that a client's token may live, and that an access token does."""
LEEWAY = 10
"""Seconds by which two clocks may differ."""
LARGEST = 16 * 1024
OURS = "cma_"

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class _Claims(msgspec.Struct):
    """What a client's token must say; what else it says is not looked at."""

    iss: _Name
    aud: str | list[str]
    exp: float
    iat: float
    jti: _Name
    nbf: float | None = None
    sub: str | None = None


class _Granted(msgspec.Struct, forbid_unknown_fields=True):
    client: str
    scopes: list[Scope]
    until: float


class Tokens:
    """Thread-safe; :meth:`client` may block on the network and the database."""

    def __init__(
        self,
        engine: Engine,
        key: bytes,
        reviewed: Reviewed,
        *,
        sets: KeySets | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._key, self._reviewed, self._clock = engine, key, reviewed, clock
        self._sets = sets or KeySets()
        if reviewed.trust.issuers:  # not in the middle of the first request
            _jws()

    def client(self, token: str, *, kind: Kind, audience: str) -> Issuer:
        """Who signed ``token`` for the endpoint at ``audience``; it is then spent.

        Raises:
            UnauthorizedError: which rule it breaks.
            UnavailableError: the issuer's keys cannot be had, or the use cannot be written down.
        """
        header, claims = self._read(token)
        issuer = self._reviewed.trust.issuer(kind, claims.iss)
        if issuer is None:
            raise UnauthorizedError("the token's issuer is not trusted")
        if "jku" in header and header["jku"] != issuer.jku:
            raise UnauthorizedError("the token's jku is not its issuer's")
        keys = self._sets.find(issuer, header["kid"], header["alg"])
        if not keys:
            raise UnauthorizedError("the token names no key of its issuer for its algorithm")
        if not any(self._signed(token, key, header["alg"]) for key in keys):
            raise UnauthorizedError("the token's signature is wrong")
        self._hold(claims, kind=kind, audience=audience)
        name = hashlib.sha256(msgspec.json.encode([kind, claims.iss, claims.jti])).hexdigest()
        until = datetime.fromtimestamp(claims.exp + LEEWAY + 1, UTC)
        if not access.spend_token(self._engine, name, until):
            raise UnauthorizedError("the token was used before")
        return issuer

    def issue(self, issuer: Issuer, scopes: Collection[Scope]) -> str:
        """An access token for a SMART client, good for ``LONGEST`` seconds on hosts with our key."""
        granted = _Granted(issuer.iss, sorted(scopes), self._clock() + LONGEST)
        said = base64.urlsafe_b64encode(msgspec.json.encode(granted)).decode().rstrip("=")
        return f"{OURS}{said}.{self._mark(said)}"

    def caller(self, token: str) -> Caller:
        """Who got this access token. Raises UnauthorizedError."""
        said, _, mark = token.removeprefix(OURS).partition(".")
        if not hmac.compare_digest(mark.encode(), self._mark(said).encode()):
            raise UnauthorizedError("no such access token")
        padded = said + "=" * (-len(said) % 4)
        granted = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Granted)
        if granted.until <= self._clock():
            raise UnauthorizedError("the access token is expired")
        issuer = self._reviewed.trust.issuer("smart", granted.client)
        if issuer is None:
            raise UnauthorizedError("the access token's client is no longer trusted")
        return caller(issuer, granted.scopes)

    def forget(self) -> None:
        """Drop used tokens that are long expired. Raises UnavailableError."""
        past = datetime.fromtimestamp(self._clock() - LONGEST, UTC)
        access.forget_tokens(self._engine, past)

    def _read(self, token: str) -> tuple[dict[str, Any], _Claims]:
        """Header and claims, not yet verified. Raises UnauthorizedError."""
        if len(token) > LARGEST:
            raise UnauthorizedError("the token is too long")
        import jwt

        try:
            read = _jws().decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError):
            raise UnauthorizedError("the token cannot be read") from None
        header = read["header"]
        if not isinstance(header.get("alg"), str) or header["alg"] not in KINDS:
            raise UnauthorizedError(f"the token's algorithm is not {' or '.join(KINDS)}")
        if not isinstance(header.get("kid"), str):
            raise UnauthorizedError("the token names no key")
        try:
            return header, msgspec.json.decode(read["payload"], type=_Claims)
        except (msgspec.MsgspecError, ValueError):
            raise UnauthorizedError("the token lacks a claim, or one is of the wrong kind") from None

    def _signed(self, token: str, key: Key, algorithm: str) -> bool:
        import jwt

        try:
            _jws().decode_complete(token, jwt.PyJWK(dict(key), algorithm), [algorithm])
        except (jwt.PyJWTError, ValueError, TypeError):
            return False
        return True

    def _hold(self, claims: _Claims, *, kind: Kind, audience: str) -> None:
        """Raises UnauthorizedError for claims of a token that was signed well, but not for this."""
        now = self._clock()
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if audience not in audiences:
            raise UnauthorizedError("the token is for another address")
        if claims.exp <= now - LEEWAY:
            raise UnauthorizedError("the token is expired")
        if max(claims.iat, claims.nbf or 0) > now + LEEWAY:
            raise UnauthorizedError("the token is not yet valid")
        if claims.exp - claims.iat > LONGEST:
            raise UnauthorizedError(f"the token lives longer than {LONGEST} s")
        if kind == "smart" and claims.sub != claims.iss:
            raise UnauthorizedError("the token's subject is not its issuer")

    def _mark(self, said: str) -> str:
        return keyed_hash(self._key, said, kind="access-token")


@cache
def _jws() -> jwt.PyJWS:
    import jwt

    return jwt.PyJWS(list(KINDS), {"verify_signature": True, "enforce_minimum_key_length": True})


def caller(issuer: Issuer, scopes: Collection[Scope]) -> Caller:
    """``issuer``, with those of ``scopes`` that it has."""
    return Caller(name=issuer.iss, scopes=issuer.scopes & frozenset(scopes), sites=issuer.sites)
