"""Webhooks and e-mail against real servers on loopback, TLS included."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.x509.oid import NameOID

from monitoring.senders import Email, UndeliveredError, Webhook, tell

NOW = datetime(2026, 2, 1, 3, 30, tzinfo=UTC)
SECRET = "kept-in-the-environment"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ALARM = {
    "number": 7,
    "state": "open",
    "what": "calibration",
    "column": None,
    "site": "county-01",
    "group": None,
    "message": "observed/expected is 1.40",
    "value": 1.4,
    "limits": [0.8, 1.25],
    "since": "2026-01-01",
}
RESULT = {
    "model": "ed_admission",
    "version": "3",
    "pointer": "champion",
    "window": {"from": "2026-01-01", "to": "2026-01-31"},
    "n": 12345,
    "outcomes": 6789,
    "verdict": "alarm",
    "report": "reports/index.html",
    "alarms": [ALARM],
    "proposed": [{"action": "recalibrate", "command": "caremodels respond 7"}],
}
MESSAGE = {
    "id": "0123456789abcdef",
    "made_at": "2026-02-01T03:30:00+00:00",
    "headline": "alarm: ed_admission",
    "results": [RESULT],
    "failed": [],
    "ledger": None,
}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; ``answer`` writes what it says to it, by default 204."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Taking)
        self.got, self.asked, self.over = [], [], threading.Event()
        self.answer = said(204)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook?token=in-the-url"

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""


class Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.server.answer(self)

    def do_CONNECT(self):
        self.server.asked.append(self.path)
        said(502)(self)

    def log_message(self, format, *args):  # noqa: A002 the name of the base class
        """Nothing on the terminal."""


def said(status, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def receiver():
    yield from serving(Receiver())


def undelivered(sink, message=MESSAGE):
    with pytest.raises(UndeliveredError) as raised:
        tell(sink, message, NOW)
    return raised.value


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Self-signed, for 127.0.0.1, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "caremodels test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    place = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    place.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, form, plain))
    return place


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_webhook_is_told_the_message_as_it_stands(receiver):
    assert tell(Webhook(url=receiver.url), MESSAGE, NOW) is None
    [(path, headers, body)] = receiver.got
    assert path == "/hook?token=in-the-url"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Caremodels-Id"] == MESSAGE["id"]
    assert msgspec.json.decode(body) == MESSAGE
    assert "X-Caremodels-Signature" not in headers


def test_the_signature_is_the_keyed_hash_of_the_stamp_and_the_body(receiver, monkeypatch):
    monkeypatch.setenv("HOOK", f" {SECRET}\n")  # a mounted secret ends in a newline
    tell(Webhook(url=receiver.url, secret="HOOK"), MESSAGE, NOW)
    [(_, headers, body)] = receiver.got
    assert headers["X-Caremodels-Timestamp"] == "1769916600"  # date -u -d '2026-02-01 03:30' +%s
    other = HMAC(SECRET.encode(), hashes.SHA256())  # cryptography's, where the sender takes hashlib's
    other.update(b"1769916600." + body)
    assert headers["X-Caremodels-Signature"] == f"sha256={other.finalize().hex()}"


@pytest.mark.parametrize(
    ("status", "unfit"),
    [(500, False), (429, False), (401, False), (304, False), (400, True), (413, True), (422, True)],
)
def test_what_is_not_taken_says_so_and_whether_another_message_might_be(receiver, status, unfit):
    receiver.answer = said(status)
    error = undelivered(Webhook(url=receiver.url))
    assert (str(error), error.unfit) == (f"it answered {status}", unfit)


def test_a_redirect_is_not_followed(receiver):
    receiver.answer = said(307, Location="/elsewhere")
    assert str(undelivered(Webhook(url=receiver.url))) == "it answered 307"
    assert len(receiver.got) == 1


def test_a_webhook_that_never_answers_is_given_up(receiver):
    receiver.answer = lambda _: receiver.over.wait(60)
    assert str(undelivered(Webhook(url=receiver.url, timeout=0.1))) == "ReadTimeout"


def test_one_that_answers_a_letter_at_a_time_is_given_up_too(receiver):
    def drip(handler):
        for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + 600 * b"." + b"\r\n\r\n":
            handler.wfile.write(bytes([letter]))
            receiver.over.wait(0.01)

    receiver.answer = drip
    assert str(undelivered(Webhook(url=receiver.url, timeout=0.2))) == "it did not come to an end"


def test_an_answer_without_an_end_is_not_read(receiver):
    def endless(handler):
        said(200)(handler)
        while not receiver.over.wait(0.01):
            handler.wfile.write(b"." * 1000)

    receiver.answer = endless
    assert tell(Webhook(url=receiver.url, timeout=1.0), MESSAGE, NOW) is None


def test_https_asks_for_a_certificate_that_the_system_trusts(receiver, tls, certificate, monkeypatch):
    receiver.socket = tls.wrap_socket(receiver.socket, server_side=True)
    secure = Webhook(url=receiver.url.replace("http:", "https:"))
    assert str(undelivered(secure)) == "ConnectError"
    assert receiver.got == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tell(secure, MESSAGE, NOW)
    assert len(receiver.got) == 1


def test_a_proxy_is_passed_by_for_this_machine_and_asked_for_others(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receiver.server_port}")
    tell(Webhook(url=receiver.url), MESSAGE, NOW)
    assert [path for path, *_ in receiver.got] == ["/hook?token=in-the-url"]
    assert str(undelivered(Webhook(url="https://hooks.invalid/x"))) == "ProxyError"
    assert receiver.asked == ["hooks.invalid:443"]


def test_a_proxy_that_cannot_be_spoken_to_is_a_sink_that_fails(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert str(undelivered(Webhook(url="https://hooks.invalid/x"))) == "ImportError"


@pytest.mark.parametrize("held", [None, " ", "\udcff"], ids=["unset", "blank", "no text"])
def test_a_secret_that_is_not_there_is_said_and_nothing_is_sent(receiver, monkeypatch, held):
    monkeypatch.delenv("kept_elsewhere", raising=False)
    if held is not None:
        monkeypatch.setenv("kept_elsewhere", held)
    error = undelivered(Webhook(url=receiver.url, secret="kept_elsewhere"))
    assert receiver.got == []
    assert "kept_elsewhere" not in str(error)


class Post(socketserver.ThreadingTCPServer):
    """An SMTP server. ``says``: what it answers to a verb, or to a whole command, instead of 250."""

    daemon_threads = True

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Session)
        self.tls, self.over = tls, threading.Event()
        self.heard, self.letters = [], []
        self.says = {"QUIT": "221 bye", "DATA": "354 go on", ".": "250 kept", "AUTH": "235 known"}
        self.says["STARTTLS"] = "220 go on"

    def email(self, **more):
        about = {"starttls": self.tls is not None, "to": ["a@h.example"], "timeout": 5.0, **more}
        return Email(host="127.0.0.1", port=self.server_address[1], sender="m@h.example", **about)

    def handle_error(self, request, client_address):
        """As with the receiver."""


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def finish(self):
        super().finish()
        self.request.close()

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            self.server.heard.append(line)
            verb = line.partition(" ")[0].upper()
            said = self.server.says.get(line) or self.server.says.get(verb) or "250 good"
            if verb == "EHLO":
                offered = ["127.0.0.1", "AUTH PLAIN"]
                if self.server.tls and not isinstance(self.request, ssl.SSLSocket):
                    offered.append("STARTTLS")
                said = "\r\n".join([*(f"250-{one}" for one in offered), "250 8BITMIME"])
            self.say(said)
            if verb == "STARTTLS":
                self.request = self.server.tls.wrap_socket(self.request, server_side=True)
                self.setup()
            if said.startswith("354"):
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.letters.append(b"".join(lines))
                self.say(self.server.says["."])
            if verb == "QUIT":
                return


@pytest.fixture
def post():
    yield from serving(Post())


@pytest.fixture
def secure_post(tls):
    yield from serving(Post(tls))


def letter(post):
    [found] = post.letters
    return message_from_bytes(found, policy=policy.default)


def test_an_e_mail_says_what_alarms_where_and_what_to_do(post):
    assert tell(post.email(to=["a@h.example", "b@h.example"]), MESSAGE, NOW) is None
    found = letter(post)
    assert found["Subject"] == "caremodels: alarm: ed_admission"
    assert found["From"] == "m@h.example"
    assert found["To"] == "a@h.example, b@h.example"
    assert found["Message-ID"] == "<0123456789abcdef@caremodels.invalid>"
    assert found["Date"] == "Sun, 01 Feb 2026 03:30:00 +0000"
    assert found.get_content().splitlines() == [
        "alarm: ed_admission",
        "",
        "ed_admission 3 (champion), 2026-01-01 to 2026-01-31: alarm",
        "  12,345 predictions, 6,789 known outcomes",
        "  alarm 7 [open] calibration, at county-01: observed/expected is 1.40",
        "  proposed: recalibrate: caremodels respond 7",
        "  reports/index.html",
    ]


def test_an_e_mail_says_what_could_not_be_judged_and_that_the_ledger_is_broken(post):
    missed = {"model": "sepsis", "window": "January", "error": "never released"}
    tell(post.email(), {**MESSAGE, "results": [], "failed": [missed], "ledger": "ledger: cut"}, NOW)
    said = letter(post).get_content()
    assert "sepsis, January: not judged: never released" in said
    assert "ledger: cut: no alarm is written down until that is explained" in said


def test_no_line_of_a_message_becomes_a_header(post):
    trick = "x\r\nBcc: thief@elsewhere.example\r\n\r\nhello"
    alarm = {**ALARM, "message": trick}
    message = {**MESSAGE, "headline": trick, "results": [{**RESULT, "alarms": [alarm]}]}
    tell(post.email(), message, NOW)
    found = letter(post)
    assert found["Bcc"] is None
    assert found["Subject"] == "caremodels: x Bcc: thief@elsewhere.example hello"
    assert [line for line in post.heard if line.startswith("rcpt")] == ["rcpt TO:<a@h.example>"]


def test_an_address_that_is_refused_keeps_the_others_from_nothing(post):
    post.says["rcpt TO:<b@h.example>"] = "550 unknown"
    told = tell(post.email(to=["a@h.example", "b@h.example"]), MESSAGE, NOW)
    assert told == "1 of 2 addresses were refused"
    assert len(post.letters) == 1


def test_where_every_address_is_refused_nothing_was_told(post):
    post.says["RCPT"] = "550 unknown"
    assert str(undelivered(post.email())) == "SMTPRecipientsRefused"


@pytest.mark.parametrize(
    ("verb", "says", "unfit"),
    [("MAIL", "451 later", False), ("MAIL", "552 too large", True), (".", "554 no", True)],
)
def test_a_server_that_does_not_take_it_is_told_by_its_code_alone(post, verb, says, unfit):
    post.says[verb] = says
    error = undelivered(post.email())
    assert (str(error), error.unfit) == (f"it answered {says[:3]}", unfit)


def test_a_server_that_takes_leave_badly_has_the_message_all_the_same(post):
    post.says["QUIT"] = "421 gone"
    assert tell(post.email(), MESSAGE, NOW) is None


def test_a_password_goes_over_tls_alone(secure_post, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SMTP", SECRET)
    tell(secure_post.email(user="us", password="SMTP"), MESSAGE, NOW)
    verbs = [line.partition(" ")[0].upper() for line in secure_post.heard]
    assert verbs.index("STARTTLS") < verbs.index("AUTH")
    [known] = [line for line in secure_post.heard if line.startswith("AUTH")]
    assert base64.b64decode(known.split()[-1]).decode() == f"\0us\0{SECRET}"
    assert len(secure_post.letters) == 1


def test_a_server_whose_certificate_is_not_trusted_is_told_nothing(secure_post):
    assert str(undelivered(secure_post.email())) == "SSLCertVerificationError"
    assert secure_post.letters == []


def test_a_server_without_tls_is_not_given_the_password(post, monkeypatch):
    monkeypatch.setenv("SMTP", SECRET)
    assert (
        str(undelivered(post.email(starttls=True, user="us", password="SMTP")))
        == "SMTPNotSupportedError"
    )
    assert not [line for line in post.heard if line.startswith("AUTH")]


def test_a_wrong_password_is_said_without_it(post, monkeypatch):
    monkeypatch.setenv("SMTP", SECRET)
    post.says["AUTH"] = f"535 {SECRET} is wrong"
    assert str(undelivered(post.email(user="us", password="SMTP"))) == "it answered 535"


def test_a_message_of_which_no_letter_can_be_made_is_not_the_servers_fault(post):
    error = undelivered(post.email(), {"id": "1", "headline": "from an older version"})
    assert (str(error), error.unfit) == ("no letter can be made of the message", True)
    assert post.heard == []
