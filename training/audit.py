"""What stands on disk and in MLflow, held against what was signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data.errors import CaremodelsError
from data.home import Home
from data.pseudonym import load_key
from models import ledger, registry, release
from models.ledger import Entry, Standing
from models.release import Pointer

Versions = dict[Pointer, str | None]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What ``caremodels ledger verify --json`` prints.

    ``anchors``: how many entries of the ledger are known elsewhere, and agree; None where MLflow was
    not asked. ``unanchored``: releases that hold no entry, so that nothing there could contradict.
    """

    entries: int
    intact: bool
    last: Entry | None
    anchors: dict[str, int | None]
    unanchored: list[str]


def verify(home: Home, *, mlflow: bool = True) -> Verified:
    """The chain of the ledger, then every anchor in the releases and in MLflow.

    Raises IntegrityError naming what does not agree, CaremodelsError where MLflow cannot be asked.
    """
    # The anchors first: an entry that is added meanwhile is in the ledger before it is anchored.
    released = ledger.anchors(home.releases)
    tagged = registry.anchors(home) if mlflow else []
    entries = ledger.verify(home.ledger, load_key(home.path))
    ledger.hold(entries, [*released, *tagged])
    kept = {anchor.place for anchor in released}
    return Verified(
        entries=len(entries),
        intact=True,
        last=entries[-1] if entries else None,
        anchors={"releases": len(released), "mlflow": len(tagged) if mlflow else None},
        unanchored=[place for place in ledger.places(home.releases) if place not in kept],
    )


def releases(home: Home, *, mlflow: bool = True) -> dict[str, dict[str, Any]]:
    """Of each model: the version that each pointer names, and where others say otherwise.

    ``withdrawn``: pointer -> the version that was withdrawn from it last. ``ledger`` and ``mlflow``:
    pointer -> the version that was signed for, and that MLflow's alias shows; None where the ledger
    does not verify or MLflow cannot be asked. ``differs`` says in words where they part: a pointer or
    an alias was moved by hand, or an act was cut short.
    """
    entries = _entries(home)
    found = {}
    for model in sorted({*release.known(home.releases), *(entry.model for entry in entries or ())}):
        standing = {of: ledger.standing(entries or (), model, of) for of in release.POINTERS}
        shown = _aliases(home, model) if mlflow else None
        mlflow = shown is not None  # a server that does not answer is asked once
        found[model] = _compared(
            {of: release.pointed(home.releases, model=model, pointer=of) for of in release.POINTERS},
            {of: at.withdrawn for of, at in standing.items() if at.withdrawn},
            None if entries is None else {of: _version(at) for of, at in standing.items()},
            shown,
        )
    return found


def _compared(
    pointed: Versions, withdrawn: Versions, signed: Versions | None, shown: Versions | None
) -> dict[str, Any]:
    differs = [
        f"{pointer}: {version or 'none'} here, {others[pointer] or 'none'} in {where}"
        for where, others in (("the ledger", signed), ("MLflow", shown))
        for pointer, version in pointed.items()
        if others is not None and others[pointer] != version
    ]
    found: dict[str, Any] = dict(pointed.items())
    return found | {"withdrawn": withdrawn, "ledger": signed, "mlflow": shown, "differs": differs}


def _entries(home: Home) -> list[Entry] | None:
    try:
        # Without a ledger no key is asked for, and none made.
        return ledger.verify(home.ledger, load_key(home.path)) if home.ledger.exists() else []
    except CaremodelsError:
        return None


def _aliases(home: Home, model: str) -> Versions | None:
    try:
        shown = registry.aliases(home, model)
    except CaremodelsError:
        return None
    return {pointer: shown.get(pointer) for pointer in release.POINTERS}


def _version(at: Standing) -> str | None:
    return at.present.version if at.present else None
