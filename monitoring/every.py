"""One run over several models and windows: alone in its home, each report whole, told to who listens.

A run that was stopped is typed again: what stands is made anew, comes out the same, and what was half
written goes. A model that cannot be judged is named with its reason, and keeps no other from being
judged.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from data.errors import CaremodelsError, ConflictError, NotFoundError
from data.home import Home
from data.period import Period
from data.terminal import Stage
from models import artifact, release
from models.artifact import Artifact
from models.release import Pointer
from monitoring.run import Monitored, monitor

_log = logging.getLogger(__name__)

Verdict = Literal["quiet", "alarm", "insufficient", "failed"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A version to be judged, and as what it answers."""

    model: str
    version: str
    pointer: Pointer


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it: ``failed`` names model, window and reason of each that could not be judged."""

    results: tuple[Monitored, ...]
    failed: tuple[dict[str, str], ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest: an alarm before a failure, and "insufficient" only where nothing was judged.

        A model that alarms must not be hidden by another that could not be read.
        """
        verdicts = {found.verdict for found in self.results}
        if "alarm" in verdicts:
            return "alarm"
        if self.failed:
            return "failed"
        return "quiet" if "quiet" in verdicts else "insufficient"


def targets(home: Home) -> list[Target]:
    """Each released version that a pointer names, the champions first."""
    return [
        Target(model=model, version=version, pointer=pointer)
        for pointer in release.POINTERS
        for model in release.models(home.releases, pointer)
        if (version := release.pointed(home.releases, model=model, pointer=pointer))
    ]


def last_month(now: datetime) -> Period:
    """The calendar month before the one of ``now``.

    >>> last_month(datetime(2026, 1, 15)).days
    ('2025-12-01', '2025-12-31')
    """
    end = now.replace(day=1) - timedelta(days=1)
    return Period.between(f"{end:%Y-%m}", f"{end:%Y-%m}")


def months(period: Period) -> list[Period]:
    """The calendar months that ``period`` touches, each whole.

    >>> [str(month) for month in months(Period.between("2020-01", "2020-02"))]
    ['2020-01-01 to 2020-01-31', '2020-02-01 to 2020-02-29']
    """
    found, at = [], period.start.replace(day=1)
    while at < period.end:
        found.append(Period.between(f"{at:%Y-%m}", f"{at:%Y-%m}"))
        at = found[-1].end
    return found


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Keep other runs in this home out until the block ends; the lock goes with the process.

    Raises ConflictError where one is under way.
    """
    home.path.mkdir(parents=True, exist_ok=True)
    with (home.path / "monitor.lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().decode(errors="replace").strip()
            raise ConflictError(
                f"another run of monitor is under way in this home (process {who or 'unknown'})"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n".encode())
        lock.flush()
        yield


def released(home: Home, model: str, version: str) -> tuple[Artifact, dict[str, Any]]:
    """A version that is or was released, and its ``evaluation.json``.

    Raises NotFoundError where it never was, IntegrityError where its files are not what was released.
    """
    folder = home.releases / model / version
    if not folder.is_dir():
        raise NotFoundError(f"{model}: version {version} was never released")
    loaded = artifact.load(folder)  # which holds the other files to what was signed
    figures: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return loaded, figures


def watch(
    home: Home,
    targets: Sequence[Target],
    periods: Sequence[Period],
    *,
    as_of: datetime | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Run:
    """Judge every target in every period, in their order. Only one run at a time: see :func:`alone`."""
    _mended(home.evidently)
    results, failed = [], []
    jobs = [(target, period) for target in targets for period in periods]
    for number, (target, period) in enumerate(jobs):
        try:
            results.append(
                _judged(home, target, period, as_of=as_of, stage=_part(stage, target, number, len(jobs)))
            )
        except (CaremodelsError, OSError) as error:
            named = {"model": target.model, "version": target.version, "pointer": target.pointer}
            failed.append({**named, "window": str(period), "error": _said(error)})
    return Run(results=tuple(results), failed=tuple(failed))


def _judged(
    home: Home, target: Target, period: Period, *, as_of: datetime | None, stage: Stage
) -> Monitored:
    loaded, figures = released(home, target.model, target.version)
    found = monitor(
        home,
        loaded,
        target.version,
        period,
        pointer=target.pointer,
        at_promotion=figures,
        as_of=as_of,
        stage=stage,
    )
    place = Path(found.report).parent
    for left in place.parent.glob(f".{place.name}.*"):  # of a run of this window that was killed
        shutil.rmtree(left, ignore_errors=True)
    return found


def _said(error: CaremodelsError | OSError) -> str:
    """An error in a sentence."""
    if isinstance(error, CaremodelsError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"


def _mended(workspace: Path) -> None:
    """Take out of Evidently's workspace what a killed run left half written: it reads none beside it."""
    for project in workspace.glob("*/"):
        if _is_id(project.name) and not _whole(project / "metadata.json"):
            _log.warning("Evidently's workspace: project %s was half written and is gone", project.name)
            shutil.rmtree(project)
    for run in workspace.glob("*/snapshots/*.json"):
        if not _ended(run):
            _log.warning("Evidently's workspace: run %s was half written and is gone", run.stem)
            run.unlink()


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _whole(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _ended(file: Path) -> bool:
    """Whether a JSON object has its last brace. Runs are megabytes each, and not read for that."""
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        return stream.read() == b"}"


def _part(stage: Stage, target: Target, number: int, of: int) -> Callable[[str, float], None]:
    """The progress of one among several."""
    named = f"{target.model}: " if of > 1 else ""

    def told(name: str, done: float) -> None:
        stage(f"{named}{name}", (number + done) / of)

    return told
