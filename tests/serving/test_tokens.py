"""Tokens of CDS clients, against a real server of their public keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.requests import Request

from data.errors import RateLimitedError, UnauthorizedError, UnavailableError
from data.log.schema import connect
from serving.access import guard as auth
from serving.access import jwks
from serving.access.guard import Guard
from serving.access.jwks import KeySets
from serving.access.keys import Keys
from serving.access.tokens import LEEWAY, LONGEST, OURS, Tokens
from serving.access.trust import Reviewed

KEY = b"0123456789abcdef"
BASE = "https://risk.example"
PATH = "/cds-services/ed_admission"
EHR = "https://ehr.example"
CANARY = "ZQcanary7411"


@pytest.fixture(scope="session")
def private():
    """Name -> private key."""
    return {
        "r": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "e": ec.generate_private_key(ec.SECP384R1()),
        "new": ec.generate_private_key(ec.SECP384R1()),
        "stranger": ec.generate_private_key(ec.SECP384R1()),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "short": rsa.generate_private_key(public_exponent=65537, key_size=1024),
    }


def public(key, kid: str, **more) -> dict:
    kinds = jwt.algorithms
    of = kinds.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else kinds.ECAlgorithm
    return {**of.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


class Published:
    """A server of one key set; ``asked`` counts, ``answer`` may be made to misbehave."""

    def __init__(self) -> None:
        self.keys: list[dict] = []
        self.asked = 0
        self.answer = self.well
        published = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                published.asked += 1
                published.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def well(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json.dumps({"keys": self.keys}).encode())


@pytest.fixture
def published(private):
    served = Published()
    served.keys = [public(private["r"], "r"), public(private["e"], "e", alg="ES384")]
    yield served
    served.server.shutdown()
    served.server.server_close()


class Clock:
    """Wall clock and monotonic clock in one."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker(tmp_path, published, clock):
    """Guards of several workers on one database."""
    file = tmp_path / "issuers.toml"
    file.write_text(
        f'base_url = "{BASE}"\n[[issuer]]\nkind = "cds-hooks"\niss = "{EHR}"\n'
        f'jku = "{published.url}"\nscopes = ["predict", "outcome"]\nsites = ["county-01"]\n'
    )
    engines = []

    def start() -> Guard:
        engine, reviewed = connect(tmp_path / "log.db"), Reviewed(file)
        tokens = Tokens(engine, KEY, reviewed, sets=KeySets(clock=clock), clock=clock)
        engines.append(engine)
        return Guard(keys=Keys(engine, KEY), reviewed=reviewed, tokens=tokens)

    yield start
    for engine in engines:
        engine.dispose()


@pytest.fixture
def guard(worker):
    return worker()


@pytest.fixture
def sign(private, published, clock):
    """A token as a good client makes it, but for what is given; None leaves out."""

    def make(key="e", algorithm="ES384", headers=None, **given) -> str:
        now = int(clock.now)
        claims = {
            "iss": EHR,
            "aud": BASE + PATH,
            "iat": now,
            "exp": now + 120,
            "jti": uuid.uuid4().hex,
        } | given
        claims = {name: value for name, value in claims.items() if value is not None}
        head = {"kid": key, "jku": published.url} | (headers or {})
        head = {name: value for name, value in head.items() if value is not None}
        return jwt.encode(claims, private[key], algorithm, headers=head)

    return make


def request(token: str, path: str = PATH, peer: str = "10.0.0.7", **headers) -> Request:
    headers = {"authorization": f"Bearer {token}"} | headers
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (peer, 50_000),
            "server": ("127.0.0.1", 3000),
            "scheme": "http",
        }
    )


def admit(guard: Guard, token: str, **how):
    return asyncio.run(guard.admit(request(token, **how), "predict"))


def refused(guard: Guard, token: str, error=UnauthorizedError, **how) -> str:
    with pytest.raises(error) as raised:
        admit(guard, token, **how)
    return str(raised.value)


def segment(content: object) -> str:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(("key", "algorithm"), [("r", "RS384"), ("e", "ES384")])
def test_a_good_token_is_its_issuers(guard, sign, key, algorithm):
    caller = admit(guard, sign(key, algorithm))
    assert (caller.name, caller.scopes, caller.sites) == (EHR, {"predict", "outcome"}, {"county-01"})


