"""Writes the prediction log: what was answered, and later what happened.

An answer may leave only when its prediction is on disk. Each worker process has one
:class:`LogWriter`, whose thread puts everything that waits into one transaction: under load many
requests share one flush of the disk. Nothing here logs a value.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, Self

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from data.errors import UnavailableError, UsageError
from data.log.schema import answer, guarded, meta, outcome, prediction, reason, utc, writing

_log = logging.getLogger(__name__)
_COLUMNS = tuple(prediction.c.keys())
_NOT_NOW = (OperationalError, PoolTimeoutError, OSError)
_CHUNK = 2_000
"""Outcomes a transaction: few enough that predictions do not wait long behind them."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as it was sent, under the keyed hash of its Idempotency-Key."""

    key_hash: str
    body_hash: str
    body: bytes
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one request leaves in the log, whole or not at all."""

    predictions: tuple[Mapping[str, object], ...]
    answer: Answer | None = None


@dataclass(frozen=True)
class Stored:
    """The entry is on disk."""


@dataclass(frozen=True)
class Replay:
    """The key was used before: nothing was written, and ``answer`` is what was sent then.

    Where its ``body_hash`` differs from the request's, the key was used for something else.
    """

    answer: Answer


Written = Stored | Replay


@dataclass(frozen=True)
class _Job:
    entry: Entry
    future: Future[Written]


class LogWriter:
    """The one writer of a worker process: a thread and the queue before it.

    Make it after the process has forked. ``with`` closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # nothing may be queued behind close()'s None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def submit(self, entry: Entry) -> Future[Written]:
        """Queue ``entry``; the future is done once it is on disk, or fails with UnavailableError.

        A column that a row leaves out is null.

        Raises:
            UsageError: a row has a column that the log does not have.
            UnavailableError: the writer is closed.
        """
        for row in entry.predictions:
            if unknown := row.keys() - set(_COLUMNS):
                raise UsageError(f"prediction log: no such column: {', '.join(sorted(unknown))}")
        job = _Job(entry, Future())
        with self._gate:
            if self._closed:
                raise UnavailableError("the prediction log is closed")
            self._jobs.put(job)
        return job.future

    def ready(self, *, seconds: float = 2.0) -> bool:
        """Whether the log can be written, found out by writing to it. Blocks for up to ``seconds``."""
        try:
            self.submit(Entry(predictions=())).result(timeout=seconds)
        except (UnavailableError, TimeoutError):
            return False
        return True

    def close(self) -> None:
        """Write what was submitted, then stop."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        running = True
        while running:
            waiting = [self._jobs.get()]
            try:
                while True:
                    waiting.append(self._jobs.get_nowait())
            except queue.Empty:
                running = None not in waiting
            # A caller that has cancelled will not answer, and one that has not can no longer cancel.
            jobs = [job for job in waiting if job and job.future.set_running_or_notify_cancel()]
            if jobs:
                self._settle(jobs)

    def _settle(self, jobs: Sequence[_Job]) -> None:
        """Write the jobs in one transaction; where a row is at fault, halve until it stands alone."""
        try:
            results = _write(self._engine, [job.entry for job in jobs])
        except Exception as exc:  # noqa: BLE001 - a dead thread would leave every later request waiting
            if len(jobs) > 1 and not isinstance(exc, _NOT_NOW):
                half = len(jobs) // 2
                self._settle(jobs[:half])
                self._settle(jobs[half:])
                return
            _log.warning(
                "%d entries cannot be written to the prediction log: %s", len(jobs), reason(exc)
            )
            self._engine.dispose()  # the next batch tries with a new connection
            for job in jobs:
                job.future.set_exception(UnavailableError("the prediction log cannot be written"))
        else:
            for job, result in zip(jobs, results, strict=True):
                job.future.set_result(result)


def find_answer(engine: Engine, key_hash: str) -> Answer | None:
    """The answer stored under the keyed hash of an Idempotency-Key.

    Raises:
        UnavailableError: the log cannot be read.
    """
    with guarded("read"), engine.connect() as connection:
        return _answers(connection, [key_hash]).get(key_hash)


def _write(engine: Engine, entries: Sequence[Entry]) -> list[Written]:
    """Write the entries in one transaction: a result each, in their order."""
    results: list[Written] = []
    rows: list[dict[str, object]] = []
    answers: list[dict[str, object]] = []
    with writing(engine) as connection:
        known = _answers(connection, [e.answer.key_hash for e in entries if e.answer])
        for entry in entries:
            given = entry.answer
            if given and given.key_hash in known:
                results.append(Replay(known[given.key_hash]))
                continue
            if given:
                known[given.key_hash] = given
                answers.append(asdict(given))
            rows.extend({name: row.get(name) for name in _COLUMNS} for row in entry.predictions)
            results.append(Stored())
        if rows:
            connection.execute(insert(prediction), rows)
        if answers:
            connection.execute(insert(answer), answers)
        if not rows and not answers:
            # Asked whether it can write. Only a changed value reaches the disk.
            probe = update(meta).where(meta.c.key == "probe")
            connection.execute(probe.values(value=str(time.time_ns())))
    return results


def _answers(connection: Connection, keys: Collection[str]) -> dict[str, Answer]:
    if not keys:
        return {}
    found = connection.execute(select(answer).where(answer.c.key_hash.in_(keys)))
    return {row.key_hash: Answer(**row._mapping) for row in found}  # noqa: SLF001 - public despite its name


OutcomeStatus = Literal["joined", "revised", "repeated", "superseded", "unknown"]
"""What became of one reported outcome.

