"""The guard: who is let in, with what, from where."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from starlette.requests import Request

from data.errors import (
    ForbiddenError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
)
from data.log import access
from data.log.schema import connect, refused_call
from serving.access import guard as auth
from serving.access import keys, limits
from serving.access.caller import ANYBODY, STRANGER
from serving.access.guard import Guard
from serving.access.keys import PAUSE, TRUSTED, Keys
from serving.access.limits import Limits
from serving.access.trust import Reviewed

KEY = b"0123456789abcdef"
CANARY = "ZQcanary7411"


def request(path="/v1/models", peer="127.0.0.1", method="GET", **headers) -> Request:
    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
            "client": (peer, 50_000) if peer else None,
            "server": ("127.0.0.1", 3000),
            "scheme": "http",
        }
    )


def bearer(text: str, **more) -> Request:
    return request(authorization=f"Bearer {text}", **more)


@pytest.fixture
def engine(tmp_path):
    engine = connect(tmp_path / "log.db")
    yield engine
    engine.dispose()


@pytest.fixture
def make(engine):
    """A key, as the command line makes one; its text."""

    def key(*scopes: str, days: float | None = None, sites=None, since: int = 0) -> str:
        now = datetime.now(UTC) - timedelta(days=since)
        return access.create_key(
            engine,
            KEY,
            name="ward",
            scopes=scopes or ["read"],
            sites=sites,
            expires_at=now + timedelta(days=days) if days else None,
            by="Dr Chen",
            now=now,
        )[0]

    return key


@pytest.fixture
def guard(engine, tmp_path):
    guards = []

    def start(**settings) -> Guard:
        guards.append(
            Guard(keys=Keys(engine, KEY), **settings) if settings else Guard.start(engine, KEY, tmp_path)
        )
        return guards[-1]

    yield start
    for one in guards:
        one.close()


def admit(guard: Guard, asked: Request, needs="read"):
    return asyncio.run(guard.admit(asked, needs))


def refused(guard: Guard, asked: Request, needs="read", error=UnauthorizedError) -> str:
    with pytest.raises(error) as raised:
        admit(guard, asked, needs)
    return str(raised.value)


def test_without_any_key_this_machine_may_do_everything(guard):
    for peer in ("127.0.0.1", "127.8.0.1", "::1"):
        assert admit(guard(), request(peer=peer), "admin") is ANYBODY


@pytest.mark.parametrize("peer", ["10.0.0.7", "2001:db8::1", "", "localhost.evil.example"])
def test_without_any_key_nobody_else_may(guard, peer):
    assert "only this machine may call" in refused(guard(), request(peer=peer))


@pytest.mark.parametrize("header", auth.PASSED_ON)
def test_without_any_key_what_came_through_a_proxy_is_not_of_this_machine(guard, header):
    assert "only this machine may call" in refused(guard(), request(**{header: "127.0.0.1"}))


def test_without_any_key_a_page_from_elsewhere_may_not(guard):
    assert "pages from elsewhere" in refused(guard(), request(origin="https://evil.example"))
    assert "pages from elsewhere" in refused(guard(), request(origin="null"))
    assert admit(guard(), request(origin="http://localhost:8080")) is ANYBODY


def test_what_needs_no_scope_is_open_to_all(guard, make):
    make()
    assert admit(guard(), request(peer="10.0.0.7"), None) is STRANGER


def test_once_a_key_exists_a_caller_must_have_one(guard, make):
    text = make("read")
    one = guard()
    assert refused(one, request()) == "no key and no token"
    assert refused(one, request(authorization=f"Basic {text}")) == "no key and no token"
    assert admit(one, bearer(text, peer="10.0.0.7")).name.startswith("ward (")
    assert admit(one, request(authorization=f"bearer {text}")).scopes == {"read"}


def test_a_key_that_ended_keeps_the_service_closed(guard, make, engine):
    old = make("read", days=1, since=2)
    one = guard()
    assert refused(one, bearer(old)) == "the API key is expired"
    lost = make("read")
    access.revoke_key(engine, access.split(lost)[0], by="x", reason="y", now=datetime.now(UTC))
    assert refused(guard(), bearer(lost)) == "the API key is revoked"
    assert refused(guard(), request()) == "no key and no token"


def test_a_wrong_secret_and_a_wrong_name_are_refused_alike(guard, make):
    key_id, secret = access.split(make())
    one = guard()
    other = access.split(make())[1]
    wrong = (f"cm_{key_id}_{other}", f"cm_{key_id}_{secret[:-1]}", f"cm_{key_id}_", f"cm_abc_{secret}")
    assert {refused(one, bearer(text)) for text in wrong} == {"no such API key"}
    assert refused(one, bearer("cm_")) != ""
    assert refused(one, bearer("\xff" * 9)) != ""


def test_a_scope_that_a_key_lacks_is_refused_and_none_implies_another(guard, make):
    one = guard()
    text = make("admin")
    for needs in ("read", "predict", "outcome"):
        assert refused(one, bearer(text), needs, ForbiddenError) == f"this needs the scope {needs}"
    assert admit(one, bearer(text), "admin").scopes == {"admin"}


def test_a_caller_is_held_to_its_sites(guard, make):
    caller = admit(guard(), bearer(make("read", sites=["county-01"])))
    caller.hold("county-01")
    for site in ("county-02", None):
        with pytest.raises(ForbiddenError):
            caller.hold(site)


def test_the_first_key_closes_the_service_and_works_at_once(guard, make):
    one = guard()
    assert admit(one, request()) is ANYBODY
    text = make()
    assert admit(one, bearer(text)).scopes == {"read"}  # looked up, not waited for
    assert refused(one, request()) == "no key and no token"


def test_a_revoked_key_stops_to_count_in_every_worker(guard, make, engine, monkeypatch):
    monkeypatch.setattr(auth, "EVERY", 0.02)
    text = make()
    workers = [guard() for _ in range(3)]

    async def until_refused(worker: Guard) -> None:
        following = asyncio.create_task(worker.follow())
        await worker.admit(bearer(text), "read")
        access.revoke_key(engine, access.split(text)[0], by="x", reason="y", now=datetime.now(UTC))
        async with asyncio.timeout(20):
            while True:
                try:
                    await worker.admit(bearer(text), "read")
                except UnauthorizedError:
                    break
                await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(until_refused(workers[0]))
    for worker in workers[1:]:
        worker._follow(forget=True)
        assert refused(worker, bearer(text)) == "the API key is revoked"


def test_many_unknown_keys_at_once_cost_one_reading(guard, engine, make):
    make()
    one, reads = guard(), []
    event.listen(engine, "before_cursor_execute", lambda *of: reads.append(of[2]))

    async def ask() -> list:
        asked = [one.admit(bearer(f"cm_{number:012x}_x"), "read") for number in range(50)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert {type(said) for said in asyncio.run(ask())} == {UnauthorizedError}
    assert len([statement for statement in reads if "api_key" in statement]) <= 2
    assert PAUSE > 0


def test_a_name_is_looked_up_once_and_found_when_it_comes_to_be(guard, engine, make, monkeypatch):
    make()
    one, reads = guard(), []
    monkeypatch.setattr(keys, "MOST_MISSING", 2)
    event.listen(engine, "before_cursor_execute", lambda *of: reads.append(of[2]))
    for number in (1, 1, 1, 2, 2, 3):
        refused(one, bearer(f"cm_{number}_x"))
    assert len([statement for statement in reads if "api_key" in statement]) == 3
    text = make("read")
    one._keys._missing.add(access.split(text)[0])
    refused(one, bearer(text))
    one._follow(forget=False)
    assert admit(one, bearer(text)).scopes == {"read"}


def test_keys_that_cannot_be_read_count_for_a_while(engine, make, monkeypatch):
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    text, clock = make(), Clock()
    guard = Guard(keys=Keys(engine, KEY, clock=clock))

    def fail(*_: object) -> None:
        raise OperationalError("", {}, Exception())

    event.listen(engine, "before_cursor_execute", fail)
    clock.now = TRUSTED - 1
    guard._follow(forget=False)
    assert admit(guard, bearer(text)).scopes == {"read"}
    clock.now = TRUSTED + 1
    assert refused(guard, bearer(text), error=UnavailableError) == "the API keys cannot be read"
    assert refused(guard, request(), error=UnavailableError)
    event.remove(engine, "before_cursor_execute", fail)
    guard._follow(forget=False)
    assert admit(guard, bearer(text)).scopes == {"read"}


def test_a_table_that_was_emptied_does_not_open_what_was_closed(guard, make, engine):
    make()
    one = guard()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM api_key")
    one._follow(forget=False)
    assert refused(one, request()) == "no key and no token"


def test_a_caller_may_send_so_many_requests_a_minute(guard, make):
    text, other = make(), make()
    one = guard(rate=3)
    for _ in range(3):
        admit(one, bearer(text))
    with pytest.raises(RateLimitedError) as raised:
        admit(one, bearer(text))
    assert raised.value.retry_after == 20
    admit(one, bearer(other))


def test_what_is_open_to_all_is_counted_by_peer(guard):
    one = guard(rate=1)
    admit(one, request(), None)
    refused(one, request(), None, RateLimitedError)
    admit(one, request(peer="10.0.0.8"), None)


def test_workers_share_the_limits(make, engine, tmp_path):
    text = make()
    workers = [
        Guard(keys=Keys(engine, KEY), limits=Limits(tmp_path / "limits"), rate=4) for _ in range(2)
    ]
    for number in range(4):
        admit(workers[number % 2], bearer(text))
    for worker in workers:
        refused(worker, bearer(text), error=RateLimitedError)
        worker.close()


def test_failures_of_a_peer_are_limited_and_its_good_key_still_works(guard, make, monkeypatch):
    monkeypatch.setattr(auth, "FAILURES", 3)
    text = make()
    one = guard()
    for _ in range(3):
        refused(one, bearer("cm_abc_x"))
    for bad in (bearer("cm_abc_x"), bearer(text[:-1]), request(), bearer("a.b.c")):
        refused(one, bad, error=RateLimitedError)
    assert admit(one, bearer(text)).scopes == {"read"}
    refused(one, bearer("cm_abc_x", peer="10.0.0.8"))


def test_a_rate_that_is_no_number_is_a_usage_error(monkeypatch):
    monkeypatch.delenv("CAREMODELS_RATE", raising=False)
    assert limits.rate() == limits.RATE
    for given, found in (("0", 0), ("12", 12), (" ", limits.RATE)):
        monkeypatch.setenv("CAREMODELS_RATE", given)
        assert limits.rate() == found
    for wrong in ("-1", "many", "1e3", "99999999999"):
        monkeypatch.setenv("CAREMODELS_RATE", wrong)
        with pytest.raises(UsageError, match="CAREMODELS_RATE"):
            limits.rate()


@pytest.fixture
def proxied(tmp_path):
    file = tmp_path / "issuers.toml"
    file.write_text('proxies = ["127.0.0.1"]\n')
    return Guard(reviewed=Reviewed(file))


def test_a_forwarded_address_is_believed_of_a_reviewed_proxy_alone(proxied):
    told = {"x_forwarded_for": "1.2.3.4, 10.0.0.7"}
    assert proxied.peer(request(**told)) == "10.0.0.7"
    assert proxied.peer(request(peer="10.0.0.9", **told)) == "10.0.0.9"
    assert Guard().peer(request(**told)) == "127.0.0.1"
    assert proxied.peer(request()) == "127.0.0.1"
    assert proxied.peer(request(x_forwarded_for=f"{CANARY}")) == "127.0.0.1"


def test_a_proxy_does_not_make_a_caller_one_of_this_machine(proxied):
    assert "only this machine" in refused(proxied, request(x_forwarded_for="127.0.0.1"))


def test_refused_calls_are_kept_without_what_the_caller_wrote(guard, make, engine):
    make()
    one = guard()
    key_id = access.split(make("outcome"))[0]
    for asked in (
        bearer(f"cm_{CANARY}_{CANARY}", path=f"/{CANARY}"),
        bearer(f"cm_{key_id}_{CANARY}"),
        bearer(f"{CANARY}.{CANARY}.{CANARY}", path=f"/cds-services/{CANARY}"),
        request(path=f"/{CANARY}"),
    ):
        with pytest.raises(UnauthorizedError) as raised:
            admit(one, asked)
        one.refused(asked, "/v1/{model}", raised.value)
    asked = bearer(make("outcome"))
    with pytest.raises(ForbiddenError) as raised:
        admit(one, asked)
    one.refused(asked, "/v1/{model}", raised.value)
    one.refused(asked, "/v1/{model}", ValueError(CANARY))
    one._follow(forget=False)
    with engine.connect() as connection:
        rows = [tuple(row)[2:] for row in connection.execute(select(refused_call))]
    assert [row[1] for row in rows] == [401, 401, 401, 401, 403]
    assert rows[0] == ("/v1/{model}", 401, "no such API key", None, "127.0.0.1")
    assert rows[-1][2] == "this needs the scope read"
    assert rows[-1][3].startswith("ward (")
    assert CANARY not in str(rows)
