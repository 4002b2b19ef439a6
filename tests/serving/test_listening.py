"""Where a server may listen, and by which certificate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from data.errors import UsageError
from data.log import access
from data.log.schema import connect
from serving.access.listening import certificate, place

KEY = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")]
)
def test_loopback_needs_no_key_and_leaves_nothing_behind(home, host, address):
    assert place(home, host) == address
    assert not home.path.exists()


@pytest.mark.parametrize("host", ["risk.example", "", "127.0.0.1:80", "0"])
def test_a_host_is_an_address(home, host):
    with pytest.raises(UsageError, match="--host: expected an address"):
        place(home, host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "::ffff:10.0.0.7"])
def test_beyond_loopback_a_key_must_exist(home, host):
    with pytest.raises(UsageError, match="no API key exists yet"):
        place(home, host)
    engine, now = connect(home.log), datetime.now(UTC)
    _, made = access.create_key(engine, KEY, name="x", scopes=["read"], by="x", now=now)
    access.revoke_key(engine, made.key_id, by="x", reason="y", now=now)
    engine.dispose()
    assert place(home, host)


def test_without_files_there_is_no_tls():
    assert certificate(None, None) == []


def test_a_certificate_comes_with_its_key(tmp_path):
    one, none = tmp_path / "one.pem", tmp_path / "none.pem"
    one.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for files in ((one, None), (None, one)):
        with pytest.raises(UsageError, match="expected both"):
            certificate(*files)
    for files in ((one, one), (none, one)):
        with pytest.raises(UsageError, match="not a certificate and its private key"):
            certificate(*files)
