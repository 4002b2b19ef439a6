"""Errors as FHIR says them: an OperationOutcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from data.errors import CaremodelsError, ContractError, FieldError
from serving import problems
from serving.answers import Fault, Refused

MEDIA_TYPE = "application/fhir+json"
CODES = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    412: "required",
    413: "too-long",
    415: "not-supported",
    422: "invalid",
    429: "throttled",
    503: "transient",
}
"""Status -> the issue's code, of FHIR's own list."""
MOST_ISSUES = 50


class NotAcceptableError(CaremodelsError):
    """The caller takes no format, or no release of FHIR, that is spoken here."""

    status = 406
    title = "Not acceptable"


def outcome(status: int, text: str, faults: Sequence[Fault | FieldError] = ()) -> dict[str, Any]:
    """An OperationOutcome: an issue a fault, or one that says ``text``."""
    code = CODES.get(status, "exception")
    issues: list[dict[str, Any]] = [
        {
            "severity": "error",
            "code": "required" if fault.reason == "required" else code,
            "details": {"text": f"{fault.field}: {fault.reason}"},
            "diagnostics": text,
            "expression": [fault.field],
        }
        for fault in faults[:MOST_ISSUES]
    ]
    alone = {"severity": "error", "code": code, "details": {"text": text}}
    return {"resourceType": "OperationOutcome", "issue": issues or [alone]}


def response(
    status: int,
    text: str,
    faults: Sequence[Fault | FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    content = msgspec.json.encode(outcome(status, text, faults))
    return Response(content, status, headers, media_type=MEDIA_TYPE)


def refused(prediction: Refused) -> Response:
    """422: the record says something that the contract does not allow."""
    return response(ContractError.status, "the record does not fit the contract", prediction.errors)


def problem(error: Exception) -> Response:
    """What is answered to ``error`` on a FHIR route."""
    match error:
        case CaremodelsError():
            return response(error.status, str(error), error.errors)
        case HTTPException():
            status = error.status_code
            said = problems.DETAILS.get(status, problems.TITLES.get(status, "Error"))
            return response(status, said, headers=dict(error.headers or {}))
        case ClientDisconnect():
            return problems.response(error)
    unforeseen = problems.response(error)  # it writes the log line
    return response(unforeseen.status_code, "caremodels failed; nothing was answered")
