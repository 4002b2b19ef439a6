"""What a run found goes out: to webhooks and by e-mail, and as files to Prometheus.

A message stands in the outbox of the home before anybody is told, and leaves it when the last sink has
taken it. A sink that is down is told by the next run; a run that is killed tells twice at worst, under
the same id. The same findings are told once, however often a window is judged again, alone or with
others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from data.errors import CaremodelsError, UsageError
from data.home import Home
from models import release
from models.alarms import PLACE, Opened
from monitoring import prometheus, senders, states
from monitoring.prometheus import Judged
from monitoring.senders import Sinks, UndeliveredError

OUTBOX = "outbox"
STATE = "state.json"
REMEMBERED = 5000
"""Findings whose ids are kept, so that a window that is judged again is not told again."""
WHICH = ("model", "version", "pointer")
ALARM = ("number", "state", "what", "column", "site", "group", "message", "value", "limits", "since")
PROPOSAL = ("action", "why", "alarms", "signature", "command")


class _Letter(msgspec.Struct):
    """A message in the outbox. ``taken``: keys of the sinks that have it.

    The others are those of the file of the day: an address that was mistyped and is mended is told.
    """

    taken: list[str]
    urgent: bool
    message: dict[str, Any]


class _State(msgspec.Struct):
    """``failed``: model, version and pointer of what could not be judged when it was last tried."""

    told: list[str] = []
    judged: dict[str, Judged] = {}
    failed: list[tuple[str, str, str]] = []
    ran: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """The alarms that stand, None where the ledger cannot be trusted, and ``broken`` says why."""

    alarms: list[Opened] | None = None
    broken: str | None = None


def deliver(
    home: Home,
    results: Iterable[Any],
    failed: Sequence[Mapping[str, Any]] = (),
    *,
    now: datetime | None = None,
) -> list[str]:
    """Tell the sinks of ``sinks.toml`` what a run found; returns in words what could not be told.

    ``results``: as ``monitor --json`` prints them; ``failed``: model, version, pointer, window and error
    of what could not be judged. Nothing is raised for a sink that fails, and nothing is lost by it.
    """
    now = now or datetime.now(UTC)
    found = [_plain(result) for result in results]
    missed = [{name: str(one.get(name)) for name in (*WHICH, "window", "error")} for one in failed]
    lost: list[str] = []
    sinks: Sinks | None = None
    readable = True
    try:
        sinks = senders.read(home.path)
    except UsageError as error:
        lost.append(f"{error}; what was to be told is kept")
        readable = False
    if readable and sinks is None:
        return []
    try:
        lost += _delivered(home, sinks, found, missed, now)
    except OSError as error:
        lost.append(f"{_said(error, OUTBOX)}: not everything was told or kept")
    return lost


def refresh(home: Home) -> list[str]:
    """Prometheus's files once more, when a person has done something about an alarm between two runs.

    Returns in words what could not be written. The time of the last run stays what it was.
    """
    try:
        sinks = senders.read(home.path)
    except UsageError as error:
        return [str(error)]
    state = _state(home.path / OUTBOX)
    if sinks is None or sinks.prometheus is None or state.ran is None:
        return []
    return _published(home, sinks.prometheus, state, _standing(home))


def waiting(home: Home) -> list[Path]:
    """The messages that some sink has not taken, oldest first."""
    return [file for file in sorted((home.path / OUTBOX).glob("*.json")) if file.name != STATE]


def _delivered(
    home: Home,
    sinks: Sinks | None,
    found: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, str]],
    now: datetime,
) -> list[str]:
    """``sinks``: None where the file cannot be read: the message is kept for whom it will name."""
    outbox = home.path / OUTBOX
    outbox.mkdir(parents=True, exist_ok=True)
    state, standing = _state(outbox), _standing(home)
    _tell(outbox, sinks, state, standing.broken, found, failed, now)
    _remember(home, state, found, failed, now)
    _replace(outbox / STATE, msgspec.json.encode(state))
    if sinks is None:
        return []
    lost = _send(outbox, sinks, now)
    if sinks.prometheus is not None:
        lost += _published(home, sinks.prometheus, state, standing)
    return lost


def _standing(home: Home) -> _Standing:
    """The alarms that stand, or why the ledger cannot be believed."""
    try:
        return _Standing(alarms=states.listed(home))
    except CaremodelsError as error:
        return _Standing(broken=str(error))
    except OSError as error:
        return _Standing(broken=_said(error, "ledger"))


def _tell(
    outbox: Path,
    sinks: Sinks | None,
    state: _State,
    broken: str | None,
    found: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, str]],
    now: datetime,
) -> None:
    """Put into the outbox what was not told before, and note in ``state`` that it is told."""
    results = {_id(_known(one)): one for one in found}
    missed = {_id(one): one for one in failed}
    everything = [*results, *missed, *([_id(broken)] if broken else [])]
    told = set(state.told)
    kept = [one for one in everything if one in told]
    new = [one for one in everything if one not in told]
    if new:
        fresh = [results[one] for one in new if one in results]
        unjudged = [missed[one] for one in new if one in missed]
        # Urgent: an alarm that nobody has acknowledged, a model that could not be judged, a ledger
        # that somebody changed.
        alarms = [alarm for one in fresh for alarm in one["alarms"]]
        urgent = bool(unjudged or broken) or any(alarm["state"] == "open" for alarm in alarms)
        if sinks is None or _wanted(sinks, urgent=urgent):
            message = _message(_id(new), fresh, unjudged, broken, now)
            stamp = message["made_at"].replace("-", "").replace(":", "")[:15]
            letter = _Letter(taken=[], urgent=urgent, message=message)
            _replace(outbox / f"{stamp}-{message['id'][:16]}.json", msgspec.json.encode(letter))
            kept += new
    state.told = [*(one for one in state.told if one not in set(kept)), *kept][-REMEMBERED:]


def _remember(
    home: Home,
    state: _State,
    found: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, str]],
    now: datetime,
) -> None:
    """Keep for Prometheus what the latest window said of each version that still answers.

    Of another version nobody waits for a verdict.
    """
    for one in _judged(found, now):
        name = f"{one.model} {one.version} {one.pointer}"
        if name not in state.judged or one.to >= state.judged[name].to:
            state.judged[name] = one
    state.judged = {
        name: one
        for name, one in state.judged.items()
        if _pointed(home, one.model, one.version, one.pointer)
    }
    tried = {(one["model"], one["version"], one["pointer"]) for one in (*found, *failed)}
    missed = {(one["model"], one["version"], one["pointer"]) for one in failed}
    missed |= {one for one in state.failed if one not in tried}
    state.failed = sorted(one for one in missed if _pointed(home, *one))
    state.ran = now


def _send(outbox: Path, sinks: Sinks, now: datetime) -> list[str]:
    """Tell whom it can be told. A sink that is down is not waited for again in this run."""
    lost: list[str] = []
    down: set[str] = set()
    for path in waiting(Home(outbox.parent)):
        try:
            letter = msgspec.json.decode(path.read_bytes(), type=_Letter)
        except (OSError, msgspec.MsgspecError):
            lost.append(f"{OUTBOX}/{path.name} cannot be read")
            continue
        before = list(letter.taken)
        asked = [key for key in _wanted(sinks, urgent=letter.urgent) if key not in before]
        for key in asked:
            if key in down:
                continue
            sink = sinks.told[key]
            try:
                note = senders.tell(sink, letter.message, now)
            except UndeliveredError as error:
                lost.append(f"{sink.name}: {error}; it is told with the next run")
                if not error.unfit:
                    down.add(key)
                continue
            letter.taken.append(key)
            lost += [f"{sink.name}: {note}"] if note else []
        if {*asked} <= {*letter.taken}:
            path.unlink()
        elif letter.taken != before:
            _replace(path, msgspec.json.encode(letter))
    return lost


def _wanted(sinks: Sinks, *, urgent: bool) -> list[str]:
    return [key for key, sink in sinks.told.items() if urgent or sink.on == "always"]


def _message(
    of: str,
    found: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, str]],
    broken: str | None,
    now: datetime,
) -> dict[str, Any]:
    """What is told, under the id ``of``. ``ledger``: why it cannot be trusted, None where it can."""
    names = (*WHICH, "window", "n", "outcomes", "verdict", "report")
    return {
        "id": of,
        "made_at": now.isoformat(timespec="seconds"),
        "headline": _headline(found, failed, broken),
        "results": [
            {
                **{name: one[name] for name in names},
                "alarms": [{name: alarm.get(name) for name in ALARM} for alarm in one["alarms"]],
                "proposed": [{name: row.get(name) for name in PROPOSAL} for row in one["proposed"]],
            }
            for one in found
        ],
        "failed": list(failed),
        "ledger": broken,
    }


def _known(one: Mapping[str, Any]) -> list[Any]:
    """What makes a result the same one: which alarms, not when, their figures or what people did.

    Outcomes that arrive between two looks at a window move the figures of an alarm that was told.
    """
    alarms = [[str(alarm.get(name)) for name in ("number", *PLACE)] for alarm in one["alarms"]]
    return [[one[name] for name in (*WHICH, "window", "verdict")], sorted(alarms)]


def _id(content: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _headline(
    found: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, str]], broken: str | None
) -> str:
    alarming = sorted({_called(one) for one in found if one["verdict"] == "alarm"})
    parts = [f"alarm: {', '.join(alarming)}"] if alarming else []
    if failed:
        parts.append(f"not judged: {', '.join(sorted({_called(one) for one in failed}))}")
    if broken:
        parts.append("the ledger cannot be trusted")
    return "; ".join(parts) or "no alarm"


def _called(one: Mapping[str, Any]) -> str:
    """A challenger's answers reach nobody: who is woken should know."""
    return f"{one['model']} (challenger)" if one["pointer"] == "challenger" else str(one["model"])


