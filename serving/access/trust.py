"""Whom the service trusts beyond API keys: ``issuers.toml`` in the home, written and reviewed by people.

    base_url = "https://risk.hospital.example"       # as clients see the service
    origins = ["https://ehr.hospital.example"]       # browsers that may use CDS Hooks
    proxies = ["127.0.0.1"]                          # whose X-Forwarded-For is believed
    fhir_servers = ["https://fhir.hospital.example/r4"]

    [[issuer]]
    kind = "cds-hooks"                               # or "smart"
    iss = "https://ehr.hospital.example"             # for "smart" the client's id
    jku = "https://ehr.hospital.example/jwks.json"   # or jwks_file, relative to this file
    scopes = ["predict", "outcome"]
    sites = ["county-01"]                            # every site if left out

``CAREMODELS_ISSUERS`` names another file. A change is picked up within seconds; one that cannot be
read leaves what was trusted before, and says so in the log.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from data.errors import UsageError
from data.log.access import Scope

logger = logging.getLogger(__name__)
Kind = Literal["cds-hooks", "smart"]


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Who signs tokens, by which keys, and what they may then do."""

    kind: Kind
    iss: str
    scopes: frozenset[Scope]
    sites: frozenset[str] | None = None
    jku: str | None = None
    jwks_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The file, read. Without a file nobody is trusted."""

    base_url: str | None = None
    origins: frozenset[str] = frozenset()
    proxies: frozenset[str] = frozenset()
    fhir_servers: frozenset[str] = frozenset()
    issuers: tuple[Issuer, ...] = ()

    def issuer(self, kind: Kind, iss: str) -> Issuer | None:
        for issuer in self.issuers:
            if (issuer.kind, issuer.iss) == (kind, iss):
                return issuer
        return None


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    iss: str
    scopes: list[Scope]
    sites: list[str] | None = None
    jku: str | None = None
    jwks_file: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str | None = None
    origins: list[str] = []
    proxies: list[str] = []
    fhir_servers: list[str] = []
    issuer: list[_Written] = []


def read(path: Path) -> Trust:
    """Raises UsageError, which names the fault, for a file that does not say what it must."""
    try:
        written = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except FileNotFoundError:
        return Trust()
    except (OSError, ValueError) as error:  # TOML's and msgspec's errors are ValueErrors
        raise UsageError(f"{path.name}: {error}") from None
    origins = [origin for origin in written.origins if origin != "*"]
    for url in (*filter(None, [written.base_url]), *written.fhir_servers, *origins):
        _web(path, url)
    issuers = tuple(_issuer(path, one) for one in written.issuer)
    if len({(one.kind, one.iss) for one in issuers}) < len(issuers):
        raise UsageError(f"{path.name}: an issuer stands there twice")
    if written.base_url is None and any(one.kind == "smart" for one in issuers):
        raise UsageError(f"{path.name}: SMART clients need base_url, the audience of what they sign")
    return Trust(
        base_url=written.base_url.rstrip("/") if written.base_url else None,
        origins=frozenset(origin.rstrip("/") for origin in written.origins),
        proxies=frozenset(_address(path, proxy) for proxy in written.proxies),
        fhir_servers=frozenset(server.rstrip("/") for server in written.fhir_servers),
        issuers=issuers,
    )


class Reviewed:
    """The file at ``path``, read again when it changes. Raises UsageError where it is wrong at first."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._stamp()
        self.trust = read(path) if path else Trust()

    def refresh(self) -> None:
        """Read it again where it changed. A fault is logged once and changes nothing."""
        seen = self._stamp()
        if self._path is None or seen == self._seen:
            return
        self._seen = seen
        try:
            self.trust = read(self._path)
        except UsageError as error:
            logger.error("whom to trust stays as it was: %s", error)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat() if self._path else None
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None


def reviewed(home: Path) -> Reviewed:
    """The file of this home. Raises UsageError where it is wrong, or named and not there."""
    named = os.environ.get("CAREMODELS_ISSUERS")
    if named and not Path(named).is_file():
        raise UsageError("CAREMODELS_ISSUERS: there is no such file")
    return Reviewed(Path(named) if named else home / "issuers.toml")


def loopback(host: str | None) -> bool:
    """Whether ``host``, a name or an address, is this machine.

    >>> loopback("127.0.0.1"), loopback("::1"), loopback("localhost"), loopback("10.0.0.7")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _issuer(path: Path, one: _Written) -> Issuer:
    where = f"{path.name}: issuer {one.iss!r}"
    if not one.iss or not one.scopes:
        raise UsageError(f"{where}: expected iss and scopes")
    if (one.jku is None) == (one.jwks_file is None):
        raise UsageError(f"{where}: expected either jku or jwks_file")
    if one.jku is not None:
        _web(path, one.jku)
    return Issuer(
        kind=one.kind,
        iss=one.iss,
        scopes=frozenset(one.scopes),
        sites=None if one.sites is None else frozenset(one.sites),
        jku=one.jku,
        jwks_file=path.parent / one.jwks_file if one.jwks_file else None,
    )


def _web(path: Path, url: str) -> None:
    """Raises UsageError for what is not https, or http on this machine."""
    try:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and loopback(parts.hostname))
        known = safe and parts.hostname and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{path.name}: {url!r}: expected https://…; http:// on this machine only")


def _address(path: Path, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"{path.name}: {text!r}: expected the address of a proxy") from None
