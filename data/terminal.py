"""How progress and results reach a person: a bar on standard error, lines or JSON on standard output."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Stage = Callable[[str, float], None]
"""Told the name of the stage and how far along the whole is, 0 to 1."""
SHORTEST, SMALLEST = 10.0, 0.05
"""Seconds, and share of the whole, before which a pace says nothing of the time left."""


class Pace:
    """How long the rest will take, if it goes on as it went so far.

    >>> pace = Pace(now=0.0)
    >>> pace.told(0.25, now=60.0)
    >>> pace.left(now=60.0), pace.left(now=100.0)
    (180.0, 140.0)
    """

    def __init__(self, *, now: float) -> None:
        self._start = now
        self._from = self._share = 0.0
        self._end: float | None = None

    def told(self, share: float, *, now: float) -> None:
        """``share`` of the whole is done, 0 to 1, ``now`` seconds on any clock."""
        if share == self._share:  # the same stage goes on, and the estimate runs down
            return
        if share < self._share:  # another part begins, with a bar of its own
            self._start, self._from = now, share
        self._share = share
        past, gained = now - self._start, share - self._from
        judged = past >= SHORTEST and gained >= SMALLEST
        self._end = now + past * (1 - share) / gained if judged else None

    def left(self, *, now: float) -> float | None:
        """Seconds; None while there is too little to judge by, and where it takes longer than it did."""
        return self._end - now if self._end is not None and self._end > now else None


@contextmanager
def progress() -> Iterator[Stage]:
    """A bar for a person at a terminal, with the time taken and left; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _name, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    pace = Pace(now=time.monotonic())

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            del task
            left = pace.left(now=time.monotonic())
            return Text("" if left is None else f"about {_clock(left)} left", style="progress.remaining")

    # The bar gives way first, so that a narrow terminal still has one line.
    whole = Column(no_wrap=True)
    text = TextColumn("{task.description:<34}")
    columns = (text, BarColumn(None), TimeElapsedColumn(whole), Left(whole))
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("", total=1.0)

        def stage(name: str, done: float) -> None:
            pace.told(done, now=time.monotonic())
            bar.update(task, description=name, completed=done)

        yield stage


def _clock(seconds: float) -> str:
    """Coarser the longer it is: an estimate has no seconds to give.

    >>> _clock(42.0), _clock(200.0), _clock(5000.0)
    ('50 s', '4 min', '1 h 24 min')
    """
    if seconds < 60:
        return f"{10 * math.ceil(seconds / 10)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show(
    result: Mapping[str, Any],
    *,
    as_json: bool,
    short: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """One JSON object, or the ``short`` of it as lines of "name: value"."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, default=str))
        return
    for line in _lines(short(result)):
        print(line)


def _lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield f"{indent}{name}:"
            yield from _lines(inner, indent + "  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
            yield f"{indent}{name}:"
            for row in inner:
                yield indent + "  " + ", ".join(f"{k} {_short(v)}" for k, v in row.items())
        else:
            yield f"{indent}{name}: {_short(inner)}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None or value in ({}, []) else str(value)