def _judged(found: Sequence[Mapping[str, Any]], now: datetime) -> list[Judged]:
    """The windows in their order. One without an end goes up to now."""
    today = now.date().isoformat()
    return [
        Judged(
            **{name: one[name] for name in (*WHICH, "verdict")}, to=min(str(one["window"]["to"]), today)
        )
        for one in sorted(found, key=lambda one: str(one["window"]["to"]))
    ]


def _pointed(home: Home, model: str, version: str, pointer: str) -> bool:
    named: release.Pointer = "challenger" if pointer == "challenger" else "champion"
    return release.pointed(home.releases, model=model, pointer=named) == version


def _published(home: Home, files: senders.Prometheus, state: _State, standing: _Standing) -> list[str]:
    """Prometheus's files, each replaced whole; what could not be written, in words."""
    gauges = prometheus.textfile(
        state.judged.values(),
        standing.alarms,
        failed=len(state.failed),
        undelivered=len(waiting(home)),
        now=state.ran or datetime.now(UTC),
    )
    lost = []
    for place, content in ((files.textfile, gauges), (files.rules, prometheus.rules().encode())):
        try:
            target = home.path / place
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, content, mode=0o644)  # another user's process reads it
        except (OSError, ValueError) as error:  # ValueError: what no path can be
            lost.append(f"prometheus: {_said(error, place)}")
    return lost


def _plain(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = result if isinstance(result, dict) else asdict(result)
    return found


def _state(outbox: Path) -> _State:
    """What was told before; where that cannot be read, it is told again."""
    try:
        return msgspec.json.decode((outbox / STATE).read_bytes(), type=_State)
    except (OSError, msgspec.MsgspecError):
        return _State()


def _said(error: OSError | ValueError, place: str) -> str:
    return f"{place}: {getattr(error, 'strerror', None) or type(error).__name__}"


def _replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put ``content`` at ``path`` in one step, and on disk, its name too."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
