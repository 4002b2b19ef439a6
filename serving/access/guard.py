"""Who may call: stands before every route.

As long as no key was ever made and no issuer is trusted, the service is open to its own machine and
to nobody else. From then on it is closed: a caller brings an API key (``Authorization: Bearer
cm_…``), the token of a trusted CDS client for just that address, or the access token of a SMART client.
What needs no scope (the OpenAPI document, discovery, capabilities) is open to all, and counted as the
rest is. BentoML's own ``/livez`` and ``/readyz`` do not come by here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request

from data.errors import (
    ForbiddenError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from data.log import access
from data.log.access import Scope
from serving.access import tokens as signed
from serving.access.caller import ANYBODY, STRANGER, Caller
from serving.access.keys import Keys
from serving.access.limits import RATE, Limits, rate
from serving.access.refusals import Refusals
from serving.access.tokens import Tokens
from serving.access.trust import Issuer, Kind, Reviewed, loopback, reviewed

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)
FAILURES = 300
"""Failed authentications a minute of one peer; after that it learns nothing more of why."""
EVERY = 1.0
FORGET_EVERY = 600
CDS = "/cds-services/"
TOKEN = "/auth/token"  # noqa: S105 a path
PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that a proxy adds: what carries one did not begin on this machine."""


class Guard:
    """Without arguments: open to this machine, knows no key, counts in memory and keeps nothing."""

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        reviewed: Reviewed | None = None,
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        refusals: Refusals | None = None,
        rate: int = RATE,
    ) -> None:
        self._keys, self._tokens, self._refusals = keys, tokens, refusals
        self._reviewed = reviewed or Reviewed(None)
        self._limits = limits or Limits(None)
        self._rate = rate
        self._closed = bool(self._reviewed.trust.issuers)
        # Its own: an issuer that does not answer must not hold up what else waits for a thread.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="tokens")

    @classmethod
    def start(cls, engine: Engine, key: bytes, home: Path) -> Guard:
        """With everything.

        Raises:
            UsageError: the settings or the file of issuers are wrong.
            UnavailableError: the log cannot be read.
        """
        issuers = reviewed(home)
        return cls(
            keys=Keys(engine, key),
            reviewed=issuers,
            tokens=Tokens(engine, key, issuers),
            limits=Limits(home / "limits"),
            refusals=Refusals(engine),
            rate=rate(),
        )

    @property
    def closed(self) -> bool:
        """Whether a caller must say who it is. A file that went away opens nothing that was closed."""
        if not self._closed:
            known = self._keys is not None and self._keys.exist
            self._closed = known or bool(self._reviewed.trust.issuers)
        return self._closed

    @property
    def fhir_servers(self) -> frozenset[str]:
        """From which the service may fetch what a CDS client's prefetch lacks."""
        return self._reviewed.trust.fhir_servers

    @property
    def origins(self) -> frozenset[str]:
        """Whose pages may use CDS Hooks; ``*`` is of the discovery alone."""
        return self._reviewed.trust.origins

    @property
    def base_url(self) -> str | None:
        """The service as its clients see it, as far as somebody said so."""
        return self._reviewed.trust.base_url

    async def admit(self, request: Request, needs: Scope | None) -> Caller:
        """The caller of ``request``.

        Raises:
            UnauthorizedError: nobody known.
            ForbiddenError: somebody who lacks the scope.
            RateLimitedError: too many of this caller's, or too many failures of this peer.
            UnavailableError: keys or used tokens cannot be read.
        """
        if needs is None:
            self._limits.count(f"peer {self.peer(request)}", rate=self._rate)
            return STRANGER
        caller = await self._caller(request)
        request.state.caller = caller
        who = f"peer {self.peer(request)}" if caller.name is None else f"caller {caller.name}"
        self._limits.count(who, rate=self._rate)
        if needs not in caller.scopes:
            raise ForbiddenError(f"this needs the scope {needs}")
        return caller

    async def exchange(self, request: Request, assertion: str) -> Issuer:
        """The SMART client that signed ``assertion`` for the token endpoint.

        Raises as :meth:`admit` does.
        """
        return await self._client(request, assertion, kind="smart", path=TOKEN)

    def issue(self, issuer: Issuer, scopes: Collection[Scope]) -> str:
        """An access token; only after :meth:`exchange`."""
        assert self._tokens is not None
        return self._tokens.issue(issuer, scopes)

    def peer(self, request: Request) -> str:
        """The address that ``request`` came from, as a proxy of ours says it, or as it is."""
        host = request.client.host if request.client else ""
        proxies = self._reviewed.trust.proxies
        if proxies and host in proxies:
            # The last is the proxy's own; those before it are whatever the caller wrote.
            told = request.headers.getlist("x-forwarded-for")
            last = told[-1].rpartition(",")[2].strip() if told else ""
            return last if _address(last) else host
        return host

    def refused(self, request: Request, route: str, error: Exception) -> None:
        """Keep that a call was refused, if that is what ``error`` says."""
        match error:
            case UnauthorizedError() | ForbiddenError() | RateLimitedError() if self._refusals:
                caller = getattr(request.state, "caller", None)
                self._refusals.add(
                    route=route,
                    status=error.status,
                    reason=str(error),
                    caller=caller.name if caller else None,
                    peer=self.peer(request) or None,
                )

    async def follow(self) -> None:
        """Keep up with keys, issuers and refusals until cancelled."""
        turns = 0
        while True:
            await asyncio.sleep(EVERY)
            turns += 1
            await asyncio.to_thread(self._follow, forget=turns % FORGET_EVERY == 0)

    def close(self) -> None:
        """Write what waits."""
        if self._refusals:
            self._refusals.write(last=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._limits.close()

    def _follow(self, *, forget: bool) -> None:
        steps: list[Callable[[], None]] = [self._reviewed.refresh]
        if self._keys:
            steps.append(self._keys.refresh)
        if self._refusals:
            steps.append(self._refusals.write)
        if self._tokens and forget:
            steps.append(self._tokens.forget)
        for step in steps:
            try:
                step()
            except UnavailableError:
                pass  # logged where it was raised; how long old keys count is for Keys to say
            except Exception as error:  # noqa: BLE001 what comes after this must still be followed
                logger.error("who may call cannot be followed: %s", type(error).__name__)

    async def _caller(self, request: Request) -> Caller:
        if self._keys:
            self._keys.current()
        token = _bearer(request)
        parts = access.split(token) if token else None
        try:
            if parts and self._keys:
                return await self._by_key(request, self._keys, *parts)
            if not self.closed:
                return self._on_this_machine(request)
            if not token:
                raise UnauthorizedError("no key and no token")  # noqa: TRY301 counted below
            if parts or self._tokens is None:
                raise UnauthorizedError("no such API key")  # noqa: TRY301 as above
            if token.startswith(signed.OURS):
                return self._tokens.caller(token)
        except UnauthorizedError as error:
            self._failed(request, error)
        path = str(request.scope["path"])
        if not path.startswith(CDS):
            self._failed(request, UnauthorizedError("a CDS client's token is for its services only"))
        issuer = await self._client(request, token, kind="cds-hooks", path=path)
        return signed.caller(issuer, issuer.scopes)

    async def _by_key(self, request: Request, keys: Keys, key_id: str, secret: str) -> Caller:
        if not keys.knows(key_id):
            self._limits.spent(f"failed {self.peer(request)}", rate=FAILURES)
            await keys.look(key_id)
        if not self.closed:
            return self._on_this_machine(request)
        return keys.caller(key_id, secret)

    async def _client(self, request: Request, token: str, *, kind: Kind, path: str) -> Issuer:
        """Who signed ``token``. Checking costs more than refusing, so that failures are bounded."""
        tokens = self._tokens
        self._limits.spent(f"failed {self.peer(request)}", rate=FAILURES)
        try:
            if tokens is None:
                raise UnauthorizedError("no issuer is trusted")  # noqa: TRY301 counted below
            audience = self._audience(request, path)
            run = asyncio.get_running_loop().run_in_executor
            return await run(self._threads, lambda: tokens.client(token, kind=kind, audience=audience))
        except UnauthorizedError as error:
            self._failed(request, error)

    def _audience(self, request: Request, path: str) -> str:
        """The exact address that a token must be for."""
        if self.base_url:
            return self.base_url + path
        # Host is the caller's own word: a token for another service would be taken for one for us.
        if _passed_on(request) or not loopback(self.peer(request)):
            raise UnauthorizedError("the service has no base_url, so that no token can be for it")
        return f"{request.url.scheme}://{request.headers.get('host', '')}{path}"

    def _on_this_machine(self, request: Request) -> Caller:
        """Anybody, as long as the service is open. Raises UnauthorizedError."""
        if not _local(request.client.host if request.client else "") or _passed_on(request):
            raise UnauthorizedError("no API key exists yet, so that only this machine may call")
        # A page from elsewhere, whose name was made to point here, is no caller of this machine.
        origin = request.headers.get("origin")
        if origin and origin not in self.origins and not _local_page(origin):
            raise UnauthorizedError("no API key exists yet, and pages from elsewhere may not call")
        return ANYBODY

    def _failed(self, request: Request, error: UnauthorizedError) -> NoReturn:
        self._limits.count(f"failed {self.peer(request)}", rate=FAILURES)
        raise error


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _passed_on(request: Request) -> bool:
    return any(name in request.headers for name in PASSED_ON)


@lru_cache(maxsize=256)
def _local(host: str) -> bool:
    return loopback(host)


def _local_page(origin: str) -> bool:
    with suppress(ValueError):
        return loopback(urlsplit(origin).hostname)
    return False


def _address(text: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return False
