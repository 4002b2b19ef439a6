"""SMART Backend Services: a client proves who it is by a signed JWT and gets an access token.

Errors are OAuth's (RFC 6749, section 5.2). Source: SMART App Launch 2.2, "Backend Services".
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from data.errors import (
    CaremodelsError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
)
from data.log.access import Scope
from serving import problems
from serving.access.guard import TOKEN
from serving.access.jwks import KINDS
from serving.access.tokens import LONGEST
from serving.access.trust import loopback
from serving.routing import Answering, body
from serving.runtime import of

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TYPE = "client_assertion_type"
GRANT = "client_credentials"
CONFIGURATION = "/.well-known/smart-configuration"
SUPPORTED = ("system/RiskAssessment.c", "system/RiskAssessment.rs")
_SCOPE = re.compile(r"system/(?:RiskAssessment|\*)\.(read|write|\*|c?r?u?d?s?)")


class OAuthError(UsageError):
    """A request for a token that makes no sense; ``code`` is one of RFC 6749's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def wanted(scope: str) -> frozenset[Scope]:
    """What a SMART scope, of version 1 or 2, is here: creating an assessment is asking for a prediction.

    >>> sorted(wanted("system/RiskAssessment.cru")), sorted(wanted("patient/Observation.rs"))
    (['predict', 'read'], [])
    """
    found = _SCOPE.fullmatch(scope)
    if not found or not found[1]:
        return frozenset()
    rights = {"write": "c", "read": "r", "*": "cr"}.get(found[1], found[1])
    given: set[Scope] = set()
    if "c" in rights:
        given.add("predict")
    if "r" in rights or "s" in rights:
        given.add("read")
    return frozenset(given)


async def token(request: Request) -> Response:
    """An access token for a client that signed its request."""
    form = _form(await body(request, "application/x-www-form-urlencoded"))
    if "grant_type" in form and form["grant_type"] != GRANT:
        raise OAuthError("unsupported_grant_type", f"grant_type must be {GRANT}")
    if not {"grant_type", "client_assertion"} <= form.keys() or form.get(TYPE) != ASSERTION:
        raise OAuthError(
            "invalid_request", f"expected grant_type and client_assertion, of the {TYPE} {ASSERTION}"
        )
    asked = {scope: wanted(scope) for scope in form.get("scope", "").split()}
    guard = of(request).guard
    client = await guard.exchange(request, form["client_assertion"])
    granted = {scope: rights for scope, rights in asked.items() if rights and rights <= client.scopes}
    if not granted:
        raise OAuthError("invalid_scope", f"none of these is granted; there are {', '.join(SUPPORTED)}")
    said = {
        "access_token": guard.issue(client, frozenset().union(*granted.values())),
        "token_type": "bearer",
        "expires_in": LONGEST,
        "scope": " ".join(sorted(granted)),
    }
    return _said(said)


async def configuration(request: Request) -> Response:
    """Where and how a client gets its token."""
    guard = of(request).guard
    base = guard.base_url
    if base is None and loopback(guard.peer(request)):
        base = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if base is None:
        raise UnavailableError("the service has no base_url yet")
    return _said(
        {
            "token_endpoint": base + TOKEN,
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(KINDS),
            "grant_types_supported": [GRANT],
            "scopes_supported": list(SUPPORTED),
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
        }
    )


def problem(error: Exception) -> Response:
    """An error as OAuth says it."""
    match error:
        case OAuthError():
            code, status = error.code, error.status
        case UnauthorizedError():
            code, status = "invalid_client", error.status
        case RateLimitedError() | UnavailableError():
            code, status = "temporarily_unavailable", error.status
        case TooLargeError():
            code, status = "invalid_request", error.status
        case CaremodelsError():
            code, status = "invalid_request", 400
        case _:
            return problems.response(error)
    return _said({"error": code, "error_description": str(error)}, status)


def _form(content: bytes) -> dict[str, str]:
    """Raises OAuthError for a body that is no form, or says a thing twice (RFC 6749, 3.2)."""
    try:
        pairs = parse_qsl(content.decode("ascii"), strict_parsing=True, max_num_fields=20)
    except ValueError:
        raise OAuthError("invalid_request", "the body is no form") from None
    if len(dict(pairs)) < len(pairs):
        raise OAuthError("invalid_request", "a parameter stands there twice")
    return dict(pairs)


def _said(content: object, status: int = 200) -> Response:
    # RFC 6749, 5.1: a token must not be kept on the way.
    headers = {"cache-control": "no-store", "pragma": "no-cache"}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


ROUTES = (
    Answering(method="POST", path=TOKEN, endpoint=token, needs=None, problem=problem),
    Answering(method="GET", path=CONFIGURATION, endpoint=configuration, needs=None, problem=problem),
    Answering(
        method="GET",
        path=f"/fhir{CONFIGURATION}",
        endpoint=configuration,
        needs=None,
        problem=problem,
    ),
)
