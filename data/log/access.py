"""Who may call: API keys, tokens that were used, calls that were refused.

They stand in the prediction log's database, so that every worker and every host knows of them.

An API key reads ``cm_<id>_<secret>``. Its secret holds 256 random bits: nobody can try them all, so
that a slow hash, which passwords need, would only cost time on each request. What is kept is a
keyed hash: whoever can write to the database, but has not the key of the home, cannot put a key of
their own there. Another key of the home therefore ends all API keys.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError as TakenError

from data.errors import NotFoundError, UsageError
from data.log.schema import api_key, guarded, refused_call, used_token, utc, writing
from data.pseudonym import keyed_hash

Scope = Literal["predict", "outcome", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""None implies another: a key that manages need not be able to ask for predictions."""
PREFIX = "cm"
SECRET_BYTES = 32
LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key; ``sites`` None is every site. Printing one does not show its digest."""

    key_id: str
    name: str
    digest: str = field(repr=False)
    scopes: frozenset[Scope]
    sites: frozenset[str] | None
    created_at: datetime  # naive UTC, as the others are
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    revoked_for: str | None = None

    def ended(self, now: datetime) -> str | None:
        """``revoked`` or ``expired``; None for a key that may be used."""
        if self.revoked_at is not None:
            return "revoked"
        expired = self.expires_at is not None and self.expires_at <= utc(now)
        return "expired" if expired else None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A call that was refused. ``route`` is the pattern, never the path that the caller wrote."""

    at: datetime
    route: str
    status: int
    reason: str
    caller: str | None
    peer: str | None


def digest(key: bytes, key_id: str, secret: str) -> str:
    """What is kept of a secret."""
    return keyed_hash(key, f"{key_id}\n{secret}", kind="api-key")


def split(text: str) -> tuple[str, str] | None:
    """Id and secret of ``cm_<id>_<secret>``, None for anything else.

    >>> split("cm_0a1b_se_cret"), split("cm_0a1b")
    (('0a1b', 'se_cret'), None)
    """
    parts = text.split("_", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX else None


def create_key(
    engine: Engine,
    key: bytes,
    *,
    name: str,
    scopes: Collection[str],
    sites: Collection[str] | None = None,
    expires_at: datetime | None = None,
    by: str,
    now: datetime,
) -> tuple[str, ApiKey]:
    """A new key; its text is returned here and nowhere else.

    Raises:
        UsageError: a scope that there is not, no scope, no name, or an end that is past.
        UnavailableError: the log cannot be written.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        found = f"unknown scope {unknown[0]!r}" if unknown else "no scope"
        raise UsageError(f"--scope: {found}; there are {', '.join(SCOPES)}")
    if not name.strip() or len(name) > LONGEST_NAME:
        raise UsageError(f"--name: expected 1 to {LONGEST_NAME} characters")
    if not by.strip():
        raise UsageError("--by: expected a name")
    if sites is not None and not all(site.strip() for site in sites):
        raise UsageError("--site: expected a name")
    if expires_at is not None and utc(expires_at) <= utc(now):
        raise UsageError("--expires: is past")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    made = ApiKey(
        key_id=key_id,
        name=name.strip(),
        digest=digest(key, key_id, secret),
        scopes=frozenset(scope for scope in SCOPES if scope in scopes),
        sites=frozenset(sites) if sites else None,
        created_at=utc(now),
        created_by=by.strip(),
        expires_at=None if expires_at is None else utc(expires_at),
    )
    row = asdict(made)
    row["scopes"] = json.dumps(sorted(made.scopes))
    row["sites"] = None if made.sites is None else json.dumps(sorted(made.sites))
    with guarded("written"), writing(engine) as connection:
        connection.execute(insert(api_key), [row])
    return f"{PREFIX}_{key_id}_{secret}", made


def revoke_key(engine: Engine, key_id: str, *, by: str, reason: str, now: datetime) -> ApiKey:
    """End a key. One that was revoked before stays as it was: who was first and why is kept.

    Raises:
        NotFoundError: no such key.
        UnavailableError: the log cannot be written.
    """
    ended = {"revoked_at": utc(now), "revoked_by": by, "revoked_for": reason}
    one = api_key.c.key_id == key_id
    with guarded("written"), writing(engine) as connection:
        connection.execute(update(api_key).where(one, api_key.c.revoked_at.is_(None)).values(**ended))
        row = connection.execute(select(api_key).where(one)).one_or_none()
    if row is None:
        raise NotFoundError("no such key")
    return _read(row)


def keys(engine: Engine) -> tuple[ApiKey, ...]:
    """All that were ever made, oldest first. Raises UnavailableError."""
    with guarded("read"), engine.connect() as connection:
        rows = connection.execute(select(api_key).order_by(api_key.c.created_at, api_key.c.key_id))
        return tuple(_read(row) for row in rows)


def spend_token(engine: Engine, token_hash: str, expires_at: datetime) -> bool:
    """Whether this is the token's first use, on any host. Raises UnavailableError."""
    spent = {"token_hash": token_hash, "expires_at": utc(expires_at)}
    with guarded("written"):
        try:
            with writing(engine) as connection:
                connection.execute(insert(used_token), [spent])
        except TakenError:
            return False
    return True


def forget_tokens(engine: Engine, before: datetime) -> None:
    """Drop used tokens that would be refused anyway, because they expired. Raises UnavailableError."""
    with guarded("written"), writing(engine) as connection:
        connection.execute(delete(used_token).where(used_token.c.expires_at < utc(before)))


def record_refusals(engine: Engine, rows: Sequence[Refusal]) -> None:
    """Raises UnavailableError."""
    if rows:
        with guarded("written"), writing(engine) as connection:
            connection.execute(insert(refused_call), [asdict(row) for row in rows])


def _read(row: Any) -> ApiKey:
    found = row._asdict()
    found["scopes"] = frozenset(json.loads(found["scopes"]))
    found["sites"] = None if found["sites"] is None else frozenset(json.loads(found["sites"]))
    return ApiKey(**found)
