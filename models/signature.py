"""Who answers for an act on a model, and why."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from data.errors import UsageError

PLAN = "change control"
"""Who signs an act that rests on ``change-control.toml``, before the name of who approved it."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A person's name and reason, as they were given."""

    by: str
    reason: str

    @classmethod
    def of(cls, by: str, reason: str, *, options: tuple[str, str] = ("--by", "--reason")) -> Signature:
        """Raises UsageError naming the option that is empty."""
        for option, text in zip(options, (by, reason), strict=True):
            if not person(text):
                raise UsageError(f"{option}: who acts and why is written down; it may not be empty")
        return cls(by=by.strip(), reason=reason.strip())

    def second(self, by: str | None, reason: str | None) -> Signature | None:
        """The signature of another person, who overrides the gate; None where none is given.

        Raises UsageError where half of it is given, or where it is the same person's.
        """
        if by is None and reason is None:
            return None
        other = Signature.of(by or "", reason or "", options=("--override-by", "--override-reason"))
        if person(other.by) == person(self.by):
            raise UsageError("--override-by: an override is a second person's, not that of --by")
        return other


def of_plan(by: str) -> bool:
    """Whether ``by`` is a change control plan, and no person.

    >>> of_plan("change control (Dr Chen, 2026-11-24)"), of_plan("change control board")
    (True, False)
    """
    return by.startswith(f"{PLAN} (")


def person(name: str) -> str:
    """What tells two people apart in ``name``: no case, no space, no width, nothing invisible.

    >>> person("Dr  Chen") == person("ｄｒ chen\u200b")
    True
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(letter for letter in plain if unicodedata.category(letter)[0] not in "ZC")
