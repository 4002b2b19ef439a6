"""One family of errors; each knows its HTTP status and its exit code.

A message names the field and the rule. It never repeats a patient's value: the text of an
error reaches logs, terminals and callers that may not hold that value.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One fault of one field, as it stands in an answer's ``errors``."""

    field: str
    reason: str


class CaremodelsError(Exception):
    """Something that a caller can be told in one sentence."""

    status = 500
    exit_code = 1
    title = "caremodels failed"

    def __init__(self, message: str, *, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class UsageError(CaremodelsError):
    """The command or request asks for something that makes no sense."""

    status = 400
    exit_code = 2
    title = "Bad request"


class ContractError(CaremodelsError):
    """Rows as a whole do not fit their contract: a missing column, a wrong type."""

    status = 422
    title = "The input does not fit its contract"


class UnauthorizedError(CaremodelsError):
    """Nobody known: no key or token, or one that is wrong, expired, revoked or used before."""

    status = 401
    title = "Not authenticated"


class ForbiddenError(CaremodelsError):
    """Somebody known who may not do this, or not for that site."""

    status = 403
    title = "Not allowed"


class NotFoundError(CaremodelsError):
    """No such model, version, mart or source."""

    status = 404
    title = "Not found"


class ConflictError(CaremodelsError):
    """The same name or key was used before for something else."""

    status = 409
    title = "Conflict"


class PreconditionError(CaremodelsError):
    """Data that the answer needs was neither sent nor to be had."""

    status = 412
    title = "Data are missing"


class TooLargeError(CaremodelsError):
    """The body is larger than the service accepts."""

    status = 413
    title = "Body too large"


class SlowError(CaremodelsError):
    """The body takes too long to arrive."""

    status = 408
    title = "Body too slow"


class MediaTypeError(CaremodelsError):
    """The body is not JSON."""

    status = 415
    title = "Unsupported media type"


class RateLimitedError(CaremodelsError):
    """More requests than this caller may send; ``retry_after`` seconds say when to come back."""

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(CaremodelsError):
    """Not now: the log cannot be written, or no version is released."""

    status = 503
    title = "Unavailable"


class IntegrityError(CaremodelsError):
    """A file is not the one that was registered, or a version answers differently."""

    status = 503
    title = "Integrity check failed"


class GateRefusedError(CaremodelsError):
    """A version did not pass its gate."""

    status = 409
    exit_code = 3
    title = "Refused by the gate"


class NotEnoughDataError(CaremodelsError):
    """Too few rows or outcomes for an answer that means anything."""

    status = 422
    exit_code = 4
    title = "Not enough data"
