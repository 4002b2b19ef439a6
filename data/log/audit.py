"""Who opened what a patient told: written into the log itself, before anything is shown."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Engine, insert

from data.log.schema import guarded, maintenance, utc, writing

Act = Literal["open", "export"]


def record(engine: Engine, act: Act, details: Mapping[str, Any]) -> None:
    """Write down that this machine's user does ``act``; ``details`` name rows and no value of them.

    Raises UnavailableError where the log cannot be written: what cannot be written down is not shown.
    """
    row = {"at": utc(datetime.now(UTC)), "act": act, "by": _user(), "details": json.dumps(details)}
    with guarded("written"), writing(engine) as connection:
        connection.execute(insert(maintenance).values(**row))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"