joined: the first for its prediction. revised: differs from what was known, which is kept.
repeated: known already. superseded: a copy of a report corrected since; to restore its value,
report it with the time at which it was observed again. unknown: no such prediction.
"""


@dataclass(frozen=True, kw_only=True)
class OutcomeRow:
    """One reported outcome: of a prediction, or of every scored prediction of an encounter."""

    outcome: int
    observed_at: datetime
    prediction_id: str | None = None
    model: str | None = None
    encounter: str | None = None  # keyed hash


@dataclass(frozen=True)
class OutcomeCounts:
    joined: int
    unknown: int
    revised: int
    repeated: int
    superseded: int


@dataclass(frozen=True)
class OutcomeReport:
    statuses: tuple[OutcomeStatus, ...]  # one for each row, in the rows' order

    @property
    def counts(self) -> OutcomeCounts:
        found = Counter[str](self.statuses)
        return OutcomeCounts(**{field.name: found[field.name] for field in fields(OutcomeCounts)})


_BY_WEIGHT: tuple[OutcomeStatus, ...] = ("revised", "joined", "superseded", "repeated")
_NAMES = (prediction.c.prediction_id, prediction.c.model, prediction.c.encounter)
_Targets = dict[tuple[str, str], list[Any]]  # rows of _NAMES
_Observed = tuple[int, datetime]


def record_outcomes(
    engine: Engine, rows: Sequence[OutcomeRow], now: datetime, *, source: str = "api"
) -> OutcomeReport:
    """Join outcomes to their predictions; what was known before is kept beside them.

    Written in chunks: after an UnavailableError some may be there, and the same call again does
    the rest.

    Raises:
        UsageError: a row without a prediction or encounter, or an outcome that is neither 0 nor 1.
            Nothing is written then.
        UnavailableError: the log cannot be written.
    """
    for row in rows:
        if not row.prediction_id and not (row.model and row.encounter):
            raise UsageError("outcome: expected prediction_id, or model and encounter_id")
        if row.outcome not in {0, 1}:
            raise UsageError("outcome: expected 0 or 1")
    statuses: list[OutcomeStatus] = []
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        with guarded("written"), writing(engine) as connection:
            statuses.extend(_record(connection, chunk, utc(now), source))
    return OutcomeReport(tuple(statuses))


def _record(
    connection: Connection, rows: Sequence[OutcomeRow], now: datetime, source: str
) -> list[OutcomeStatus]:
    targets = _targets(connection, rows)
    history = _history(connection, {t.prediction_id for found in targets.values() for t in found})
    fresh: list[dict[str, object]] = []
    statuses: list[OutcomeStatus] = []
    for row in rows:
        observed = (int(row.outcome), utc(row.observed_at))
        fates: set[OutcomeStatus] = set()
        for target in targets.get(_address(row), ()):
            past = history.setdefault(target.prediction_id, [])
            fate = _fate(past, observed)
            fates.add(fate)
            if fate in {"joined", "revised"}:
                past.append(observed)
                said = {"outcome": observed[0], "observed_at": observed[1]}
                fresh.append({**target._mapping, **said, "recorded_at": now, "source": source})  # noqa: SLF001 - as above
        # An encounter's predictions may fare differently; the row is told the most that happened.
        statuses.append(next((fate for fate in _BY_WEIGHT if fate in fates), "unknown"))
    if fresh:
        connection.execute(insert(outcome), fresh)
    return statuses


def _fate(past: Sequence[_Observed], observed: _Observed) -> OutcomeStatus:
    if not past:
        return "joined"
    if past[-1] == observed:
        return "repeated"
    return "superseded" if observed in past else "revised"


def _address(row: OutcomeRow) -> tuple[str, str]:
    """("", prediction_id), or (model, encounter)."""
    return ("", row.prediction_id) if row.prediction_id else (row.model or "", row.encounter or "")


def _targets(connection: Connection, rows: Sequence[OutcomeRow]) -> _Targets:
    """The predictions behind each address; an address without any is not there."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        model, name = _address(row)
        wanted.setdefault(model, set()).add(name)
    found: _Targets = {}
    for model, names in wanted.items():
        key = prediction.c.encounter if model else prediction.c.prediction_id
        query = select(*_NAMES).where(key.in_(names))
        if model:
            query = query.where(prediction.c.model == model, prediction.c.status == "scored")
        for target in connection.execute(query):
            found.setdefault((model, target._mapping[key]), []).append(target)  # noqa: SLF001 - as above
    return found


def _history(connection: Connection, names: Collection[str]) -> dict[str, list[_Observed]]:
    """What is known of each prediction, oldest first."""
    query = (
        select(outcome.c.prediction_id, outcome.c.outcome, outcome.c.observed_at)
        .where(outcome.c.prediction_id.in_(names))
        .order_by(outcome.c.recorded_at, outcome.c.id)
    )
    past: dict[str, list[_Observed]] = {}
    for name, value, observed_at in connection.execute(query):
        past.setdefault(name, []).append((value, observed_at))
    return past
