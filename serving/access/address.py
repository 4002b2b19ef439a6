"""Where the service is, as its clients see it."""

from __future__ import annotations

from starlette.requests import Request

from serving.runtime import of


def base_url(request: Request) -> str:
    """Without a slash at its end: as ``issuers.toml`` has it, or else as ``request`` addressed it."""
    return of(request).guard.base_url or f"{request.url.scheme}://{request.url.netloc}"
