"""Where a server may listen, and by which certificate: settled before it is started."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

from data.errors import UsageError
from data.home import Home
from serving.access.trust import loopback

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, with forward secrecy; BentoML's default allows others. TLS 1.3 has its own."""


def place(home: Home, host: str) -> str:
    """The address of ``host``, an address or ``localhost``.

    Raises UsageError for another name, and for an address beyond loopback as long as no API key was
    ever made.
    """
    try:
        address = str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise UsageError("--host: expected an address of this machine, or localhost") from None
    if loopback(address):
        return address
    from data.log import access
    from data.log.schema import connect

    engine = connect(home.log)
    try:
        if not access.keys(engine):
            raise UsageError("--host: no API key exists yet, so that only loopback may be listened on")
    finally:
        engine.dispose()
    return address


def certificate(certfile: Path | None, keyfile: Path | None) -> list[str]:
    """The options of ``bentoml serve`` for TLS, none without files.

    Raises UsageError for files that are not a certificate and its private key.
    """
    if certfile is None and keyfile is None:
        return []
    if certfile is None or keyfile is None:
        raise UsageError("--certfile and --keyfile: expected both")
    try:
        # An empty password: one that is wanted would be asked for on the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile, "")
    except (OSError, ValueError):  # an SSLError is an OSError
        raise UsageError("--certfile and --keyfile: not a certificate and its private key") from None
    files = ["--ssl-certfile", str(certfile.resolve()), "--ssl-keyfile", str(keyfile.resolve())]
    return [*files, "--ssl-ciphers", CIPHERS]
