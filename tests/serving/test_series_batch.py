"""A mart of series is answered hour by hour as the service answers, wherever it is cut."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from data.contract import check
from data.engine.embedded import Embedded
from data.errors import NotEnoughDataError, UsageError
from data.marts.icu_hour import MART
from data.period import Period
from data.source import Origin
from data.store import open_store
from models import artifact, release
from models.feature import show_cell
from serving.answers import Refused, Scored
from serving.batch import blocks, parts, tables
from serving.batch import run as batch
from serving.schema import Context, PredictRequest
from serving.scorer import Receipt, Scorer

KEY = b"0123456789abcdef"
ALWAYS = Period.between(None, None)
STAYS = 25
PERIOD = Period.between("2024-01-05", "2024-01-06")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 60)
    monkeypatch.setattr(batch, "EXPLAINED", 1)
    monkeypatch.setattr(parts, "GROUP", 64)


@pytest.fixture(scope="session")
def local(sepsis) -> artifact.Artifact:
    """The version with a shift for each of some sites, and a contract in which less is plausible."""
    columns = tuple(
        replace(column, high=6.0) if column.name == "lactate" else column
        for column in sepsis.mart.columns
    )
    line = replace(sepsis.calibration, sites={f"site-{number}": number / 50 for number in range(25)})
    return replace(sepsis, calibration=line, mart=replace(sepsis.mart, columns=columns))


@pytest.fixture
def released(home, local, tmp_path):
    artifact.write(tmp_path / "artifact", local, evidence={})
    release.publish(home.releases, tmp_path / "artifact", model="sepsis", version="7")
    release.point(home.releases, model="sepsis", pointer="champion", version="7")
    return home


@pytest.fixture
def charted(hours) -> pa.Table:
    return hours(STAYS, 8)


def load(url: str, rows: pa.Table, load_id: str = "first") -> None:
    with open_store(url) as store:
        store.load(MART, [rows], Origin(load_id=load_id, source="own", use="care"), key=KEY)


@pytest.fixture
def run(tmp_path):
    def score(home, **more) -> batch.Counts:
        settings = {"version": None, "period": ALWAYS, "out": score.out, "explain": True}
        return batch.score(home, "sepsis", **{**settings, "say": score.said.append, **more})

    score.said = []
    score.out = tmp_path / "out.parquet"
    return score


def online(loaded, stored: pa.Table) -> list[tuple[Scored | Refused, int]]:
    """What the service answers to each hour, sent after those that it looks back on; its place there."""
    scorer = Scorer(artifact=loaded, version="7", key=KEY)
    own = MART.select([column.name for column in loaded.mart.columns])
    rows = check(own, stored.select([column.name for column in own])).rows
    shown = [{c.name: show_cell(c, rows[c.name][i]) for c in own} for i in range(len(stored))]
    stay, site = (stored[name].to_pylist() for name in ("stay_id", "site"))
    answers = []
    for _, group in groupby(range(len(stored)), key=stay.__getitem__):
        mine = list(group)
        for last in mine:
            now = shown[last]["icu_hour"]
            sent = [shown[i] for i in mine if now - loaded.spec.lookback < shown[i]["icu_hour"] <= now]
            raw = [msgspec.Raw(msgspec.json.encode(row)) for row in sent]
            context = [Context(series_id=stay[last], site=site[last])]
            request = PredictRequest(instances=raw, context=context)
            [answer] = scorer.predict(request, Receipt.now()).predictions
            answers.append((answer, len(sent) - 1))
    return answers


def test_every_hour_is_answered_as_the_service_answers_it(
    marts_url, released, local, charted, run, monkeypatch
):
    monkeypatch.setenv("CAREMODELS_MARTS", marts_url)
    load(marts_url, charted)
    counts = run(released)
    with open_store(marts_url, write=False) as store:
        stored = store.read(MART)
        planned, _ = blocks.cut_series(store, MART, ALWAYS)
    assert len(planned) > 3
    found = parquet.read_table(run.out)
    assert found.select(["stay_id", "icu_hour"]).equals(stored.select(["stay_id", "icu_hour"]))
    assert counts.rows == len(charted)
    assert min(counts.scored, counts.refused) > 30
    names = [feature.name for feature in local.features.features]
    for row, (answer, last) in zip(found.to_pylist(), online(local, stored), strict=True):
        if isinstance(answer, Refused):
            own = [f"{f.field}: {f.reason}" for f in answer.errors if f.instance == last]
            assert (row["status"], row["risk"]) == ("refused", None)
            assert row["reasons"] == (own or [tables.BROKEN])
            continue
        assert (row["status"], row["reasons"]) == ("scored", [])
        assert (row["risk"], row["band"]) == (answer.risk, answer.band.id)
        assert row["base_value"] == answer.explanation.base_value
        added = {c.feature: c.contribution for c in answer.explanation.contributions}
        assert {name: row[f"contribution.{name}"] for name in names} == added


@pytest.fixture
def cut_small(monkeypatch):
    """DuckDB hands out seven rows at a time, in the middle of most stays."""
    whole = Embedded.batches

    def batches(self, rows):
        for table in whole(self, rows):
            for start in range(0, max(len(table), 1), 7):
                yield table.slice(start, 7)

    monkeypatch.setattr(Embedded, "batches", batches)


def test_a_batch_that_ends_within_a_stay_changes_nothing(released, charted, run, request):
    load(released.marts, charted)
    run(released)
    whole = run.out.read_bytes()
    request.getfixturevalue("cut_small")
    run(released)
    assert run.out.read_bytes() == whole


@pytest.mark.parametrize("loads", [1, 2])
def test_hours_before_the_period_are_looked_back_on_and_not_answered(released, charted, run, loads):
    early = pc.less(charted["charted_at"], PERIOD.start)
    if loads == 1:
        load(released.marts, charted)
    else:  # what is looked back on came with another load
        load(released.marts, charted.filter(early), "early")
        load(released.marts, charted.filter(pc.invert(early)), "late")
    run(released)
    whole = parquet.read_table(run.out).to_pylist()
    counts = run(released, period=PERIOD)
    some = parquet.read_table(run.out).to_pylist()
    asked = [row for row in whole if PERIOD.start <= row["charted_at"] < PERIOD.end]
    assert some == asked
    assert counts.rows == len(asked)
    running = {row["stay_id"] for row in whole if row["charted_at"] < PERIOD.start}
    assert {row["stay_id"] for row in asked} & running


def test_a_mart_without_dates_is_scored_whole(released, charted, run):
    load(released.marts, charted)
    run(released)
    dated = parquet.read_table(run.out).drop_columns(["charted_at"])
    with open_store(released.marts) as store:
        store.engine._db.raw_sql("UPDATE icu_hour SET charted_at = NULL")
    run(released)
    assert parquet.read_table(run.out).drop_columns(["charted_at"]).equals(dated)
    with pytest.raises(UsageError, match="holds no dates"):
        run(released, period=Period.between("2024-01", None))


def test_a_period_without_hours_is_said(released, charted, run):
    load(released.marts, charted)
    with pytest.raises(NotEnoughDataError, match="no row in that period"):
        run(released, period=Period.between("2031-01", None))


def test_blocks_hold_whole_stays_and_each_row_once(released, charted):
    load(released.marts, charted)
    seen = []
    with open_store(released.marts, write=False) as store:
        planned, loads = blocks.cut_series(store, MART, ALWAYS)
        for block in planned:
            names = ["stay_id", "icu_hour"]
            asked = blocks.within_series(store, MART, block, ALWAYS, loads=loads, columns=names)
            rows = pa.concat_tables(asked).to_pylist()
            assert len(rows) == block.rows
            seen.append({row["stay_id"] for row in rows})
    assert sum(map(len, seen)) == len(set().union(*seen)) == STAYS


def test_an_hour_is_refused_as_long_as_it_is_looked_back_on(released, local, charted, run):
    load(released.marts, charted)
    run(released)
    rows = parquet.read_table(run.out).to_pylist()
    for _, group in groupby(rows, key=lambda row: row["stay_id"]):
        bad = -np.inf
        for row in group:
            if row["reasons"] not in ([], [tables.BROKEN]):
                bad = row["icu_hour"]
            assert (row["status"] == "refused") == (row["icu_hour"] - bad < local.spec.lookback)
