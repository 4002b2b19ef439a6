"""What a check of a window may find: something beyond its limit, of a kind that a spec may declare."""

from __future__ import annotations

from dataclasses import dataclass

from models.watch import What


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One thing that is not as it was promised to be.

    ``column``, ``site`` and ``group`` ("sex: female") say where, None: everywhere. ``limits`` bound
    what is tolerated of ``value``; ``since`` is the first day of it (YYYY-MM-DD), None where that is
    not known.
    ``message`` is for a clinician and holds no patient's value.
    """

    what: What
    message: str
    column: str | None = None
    site: str | None = None
    group: str | None = None
    value: float | None = None
    limits: tuple[float | None, float | None] = (None, None)
    since: str | None = None
