"""A new key, while others write: everything opens before, during and after, and the old key goes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from data.errors import ConflictError
from data.log import rotate as module
from data.log.append import Answer, Entry, LogWriter, Replay, find_answer
from data.log.feedback import FeedbackRow, record_feedback
from data.log.read import opens, window
from data.log.rotate import IN_CLEAR, NO_KEY, keys_in_use, rotate
from data.log.schema import feedback, maintenance, prediction, writing
from data.log.seal import comment_of, load_keyring

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAIN = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}
SIGNED = {"now": NOON, "by": "dba", "reason": "yearly"}

SERVICE = """
import sys, threading, time
from datetime import datetime
from pathlib import Path
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring

noon = datetime(2026, 11, 23, 12)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
number = 0
with LogWriter(connect(sys.argv[1]), load_keyring(Path(sys.argv[2]))) as writer:
    while not stop.is_set():
        row = {"prediction_id": f"{sys.argv[3]}-{number:06}", "model": "m", "version": "1", "at": noon,
               "received_at": noon, "status": "scored", "inputs": f'{{"sbp": {number}}}'}
        writer.submit(Entry(predictions=(row,))).result()
        number += 1
        time.sleep(0.003)
        if number == 20:
            print("here", flush=True)
print(number)
"""


@pytest.fixture
def filled(log, keyring):
    """Inputs, a comment and a stored answer under the first key, and inputs of before sealing."""
    rows = tuple(
        {"prediction_id": f"p{number:03}", **PLAIN, "inputs": f"[{number}]"} for number in range(30)
    )
    answer = Answer(
        key_hash="k", body_hash="h", body=b'{"risk": 0.5}', created_at=NOON.replace(tzinfo=None)
    )
    with LogWriter(log, keyring) as writer:
        writer.submit(Entry(predictions=rows, answer=answer)).result()
    said = FeedbackRow(prediction_id="p000", outcome="accepted", occurred_at=NOON, comment="words")
    record_feedback(log, [said], NOON, keyring=keyring)
    with writing(log) as connection:
        old = {"prediction_id": "old", **PLAIN, "inputs": "[-1]"}
        connection.execute(insert(prediction), old)
    return keyring.newest


def inputs(log, keyring):
    found = window(log, keyring=keyring, model="m", start=NOON, end=NOON + HOUR)
    return dict(zip(found["prediction_id"].to_pylist(), found["inputs"].to_pylist(), strict=True))


def test_what_is_written_is_sealed_and_what_is_read_is_open(log, keyring, filled):
    assert inputs(log, keyring)["p007"] == "[7]"
    assert inputs(log, None)["p007"].startswith(f"s1.{filled}.")
    assert keys_in_use(log, keyring) == {filled: 32, IN_CLEAR: 1, NO_KEY: 0}
    with log.connect() as connection:
        raw = connection.exec_driver_sql("SELECT body FROM answer").scalar()
    assert b"risk" not in bytes(raw)
    assert find_answer(log, "k", keyring).body == b'{"risk": 0.5}'


def test_everything_comes_under_the_new_key_and_the_old_one_goes(
    log, keyring, filled, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_BATCH", 7)
    before = inputs(log, keyring)
    done = rotate(log, keyring, **SIGNED)
    assert (done.resealed, done.lost, done.retired) == (33, 0, (filled,))
    assert list(json.loads((tmp_path / "log-keys.json").read_text())) == [done.key]
    assert keys_in_use(log, keyring) == {done.key: 33, IN_CLEAR: 0, NO_KEY: 0}
    anew = load_keyring(tmp_path)
    assert inputs(log, anew) == before
    assert find_answer(log, "k", anew).body == b'{"risk": 0.5}'
    with log.connect() as connection:
        comment = connection.scalar(select(feedback.c.comment))
        [told] = connection.execute(select(maintenance)).all()
    assert anew.open(comment, bound_to=comment_of("p000")) == "words"
    assert (told.act, told.by, told.reason) == ("rotate-key", "dba", "yearly")
    assert json.loads(told.details)["resealed"] == 33


def test_a_row_that_no_key_opens_breaks_no_other_and_is_left_alone(log, keyring, filled, caplog):
    with writing(log) as connection:
        sealed = (
            select(prediction.c.inputs).where(prediction.c.prediction_id == "p001").scalar_subquery()
        )
        moved = update(prediction).where(prediction.c.prediction_id == "p002")
        connection.execute(moved.values(inputs=sealed))
        gone = update(prediction).where(prediction.c.prediction_id == "p003")
        connection.execute(gone.values(inputs="s1.nobody.AAAA"))
    found = inputs(log, keyring)
    assert (found["p001"], found["p002"], found["p003"], found["p004"]) == ("[1]", None, None, "[4]")
    assert "2 predictions of m have inputs that no key here opens" in caplog.text
    done = rotate(log, keyring, **SIGNED)
    assert (done.resealed, done.lost) == (31, 2)
    # The moved text still names the former key, which therefore stays.
    assert done.retired == ()
    assert keys_in_use(log, keyring) == {filled: 1, done.key: 31, IN_CLEAR: 0, NO_KEY: 1}


def test_an_answer_that_no_key_opens_is_a_conflict_and_not_given_anew(log, keyring, filled, tmp_path):
    (tmp_path / "log-keys.json").unlink()
    lost = load_keyring(tmp_path)
    again = Answer(key_hash="k", body_hash="h", body=b"{}", created_at=NOON.replace(tzinfo=None))
    with LogWriter(log, lost) as writer:
        refused = writer.submit(Entry(predictions=({"prediction_id": "x", **PLAIN},), answer=again))
        assert refused.exception().status == 409
    assert "x" not in inputs(log, lost)


def test_keys_from_outside_are_brought_in_and_taken_away_there(
    log, keyring, filled, tmp_path, monkeypatch
):
    old = json.loads((tmp_path / "log-keys.json").read_text())
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", json.dumps({**old, "new": "1c" * 32}))
    given = load_keyring(tmp_path)
    done = rotate(log, given, **SIGNED)
    assert (done.key, done.resealed, done.retired, done.unused) == ("new", 33, (), (filled,))
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", json.dumps({"new": "1c" * 32}))
    assert inputs(log, load_keyring(tmp_path))["p007"] == "[7]"


@pytest.mark.slow
def test_services_that_write_meanwhile_lose_nothing(
    log, log_url, keyring, filled, tmp_path, pytestconfig
):
    pipe = subprocess.PIPE
    services = [
        subprocess.Popen(
            [sys.executable, "-c", SERVICE, log_url, str(tmp_path), name],
            cwd=pytestconfig.rootpath,
            text=True,
            stdin=pipe,
            stdout=pipe,
        )
        for name in "ab"
    ]
    for service in services:
        assert service.stdout.readline() == "here\n"
    keys = [rotate(log, keyring, **SIGNED).key for _ in range(2)]
    written = {
        name: int(service.communicate("stop\n", timeout=60)[0])
        for name, service in zip("ab", services, strict=True)
    }
    anew = load_keyring(tmp_path)
    assert anew.ids == (keys[-1],)
    found = inputs(log, anew)
    for name, rows in written.items():
        assert rows > 20
        assert [found[f"{name}-{number:06}"] for number in range(rows)] == [
            f'{{"sbp": {number}}}' for number in range(rows)
        ]
    assert keys_in_use(log, anew)[NO_KEY] == 0


def test_of_rotations_at_once_one_runs_and_no_key_is_lost(log, keyring, filled, tmp_path):
    rings = [load_keyring(tmp_path) for _ in range(6)]
    before = inputs(log, keyring)
    together = threading.Barrier(6)

    def start(ring):
        together.wait()
        try:
            return rotate(log, ring, **SIGNED).key
        except ConflictError:
            return None

    with ThreadPoolExecutor(6) as pool:
        keys = [key for key in pool.map(start, rings) if key]
    assert keys
    anew = load_keyring(tmp_path)
    assert len(anew.ids) == 1
    assert anew.newest in keys
    assert inputs(log, anew) == before


def test_a_rotation_beside_another_is_refused(log, keyring, filled):
    with keyring.alone(), pytest.raises(ConflictError, match="another rotation"):
        rotate(log, keyring, **SIGNED)
    assert keyring.ids == (filled,)


def test_a_host_with_a_key_of_its_own_is_found_out(log, keyring, filled, tmp_path):
    assert opens(log, keyring)
    (tmp_path / "log-keys.json").unlink()
    stranger = load_keyring(tmp_path)
    with writing(log) as connection:
        connection.execute(delete(prediction).where(prediction.c.prediction_id == "old"))
        connection.execute(delete(feedback))
    assert not opens(log, stranger)
    with writing(log) as connection:
        connection.execute(delete(prediction))
    assert opens(log, stranger)


def test_the_same_key_is_replayed_after_the_rotation(log, keyring, filled):
    rotate(log, keyring, **SIGNED)
    again = Answer(key_hash="k", body_hash="h", body=b"{}", created_at=NOON.replace(tzinfo=None))
    with LogWriter(log, keyring) as writer:
        found = writer.submit(Entry(predictions=({"prediction_id": "x", **PLAIN},), answer=again))
        assert isinstance(found.result(), Replay)
        assert found.result().answer.body == b'{"risk": 0.5}'
