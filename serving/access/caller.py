"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import ForbiddenError
from data.log.access import SCOPES, Scope

__all__ = ["ANYBODY", "SCOPES", "STRANGER", "Caller", "Scope"]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """``name`` is what the log keeps; ``sites`` those that it may speak for, None for every one."""

    name: str | None
    scopes: frozenset[Scope]
    sites: frozenset[str] | None = None

    def placed(self, site: str | None) -> str | None:
        """The site, which must be this caller's; one that is bound to a single site need not name it.

        Raises ForbiddenError for another.
        """
        if site is None and self.sites is not None and len(self.sites) == 1:
            [site] = self.sites
        self.hold(site)
        return site

    def hold(self, site: str | None) -> None:
        """Raises ForbiddenError for a site that is not this caller's, or for none where it is bound."""
        if self.sites is not None and site not in self.sites:
            raise ForbiddenError("this caller is bound to other sites: say whose patient it is")


ANYBODY = Caller(name=None, scopes=frozenset(SCOPES))
"""A caller on loopback, as long as no key exists."""
STRANGER = Caller(name=None, scopes=frozenset())
"""A caller of what everybody may read."""
