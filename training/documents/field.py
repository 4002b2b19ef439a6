"""One field of a document: its text, and where that came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["A", "P", "H"]
SOURCES: dict[Source, str] = {
    "A": "filled from the evidence",
    "P": "pre-filled, to be confirmed",
    "H": "for a person to write",
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """``source`` A: filled from the evidence; P: pre-filled, ``who`` confirms it; H: ``who`` writes it.

    ``value`` is None where nobody has written it yet. ``anchor`` is the section of the page about it.
    """

    id: str
    title: str
    source: Source
    value: str | None
    who: str | None = None
    anchor: str

    @property
    def text(self) -> str:
        """What a reader sees."""
        return f"to be written by {self.who}" if self.value is None else self.value

    @property
    def state(self) -> str:
        """Where it came from, in words."""
        if self.source == "H":
            return "written by a person" if self.value is not None else f"to be written by {self.who}"
        return f"{SOURCES['P']} by {self.who}" if self.source == "P" else SOURCES["A"]
