"""Browsers that call CDS Hooks from another origin (CORS, in the Fetch standard).

Only origins of the reviewed ``issuers.toml`` are told that they may. ``*`` there is of the discovery
alone, which everybody may read. Whoever may call is settled by a token, never by a cookie, so that
credentials in the sense of the standard are not allowed.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response

from serving.routing import Answering
from serving.runtime import of

DISCOVERY = "/cds-services"
PATHS = (DISCOVERY, f"{DISCOVERY}/{{id}}", f"{DISCOVERY}/{{id}}/feedback")


async def preflight(request: Request) -> Response:
    """Which methods and headers an allowed origin may use; nothing for another."""
    response = Response(status_code=204)
    if _allowed(request, of(request).guard.origins):
        method = "GET" if request.scope["path"] == DISCOVERY else "POST"
        response.headers["access-control-allow-methods"] = method
        response.headers["access-control-allow-headers"] = "authorization, content-type"
        response.headers["access-control-max-age"] = "600"
    return response


def grant(request: Request, response: Response, origins: Collection[str]) -> None:
    """Let a page of an allowed origin read ``response``."""
    if not origins or not request.scope["path"].startswith(DISCOVERY):
        return
    response.headers.add_vary_header("Origin")
    if _allowed(request, origins):
        response.headers["access-control-allow-origin"] = request.headers["origin"]
        response.headers["access-control-expose-headers"] = "retry-after, www-authenticate"


def _allowed(request: Request, origins: Collection[str]) -> bool:
    origin = request.headers.get("origin")
    return origin is not None and (
        origin in origins or ("*" in origins and request.scope["path"] == DISCOVERY)
    )


ROUTES = tuple(Answering(method="OPTIONS", path=path, endpoint=preflight, needs=None) for path in PATHS)
