"""What production reads: ``releases/MODEL/VERSION/`` and the pointers ``champion`` and ``challenger``.

Plain files, written whole before they are seen: a folder is renamed into place, a pointer replaced.
No registry is asked when a patient waits.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from data.errors import ConflictError
from models import manifest

Pointer = Literal["champion", "challenger"]
POINTERS: tuple[Pointer, ...] = ("champion", "challenger")


def publish(releases: Path, source: Path, *, model: str, version: str) -> Path:
    """Copy a verified artifact to its place; a second time is the same. Returns the place.

    Raises IntegrityError where the artifact does not verify, ConflictError where other files
    stand under that version.
    """
    from models import artifact

    stored = manifest.verify(source)
    place = releases / model / version
    if place.exists():
        if manifest.verify(place) != stored:
            raise ConflictError(f"{model} {version} was released before with other files")
        return place
    draft = place.with_name(f".{version}.{os.getpid()}")
    try:
        shutil.copytree(source, draft)
        artifact.load(draft)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def point(releases: Path, *, model: str, pointer: Pointer, version: str) -> None:
    """Make ``pointer`` name ``version``, in one step for every reader."""
    target = releases / model / pointer
    draft = target.with_name(f".{pointer}.{os.getpid()}")
    draft.write_text(f"{version}\n", encoding="utf-8")
    draft.replace(target)


def unpoint(releases: Path, *, model: str, pointer: Pointer) -> None:
    """Make ``pointer`` name no version, so that the service answers 503."""
    (releases / model / pointer).unlink(missing_ok=True)


def pointed(releases: Path, *, model: str, pointer: Pointer = "champion") -> str | None:
    """The version that ``pointer`` names, or None. What is no text names a version that is not there."""
    target = releases / model / pointer
    if not target.is_file():
        return None
    return target.read_text(encoding="utf-8", errors="replace").strip()


def models(releases: Path, pointer: Pointer = "champion") -> list[str]:
    """Models of which ``pointer`` names a version."""
    return sorted(file.parent.name for file in releases.glob(f"*/{pointer}"))


def known(releases: Path) -> list[str]:
    """Models of which a version was ever released, whatever the pointers name now."""
    return sorted(folder.name for folder in releases.glob("[!.]*") if folder.is_dir())
