"""The challenger answers the same requests, silently."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future

import pytest

from data.log.append import LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring
from models import release
from serving import shadow
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.schema import read_predict
from serving.scorer import Receipt, Scorer
from serving.shadow import Shadow

KEY = b"0123456789abcdef"


@pytest.fixture
def deployed(versions, tmp_path) -> Deployed:
    for version, pointer in (("1", "champion"), ("2", "challenger")):
        release.publish(tmp_path, versions[version], model="ed_admission", version=version)
        release.point(tmp_path, model="ed_admission", pointer=pointer, version=version)
    found = Deployed(releases=tmp_path, key=KEY, demo=True)
    found.refresh()
    return found


class Kept:
    """What a log was asked to keep."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def submit(self, entry):
        self.rows += entry.predictions
        done: Future[None] = Future()
        done.set_result(None)
        return done


def followed(deployed, visit, *, times=1, metrics=None):
    """The champion's records, and what the challenger left in the log."""
    champion, log, metrics = deployed["ed_admission"], Kept(), metrics or Metrics()
    request = read_predict(json.dumps({"instances": [visit, visit | {"age": 3}]}).encode())

    async def run():
        silent = Shadow(deployed, log, metrics)
        answered = champion.predict(request, Receipt.now())
        records = tuple(r | {"channel": "rest", "used": "answered"} for r in answered.records)
        for _ in range(times):
            silent.follow(champion, request, Receipt.now(), records)
        await silent.drain()
        return records

    return asyncio.run(run()), log.rows, metrics


def test_it_answers_each_instance_and_says_whose_shadow_it_is(deployed, visit):
    champion, rows, metrics = followed(deployed, visit)
    assert [row["shadow_of"] for row in rows] == [row["prediction_id"] for row in champion]
    assert [row["status"] for row in rows] == ["scored", "abstained"]
    assert {(row["version"], row["pointer"], row["used"]) for row in rows} == {
        ("2", "challenger", "silent")
    }
    assert rows[0]["risk"] > champion[0]["risk"]  # version 2 has a higher intercept
    assert not {row["prediction_id"] for row in rows} & {row["prediction_id"] for row in champion}
    assert b'fate="answered",model="ed_admission",version="2"} 1.0' in metrics.show()


def test_without_a_challenger_nothing_happens(deployed, visit):
    release.unpoint(deployed.releases, model="ed_admission", pointer="challenger")
    deployed.refresh()
    _, rows, _ = followed(deployed, visit)
    assert rows == []


def test_a_challenger_that_fails_is_counted_and_nobody_notices(deployed, visit, monkeypatch, caplog):
    champion = deployed["ed_admission"]
    plain = Scorer.predict

    def predict(self, *asked):
        if self is not champion:
            raise ValueError("ZQ-canary-7411")
        return plain(self, *asked)

    monkeypatch.setattr(Scorer, "predict", predict)
    _, rows, metrics = followed(deployed, visit)
    assert rows == []
    assert b'fate="failed",model="ed_admission",version="2"} 1.0' in metrics.show()
    assert "canary" not in caplog.text


def test_more_than_it_can_do_is_left_out_and_counted(deployed, visit, monkeypatch):
    monkeypatch.setattr(shadow, "MOST", 3)
    _, rows, metrics = followed(deployed, visit, times=5)
    assert len(rows) == 3 * 2
    assert b'fate="left out",model="ed_admission",version="2"} 2.0' in metrics.show()


def test_its_rows_fit_the_log(deployed, visit, tmp_path):
    engine = connect(tmp_path / "log.db")
    try:
        with LogWriter(engine, load_keyring(tmp_path)) as log:
            champion = deployed["ed_admission"]
            request = read_predict(json.dumps({"instances": [visit]}).encode())

            async def run():
                silent = Shadow(deployed, log, Metrics())
                answered = champion.predict(request, Receipt.now())
                records = tuple(r | {"channel": "fhir", "used": "answered"} for r in answered.records)
                silent.follow(champion, request, Receipt.now(), records)
                await silent.drain()

            asyncio.run(run())
        with engine.connect() as connection:
            kept = "SELECT version, pointer, used, channel, shadow_of FROM prediction"
            ((version, *how, of),) = connection.exec_driver_sql(kept).fetchall()
        assert (version, how) == ("2", ["challenger", "silent", "fhir"])
        assert of
    finally:
        engine.dispose()
