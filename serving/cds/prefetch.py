"""What a service wants to be sent along: what came, and what can still be fetched.

Only from FHIR servers that ``issuers.toml`` names, compared as a whole; no redirect is followed, and an
identifier is put into a template only where it is one. What cannot be had is 412.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache

import msgspec
from msgspec import Raw, Struct

from data.errors import FieldError, PreconditionError
from serving.cds.request import HookRequest
from serving.fhir.record import refused
from serving.fhir.types import NONE, there
from serving.schema import LARGEST_BODY

logger = logging.getLogger(__name__)
SECONDS = 0.3
"""For all fetches together: a client waits about half a second for its cards."""


KINDS = {"patient": "Patient", "encounter": "Encounter"}
"""Templates that read one resource; every other is a search."""


class _Head(Struct, frozen=True):
    resourceType: str  # noqa: N815 the standard's name


_head = msgspec.json.Decoder(_Head | None).decode


async def complete(
    asked: HookRequest, templates: Mapping[str, str], servers: Collection[str]
) -> list[tuple[str, Raw]]:
    """The resources for ``templates``, each with its place. Raises PreconditionError naming the keys
    that are neither sent nor to be fetched.

    A key that is null has nothing. One that is absent, or that holds an OperationOutcome, was not got.
    """
    sent = asked.prefetch or {}
    wanted = {key: _filled(template, asked) for key, template in templates.items()}
    lacking = [key for key, path in wanted.items() if not _got(key, sent.get(key)) and path]
    fetched: dict[str, Raw] = {}
    if lacking and _allowed(asked, servers):
        fetched = await _fetch(asked, {key: str(wanted[key]) for key in lacking})
    if missing := [key for key in lacking if key not in fetched]:
        faults = tuple(FieldError(field=f"prefetch.{key}", reason="required") for key in missing)
        raise PreconditionError(f"neither sent nor to be had: {', '.join(missing)}", errors=faults)
    found = {key: fetched.get(key) or sent.get(key, NONE) for key in templates}
    return [(f"prefetch.{key}", raw) for key, raw in found.items() if there(raw)]


def _got(key: str, raw: Raw | None) -> bool:
    """Whether the client had an answer for ``key``, be it that there is nothing.

    Raises ContractError for a resource of another kind than the template asks for.
    """
    if raw is None:
        return False
    try:
        head = _head(raw)
    except (ValueError, RecursionError):
        return True  # what is wrong with it is said where it is read
    if head is None or head.resourceType == "OperationOutcome":
        return head is None
    wanted = KINDS.get(key, "Bundle")
    if head.resourceType != wanted:
        raise refused(f"prefetch.{key}", f"must be a {wanted}")
    return True


def _filled(template: str, asked: HookRequest) -> str | None:
    """The template's path; None where the context does not have what it asks for."""
    if "{{context.encounterId}}" in template and asked.context.encounterId is None:
        return None
    path = template.replace("{{context.patientId}}", asked.context.patientId)
    return path.replace("{{context.encounterId}}", asked.context.encounterId or "")


def _allowed(asked: HookRequest, servers: Collection[str]) -> bool:
    return asked.fhirServer is not None and asked.fhirServer.rstrip("/") in servers


@cache
def _authorities() -> ssl.SSLContext:
    """The system's own, where a hospital keeps its; made once, since that takes 20 ms."""
    return ssl.create_default_context()


async def _fetch(asked: HookRequest, paths: Mapping[str, str]) -> dict[str, Raw]:
    """What the FHIR server answers in time, by key."""
    import httpx

    # Its line a request would hold the patient's identifier.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    assert asked.fhirServer is not None  # it was found among those allowed
    base = asked.fhirServer.rstrip("/")
    headers = {"accept": "application/fhir+json"}
    if asked.fhirAuthorization is not None:
        headers["authorization"] = f"Bearer {asked.fhirAuthorization.access_token}"
    found: dict[str, Raw] = {}

    async def one(client: httpx.AsyncClient, key: str, path: str) -> None:
        with suppress(httpx.HTTPError, httpx.InvalidURL):
            async with client.stream("GET", f"{base}/{path}") as response:
                if response.status_code != 200:
                    return
                received = bytearray()
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > LARGEST_BODY:
                        return
            raw = Raw(bytes(received))
            with suppress(ValueError, RecursionError):
                head = _head(raw)
                if head is not None and head.resourceType != "OperationOutcome":
                    found[key] = raw

    # Not through a proxy of the environment: the address was reviewed, the way there was not.
    client = httpx.AsyncClient(
        headers=headers,
        verify=_authorities(),
        follow_redirects=False,
        timeout=SECONDS,
        trust_env=False,
    )
    async with client:
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*(one(client, key, path) for key, path in paths.items()))
        except TimeoutError:
            logger.warning("the FHIR server did not answer within %s s", SECONDS)
    return found
