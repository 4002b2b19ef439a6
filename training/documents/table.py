"""A table of texts: what stands in which column, and nothing of its looks."""

from __future__ import annotations

from dataclasses import dataclass

from data.contract import Text

Cell = str | Text


@dataclass(frozen=True, kw_only=True)
class Table:
    """``words`` columns of text, the others of numbers; the first ``own`` rows are the model's."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    own: int = 0
