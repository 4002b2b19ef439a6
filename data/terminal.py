"""How progress and results reach a person: a bar on standard error, lines or JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Stage = Callable[[str, float], None]
"""Told the name of the stage and how far along the whole is, 0 to 1."""


@contextmanager
def progress() -> Iterator[Stage]:
    """A bar for a person at a terminal; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _name, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, done: bar.update(task, description=name, completed=done)


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
