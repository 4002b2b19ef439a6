"""Which release of FHIR, and which name of JSON, an answer is in: the caller's ``Accept`` says.

``fhirVersion`` is a parameter of the media type, 4.0 where nobody names one. What is answered is the
same in both releases but for the version that it says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from serving.fhir.outcome import MEDIA_TYPE, NotAcceptableError

RELEASES = {"4.0": "4.0", "4.0.1": "4.0", "5.0": "5.0", "5.0.0": "5.0"}
FULL = {"4.0": "4.0.1", "5.0": "5.0.0"}
JSON = "application/json"
TAKEN = (MEDIA_TYPE, JSON)
"""Media types of a body."""
_RANGES = {MEDIA_TYPE: MEDIA_TYPE, "application/*": MEDIA_TYPE, "*/*": MEDIA_TYPE, JSON: JSON}


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """The media type and the release of an answer."""

    media_type: str = MEDIA_TYPE
    release: str = "4.0"

    @property
    def content_type(self) -> str:
        return f"{self.media_type}; fhirVersion={self.release}"


def spoken(request: Request) -> Spoken:
    """What ``request`` accepts best. Raises NotAcceptableError where that is nothing we speak."""
    given = _range(request.headers.get("content-type", ""))[1].get("fhirversion", "4.0")
    default = RELEASES.get(given, "4.0")
    accepted = request.headers.get("accept", "").strip()
    if not accepted:
        return Spoken(release=default)
    best: tuple[float, Spoken] | None = None
    for written in accepted.split(","):
        kind, parameters = _range(written)
        release = RELEASES.get(parameters.get("fhirversion", default))
        quality = _quality(parameters.get("q", "1"))
        known = kind in _RANGES and release is not None and quality > 0
        if known and release and (best is None or quality > best[0]):
            best = quality, Spoken(media_type=_RANGES[kind], release=release)
    if best is None:
        raise NotAcceptableError(f"answers are {' or '.join(TAKEN)}, fhirVersion {' or '.join(FULL)}")
    return best[1]


def _range(written: str) -> tuple[str, dict[str, str]]:
    """Type and parameters; names in lower case."""
    kind, *rest = written.split(";")
    pairs = (part.partition("=") for part in rest)
    parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    return kind.strip().lower(), parameters


def _quality(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return 0.0
