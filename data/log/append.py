"""Writes the prediction log: what was answered.

An answer may leave only when its prediction is on disk. Each worker process has one
:class:`LogWriter`, whose thread puts everything that waits into one transaction: under load many
requests share one flush of the disk. Inputs and stored answers are sealed. Nothing here logs a value.

What may go wrong, and what then happens:

- A full disk, a log that went away, a lock that nobody lets go: every waiting request fails with
  UnavailableError, nothing of it is in the log, and the next one tries anew.
- A connection that is lost in the middle (PostgreSQL restarts): the same entries are tried once more
  over a new one, without those that turn out to have been committed. If that fails too, they fail;
  a commit of which the server's word did not arrive may then have left rows that nobody was answered
  with. What was answered is always there, and nothing is there twice.
- A clock that jumps: ``received_at`` is what the clock said. Ids are random beside their time, and
  stay unique; what is later in a history is told by the order of recording.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Self

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from data.errors import CaremodelsError, ConflictError, UnavailableError, UsageError
from data.log.insert import Insert
from data.log.purge import ANSWERS_KEPT, forget_answers
from data.log.schema import answer, checkpoint, guarded, meta, prediction, reason, writing
from data.log.seal import KeyReplacedError, Keyring, Seal, SealedError, answer_of

_log = logging.getLogger(__name__)
_COLUMNS = frozenset(prediction.c.keys())
_NOT_NOW = (OperationalError, PoolTimeoutError, OSError)
_TIDY = 1.0
"""Seconds between two looks at the journal of SQLite."""
_SWEEP = 600.0
"""Seconds between two looks for stored answers that are too old to be kept."""


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

    Make it after the process has forked. ``with`` closes it. Answers that are stored under an
    Idempotency-Key are kept for a day, and then forgotten by this thread.
    """

    def __init__(self, engine: Engine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring
        self._insert = Insert(prediction, engine.dialect)
        self._insert_answers = Insert(answer, engine.dialect)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # nothing may be queued behind close()'s None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        self._over = threading.Event()
        self._tidier = threading.Thread(target=self._tidy, name="prediction-log-tidy", daemon=True)
        self._tidier.start()

    def submit(self, entry: Entry) -> Future[Written]:
        """Queue ``entry``; the future is done once it is on disk, or fails with UnavailableError.

        A column that a row leaves out is null, or has its default. Inputs are given in the clear. The
        future fails with ConflictError where the key was used before for an answer that can no longer
        be opened.

        Raises:
            UsageError: a row has a column that the log does not have.
            UnavailableError: the writer is closed.
        """
        for row in entry.predictions:
            if not row.keys() <= _COLUMNS:
                unknown = ", ".join(sorted(row.keys() - _COLUMNS))
                raise UsageError(f"prediction log: no such column: {unknown}")
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
        self._over.set()
        self._tidier.join()

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

    def _settle(self, jobs: Sequence[_Job], *, again: Literal["lost", "raced"] | None = None) -> None:
        """Write the jobs in one transaction; where a row is at fault, halve until it stands alone."""
        try:
            results = self._write([job.entry for job in jobs], lost=again == "lost")
        except Exception as exc:  # noqa: BLE001 - a dead thread would leave every later request waiting
            why = _again(exc)
            if why and not again:
                self._settle(jobs, again=why)
            elif len(jobs) > 1 and why != "lost" and not isinstance(exc, _NOT_NOW):
                half = len(jobs) // 2
                self._settle(jobs[:half])
                self._settle(jobs[half:])
            else:
                self._fail(jobs, exc)
        else:
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, CaremodelsError):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)

    def _fail(self, jobs: Sequence[_Job], exc: Exception) -> None:
        _log.warning("%d entries cannot be written to the prediction log: %s", len(jobs), reason(exc))
        self._engine.dispose()  # the next batch tries with a new connection
        for job in jobs:
            job.future.set_exception(UnavailableError("the prediction log cannot be written"))

    def _write(self, entries: Sequence[Entry], *, lost: bool) -> list[Written | CaremodelsError]:
        """Write the entries in one transaction: a result each, in their order.

        ``lost``: the transaction was tried before, and may have been committed.
        """
        while True:
            with (
                suppress(KeyReplacedError),
                writing(self._engine) as connection,
                self._keyring.sealing() as seal,
            ):
                return self._fill(connection, seal, entries, lost=lost)

    def _fill(
        self, connection: Connection, seal: Seal, entries: Sequence[Entry], *, lost: bool
    ) -> list[Written | CaremodelsError]:
        results: list[Written | CaremodelsError] = []
        rows: list[Mapping[str, object]] = []
        answers: list[dict[str, object]] = []
        written = _written(connection, entries) if lost else frozenset()
        known = _answers(connection, [e.answer.key_hash for e in entries if e.answer])
        for entry in entries:
            if entry.predictions and entry.predictions[0]["prediction_id"] in written:
                results.append(Stored())
                continue
            given = entry.answer
            if given and given.key_hash in known:
                results.append(_replay(known[given.key_hash], self._keyring))
                continue
            if given:
                sealed = seal(_text(given.body), answer_of(given.key_hash)).encode()
                known[given.key_hash] = replace(given, body=sealed)
                answers.append(asdict(known[given.key_hash]))
            for row in entry.predictions:
                inputs = row.get("inputs")
                if inputs is None:
                    rows.append(row)
                else:
                    name = str(row["prediction_id"])
                    rows.append({**row, "inputs": seal(str(inputs), name)})
            results.append(Stored())
        if rows:
            self._insert(connection, rows)
        if answers:
            self._insert_answers(connection, answers)
        if not rows and not answers:
            # Asked whether it can write. Only a changed value reaches the disk.
            probe = update(meta).where(meta.c.key == "probe")
            connection.execute(probe.values(value=str(time.time_ns())))
        return results

    def _tidy(self) -> None:
        """What must be done now and then, beside the writing; what fails is done the next time."""
        sweep_at = time.monotonic() + _SWEEP
        while not self._over.wait(_TIDY):
            try:
                checkpoint(self._engine)
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + _SWEEP
                    forget_answers(self._engine, before=datetime.now(UTC) - ANSWERS_KEPT)
            except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
                _log.warning("the prediction log cannot be tidied: %s", reason(exc))


