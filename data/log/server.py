"""Connections to a prediction log on a database server, which is PostgreSQL.

What can be lost there is the connection: the server restarts, an administrator ends a session, the
network goes silent. It must be noticed soon, and for what it is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import NoSuchModuleError

from data.errors import UsageError


def serve(url: URL, *, patience: float) -> Engine:
    """An engine on the server at ``url``; for network and locks it waits ``patience`` seconds at most.

    Raises UsageError: no driver for it is installed.
    """
    postgres = url.get_backend_name() == "postgresql"
    if postgres:
        url = url.set(query=_answering(patience) | dict(url.query))
    try:
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except (NoSuchModuleError, ModuleNotFoundError):
        raise UsageError(f"prediction log: no driver for {url.drivername} is installed") from None
    if postgres:

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:
            del record
            _prepare(connection, patience)

    if engine.driver == "psycopg":
        event.listen(engine, "handle_error", _recognise)
    return engine


def _answering(patience: float) -> dict[str, str]:
    """What libpq is told of a network that went silent; by default a writer waits for minutes."""
    return {
        "connect_timeout": str(int(patience)),
        "tcp_user_timeout": str(int(patience * 1000)),
        "keepalives_idle": str(int(patience)),
        "keepalives_interval": "1",
        "keepalives_count": "5",
    }


def _prepare(connection: Any, patience: float) -> None:
    """No wait without end for a lock, and no commit that a crash of the server would take back."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {int(patience * 1000)}")
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()
    except Exception:
        connection.close()  # the pool forgets one that it was not given whole
        raise


def _recognise(context: ExceptionContext) -> None:
    """Tell SQLAlchemy of a connection that is lost before psycopg says so.

    The server's word that it ends a session comes before the end of the stream, and whoever has read
    only the one takes the connection to be open. Where the word stands in place of the answer to Sync,
    at the end of many inserts, psycopg then cannot leave libpq's pipeline mode, in which nothing can
    be sent any more, not so much as ROLLBACK.
    """
    held = context.connection
    if context.is_disconnect or held is None or held.invalidated:
        return
    driver: Any = held.connection.driver_connection
    # Between two statements it is off, whatever became of the first of them.
    context.is_disconnect = bool(driver.pgconn.pipeline_status)