def test_an_audience_may_be_one_of_several_and_the_jku_may_be_left_out(guard, sign):
    assert admit(guard, sign(aud=["https://other.example", BASE + PATH]))
    assert admit(guard, sign(headers={"jku": None}))


def test_a_token_for_another_address(guard, sign):
    for wrong in (BASE, BASE + "/cds-services", BASE + PATH + "/", "https://other.example" + PATH, ""):
        assert refused(guard, sign(aud=wrong)) == "the token is for another address"
    assert refused(guard, sign(), path=PATH + "/feedback") == "the token is for another address"


def test_an_expired_token(guard, sign, clock):
    token = sign()
    clock.now += 121 + LEEWAY
    assert refused(guard, token) == "the token is expired"


def test_a_token_that_is_not_yet_valid(guard, sign, clock):
    later = int(clock.now) + LEEWAY + 5
    assert refused(guard, sign(nbf=later)) == "the token is not yet valid"
    assert refused(guard, sign(iat=later, exp=later + 60)) == "the token is not yet valid"
    assert admit(guard, sign(nbf=int(clock.now) + LEEWAY - 2))


def test_a_token_that_lives_too_long(guard, sign, clock):
    now = int(clock.now)
    assert refused(guard, sign(exp=now + LONGEST + 1)) == f"the token lives longer than {LONGEST} s"
    assert refused(guard, sign(exp=1e300)) == f"the token lives longer than {LONGEST} s"
    assert admit(guard, sign(exp=now + LONGEST))


def test_a_replayed_token(guard, sign):
    token = sign()
    admit(guard, token)
    assert refused(guard, token) == "the token was used before"


def test_a_token_that_was_used_in_another_worker(worker, sign):
    token = sign()
    admit(worker(), token)
    assert refused(worker(), token) == "the token was used before"


def test_a_jti_that_was_used_before_in_another_token(guard, sign):
    admit(guard, sign(jti="7"))
    assert refused(guard, sign(jti="7")) == "the token was used before"


def test_a_used_token_is_remembered_until_it_would_be_refused_anyway(guard, sign, clock):
    token = sign()
    admit(guard, token)
    clock.now += 60 + LEEWAY
    guard._tokens.forget()
    assert refused(guard, token) == "the token was used before"
    clock.now += 120 + LONGEST
    guard._tokens.forget()
    assert refused(guard, token) == "the token is expired"


ALGORITHM = "the token's algorithm is not RS384 or ES384"