def find_answer(engine: Engine, key_hash: str, keyring: Keyring) -> Answer | None:
    """The answer stored under the keyed hash of an Idempotency-Key.

    Raises:
        UnavailableError: the log cannot be read.
        ConflictError: there is one, and it can no longer be opened.
    """
    with guarded("read"), engine.connect() as connection:
        found = _answers(connection, [key_hash]).get(key_hash)
    if found is None:
        return None
    opened = _replay(found, keyring)
    if isinstance(opened, ConflictError):
        raise opened
    return opened.answer


def _again(exc: Exception) -> Literal["lost", "raced"] | None:
    """Whether the same may be tried at once a second time, and why."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return "lost"
    # Without a file lock, two workers may both find a key unused; the second is told by the index.
    return "raced" if isinstance(exc, IntegrityError) else None


def _written(connection: Connection, entries: Sequence[Entry]) -> frozenset[str]:
    """Which entries are there, by their first prediction: an entry is there whole or not at all."""
    names = [entry.predictions[0]["prediction_id"] for entry in entries if entry.predictions]
    query = select(prediction.c.prediction_id).where(prediction.c.prediction_id.in_(names))
    return frozenset(connection.scalars(query))


def _answers(connection: Connection, keys: Collection[str]) -> dict[str, Answer]:
    """The stored answers under ``keys``, sealed as they are."""
    if not keys:
        return {}
    found = connection.execute(select(answer).where(answer.c.key_hash.in_(keys)))
    return {row.key_hash: Answer(**row._mapping) for row in found}  # noqa: SLF001 - public despite its name


def _replay(sealed: Answer, keyring: Keyring) -> Replay | ConflictError:
    try:
        opened = keyring.open(_text(sealed.body), bound_to=answer_of(sealed.key_hash))
    except SealedError:
        return ConflictError("this Idempotency-Key was used before, and what was answered is sealed")
    return Replay(replace(sealed, body=_bytes(opened)))


def _text(body: bytes) -> str:
    """Any bytes as text, and :func:`_bytes` back."""
    return body.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
