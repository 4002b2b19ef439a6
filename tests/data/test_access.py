"""Keys, used tokens and refused calls in the log's database."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from data.errors import NotFoundError, UnavailableError, UsageError
from data.log import access
from data.log.schema import connect, refused_call

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = b"0123456789abcdef"
DAY = timedelta(days=1)


@pytest.fixture
def engine(log):
    return log


def make(engine, **given):
    given = {"name": "ward", "scopes": ["predict"], "by": "Dr Chen", "now": NOON} | given
    return access.create_key(engine, KEY, **given)


def test_a_key_is_kept_as_a_hash_and_its_secret_nowhere(engine, tmp_path):
    text, made = make(engine, scopes=["outcome", "predict"], sites=["b", "a"], expires_at=NOON + DAY)
    [found] = access.keys(engine)
    assert found == made
    key_id, secret = access.split(text)
    assert text.startswith("cm_")
    assert key_id == made.key_id
    assert len(secret) >= 43  # 256 bits, six a character
    assert found.digest == access.digest(KEY, key_id, secret)
    assert (found.scopes, found.sites) == ({"outcome", "predict"}, {"a", "b"})
    engine.dispose()
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()
    assert found.digest not in repr(found)


def test_the_digest_of_another_home_differs(engine):
    text, made = make(engine)
    assert access.digest(b"another key of 16", *access.split(text)) != made.digest


def test_no_two_keys_are_the_same(engine):
    texts = {make(engine)[0] for _ in range(20)}
    assert len(texts) == len({access.split(text)[1] for text in texts}) == 20
    assert len(access.keys(engine)) == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scopes": ["predict", "write"]}, "unknown scope 'write'"),
        ({"scopes": []}, "no scope"),
        ({"name": " "}, "--name"),
        ({"by": ""}, "--by"),
        ({"sites": [""]}, "--site"),
        ({"expires_at": NOON}, "--expires: is past"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(engine, given, said):
    with pytest.raises(UsageError, match=said):
        make(engine, **given)
    assert access.keys(engine) == ()


def test_a_key_ends_when_it_expires_or_is_revoked(engine):
    _, made = make(engine, expires_at=NOON + DAY)
    assert made.ended(NOON) is None
    assert made.ended(NOON + DAY) == "expired"
    ended = access.revoke_key(engine, made.key_id, by="Wang", reason="lost", now=NOON)
    assert ended.ended(NOON) == "revoked"
    assert access.keys(engine) == (ended,)


def test_who_revoked_a_key_first_and_why_is_kept(engine):
    _, made = make(engine)
    first = access.revoke_key(engine, made.key_id, by="Wang", reason="lost", now=NOON)
    again = access.revoke_key(engine, made.key_id, by="Li", reason="other", now=NOON + DAY)
    assert again == first
    assert (again.revoked_by, again.revoked_for) == ("Wang", "lost")
    with pytest.raises(NotFoundError):
        access.revoke_key(engine, "nobody", by="Wang", reason="lost", now=NOON)


def test_a_token_is_spent_once_by_all_who_try_at_once(engine, log_url):
    others = [connect(log_url) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        tries = [
            pool.submit(access.spend_token, which, "hash", NOON)
            for which in (engine, *others)
            for _ in range(4)
        ]
        assert sorted(one.result() for one in tries) == [False] * 15 + [True]
    for other in others:
        other.dispose()


def test_used_tokens_are_forgotten_when_they_expired(engine):
    access.spend_token(engine, "old", NOON)
    access.spend_token(engine, "new", NOON + DAY)
    access.forget_tokens(engine, NOON + DAY / 2)
    assert access.spend_token(engine, "old", NOON)
    assert not access.spend_token(engine, "new", NOON)


def test_refused_calls_are_kept(engine):
    row = access.Refusal(
        at=NOON, route="/v1/{model}", status=403, reason="scope", caller="ward", peer=None
    )
    access.record_refusals(engine, [row, row])
    access.record_refusals(engine, [])
    with engine.connect() as connection:
        rows = connection.execute(select(refused_call)).all()
    assert [tuple(found)[1:] for found in rows] == [
        (NOON.replace(tzinfo=None), "/v1/{model}", 403, "scope", "ward", None)
    ] * 2


def test_a_log_that_is_gone_is_unavailable(tmp_path):
    engine = connect(tmp_path / "log.db")
    (tmp_path / "log.db").unlink()
    for call in (
        lambda: access.keys(engine),
        lambda: access.spend_token(engine, "x", NOON),
        lambda: access.forget_tokens(engine, NOON),
    ):
        with pytest.raises(UnavailableError):
            call()
    with pytest.raises(sqlite3.OperationalError):  # and no new one was made
        sqlite3.connect(f"file:{tmp_path / 'log.db'}?mode=ro", uri=True).execute("SELECT 1")
    engine.dispose()
