"""Requests that are here at the same moment are scored together, and each answered as if alone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from data.errors import ContractError
from serving import batching
from serving.batching import Batcher
from serving.schema import read_predict
from serving.scorer import Ask, Receipt, Scorer


def request(*instances, **more):
    return read_predict(json.dumps({"instances": list(instances), **more}).encode())


def unlike(answered):
    """What an answer says, without what differs from one call to the next."""
    return [replace_id(prediction) for prediction in answered.predictions], [
        {k: v for k, v in record.items() if k not in ("prediction_id", "latency_ms")}
        for record in answered.records
    ]


def replace_id(prediction):
    fields = {name: getattr(prediction, name) for name in prediction.__struct_fields__}
    return {k: v for k, v in fields.items() if k != "prediction_id"}


@pytest.fixture
def requests(visit):
    """Requests of every kind: one, several, a child, one refused, other units, a site, few reasons."""
    return [
        request(visit),
        request({**visit, "age": 12}, {**visit, "sbp": 120}),
        request({**visit, "temperature": 98.6}, {**visit, "spo2": 55}),
        request({**visit, "temperature": 101.3}, units={"temperature": "[degF]"}, top=2),
        request({**visit, "colour": 3}),
        request(visit, context=[{"site": "county-01", "patient_id": "P1"}]),
        request({"age": 40}),
    ]


def test_together_as_alone_bit_for_bit(scorer, requests):
    receipt = Receipt.now()
    together = scorer.predict_all([Ask(request=one, receipt=receipt) for one in requests])
    alone = [scorer.predict(one, receipt) for one in requests]
    assert [unlike(answered) for answered in together] == [unlike(answered) for answered in alone]
    assert [answered.refused for answered in together] == [0, 0, 1, 0, 1, 0, 0]


def test_a_unit_that_cannot_be_fails_its_request_alone(scorer, visit):
    receipt = Receipt.now()
    wrong = request(visit, units={"sbp": "Cel"})
    fine, failed = scorer.predict_all(
        [Ask(request=request(visit), receipt=receipt), Ask(request=wrong, receipt=receipt)]
    )
    assert isinstance(failed, ContractError)
    assert failed.errors[0].field == "units.sbp"
    assert fine.predictions[0].risk == scorer.predict(request(visit), receipt).predictions[0].risk


def test_series_are_never_mixed(sepsis):
    scorer = Scorer(artifact=sepsis, version="1", key=b"0123456789abcdef")
    hours = [
        [{"icu_hour": hour, "heart_rate": 80 + 9 * hour, "lactate": 1.0 * step} for hour in range(1, 4)]
        for step in (1, 4)
    ]
    asked = [
        read_predict(
            json.dumps({"instances": rows, "context": [{"series_id": f"S{i}"}]}).encode(), series=True
        )
        for i, rows in enumerate(hours)
    ]
    receipt = Receipt.now()
    together = scorer.predict_all([Ask(request=one, receipt=receipt) for one in asked])
    assert [unlike(a) for a in together] == [unlike(scorer.predict(one, receipt)) for one in asked]


def test_what_is_here_at_once_is_one_call(scorer, visit, monkeypatch):
    sizes = []
    several = Scorer.predict_all

    def counted(self, asks):
        sizes.append(len(asks))
        return several(self, asks)

    monkeypatch.setattr(Scorer, "predict_all", counted)

    async def ask():
        batcher, receipt = Batcher(), Receipt.now()
        first = [batcher.score(scorer, request(visit), receipt) for _ in range(5)]
        other = replace(scorer, version="2")
        second = [batcher.score(other, request(visit), receipt) for _ in range(3)]
        return await asyncio.gather(*first, *second)

    answers = asyncio.run(ask())
    assert sizes == [5, 3]
    assert [a.records[0]["version"] for a in answers] == ["1"] * 5 + ["2"] * 3


def test_a_crowd_is_answered_in_several_calls_and_nobody_is_left_out(scorer, visit, monkeypatch):
    sizes = []
    several = Scorer.predict_all

    def counted(self, asks):
        sizes.append(len(asks))
        return several(self, asks)

    monkeypatch.setattr(Scorer, "predict_all", counted)
    monkeypatch.setattr(batching, "MOST", 4)

    async def ask():
        batcher, receipt = Batcher(), Receipt.now()
        return await asyncio.gather(*(batcher.score(scorer, request(visit), receipt) for _ in range(10)))

    assert len(asyncio.run(ask())) == 10
    assert sizes == [4, 4, 2]


def test_who_hung_up_is_not_answered_and_the_others_are(scorer, visit):
    async def ask():
        batcher, receipt = Batcher(), Receipt.now()
        tasks = [asyncio.create_task(batcher.score(scorer, request(visit), receipt)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, hung_up, last = asyncio.run(ask())
    assert isinstance(hung_up, asyncio.CancelledError)
    assert first.predictions[0].risk == last.predictions[0].risk


def test_a_failure_reaches_each_of_them(scorer, visit, monkeypatch):
    def fail(*_):
        raise ValueError

    monkeypatch.setattr(Scorer, "predict_all", fail)

    async def ask():
        batcher, receipt = Batcher(), Receipt.now()
        asked = [batcher.score(scorer, request(visit), receipt) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(error) for error in asyncio.run(ask())] == [ValueError] * 3
