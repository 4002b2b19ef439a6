"""The prediction log's tables, and the one way to open it.

SQLite unless a URL says otherwise. Nothing here is SQLite's own but its pragmas, its file lock and
the way its file is made. Times are stored as naive UTC.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Double,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from data.errors import IntegrityError, UnavailableError, UsageError
from data.log.server import serve

SCHEMA_VERSION = 3
_LARGE_WAL = 25_000
"""Pages of SQLite's journal, 100 MB, after which a commit brings them into the file itself."""
PATIENCE = 5.0
"""Seconds that a writer waits for another before it gives up."""

_log = logging.getLogger(__name__)


def utc(moment: datetime) -> datetime:
    """``moment`` as naive UTC. A naive one is taken to be UTC already."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


class Utc(TypeDecorator[datetime]):
    """A time, stored and read as naive UTC whatever its zone was."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else utc(value)


metadata = MetaData()

ANSWERED = (
    *("model", "at", "prediction_id", "version", "pointer", "status", "used"),
    *("site", "patient", "encounter", "margin", "level", "received_at"),
)
"""Columns by which a year of predictions is judged: a twentieth of a row, read from the index alone."""

prediction = Table(
    "prediction",
    metadata,
    Column("prediction_id", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", String, nullable=False),
    Column("at", Utc, nullable=False),  # when the inputs were true: monitoring goes by it
    Column("received_at", Utc, nullable=False),
    Column("site", String),
    Column("patient", String),  # keyed hash, as is encounter
    Column("encounter", String),
    Column("status", String, nullable=False),
    Column("risk", Double),
    Column("margin", Double),
    Column("band", String),
    Column("base_value", Double),
    Column("contributions", Text),  # JSON, as are the next five
    Column("inputs", Text),  # sealed: see seal.py
    Column("groups", Text),
    Column("warnings", Text),
    Column("reasons", Text),  # field and rule, never a value
    Column("latency_ms", Double),
    Column("caller", String),
    Column("pointer", String, nullable=False, server_default="champion"),
    Column("shadow_of", String),  # of a challenger's: the champion's prediction of the same request
    Column("channel", String, nullable=False, server_default="rest"),
    Column("used", String, nullable=False, server_default="answered"),
    Column("level", Integer),
    Column("novelty", Double),
    Column("conformal", Text),  # JSON
    CheckConstraint("status IN ('scored', 'abstained', 'refused')", name="prediction_status"),
    CheckConstraint("status = 'scored' OR risk IS NULL", name="prediction_risk"),
    CheckConstraint("status <> 'refused' OR inputs IS NULL", name="prediction_inputs"),
    CheckConstraint("pointer IN ('champion', 'challenger')", name="prediction_pointer"),
    CheckConstraint("channel IN ('rest', 'cds-hooks', 'fhir')", name="prediction_channel"),
    CheckConstraint("used IN ('silent', 'answered', 'card')", name="prediction_used"),
    Index("prediction_model_at", *ANSWERED),
    Index("prediction_model_encounter", "model", "encounter"),
    Index(
        "prediction_shadow_of",
        "shadow_of",
        sqlite_where=text("shadow_of IS NOT NULL"),
        postgresql_where=text("shadow_of IS NOT NULL"),
    ),
)

outcome = Table(
    "outcome",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    # Never null: SQL holds two nulls to differ, and repeats would pile up.
    Column("prediction_id", String, ForeignKey("prediction.prediction_id"), nullable=False),
    Column("model", String, nullable=False),
    Column("encounter", String),
    Column("outcome", Integer, nullable=False),
    Column("level", Integer, nullable=False, server_default="0"),  # of an ordinal model, else 0
    Column("observed_at", Utc, nullable=False),
    Column("recorded_at", Utc, nullable=False),
    Column("source", String, nullable=False),
    CheckConstraint("outcome IN (0, 1)", name="outcome_binary"),
    UniqueConstraint("prediction_id", "outcome", "level", "observed_at", name="outcome_once"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("prediction_id", String, ForeignKey("prediction.prediction_id"), nullable=False),
    Column("outcome", String, nullable=False),
    Column("reason_code", String),  # why the card was overridden
    Column("reason_system", String),
    Column("comment", Text),  # in a clinician's words: sealed as inputs are
    Column("occurred_at", Utc, nullable=False),
    Column("recorded_at", Utc, nullable=False),
    Column("caller", String),
    CheckConstraint("outcome IN ('accepted', 'overridden')", name="feedback_outcome"),
    UniqueConstraint("prediction_id", "outcome", "occurred_at", name="feedback_once"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False),  # keyed hash of the secret, which is nowhere kept
    Column("scopes", Text, nullable=False),  # JSON, as is sites
    Column("sites", Text),  # null: every site
    Column("created_at", Utc, nullable=False),
    Column("created_by", String, nullable=False),
    Column("expires_at", Utc),
    Column("revoked_at", Utc),
    Column("revoked_by", String),
    Column("revoked_for", String),
)

used_token = Table(
    "used_token",
    metadata,
    Column("token_hash", String, primary_key=True),  # of issuer and jti
    Column("expires_at", Utc, nullable=False),
    Index("used_token_expires_at", "expires_at"),
)

refused_call = Table(
    "refused_call",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Utc, nullable=False),
    Column("route", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("caller", String),
    Column("peer", String),
    Index("refused_call_at", "at"),
)

answer = Table(
    "answer",
    metadata,
    Column("key_hash", String, primary_key=True),  # of the Idempotency-Key, model included
    Column("body_hash", String, nullable=False),
    Column("body", LargeBinary, nullable=False),  # the answer as it was sent, sealed
    Column("created_at", Utc, nullable=False),
    Index("answer_created_at", "created_at"),
)

maintenance = Table(
    "maintenance",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Utc, nullable=False),
    Column("act", String, nullable=False),  # migrate, purge, rotate-key; export, open: who read rows
    Column("by", String),
    Column("reason", Text),
    Column("details", Text, nullable=False),  # JSON: what was asked, and how many rows it touched
)

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)


