"""SMART Backend Services and CORS, through the application."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from data.log.append import LogWriter
from data.log.schema import connect, refused_call
from data.log.seal import load_keyring
from serving.access.guard import Guard
from serving.access.smart import ASSERTION, wanted
from serving.access.tokens import LONGEST
from serving.app import make_app
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.runtime import Runtime

KEY = b"0123456789abcdef"
BASE = "https://risk.example/api"
CANARY = "ZQcanary7411"
FILE = f"""
base_url = "{BASE}"
origins = ["https://sandbox.example"]

[[issuer]]
kind = "smart"
iss = "client-7"
jwks_file = "client-7.json"
scopes = ["read", "predict"]
sites = ["county-01"]

[[issuer]]
kind = "smart"
iss = "reader"
jwks_file = "client-7.json"
scopes = ["read"]

[[issuer]]
kind = "cds-hooks"
iss = "https://ehr.example"
jwks_file = "client-7.json"
scopes = ["predict"]
"""


@pytest.fixture(scope="module")
def private():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def ask(tmp_path, private):
    """One request to a running application without any model."""
    (tmp_path / "issuers.toml").write_text(FILE)
    key = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    (tmp_path / "client-7.json").write_text(json.dumps({"keys": [{**key, "kid": "k"}]}))
    engine, keyring = connect(tmp_path / "log.db"), load_keyring(tmp_path)
    runtime = Runtime(
        deployed=Deployed(releases=tmp_path / "releases", key=KEY),
        engine=engine,
        log=LogWriter(engine, keyring),
        keyring=keyring,
        metrics=Metrics(),
        guard=Guard.start(engine, KEY, tmp_path),
    )
    app = make_app(lambda: runtime)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        yield lambda *of, **more: runner.run(client.request(*of, **more))
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(client.aclose())
    engine.dispose()


@pytest.fixture
def sign(private):
    def make(**given) -> str:
        now = int(time.time())
        claims = {"iss": "client-7", "sub": "client-7", "aud": f"{BASE}/auth/token"}
        claims |= {"iat": now, "exp": now + 200, "jti": uuid.uuid4().hex} | given
        return jwt.encode(claims, private, "ES384", headers={"kid": "k"})

    return make


@pytest.fixture
def token(ask, sign):
    """The answer to a request for a token."""

    def request(assertion=None, **given) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION,
            "client_assertion": assertion or sign(),
            "scope": "system/RiskAssessment.c",
        } | given
        form = {name: value for name, value in form.items() if value is not None}
        return ask("POST", "/auth/token", data=form)

    return request


def error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["cache-control"] == "no-store"
    return response.json()["error"]


def test_a_client_gets_an_access_token_and_may_then_call(ask, token):
    answered = token(scope="system/RiskAssessment.rs system/RiskAssessment.c launch")
    assert answered.status_code == 200
    assert answered.headers["cache-control"] == "no-store"
    said = answered.json()
    text = said.pop("access_token")
    assert said == {
        "token_type": "bearer",
        "expires_in": LONGEST,
        "scope": "system/RiskAssessment.c system/RiskAssessment.rs",
    }
    for _ in range(2):
        called = ask("GET", "/v1/models", headers={"authorization": f"Bearer {text}"})
        assert (called.status_code, called.json()) == (200, {"models": []})


def test_a_token_has_the_scopes_that_were_asked_for_and_granted(ask, token, sign):
    text = token().json()["access_token"]  # to predict, not to read
    called = ask("GET", "/v1/models", headers={"authorization": f"Bearer {text}"})
    assert called.status_code == 403
    reader = sign(iss="reader", sub="reader")
    assert error(token(reader), 400) == "invalid_scope"
    reader = sign(iss="reader", sub="reader")
    both = "system/RiskAssessment.r system/RiskAssessment.cru"
    assert token(reader, scope=both).json()["scope"] == "system/RiskAssessment.r"


def test_an_access_token_ends(ask, token, monkeypatch):
    text = token(scope="system/RiskAssessment.read").json()["access_token"]
    later = time.time() + LONGEST + 1
    monkeypatch.setattr(ask_guard(ask)._tokens, "_clock", lambda: later)
    called = ask("GET", "/v1/models", headers={"authorization": f"Bearer {text}"})
    assert called.status_code == 401
    assert called.json()["detail"] == "the access token is expired"


def ask_guard(ask) -> Guard:
    """The guard of the application that ``ask`` asks."""
    [app] = [cell.cell_contents for cell in ask.__closure__ if hasattr(cell.cell_contents, "get")]
    return app._transport.app.state.runtime.guard


def test_a_client_that_is_no_longer_trusted_loses_its_token(ask, token, tmp_path):
    text = token(scope="system/RiskAssessment.read").json()["access_token"]
    (tmp_path / "issuers.toml").write_text(FILE.replace('"client-7"', '"client-8"'))
    ask_guard(ask)._follow(forget=False)
    called = ask("GET", "/v1/models", headers={"authorization": f"Bearer {text}"})
    assert called.status_code == 401


def test_an_assertion_is_used_once(token, sign):
    assertion = sign()
    assert token(assertion).status_code == 200
    again = token(assertion)
    assert error(again, 401) == "invalid_client"
    assert again.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": f"{BASE}/v1/models"},
        {"sub": "reader"},
        {"sub": None},
        {"iss": "nobody", "sub": "nobody"},
        {"exp": 1},
        {"exp": int(time.time()) + 3_600},
        {"iss": "https://ehr.example", "sub": "https://ehr.example"},
    ],
)
def test_an_assertion_that_breaks_a_rule(token, sign, claims):
    assert error(token(sign(**claims)), 401) == "invalid_client"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "invalid_request"),
        ({"client_assertion_type": "x"}, "invalid_request"),
        ({"client_assertion_type": None}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "system/Observation.rs"}, "invalid_scope"),
    ],
)
def test_a_request_that_makes_no_sense(token, form, code):
    assert error(token(**form), 400) == code


def test_a_body_that_is_no_form(ask):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"\xff", b"x", b"", urlencode([("scope", "a"), ("scope", "b")]).encode()):
        answered = ask("POST", "/auth/token", content=body, headers=kind)
        assert error(answered, 400) == "invalid_request"
    assert error(ask("POST", "/auth/token", json={}), 400) == "invalid_request"


EHR = {"iss": "https://ehr.example", "sub": None}


def test_a_cds_clients_token_gets_no_access_token_and_opens_nothing_else(ask, token, sign):
    assert error(token(sign(**EHR)), 401) == "invalid_client"
    for path in ("/v1/models", "/auth/token"):
        header = {"authorization": f"Bearer {sign(**EHR, aud=BASE + path)}"}
        assert ask("GET", "/v1/models", headers=header).status_code == 401


def test_a_cds_client_calls_the_service_that_its_token_is_for(ask, sign):
    def call(**claims) -> httpx.Response:
        header = {"authorization": f"Bearer {sign(**claims)}"}
        return ask("POST", "/cds-services/ed_admission", json={}, headers=header)

    assert call(**EHR, aud=BASE + "/cds-services/ed_admission").status_code not in {401, 403}
    refused = call(**EHR, aud=BASE + "/cds-services/ed_triage")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        ("system/RiskAssessment.c", {"predict"}),
        ("system/RiskAssessment.cruds", {"predict", "read"}),
        ("system/RiskAssessment.write", {"predict"}),
        ("system/RiskAssessment.read", {"read"}),
        ("system/RiskAssessment.s", {"read"}),
        ("system/*.*", {"predict", "read"}),
        ("system/RiskAssessment.u", set()),
        ("system/RiskAssessment.", set()),
        ("system/RiskAssessment.rc", set()),
        ("system/RiskAssessment.c?code=x", set()),
        ("patient/RiskAssessment.c", set()),
        ("user/*.*", set()),
        ("predict", set()),
        ("", set()),
    ],
)
def test_what_a_smart_scope_is_here(scope, rights):
    assert wanted(scope) == rights


def test_clients_find_the_token_endpoint(ask):
    for path in ("/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration"):
        said = ask("GET", path).json()
        assert said["token_endpoint"] == f"{BASE}/auth/token"
        assert said["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
        assert said["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]


def test_refused_calls_leave_a_row_each(ask, token, sign, tmp_path):
    token(sign(aud="x"))
    ask("GET", f"/v1/{CANARY}")
    text = token().json()["access_token"]
    ask("GET", f"/v1/{CANARY}?{CANARY}", headers={"authorization": f"Bearer {text}"})
    ask_guard(ask)._follow(forget=False)
    engine = connect(tmp_path / "log.db")
    with engine.connect() as connection:
        rows = [tuple(row)[2:] for row in connection.execute(select(refused_call))]
    engine.dispose()
    assert rows == [
        ("/auth/token", 401, "the token is for another address", None, "127.0.0.1"),
        ("/v1/{model}", 401, "no key and no token", None, "127.0.0.1"),
        ("/v1/{model}", 403, "this needs the scope read", "client-7", "127.0.0.1"),
    ]


def test_a_page_of_an_allowed_origin_may_read_cds_answers(ask):
    origin = {"origin": "https://sandbox.example"}
    asked = origin | {"access-control-request-method": "POST"}
    for path in ("/cds-services", "/cds-services/ed_admission", "/cds-services/ed_admission/feedback"):
        said = ask("OPTIONS", path, headers=asked)
        assert said.status_code == 204
        assert said.headers["access-control-allow-origin"] == origin["origin"]
        assert "authorization" in said.headers["access-control-allow-headers"]
        assert said.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in said.headers


def test_a_page_of_another_origin_is_told_nothing(ask):
    for origin in ("https://evil.example", "https://sandbox.example.evil.example", "null"):
        said = ask("OPTIONS", "/cds-services/x", headers={"origin": origin})
        assert said.status_code == 204
        assert not [name for name in said.headers if name.startswith("access-control")]
    said = ask("GET", "/v1/models", headers={"origin": "https://sandbox.example"})
    assert "access-control-allow-origin" not in said.headers


def test_every_origin_means_the_discovery_alone(ask, tmp_path):
    (tmp_path / "issuers.toml").write_text(FILE.replace("https://sandbox.example", "*"))
    ask_guard(ask)._follow(forget=False)
    anyone = {"origin": "https://any.example"}
    assert "access-control-allow-origin" in ask("OPTIONS", "/cds-services", headers=anyone).headers
    said = ask("OPTIONS", "/cds-services/ed_admission", headers=anyone)
    assert "access-control-allow-origin" not in said.headers
