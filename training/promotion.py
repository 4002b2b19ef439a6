"""What people do with versions: promote, roll back, withdraw. Each act is signed and written down.

An act takes effect in this order: the files, the ledger, its anchors, the pointer; MLflow is told
last, and that it could not be told changes nothing. A process that is killed on the way leaves an
entry without its effect at worst, and never an effect that nobody signed. Only a withdrawal works
the other way round, since to stop is the safe half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from data.errors import CaremodelsError, ConflictError, IntegrityError, NotFoundError
from data.home import Home
from data.pseudonym import load_key
from data.terminal import Stage
from models import artifact, ledger, manifest, registry, release
from models.ledger import Entry
from models.release import Pointer
from models.signature import Signature
from models.spec import ModelSpec
from training import against, gate

CHAMPION: Pointer = "champion"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What ``caremodels promote --json`` prints.

    ``override`` says whose it was and whether it was needed, ``entry`` is the number in the ledger and
    ``mlflow`` why MLflow could not be told.
    """

    model: str
    version: str
    pointer: Pointer
    gate: list[gate.Finding]
    promoted: bool
    champion: dict[str, Any] | None = None
    override: dict[str, Any] | None = None
    entry: int | None = None
    mlflow: str | None = None


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What ``caremodels rollback --json`` and ``withdraw --json`` print.

    ``version`` is the one that the act is about, ``pointed`` what the pointer names after it.
    """

    model: str
    version: str
    pointer: Pointer
    pointed: str | None
    was: str | None
    entry: int
    mlflow: str | None = None


def promote(
    home: Home,
    spec: ModelSpec,
    version: str,
    *,
    pointer: Pointer,
    by: str,
    reason: str,
    override_by: str | None = None,
    override_reason: str | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Promotion:
    """Publish a version and point to it, if it passes its gate; if not, nothing changes.

    It is judged by the figures that were registered with it, and beside another champion on its own
    test rows. A second person may override what failed; an override that was not needed is written
    down as not used. Raises UsageError where nobody signs, or the second person is the first;
    NotFoundError for an unknown version; IntegrityError where its files are not those registered, or
    the ledger was tampered with; ConflictError where the champion changed meanwhile.
    """
    signed = Signature.of(by, reason)
    second = signed.second(override_by, override_reason)
    stage("fetching the version", 0.0)
    folder = registry.fetch(home, spec.name, version)
    stored = manifest.verify(folder)
    figures = msgspec.json.decode((folder / "evaluation.json").read_bytes())
    champion = release.pointed(home.releases, model=spec.name)
    beside = None
    if champion not in (None, version):
        stage("beside the champion", 0.2)
        beside = against.champion(home, folder, home.releases / spec.name / str(champion))
    findings = gate.judge({**figures, "champion": beside}, spec)
    failed = [finding.criterion for finding in findings if not finding.passed]
    result = Promotion(
        model=spec.name,
        version=version,
        pointer=pointer,
        gate=findings,
        promoted=not failed or second is not None,
        champion=beside,
        override={**asdict(second), "used": bool(failed), "failed": failed} if second else None,
    )
    if not result.promoted:
        return result
    stage("publishing", 0.6)
    with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
        if release.pointed(home.releases, model=spec.name) != champion:
            raise ConflictError(f"{spec.name}: another version became champion meanwhile: try again")
        release.publish(home.releases, folder, model=spec.name, version=version)
        entry = book.append(
            act=f"{'override' if failed else 'promote'} to {pointer}",
            model=spec.name,
            version=version,
            by=signed.by,
            reason=signed.reason,
            evidence={
                "gate": [asdict(finding) for finding in findings],
                **({"champion": beside} if beside else {}),
                **({"override": result.override} if result.override else {}),
                "files": dict(stored.files),
            },
        )
        ledger.anchor(home.releases, entry)
        release.point(home.releases, model=spec.name, pointer=pointer, version=version)
    stage("telling MLflow", 0.9)
    note = told(home, entry, alias=pointer, version=version)
    return replace(result, entry=entry.number, mlflow=note)


def rollback(
    home: Home,
    model: str,
    *,
    by: str,
    reason: str,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Moved:
    """Make the champion before the present one champion again.

    It passed its gate when it was promoted, and the entry refers to that one. Its release must still
    hold the files of that entry and answer its golden rows. Raises ConflictError where the ledger
    names no champion before, IntegrityError where the files are others.
    """
    signed = Signature.of(by, reason)
    with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
        found = ledger.standing(book.entries, model)
        now = found.present.version if found.present else None
        if not found.past:
            before = f" before version {now}" if now else ""
            raise ConflictError(f"{model}: the ledger names no champion{before} to go back to")
        back = found.past[-1]
        stage("verifying the release", 0.2)
        _held(home.releases / model / back.version, back)
        entry = book.append(
            act=ledger.ROLL_BACK,
            model=model,
            version=back.version,
            by=signed.by,
            reason=signed.reason,
            evidence={"from": now, "promoted_in": back.number, "files": back.evidence.get("files", {})},
        )
        ledger.anchor(home.releases, entry)
        release.point(home.releases, model=model, pointer=CHAMPION, version=back.version)
    stage("telling MLflow", 0.8)
    return Moved(
        model=model,
        version=back.version,
        pointer=CHAMPION,
        pointed=back.version,
        was=now,
        entry=entry.number,
        mlflow=told(home, entry, alias=CHAMPION, version=back.version),
    )


def withdraw(
    home: Home,
    model: str,
    *,
    by: str,
    reason: str,
    pointer: Pointer = CHAMPION,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Moved:
    """Take a pointer away, so that the service answers 503 for the model; then write it down.

    It takes effect even where the ledger is broken: then an IntegrityError says that it could not be
    written down. Raises NotFoundError where there is nothing to withdraw.
    """
    signed = Signature.of(by, reason)
    if model not in release.known(home.releases):
        raise NotFoundError(f"{model}: no version is released")
    with ledger.locked(home.ledger):
        version = release.pointed(home.releases, model=model, pointer=pointer)
        release.unpoint(home.releases, model=model, pointer=pointer)
        try:
            book = ledger.Book(home.ledger, load_key(home.path), home.releases)
        except CaremodelsError as error:
            if version is None:
                raise
            raise IntegrityError(
                f"{model} {version} is withdrawn, and that could not be written down: {error}"
            ) from None
        # A process that was killed between the two leaves a version that the ledger still names.
        named = ledger.standing(book.entries, model, pointer).present
        about = version or (named.version if named else None)
        if about is None:
            raise NotFoundError(f"{model}: no version is {pointer}")
        entry = book.append(
            act=f"withdraw {pointer}",
            model=model,
            version=about,
            by=signed.by,
            reason=signed.reason,
            evidence={},
        )
        ledger.anchor(home.releases, entry)
    stage("telling MLflow", 0.5)
    return Moved(
        model=model,
        version=about,
        pointer=pointer,
        pointed=None,
        was=about,
        entry=entry.number,
        mlflow=told(home, entry, alias=pointer, version=None),
    )


def told(home: Home, entry: Entry, *, alias: Pointer | None, version: str | None) -> str | None:
    """Show an entry in MLflow, and move ``alias`` to ``version``; why not, where it cannot be told."""
    acts: list[Callable[[], None]] = [lambda: registry.anchor(home, entry)]
    if alias is not None and version is not None:
        acts.insert(0, lambda: registry.set_alias(home, entry.model, alias, version))
    elif alias is not None:
        acts.insert(0, lambda: registry.drop_alias(home, entry.model, alias))
    try:
        for act in acts:
            act()
    except CaremodelsError as error:
        return str(error)
    return None


def _held(place: Path, entry: Entry) -> None:
    """Raises IntegrityError where the release is not the one that ``entry`` is about."""
    stored = manifest.verify(place)
    if dict(stored.files) != entry.evidence.get("files"):
        raise IntegrityError(f"{place}: its files are not those of entry {entry.number} of the ledger")
    artifact.load(place)