def connect(target: str | Path) -> Engine:
    """The log at a path or database URL, made if it is not there.

    Raises:
        UsageError: no file, no such URL or no driver for it.
        IntegrityError: a newer caremodels wrote the log, or an older one, and it was not migrated;
            or it does not say its version.
        UnavailableError: it cannot be opened now.
    """
    engine, found = open_any(target)
    if found is not None and found < SCHEMA_VERSION:
        engine.dispose()
        raise IntegrityError(
            f"the prediction log has schema version {found}, and this caremodels needs "
            f"{SCHEMA_VERSION}: bring it up to date (caremodels log migrate)"
        )
    return engine


def open_any(target: str | Path) -> tuple[Engine, int | None]:
    """The log, whatever version its schema has, and that version; made if it is not there.

    Raises what :func:`connect` does, save that an older log is none of its errors.
    """
    url = _url(target)
    with guarded("opened"):
        engine = _sqlite(Path(url.database or "")) if is_sqlite(url) else serve(url, patience=PATIENCE)
        found = _version(engine)
        if found is None:
            try:
                _create(engine)
            except SQLAlchemyError:
                # Without a file lock another process may have been first, and its tables serve.
                if _version(engine) is None:
                    raise
            found = _version(engine)
    return engine, found


def exists(target: str | Path) -> bool:
    """Whether there is a log to open; one on a server is taken to be. Raises UsageError as connect."""
    url = _url(target)
    return not is_sqlite(url) or Path(url.database or "").exists()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes; committed at the end of the block."""
    with _file_lock(engine.url), engine.connect() as connection:
        connection.execution_options(caremodels_writes=True)
        with connection.begin():
            yield connection


def checkpoint(engine: Engine) -> None:
    """Bring SQLite's journal into its file, without holding up who writes; elsewhere nothing to do.

    By itself SQLite does it in the middle of a commit, every few hundred answers, and those wait for it.
    """
    if not is_sqlite(engine.url):
        return
    connection = engine.raw_connection()
    try:
        driver = connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()


@contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Turn a database's errors into UnavailableError: their text may repeat a row."""
    try:
        yield
    except (SQLAlchemyError, OSError) as exc:
        _log.warning("the prediction log cannot be %s: %s", doing, reason(exc))
        raise UnavailableError(f"the prediction log cannot be {doing}") from None


