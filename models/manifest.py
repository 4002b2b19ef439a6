"""The first file of an artifact to be read: what it is, from what, and the hash of every other file.

Apart from the artifact, because who only asks what a release is need not wait for XGBoost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from data.contract import Text
from data.errors import IntegrityError, NotFoundError

FORMAT = 4
"""1: the first. 2: a mart's key may be of several columns, an outcome says when it became known.
3: comparators, prediction sets, novelty, levels and the intercepts of sites are part of a version.
4: a spec says when no risk is given, and novelty looks only at what was measured.
A reader refuses a format that it does not know: such a version is trained anew."""

NOTICE = Text("Demonstration, not for care.", "仅供演示，不得用于诊疗。")
"""What a model says of itself whose training data's terms forbid care."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a version learned from, and what it may be used for."""

    use: Literal["care", "demonstration"]
    terms: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()
    load_ids: tuple[str, ...] = ()
    periods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    flow: tuple[tuple[str, int], ...] = ()
    as_of: datetime | None = None
    fingerprint: str = ""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The first file to be read. ``files``: name -> SHA-256."""

    format: int
    model: str
    provenance: Provenance
    libraries: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


def verify(folder: Path) -> Manifest:
    """Hold each file to the manifest's hash. Raises NotFoundError where there is none.

    Raises IntegrityError naming the file that changed, or a format that is not known.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise NotFoundError(f"no model at {folder}")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{path} is no manifest: {error}") from None
    if manifest.format != FORMAT:
        raise IntegrityError(f"{folder} has format {manifest.format}; this version reads {FORMAT}")
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise IntegrityError(f"{file} is missing")
        if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise IntegrityError(f"{file} is not the file that was written")
    return manifest
