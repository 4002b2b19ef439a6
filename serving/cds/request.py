"""A CDS Hooks request, typed and held to what the specification asks; further fields are extensions."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from data.errors import ContractError, FieldError
from serving.schema import read

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9.\-]+$")]
"""A FHIR id: it goes into the addresses of what is fetched."""


class Authorization(Struct, frozen=True):
    """``access_token`` is for the FHIR server, and is never kept or logged."""

    access_token: Annotated[str, Meta(min_length=1, pattern=r"^[\x21-\x7e]+$")]
    token_type: str
    patient: str | None = None


class HookContext(Struct, frozen=True):
    patientId: Id  # noqa: N815 the standard's names, as below
    encounterId: Id | None = None  # noqa: N815


class HookRequest(Struct, frozen=True):
    """``prefetch``: absent keys were not attempted, null ones have nothing."""

    hook: str
    hookInstance: uuid.UUID  # noqa: N815
    context: HookContext
    fhirServer: str | None = None  # noqa: N815
    fhirAuthorization: Authorization | None = None  # noqa: N815
    prefetch: dict[str, Raw] | None = None


_request = msgspec.json.Decoder(HookRequest).decode


def read_hook(content: bytes, hook: str) -> HookRequest:
    """A request for ``hook``. Raises ContractError naming the field and the rule."""
    asked = read(content, _request)
    authorized = asked.fhirAuthorization
    if asked.hook != hook:
        raise _refused("hook", f"this service is for {hook}")
    if authorized is not None and asked.fhirServer is None:
        raise _refused("fhirServer", "required with fhirAuthorization")
    if authorized is not None and authorized.token_type.lower() != "bearer":
        raise _refused("fhirAuthorization.token_type", "must be Bearer")
    if authorized is not None and authorized.patient not in (None, asked.context.patientId):
        raise _refused("fhirAuthorization.patient", "another patient than context.patientId")
    if hook == "encounter-start" and asked.context.encounterId is None:
        raise _refused("context.encounterId", f"required for {hook}")
    return asked


def _refused(field: str, reason: str) -> ContractError:
    return ContractError(
        "the request does not fit CDS Hooks", errors=(FieldError(field=field, reason=reason),)
    )