@pytest.mark.parametrize("none", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_that_nobody_signed(guard, sign, none):
    head, claims, signature = sign().split(".")
    head = segment({"alg": none, "kid": "e", "typ": "JWT"})
    assert refused(guard, f"{head}.{claims}.") in {ALGORITHM, "the token cannot be read"}
    assert refused(guard, f"{head}.{claims}.{signature}") == ALGORITHM


@pytest.mark.parametrize("algorithm", ["HS256", "HS384"])
def test_a_token_signed_with_the_public_key_as_a_secret(guard, sign, private, algorithm):
    claims = sign("r", "RS384").split(".")[1]
    secret = private["r"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = segment({"alg": algorithm, "kid": "r", "typ": "JWT"})
    mark = hmac.digest(secret, f"{head}.{claims}".encode(), f"sha{algorithm[2:]}")
    assert refused(guard, f"{head}.{claims}.{segment(mark)}") == ALGORITHM


@pytest.mark.parametrize(("key", "algorithm"), [("r", "RS256"), ("r", "PS384"), ("p256", "ES256")])
def test_an_algorithm_that_is_not_among_the_two(guard, sign, key, algorithm):
    assert refused(guard, sign(key, algorithm)) == ALGORITHM


def test_another_issuers_token(guard, sign):
    assert refused(guard, sign(iss="https://evil.example")) == "the token's issuer is not trusted"
    assert refused(guard, sign(iss=EHR + "/")) == "the token's issuer is not trusted"


def test_a_jku_that_is_not_the_reviewed_one_is_never_asked(guard, sign, published):
    wrong = published.url + "?x"
    assert refused(guard, sign(headers={"jku": wrong})) == "the token's jku is not its issuer's"
    assert published.asked == 0


NO_KEY = "the token names no key of its issuer for its algorithm"


def test_an_unknown_key(guard, sign):
    assert refused(guard, sign("stranger")) == NO_KEY


def test_a_key_of_another_kind_than_the_algorithm(guard, sign):
    assert refused(guard, sign("r", "RS384", headers={"kid": "e"})) == NO_KEY
    assert refused(guard, sign("e", headers={"kid": "r"})) == NO_KEY


def test_a_key_that_is_declared_for_something_else(guard, sign, published, private):
    for more in ({"alg": "ES256"}, {"use": "enc"}, {"key_ops": ["sign"]}):
        published.keys = [public(private["e"], "e") | more]
        guard._tokens._sets = KeySets()
        assert refused(guard, sign()) == NO_KEY
    published.keys = [public(private["p256"], "e")]
    guard._tokens._sets = KeySets()
    assert refused(guard, sign()) == NO_KEY


def test_a_key_that_is_too_short(guard, sign, published, private, recwarn):
    published.keys = [public(private["short"], "short")]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = sign("short", "RS384")
    assert refused(guard, token) == "the token's signature is wrong"


def test_a_token_that_a_stranger_signed_in_its_name(guard, sign):
    assert refused(guard, sign("stranger", headers={"kid": "e"})) == "the token's signature is wrong"


def test_a_changed_token(guard, sign):
    head, claims, signature = sign().split(".")
    read = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed = segment(read | {"exp": read["exp"] + 60})
    assert refused(guard, f"{head}.{changed}.{signature}") == "the token's signature is wrong"


def test_a_token_names_its_key_and_nothing_that_must_be_understood(guard, sign):
    assert refused(guard, sign(headers={"kid": None})) == "the token names no key"
    assert refused(guard, sign(headers={"crit": ["x"], "x": 1})) == "the token cannot be read"


CLAIM = "the token lacks a claim, or one is of the wrong kind"


@pytest.mark.parametrize("claim", ["jti", "iss", "aud", "exp", "iat"])
def test_a_claim_that_is_missing(guard, sign, claim):
    assert refused(guard, sign(**{claim: None})) == CLAIM


@pytest.mark.parametrize(
    "claims", [{"jti": 7}, {"jti": ""}, {"jti": "x" * 501}, {"iss": [EHR]}, {"exp": "soon"}, {"iat": []}]
)
def test_a_claim_of_the_wrong_kind(guard, sign, private, claims):
    _, said, _ = sign().split(".")
    changed = json.loads(base64.urlsafe_b64decode(said + "==")) | claims
    token = jwt.PyJWS().encode(json.dumps(changed).encode(), private["e"], "ES384", headers={"kid": "e"})
    assert refused(guard, token) == CLAIM


@pytest.mark.parametrize(
    "token",
    [
        "a.b.c",
        "..",
        "x",
        "a.b",
        "\xff.\xff.\xff",
        "e30.e30.e30",
        segment([1]) + ".e30.e30",
        segment(b'{"alg":' + b"[" * 5_000) + ".e30.e30",
        segment({"alg": ["ES384"], "kid": "e"}) + ".e30.e30",
        segment({"alg": "ES384", "kid": "e"}) + "." + segment(b'{"exp":NaN}') + ".e30",
        segment({"alg": "ES384", "kid": "e", "b64": False, "crit": ["b64"]}) + "..e30",
        "e" * 20_000,
    ],
)
def test_what_is_no_token(guard, token):
    assert refused(guard, token)


def test_a_cds_token_opens_cds_services_only(guard, sign):
    token = sign(aud=BASE + "/v1/ed_admission/predict")
    said = refused(guard, token, path="/v1/ed_admission/predict")
    assert said == "a CDS client's token is for its services only"


def test_a_new_key_counts_at_once_and_one_that_was_taken_away_soon_does_not(
    guard, sign, published, private, clock
):
    admit(guard, sign())
    published.keys = [public(private["new"], "new")]
    clock.now += jwks.AGAIN
    assert admit(guard, sign("new"))
    assert published.asked == 2
    assert refused(guard, sign()) == NO_KEY


def test_a_key_that_was_taken_away_is_noticed_without_any_new_one(guard, sign, published, clock):
    admit(guard, sign())
    published.keys = []
    assert admit(guard, sign())
    clock.now += jwks.FRESH + 1
    assert refused(guard, sign()) == NO_KEY


def test_unknown_keys_ask_the_issuer_no_more_often_than_may_be(guard, sign, published, clock):
    for _ in range(5):
        assert refused(guard, sign("stranger")) == NO_KEY
    assert published.asked == 1
    clock.now += jwks.AGAIN
    assert refused(guard, sign("stranger")) == NO_KEY
    assert published.asked == 2


def redirect(handler) -> None:
    handler.send_response(302)
    handler.send_header("location", "/elsewhere")
    handler.end_headers()


def huge(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with_room = b" " * 65_536
    try:
        for _ in range(20):
            handler.wfile.write(with_room)
    except OSError:
        pass


def wrong(content: bytes):
    def answer(handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.mark.parametrize(
    "answer",
    [redirect, huge, wrong(b""), wrong(b"[]"), wrong(b'{"keys": {}}'), wrong(b'{"keys": ["e"]}')],
)
def test_an_issuer_whose_keys_cannot_be_had(guard, sign, published, answer, caplog, clock):
    published.answer = answer
    said = refused(guard, sign(), error=UnavailableError)
    assert said == "the keys of this issuer cannot be read"
    assert published.asked == 1
    assert "the keys of an issuer cannot be read" in caplog.text
    published.answer = published.well
    clock.now += jwks.AGAIN
    assert admit(guard, sign())


def test_keys_outlive_an_issuer_that_is_down_for_a_while(guard, sign, published, clock):
    admit(guard, sign())
    published.answer = redirect
    clock.now += jwks.STALE - 1
    assert admit(guard, sign())
    clock.now += jwks.AGAIN
    assert refused(guard, sign(), error=UnavailableError)


def test_without_a_base_url_a_token_is_for_the_host_on_this_machine_only(guard, sign, tmp_path):
    file = tmp_path / "issuers.toml"
    file.write_text(file.read_text().replace(f'base_url = "{BASE}"\n', ""))
    guard._reviewed.refresh()
    host = "127.0.0.1:3000"
    token = sign(aud=f"http://{host}{PATH}")
    assert "has no base_url" in refused(guard, token, host=host)
    assert "has no base_url" in refused(guard, token, host=host, peer="127.0.0.1", forwarded="x")
    assert admit(guard, token, host=host, peer="127.0.0.1")


def test_an_issuer_that_is_no_longer_trusted(guard, sign, tmp_path):
    admit(guard, sign())
    (tmp_path / "issuers.toml").write_text(f'base_url = "{BASE}"\n')
    guard._follow(forget=False)
    assert guard.closed
    assert refused(guard, sign()) == "the token's issuer is not trusted"


def test_failures_of_a_peer_are_bounded_before_a_signature_is_looked_at(guard, sign, monkeypatch):
    monkeypatch.setattr(auth, "FAILURES", 2)
    for _ in range(2):
        refused(guard, sign(aud="x"))
    refused(guard, sign(), error=RateLimitedError)
    assert admit(guard, sign(), peer="10.0.0.8")


def test_an_access_token_of_ours_is_no_clients_token_and_the_other_way_round(guard, sign):
    assert refused(guard, OURS + sign()) == "no such access token"
    said = segment({"client": EHR, "scopes": ["predict"], "until": 4e9})
    for mark in (hashlib.sha256(said.encode()).hexdigest(), "", "\xff"):
        assert refused(guard, f"{OURS}{said}.{mark}") == "no such access token"


def test_no_refusal_and_no_log_line_holds_what_a_token_says(guard, sign, caplog):
    caplog.set_level(logging.DEBUG)
    for claims in ({"iss": CANARY}, {"aud": CANARY}, {"jti": CANARY, "exp": 1}):
        assert CANARY not in refused(guard, sign(**claims))
    for head in ({"kid": CANARY}, {"jku": CANARY}, {"typ": CANARY, "kid": CANARY}):
        assert CANARY not in refused(guard, sign(headers=head))
    good = sign(sub=CANARY, jti=CANARY)
    admit(guard, good)
    assert CANARY not in refused(guard, good)
    assert CANARY not in caplog.text
    assert good[:30] not in caplog.text
