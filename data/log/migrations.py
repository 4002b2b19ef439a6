"""Brings a log that an older caremodels wrote up to the schema that this one needs.

One function a version, each of which says in its own words what was added then: the tables in
``schema`` go on changing. Columns are added in place and predictions are not written anew: a log of
many gigabytes is read once, for its constraints and its index. Alembic puts one description into the
words of SQLite and of PostgreSQL.

All steps and the new version are one transaction: whoever is killed in the middle leaves the log as
it was. A second migration waits for the first, and finds nothing to do. A service of the older
version that runs meanwhile waits too, up to ``PATIENCE``, and goes on writing afterwards: what it
does not know of has a default. It reads on as well, and needs a restart only to learn what is new;
but once stopped it does not start again, because it refuses a newer log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection, insert, update

from data.log.schema import (
    SCHEMA_VERSION,
    guarded,
    is_sqlite,
    maintenance,
    meta,
    open_any,
    utc,
    writing,
    written_version,
)

if TYPE_CHECKING:
    from alembic.operations import Operations


@dataclass(frozen=True, kw_only=True)
class Migrated:
    """The schema's version before and after; equal where nothing was to be done."""

    before: int
    after: int


def migrate(target: str | Path, *, now: datetime, by: str | None = None) -> Migrated:
    """Bring the log at ``target`` up to date; see above for what runs beside it.

    Raises:
        UsageError, IntegrityError: as :func:`data.log.schema.connect`, but for an older log.
        UnavailableError: the log cannot be written, or others did not let go of it in time. Nothing
            has changed then.
    """
    engine, before = open_any(target)
    assert before is not None
    try:
        with guarded("migrated"), writing(engine) as connection:
            if not is_sqlite(engine.url):
                # Alone from here on. A reader who takes long is not waited for: see lock_timeout.
                connection.execute(sa.text("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE"))
            before = written_version(connection)
            _step(connection, before)
            if before < SCHEMA_VERSION:
                done = {"at": utc(now), "act": "migrate", "by": by}
                details = json.dumps({"before": before, "after": SCHEMA_VERSION})
                connection.execute(insert(maintenance).values(**done, details=details))
    finally:
        engine.dispose()
    return Migrated(before=before, after=SCHEMA_VERSION)


def _step(connection: Connection, before: int) -> None:
    """Every step from version ``before`` on, and the new version's number."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for version in range(before + 1, SCHEMA_VERSION + 1):
        _STEPS[version](operations)
    written = update(meta).where(meta.c.key == "schema_version")
    connection.execute(written.values(value=str(SCHEMA_VERSION)))


def _to_2(op: Operations) -> None:
    """How an answer was used, the challenger, feedback, who may call, and what was done to the log."""
    added = (
        sa.Column(
            "pointer",
            sa.String,
            sa.CheckConstraint("pointer IN ('champion', 'challenger')", name="prediction_pointer"),
            nullable=False,
            server_default="champion",
        ),
        sa.Column("shadow_of", sa.String),
        sa.Column(
            "channel",
            sa.String,
            sa.CheckConstraint("channel IN ('rest', 'cds-hooks', 'fhir')", name="prediction_channel"),
            nullable=False,
            server_default="rest",
        ),
        sa.Column(
            "used",
            sa.String,
            sa.CheckConstraint("used IN ('silent', 'answered', 'card')", name="prediction_used"),
            nullable=False,
            server_default="answered",
        ),
        sa.Column("level", sa.Integer),
        sa.Column("novelty", sa.Double),
        sa.Column("conformal", sa.Text),
    )
    for column in added:
        op.add_column("prediction", column)
    op.create_index(
        "prediction_shadow_of",
        "prediction",
        ["shadow_of"],
        sqlite_where=sa.text("shadow_of IS NOT NULL"),
        postgresql_where=sa.text("shadow_of IS NOT NULL"),
    )
    op.create_index("answer_created_at", "answer", ["created_at"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("prediction_id", sa.String, sa.ForeignKey("prediction.prediction_id"), nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("reason_code", sa.String),
        sa.Column("reason_system", sa.String),
        sa.Column("comment", sa.Text),
        sa.Column("occurred_at", sa.DateTime, nullable=False),
        sa.Column("recorded_at", sa.DateTime, nullable=False),
        sa.Column("caller", sa.String),
        sa.CheckConstraint("outcome IN ('accepted', 'overridden')", name="feedback_outcome"),
        sa.UniqueConstraint("prediction_id", "outcome", "occurred_at", name="feedback_once"),
    )
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("sites", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("revoked_at", sa.DateTime),
        sa.Column("revoked_by", sa.String),
        sa.Column("revoked_for", sa.String),
    )
    op.create_table(
        "used_token",
        sa.Column("token_hash", sa.String, primary_key=True),
        sa.Column("expires_at", sa.DateTime, nullable=False),
    )
    op.create_index("used_token_expires_at", "used_token", ["expires_at"])
    op.create_table(
        "refused_call",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("route", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("caller", sa.String),
        sa.Column("peer", sa.String),
    )
    op.create_index("refused_call_at", "refused_call", ["at"])
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("act", sa.String, nullable=False),
        sa.Column("by", sa.String),
        sa.Column("reason", sa.Text),
        sa.Column("details", sa.Text, nullable=False),
    )


def _to_3(op: Operations) -> None:
    """The level that turned out to be right; and an index of all that a year is judged by.

    SQLite cannot change a constraint, so that Alembic writes the outcomes anew: a hundred bytes each.
    """
    with op.batch_alter_table("outcome") as outcome:
        outcome.add_column(sa.Column("level", sa.Integer, nullable=False, server_default="0"))
        outcome.drop_constraint("outcome_once", type_="unique")
        outcome.create_unique_constraint(
            "outcome_once", ["prediction_id", "outcome", "level", "observed_at"]
        )
    op.drop_index("prediction_model_at", "prediction")
    op.create_index(
        "prediction_model_at",
        "prediction",
        [
            *("model", "at", "prediction_id", "version", "pointer", "status", "used"),
            *("site", "patient", "encounter", "margin", "level", "received_at"),
        ],
    )


_STEPS: dict[int, Callable[[Operations], None]] = {2: _to_2, 3: _to_3}
"""What brings a log to each version from the one before."""
