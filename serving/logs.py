"""Log lines: one JSON object each, on standard error, and nothing in them that a caller wrote.

Of our own events the text is ours, and names ids and versions only. Of other packages' events the
template is kept without its arguments, which may quote a request; of an exception its type and its
place, because its text may repeat a value.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

OURS = ("caremodels", "data", "models", "serving")
LIFE = "bentoml.serve"
"""BentoML's logger of starts and stops, which quotes nothing of a request."""
FIELDS = ("model", "version", "prediction_id", "route", "status")
"""What an event may carry beside its text, given as ``extra``."""
TRACEBACK = "Traceback (most recent call last)"
_SOURCE = Path(__file__).resolve().parents[1]


def set_up(form: Literal["json", "text"] | None = None) -> None:
    """Send the events of every package through one handler, whatever handlers they had.

    ``form``: by default what CAREMODELS_LOG_FORMAT says, and else ``json``.
    """
    form = form or ("text" if os.environ.get("CAREMODELS_LOG_FORMAT") == "text" else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line() if form == "text" else Json())
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.root.handlers[:] = [handler]
    for name in (*OURS, LIFE):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True  # paths are a caller's own words


class Json(logging.Formatter):
    """An event as a JSON object of one line.

    >>> record = logging.LogRecord("uvicorn", 30, "", 0, "bad %s", ("sbp=88",), None)
    >>> print(Json().format(record).partition('"event"')[2])
    :"bad %s"}
    """

    def format(self, record: logging.LogRecord) -> str:
        return msgspec.json.encode(said(record)).decode()


class Line(logging.Formatter):
    """The same event for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        event = said(record)
        first = [event.pop(name) for name in ("time", "level", "logger", "event")]
        rest = (f"{name}={value}" for name, value in event.items() if name != "process")
        return " ".join([*first, *rest])


def said(record: logging.LogRecord) -> dict[str, Any]:
    """What is told of ``record``, in the order in which it is read."""
    moment = datetime.fromtimestamp(record.created, UTC)
    told: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "process": record.process,
        "event": _event(record),
    }
    told |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
    if record.exc_info and record.exc_info[0]:
        kind, _, trace = record.exc_info
        told |= {"error": kind.__name__, "place": place(trace)}
    return told


def place(trace: TracebackType | None) -> str | None:
    """Where an exception was raised: file and line."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(trace)
    if not frames:
        return None
    file = Path(frames[-1].filename)
    near = file.relative_to(_SOURCE) if file.is_relative_to(_SOURCE) else Path(*file.parts[-3:])
    return f"{near}:{frames[-1].lineno}"


def _event(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] in OURS or record.name == LIFE:
        return record.getMessage()
    text = str(record.msg).strip()
    if text.startswith(TRACEBACK):  # a whole traceback as a message: the type is in its last line
        return f"failed: {text.splitlines()[-1].partition(':')[0]}"
    return text.partition("\n")[0]
