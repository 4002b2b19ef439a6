"""What the prediction log holds, in figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text

from data.log.rotate import keys_in_use
from data.log.schema import (
    SCHEMA_VERSION,
    answer,
    feedback,
    guarded,
    is_sqlite,
    maintenance,
    outcome,
    prediction,
)
from data.log.seal import Keyring

_LAST = 10
"""Acts of maintenance that are shown."""


def status(engine: Engine, keyring: Keyring) -> dict[str, Any]:
    """Rows by what they are, the keys that sealed them, what was last done to the log, and how many
    times a single prediction was ``opened``.

    Times are UTC. Raises UnavailableError where the log cannot be read.
    """
    by = [prediction.c[name] for name in ("model", "version", "pointer", "status", "used")]
    rows = func.count().label("rows")
    first, last = func.min(prediction.c.received_at), func.max(prediction.c.received_at)
    with guarded("read"), engine.connect() as connection:
        groups = connection.execute(select(*by, rows).group_by(*by).order_by(*by)).mappings().all()
        total, began, ended = connection.execute(select(func.count(), first, last)).one()
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (outcome, feedback, answer)
        }
        acts = connection.execute(
            select(maintenance)
            .where(maintenance.c.act != "open")
            .order_by(maintenance.c.id.desc())
            .limit(_LAST)
        ).mappings()
        done = [
            {**act, "at": f"{act['at']:%Y-%m-%dT%H:%M:%SZ}", "details": json.loads(act["details"])}
            for act in acts
        ]
        opened = connection.scalar(
            select(func.count()).select_from(maintenance).where(maintenance.c.act == "open")
        )
        size = _size(engine, connection)
    return {
        "schema_version": SCHEMA_VERSION,
        "bytes": size,
        "rows": total,
        "first": began and f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "last": ended and f"{ended:%Y-%m-%dT%H:%M:%SZ}",
        "outcomes": counts["outcome"],
        "feedback": counts["feedback"],
        "answers": counts["answer"],
        "predictions": [dict(group) for group in groups],
        "key": keyring.newest,
        "sealed": {name: rows for name, rows in keys_in_use(engine, keyring).items() if rows},
        "opened": opened,
        "maintenance": done,
    }


def _size(engine: Engine, connection: Any) -> int:
    if not is_sqlite(engine.url):
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")))
    path = Path(str(engine.url.database))
    files = [path, path.with_name(f"{path.name}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())