def reason(exc: BaseException) -> str:
    """The error's code or class: what may be logged of it."""
    origin = getattr(exc, "orig", None)
    code = getattr(origin, "sqlite_errorname", None) or getattr(origin, "sqlstate", None)
    return str(code or type(exc).__name__)


def _url(target: str | Path) -> URL:
    if isinstance(target, Path) or "://" not in target:
        return URL.create("sqlite", database=str(Path(target).absolute()))
    try:
        url = make_url(target)
    except ArgumentError:
        raise UsageError("prediction log: expected a path or a database URL") from None
    if not is_sqlite(url):
        return url
    if url.database in {None, "", ":memory:"}:
        raise UsageError("prediction log: expected a file, which several processes can share")
    # Absolute now: a built Bento changes the working directory, and connections are opened later.
    return URL.create("sqlite", database=str(Path(str(url.database)).absolute()))


def is_sqlite(url: URL) -> bool:
    """Whether it is a file, with a lock of our own beside it."""
    return url.get_backend_name() == "sqlite"


def _sqlite(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite would make it readable to all; its -wal and -shm take the mode of the file. An existing
    # one is not opened here: closing it again would drop this process's own locks on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def open_existing() -> sqlite3.Connection:
        # mode=rw: a log that went missing is an error, never a new and empty file.
        address = f"file:{quote(str(path))}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=PATIENCE, check_same_thread=False)

    engine = create_engine(
        URL.create("sqlite", database=str(path)), creator=open_existing, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is neither early nor immediate
        connection.execute("PRAGMA synchronous=FULL")
        # The writer tidies up behind itself (see checkpoint); this is for who writes without one.
        connection.execute(f"PRAGMA wal_autocheckpoint={_LARGE_WAL}")
        connection.execute("PRAGMA foreign_keys=ON")
        record.info["file"] = _identity(path)

    @event.listens_for(engine, "checkout")
    def verify(_connection: Any, record: Any, _proxy: Any) -> None:
        # A file that was moved or restored stays writable through an old handle, and what is
        # written so is lost. The pool answers this error with a new connection.
        if record.info.get("file") != _identity(path):
            raise DisconnectionError

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Plain BEGIN gives a reader one consistent snapshot. A writer takes its lock at once: a
        # reader that turns writer half-way fails without waiting.
        writes = connection.get_execution_options().get("caremodels_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    """Queue SQLite's writers at a lock of our own: its busy handler sleeps up to half a second.

    Raises:
        TimeoutError: another process has held it for ``PATIENCE``.
    """
    if not is_sqlite(url):
        yield
        return
    descriptor = os.open(f"{url.database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(0.0005)  # a blocking flock has no time limit
        yield
    finally:
        os.close(descriptor)


def _version(engine: Engine) -> int | None:
    """The schema's version, None where there is none yet. Raises IntegrityError if it is newer."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(meta.name):
            return None
        return written_version(connection)


def written_version(connection: Connection) -> int:
    """The version that the log says its schema has. Raises IntegrityError if it is newer, or none."""
    written = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
    if written is None or not written.isdecimal():
        raise IntegrityError("the prediction log does not say which version its schema has")
    if int(written) > SCHEMA_VERSION:
        raise IntegrityError(
            f"the prediction log has schema version {written}; this caremodels knows {SCHEMA_VERSION}"
        )
    return int(written)


def _create(engine: Engine) -> None:
    if is_sqlite(engine.url):
        # Outside a transaction, and alone: the switch to WAL does not wait for other connections.
        with _file_lock(engine.url), engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA journal_mode=WAL")
    with writing(engine) as connection:
        if inspect(connection).has_table(meta.name):
            return
        metadata.create_all(connection)
        connection.execute(
            insert(meta),
            [
                {"key": "schema_version", "value": str(SCHEMA_VERSION)},
                {"key": "probe", "value": ""},  # rewritten to find out whether the log can be
            ],
        )
