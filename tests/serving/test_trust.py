"""The reviewed file of whom to trust."""

from __future__ import annotations

import pytest

from data.errors import UsageError
from serving.access.trust import Reviewed, Trust, read, reviewed

FULL = """
base_url = "https://risk.example/"
origins = ["https://sandbox.example", "http://localhost:8080", "*"]
proxies = ["127.0.0.1", "::1"]
fhir_servers = ["https://fhir.example/r4/"]

[[issuer]]
kind = "cds-hooks"
iss = "https://ehr.example"
jku = "https://ehr.example/jwks.json"
scopes = ["predict", "outcome"]
sites = ["county-01"]

[[issuer]]
kind = "smart"
iss = "client-7"
jwks_file = "keys/client-7.json"
scopes = ["predict"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "issuers.toml"
    path.write_text(FULL)
    return path


def test_everything_that_it_may_say(file):
    trust = read(file)
    assert trust.base_url == "https://risk.example"
    assert trust.origins == {"https://sandbox.example", "http://localhost:8080", "*"}
    assert trust.proxies == {"127.0.0.1", "::1"}
    assert trust.fhir_servers == {"https://fhir.example/r4"}
    ehr, client = trust.issuer("cds-hooks", "https://ehr.example"), trust.issuer("smart", "client-7")
    assert (ehr.scopes, ehr.sites) == ({"predict", "outcome"}, {"county-01"})
    assert ehr.jku == "https://ehr.example/jwks.json"
    assert (client.jwks_file, client.sites) == (file.parent / "keys/client-7.json", None)
    assert trust.issuer("smart", "https://ehr.example") is None


def test_without_a_file_nobody_is_trusted(tmp_path):
    assert read(tmp_path / "none.toml") == Trust()
    assert Reviewed(None).trust == Trust()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("base_url", "base_uri", "unknown field `base_uri`"),
        ("https://fhir.example/r4/", "*", "expected https"),
        ('base_url = "https', 'base_url = "http', "http:// on this machine only"),
        ("https://risk.example/", "https://user:pass@risk.example", "expected https"),
        ('base_url = "https://risk.example/"', "", "SMART clients need base_url"),
        ("https://sandbox.example", "sandbox.example", "expected https"),
        ("https://ehr.example/jwks.json", "http://ehr.example/jwks.json", "expected https"),
        ("https://ehr.example/jwks.json", "https://[", "expected https"),
        ('jwks_file = "keys/client-7.json"', "", "expected either jku or jwks_file"),
        ("jwks_file", 'jku = "https://a.example"\njwks_file', "expected either jku or jwks_file"),
        ('"127.0.0.1"', '"proxy"', "expected the address of a proxy"),
        ('["predict"]', "[]", "expected iss and scopes"),
        ('["predict"]', '["all"]', "Invalid enum value 'all'"),
        ('kind = "smart"', 'kind = "oauth"', "Invalid enum value 'oauth'"),
        ('"client-7"', '""', "expected iss and scopes"),
        ("[[issuer]]", "[[issuer]", "issuers.toml: "),
    ],
)
def test_a_fault_is_named(file, old, new, said):
    file.write_text(FULL.replace(old, new))
    with pytest.raises(UsageError) as raised:
        Reviewed(file)
    assert said in str(raised.value)


def test_a_file_that_was_named_must_be_there(file, tmp_path, monkeypatch):
    assert reviewed(tmp_path).trust.issuers
    monkeypatch.setenv("CAREMODELS_ISSUERS", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="CAREMODELS_ISSUERS: there is no such file"):
        reviewed(tmp_path)
    monkeypatch.setenv("CAREMODELS_ISSUERS", str(file))
    assert reviewed(tmp_path / "elsewhere").trust.issuers


def test_an_issuer_stands_there_once(file):
    file.write_text(FULL + FULL[FULL.index("[[issuer]]") :])
    with pytest.raises(UsageError, match="twice"):
        read(file)


def test_a_change_is_picked_up_and_a_broken_one_changes_nothing(file, caplog):
    reviewed = Reviewed(file)
    file.write_text(FULL.replace("client-7", "client-8"))
    reviewed.refresh()
    assert reviewed.trust.issuer("smart", "client-8")
    file.write_text("issuer = 1")
    for _ in range(2):
        reviewed.refresh()
    assert reviewed.trust.issuer("smart", "client-8")
    assert caplog.text.count("whom to trust stays as it was") == 1
    file.unlink()
    reviewed.refresh()
    assert reviewed.trust == Trust()
