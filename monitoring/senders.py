"""Whom monitoring tells: ``sinks.toml`` in the home, and how each is told.

    [[webhook]]
    url = "https://hooks.hospital.example/caremodels"   # http:// on this machine only
    secret = "CAREMODELS_WEBHOOK_SECRET"     # the environment variable that holds it; optional
    on = "alarm"                             # or "always"

    [[email]]
    host = "smtp.hospital.example"
    from = "caremodels@hospital.example"
    to = ["models@hospital.example"]
    user = "caremodels"                      # optional, with password
    password = "CAREMODELS_SMTP_PASSWORD"    # the environment variable that holds it

    [prometheus]
    textfile = "/var/lib/node_exporter/caremodels.prom"
    rules = "prometheus/caremodels.rules.yml"

A webhook is a POST of JSON. With a secret it is signed: ``X-Caremodels-Signature`` is ``sha256=`` and
the HMAC-SHA-256 in hex of ``X-Caremodels-Timestamp``, a dot and the body. What is told holds alarms,
verdicts and counts of predictions, and nothing of a patient. No error repeats an address's path or
the name of a variable: either may be a secret that was written at the wrong place.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import queue
import smtplib
import ssl
import threading
import tomllib
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from data.errors import CaremodelsError, UsageError
from monitoring.alarms import where

FILE = "sinks.toml"
On = Literal["alarm", "always"]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=60)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Variable = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")]
_Address = Annotated[str, msgspec.Meta(pattern=r"\A[^\s@,;:<>]+@[^\s@,;:<>]+\Z")]
PATIENCE = 6
"""Times of its time-out after which a sink is given up that answers, but a word at a time."""
UNFIT = frozenset({400, 413, 422})
"""What a webhook answers that would take another message, and not this one."""


class UndeliveredError(CaremodelsError):
    """A sink did not take a message. ``unfit``: this one; another it might take."""

    def __init__(self, message: str, *, unfit: bool = False) -> None:
        super().__init__(message)
        self.unfit = unfit


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address that takes JSON."""

    url: _Text
    secret: _Variable | None = None
    on: On = "alarm"
    timeout: Seconds = 10.0

    @property
    def name(self) -> str:
        """As messages call it: a path may hold a token."""
        parts = urlsplit(self.url)
        return f"webhook {parts.scheme}://{parts.netloc}"

    @property
    def key(self) -> str:
        return "webhook-" + hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def send(self, message: Mapping[str, Any], now: datetime) -> str | None:
        """Raises UndeliveredError where it is not taken (2xx); it is not sent on to another address."""
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs the whole address
        body = msgspec.json.encode(message)
        headers = {"Content-Type": "application/json", "X-Caremodels-Id": str(message["id"])}
        try:
            if self.secret is not None:
                stamp = str(int(now.timestamp()))
                headers["X-Caremodels-Timestamp"] = stamp
                headers["X-Caremodels-Signature"] = signature(
                    _secret("secret", self.secret), stamp, body
                )
            with (
                httpx.Client(
                    timeout=self.timeout,
                    follow_redirects=False,
                    # The system's authorities: a hospital's own may be among them.
                    verify=ssl.create_default_context(),
                    # A proxy of the network's is of no use to reach this machine.
                    trust_env=not _loopback(urlsplit(self.url).hostname),
                ) as client,
                # The status is all that counts; a body may be without end.
                client.stream("POST", self.url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        # ImportError: the environment names a SOCKS proxy, for which nothing is installed.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            raise UndeliveredError(type(error).__name__) from None
        if not 200 <= status < 300:
            raise UndeliveredError(f"it answered {status}", unfit=status in UNFIT)
        return None


class Email(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """People who are written to."""

    host: _Text
    sender: _Address
    to: Annotated[list[_Address], msgspec.Meta(min_length=1)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    starttls: bool = True
    user: _Text | None = None
    password: _Variable | None = None
    on: On = "alarm"
    timeout: Seconds = 10.0

    @property
    def name(self) -> str:
        return f"e-mail by {self.host}"

    @property
    def key(self) -> str:
        told = "\n".join([self.host, str(self.port), self.sender, *self.to])
        return "email-" + hashlib.sha256(told.encode()).hexdigest()[:16]

    def send(self, message: Mapping[str, Any], now: datetime) -> str | None:
        """What is to be told of it, though it was taken: that some addresses were refused.

        Raises UndeliveredError where the server does not take it.
        """
        try:
            letter = self.letter(message, now)
        except (LookupError, TypeError, ValueError):  # an older version may have left it in the outbox
            raise UndeliveredError("no letter can be made of the message", unfit=True) from None
        try:
            with closing(smtplib.SMTP(self.host, self.port, timeout=self.timeout)) as server:
                if self.starttls:
                    server.starttls(context=ssl.create_default_context())
                if self.user is not None and self.password is not None:
                    server.login(self.user, _secret("password", self.password))
                refused = server.send_message(letter)
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()  # it has the message, however it takes leave
        except smtplib.SMTPResponseException as error:
            # 552 is "too large", which a server may say before it has the letter.
            unfit = isinstance(error, smtplib.SMTPDataError) or error.smtp_code == 552
            raise UndeliveredError(f"it answered {error.smtp_code}", unfit=unfit) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise UndeliveredError(type(error).__name__) from None
        # The others have it: sent again, they would have it with every run.
        return f"{len(refused)} of {len(self.to)} addresses were refused" if refused else None

    def letter(self, message: Mapping[str, Any], now: datetime) -> EmailMessage:
        letter = EmailMessage()
        # A header is one line: a folder of the releases may be called anything.
        letter["Subject"] = " ".join(f"caremodels: {message['headline']}".split())
        letter["Date"] = format_datetime(now)
        letter["From"] = self.sender
        letter["To"] = ", ".join(self.to)
        letter["Message-ID"] = f"<{message['id']}@caremodels.invalid>"
        letter.set_content("\n".join(_lines(message)))
        return letter


class Prometheus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that Prometheus reads, as paths; what is relative lies in the home."""

    textfile: _Text = "prometheus/caremodels.prom"
    rules: _Text = "prometheus/caremodels.rules.yml"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    webhook: list[Webhook] = []
    email: list[Email] = []
    prometheus: Prometheus | None = None


@dataclass(frozen=True, kw_only=True)
class Sinks:
    """The file, read. ``told``: by their keys, those to whom messages go."""

    told: Mapping[str, Webhook | Email]
    prometheus: Prometheus | None


def read(home: Path) -> Sinks | None:
    """The sinks of the home, None without a file. Raises UsageError naming the file and the fault."""
    try:
        written = msgspec.convert(tomllib.loads((home / FILE).read_text(encoding="utf-8")), _File)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # TOML's and msgspec's errors are ValueErrors
        raise UsageError(f"{FILE}: {error}") from None
    for webhook in written.webhook:
        _web(webhook.url)
    for email in written.email:
        if not email.starttls and not _loopback(email.host):
            raise UsageError(f"{FILE}: {email.host}: without STARTTLS on this machine only")
        if (email.user is None) != (email.password is None):
            raise UsageError(f"{FILE}: {email.host}: expected both user and password, or neither")
    told: list[Webhook | Email] = [*written.webhook, *written.email]
    by_key = {one.key: one for one in told}
    if len(by_key) < len(told):
        raise UsageError(f"{FILE}: a sink stands there twice")
    return Sinks(told=by_key, prometheus=written.prometheus)


def tell(sink: Webhook | Email, message: Mapping[str, Any], now: datetime) -> str | None:
    """As the sink's own ``send``, and never longer than :data:`PATIENCE` allows.

    A time-out bounds the wait for the next byte alone. A sink that is given up may have taken the
    message; it is told again under the same id.
    """
    said: queue.SimpleQueue[str | UndeliveredError | None] = queue.SimpleQueue()

    def send() -> None:
        try:
            said.put(sink.send(message, now))
        except UndeliveredError as error:
            said.put(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        found = said.get(timeout=PATIENCE * sink.timeout)
    except queue.Empty:
        raise UndeliveredError("it did not come to an end") from None
    if isinstance(found, UndeliveredError):
        raise found
    return found


def signature(secret: str, stamp: str, body: bytes) -> str:
    """What ``X-Caremodels-Signature`` holds.

    >>> signature("secret", "1767225600", b"{}")[:20]
    'sha256=fa7eaa06bf97d'
    """
    signed = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def _secret(key: str, variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if not found:
        raise UndeliveredError(f"the environment variable that {key} names is not set")
    return found


def _web(url: str) -> None:
    """Raises UsageError for what is not https, or http on this machine; never repeating the path."""
    try:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname))
        known = bool(safe and parts.hostname and "@" not in parts.netloc and not parts.fragment)
        known = known and parts.port != 0  # which raises for what is no port
        shown = f"{parts.scheme}://{parts.hostname}"
    except ValueError:
        known, shown = False, "url"
    if not known:
        raise UsageError(f"{FILE}: webhook {shown}: expected https://…; http:// on this machine only")


def _loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _lines(message: Mapping[str, Any]) -> list[str]:
    """The message for people."""
    lines = [str(message["headline"]), ""]
    if broken := message.get("ledger"):
        lines += [f"{broken}: no alarm is written down until that is explained", ""]
    for found in message["results"]:
        window = found["window"]
        days = f"{window['from']} to {window['to']}"
        lines += [
            f"{found['model']} {found['version']} ({found['pointer']}), {days}: {found['verdict']}",
            f"  {found['n']:,} predictions, {found['outcomes']:,} known outcomes",
        ]
        for alarm in found["alarms"]:
            number = f"{alarm['number']} " if alarm.get("number") else ""
            lines.append(f"  alarm {number}[{alarm['state']}] {where(alarm)}: {alarm['message']}")
        lines += [
            f"  proposed: {proposal['action']}: {proposal.get('command') or 'look into it'}"
            for proposal in found["proposed"]
        ]
        lines += [f"  {found['report']}", ""]
    for missed in message["failed"]:
        lines.append(f"{missed['model']}, {missed['window']}: not judged: {missed['error']}")
    return lines
