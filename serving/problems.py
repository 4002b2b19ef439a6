"""Errors as problem documents (RFC 9457), and nothing that a caller sent in a log line."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from data.errors import CaremodelsError, ContractError, RateLimitedError, SlowError, UnauthorizedError
from serving.answers import Fault, Prediction, Problem, Refused

logger = logging.getLogger(__name__)
TITLES = {404: "Not found", 405: "Method not allowed"}
DETAILS = {404: "no such route", 405: "the route has other methods; Allow names them"}


def response(error: Exception) -> Response:
    """What is answered to ``error``."""
    match error:
        case CaremodelsError():
            faults = tuple(Fault(fault.field, fault.reason) for fault in error.errors)
            return problem(Problem(error.title, error.status, str(error), faults))
        case HTTPException():
            status = error.status_code
            said = Problem(TITLES.get(status, "Error"), status, DETAILS.get(status, ""))
            return problem(said, headers=dict(error.headers or {}))
        case ClientDisconnect():
            return Response(status_code=499)  # nobody reads it
    # Not its text, which may repeat a value.
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, place.filename, place.lineno)
    return problem(Problem("Internal error", 500, "caremodels failed; nothing was answered"))


def headers(error: Exception) -> dict[str, str]:
    """What an answer to ``error`` says beside its body, whatever standard the body follows."""
    match error:
        case UnauthorizedError():
            return {"www-authenticate": "Bearer"}
        case RateLimitedError():
            return {"retry-after": str(error.retry_after)}
        case SlowError():
            return {"connection": "close"}  # what is left of the body is not waited for
    return {}


def refusal(predictions: Sequence[Prediction]) -> Response:
    """422 where no instance could be answered; each fault with the place of its instance."""
    faults = tuple(
        Fault(fault.field, fault.reason, position if fault.instance is None else fault.instance)
        for position, prediction in enumerate(predictions)
        if isinstance(prediction, Refused)
        for fault in prediction.errors
    )
    detail = "no instance fits the contract"
    return problem(Problem(ContractError.title, ContractError.status, detail, faults))


def problem(said: Problem, *, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(said), said.status, headers, media_type="application/problem+json"
    )
