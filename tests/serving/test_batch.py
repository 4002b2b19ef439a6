"""A batch is answered as the service answers, on every engine, and goes on where it was stopped."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data.contract import check, sample
from data.errors import CaremodelsError, ConflictError, NotEnoughDataError, NotFoundError, UsageError
from data.home import Home
from data.marts.ed_visit import MART
from data.marts.inpatient_stay import MART as STAYS
from data.period import Period
from data.simulate import simulate
from data.source import Origin
from data.store import open_store
from models import artifact, release
from models.feature import show_cell
from serving.batch import blocks, parts, tables
from serving.batch import run as batch
from serving.schema import Context, PredictRequest
from serving.scorer import Receipt, Scorer

KEY = b"0123456789abcdef"
ALWAYS = Period.between(None, None)


ON_DUCKDB = "duckdb://{}/marts.duckdb"


@pytest.fixture(scope="session")
def narrow(tiny, tmp_path_factory) -> Path:
    """The tiny model, for demonstration, as if it had been trained when less was plausible.

    Two sites have a shift of their own.
    """
    highest = {"heart_rate": 100, "sbp": 140}
    columns = tuple(
        replace(column, high=highest.get(column.name, column.high)) for column in tiny.mart.columns
    )
    provenance = replace(tiny.manifest.provenance, use="demonstration", terms=("Not for care.",))
    folder = tmp_path_factory.mktemp("narrow") / "artifact"
    artifact.write(
        folder,
        replace(
            tiny,
            mart=replace(tiny.mart, columns=columns),
            calibration=replace(tiny.calibration, sites={"tertiary-01": -0.3, "clinic-02": 0.7}),
            manifest=replace(tiny.manifest, provenance=provenance),
        ),
        evidence={},
    )
    return folder


@pytest.fixture(scope="session")
def visits() -> pa.Table:
    return simulate(visits=600, seed=8, first="2020-01", last="2020-03")


def load(url: str, visits: pa.Table, load_id: str = "first") -> None:
    with open_store(url) as store:
        store.load(MART, [visits], Origin(load_id=load_id, source="own", use="care"), key=KEY)


@pytest.fixture
def released(home, narrow):
    release.publish(home.releases, narrow, model="ed_admission", version="7")
    release.point(home.releases, model="ed_admission", pointer="champion", version="7")
    return home


@pytest.fixture
def ready(released, visits):
    """A home with a champion and a mart on DuckDB."""
    load(released.marts, visits)
    return released


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    monkeypatch.setattr(batch, "EXPLAINED", 1)
    monkeypatch.setattr(parts, "GROUP", 64)


@pytest.fixture
def run(tmp_path):
    """Score into ``out.parquet``; what was said to a person is in ``said``."""

    def score(home, model="ed_admission", **more) -> batch.Counts:
        settings = {"version": None, "period": ALWAYS, "out": tmp_path / "out.parquet", "explain": False}
        return batch.score(home, model, **{**settings, "say": score.said.append, **more})

    score.said = []
    score.out = tmp_path / "out.parquet"
    score.parts = tmp_path / "out.parquet.parts"
    return score


@pytest.fixture
def wrote(monkeypatch) -> list[int]:
    """Numbers of the parts that were written."""
    numbers: list[int] = []
    write = parts.Parts.write

    def watched(self, number, rows, *, size):
        write(self, number, rows, size=size)
        numbers.append(number)

    monkeypatch.setattr(parts.Parts, "write", watched)
    return numbers


def stop_after(monkeypatch, count: int, error: BaseException) -> None:
    """Whoever writes one part more than ``count`` meets ``error`` in the middle of it."""
    synced = os.fsync
    left = [1 + count * 2]  # the plan's folder; each part and its folder

    def fsync(handle):
        if not left[0]:
            raise error
        left[0] -= 1
        synced(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_every_engine_writes_the_same_bytes(marts_url, released, visits, run, tmp_path, monkeypatch):
    reference = ON_DUCKDB.format(tmp_path / "reference")
    files = []
    for url in dict.fromkeys([reference, marts_url]):
        monkeypatch.setenv("CAREMODELS_MARTS", url)
        load(url, visits)
        counts = run(released, explain=True)
        assert counts.rows == 600
        assert min(counts.scored, counts.abstained, counts.refused) > 30
        files.append(run.out.read_bytes())
    assert len(set(files)) == 1


def test_each_row_is_answered_as_the_service_answers_it(ready, narrow, run):
    run(ready, explain=True)
    answers = parquet.read_table(run.out).to_pylist()
    with open_store(ready.marts, write=False) as store:
        stored = store.read(MART)
    scorer = Scorer(artifact=artifact.load(narrow), version="7", key=KEY)
    own = scorer.artifact.mart.columns
    rows = check(MART.columns, stored.drop_columns(["load_id"])).rows
    instances = [{c.name: show_cell(MART[c.name], rows[c.name][i]) for c in own} for i in range(600)]
    request = PredictRequest(
        instances=[msgspec.Raw(msgspec.json.encode(instance)) for instance in instances],
        context=[Context(site=site) for site in stored["site"].to_pylist()],
    )
    online = scorer.predict(request, Receipt.now()).predictions
    assert {type(prediction).__name__ for prediction in online} == {"Scored", "Abstained", "Refused"}
    names = ("visit_id", "site", "arrived_at")
    passed = (stored[name].to_pylist() for name in names)
    assert len({answer["base_value"] for answer in answers} - {None}) == 3
    for answer, prediction, *known in zip(answers, online, *passed, strict=True):
        said = dict(zip(names, known, strict=True)) | {"model": "ed_admission", "version": "7"}
        added = {name: v for name, v in answer.items() if name.startswith("contribution.")}
        said |= dict.fromkeys(("risk", "margin", "band", "base_value", *added))
        said |= {"status": prediction.__struct_config__.tag, "reasons": []}
        match said["status"]:
            case "refused":
                said["reasons"] = [f"{fault.field}: {fault.reason}" for fault in prediction.errors]
            case "abstained":
                said["reasons"] = [f"{why.field}: {why.reason}" for why in prediction.reasons]
            case "scored":
                explained = prediction.explanation
                said |= {"risk": prediction.risk, "band": prediction.band.id}
                said |= {"margin": answer["margin"], "base_value": explained.base_value}
                said |= {f"contribution.{c.feature}": c.contribution for c in explained.contributions}
                whole = answer["base_value"] + sum(added.values())
                assert whole == pytest.approx(answer["margin"], abs=1e-5)
                assert 1 / (1 + np.exp(-answer["margin"])) == pytest.approx(answer["risk"], abs=1e-15)
        assert answer == said


def test_reasons_name_fields_and_rules_and_no_value(ready, run):
    run(ready)
    table = parquet.read_table(run.out)
    reasons = {reason for row in table["reasons"].to_pylist() for reason in row}
    little = {reason for reason in reasons if reason.startswith("instance: too little was measured")}
    assert len(little) == 1
    assert reasons - little == {
        "age: under 18 years",
        "heart_rate: outside 20 to 100 /min",
        "sbp: outside 30 to 140 mm[Hg]",
    }
    assert max(len(row) for row in table["reasons"].to_pylist()) == 2


def test_an_explanation_changes_no_answer(ready, run):
    plain, explained = run(ready), parquet.read_table(run.out)
    assert run(ready, explain=True) == plain
    assert parquet.read_table(run.out).select(explained.column_names).equals(explained)
    assert not [name for name in explained.column_names if name.startswith("contribution.")]


@pytest.mark.slow
def test_the_file_holds_what_the_server_answers(served, visits, run, tmp_path, monkeypatch):
    monkeypatch.setenv("CAREMODELS_MARTS", ON_DUCKDB.format(tmp_path))
    home = Home(served.home)
    load(home.marts, visits)
    run(home, version="1")
    table = parquet.read_table(run.out)
    with open_store(home.marts, write=False) as store:
        stored = store.read(MART)
    own = artifact.load(home.releases / "ed_admission" / "1").mart.columns
    rows = check(MART.columns, stored.drop_columns(["load_id"])).rows
    instances = [{c.name: show_cell(MART[c.name], rows[c.name][i]) for c in own} for i in range(600)]
    answers = served.predict(*instances).json()["predictions"]
    assert [a.get("risk") for a in answers] == table["risk"].to_pylist()
    assert [a["status"] for a in answers] == table["status"].to_pylist()


def test_rows_stand_in_the_marts_order_and_only_those_of_the_period(ready, visits, run):
    counts = run(ready, period=Period.between("2020-02", "2020-02-10"))
    times = parquet.read_table(run.out)["arrived_at"].to_pylist()
    wanted = [t for t in visits["arrived_at"].to_pylist() if (t.month, t.day <= 10) == (2, True)]
    assert times == sorted(wanted)
    assert counts.rows == len(wanted) == counts.scored + counts.abstained + counts.refused


def test_the_file_says_what_made_it_and_that_it_is_not_for_care(ready, run):
    run(ready, period=Period.between("2020-01", "2020-02"))
    about = json.loads(parquet.read_schema(run.out).metadata[b"caremodels"])
    assert about["notice"] == {"en": "Demonstration, not for care.", "zh": "仅供演示，不得用于诊疗。"}
    assert about["terms"] == ["Not for care."]
    assert (about["model"], about["version"], about["mart"]) == ("ed_admission", "7", "ed_visit")
    assert (about["period"], about["loads"]) == (["2020-01-01", "2020-02-29"], ["first"])
    assert run.said == ["ed_admission 7: Demonstration, not for care."]


def test_a_model_for_care_has_no_notice(released, written, visits, run):
    load(released.marts, visits)
    release.publish(released.releases, written, model="ed_admission", version="8")
    run(released, version="8")
    assert b"notice" not in parquet.read_schema(run.out).metadata[b"caremodels"]
    assert run.said == []


KILLED = """
import sys, time
from pathlib import Path
from data.home import Home
from data.period import Period
from serving.batch import blocks, parts
from serving.batch import run as batch
blocks.BLOCK, parts.GROUP, batch.EXPLAINED = 100, 64, 1
batch.score(Home.from_env(), "ed_admission", version=None, period=Period.between(None, None),
            out=Path(sys.argv[1]), explain=True, stage=lambda name, done: time.sleep(0.1))
"""


def test_killed_in_the_middle_it_goes_on_after_the_finished_parts(ready, run, wrote):
    path = Path(ready.marts.removeprefix("duckdb://"))
    run(ready, explain=True)
    whole, mart = run.out.read_bytes(), path.read_bytes()
    run.out.unlink()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, run.out], cwd=Path(batch.__file__).parents[1]
    )
    try:
        until = time.monotonic() + 60
        while not (run.parts / "00002.parquet").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not run.out.exists()
    assert path.read_bytes() == mart
    finished = len(list(run.parts.glob("*.parquet")))
    wrote.clear()
    run(ready, explain=True)
    count = -(-600 // 100) + 1
    assert 3 <= finished < count
    assert wrote == list(range(finished, finished + len(wrote)))
    assert run.said[-1] == f"going on: {finished} of {finished + len(wrote)} parts are there"
    assert run.out.read_bytes() == whole
    assert not run.parts.exists()


def test_interrupted_it_says_how_to_go_on(ready, run, wrote, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(ready)
    assert run.said[-1].startswith("stopped; the finished parts are in ")
    run(ready)
    assert wrote == list(range(len(wrote)))
    assert parquet.read_metadata(run.out).num_rows == 600


def test_a_full_disk_is_said_and_keeps_what_is_there(ready, run, wrote, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(CaremodelsError, match=r"no room left beside .* goes on after them"):
            run(ready)
    assert not run.out.exists()
    run(ready)
    assert wrote == list(range(len(wrote)))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_part_that_is_cut_off_is_made_again(ready, run, wrote, monkeypatch, share):
    with monkeypatch.context() as patched:
        stop_after(patched, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(ready)
    part = run.parts / "00001.parquet"
    os.truncate(part, int(share * part.stat().st_size))
    wrote.clear()
    run(ready)
    assert wrote[:2] == [1, 3]
    assert parquet.read_metadata(run.out).num_rows == 600


@pytest.mark.parametrize("change", ["explain", "period", "version", "load"])
def test_under_another_plan_it_starts_anew(ready, written, run, wrote, monkeypatch, change):
    release.publish(ready.releases, written, model="ed_admission", version="8")
    with monkeypatch.context() as patched:
        stop_after(patched, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(ready)
    wrote.clear()
    run.said.clear()
    more = {"explain": {"explain": True}, "version": {"version": "8"}, "load": {}}
    more["period"] = {"period": Period.between(None, "2020-03-30")}
    if change == "load":
        load(ready.marts, simulate(visits=5, seed=9, first="2020-02", last="2020-02"), "second")
    run(ready, **more[change])
    assert wrote == list(range(len(wrote)))
    assert any("starting anew" in said for said in run.said)
    rows = parquet.read_metadata(run.out).num_rows
    assert rows == 605 if change == "load" else rows <= 600


def test_a_load_that_comes_meanwhile_is_left_out(ready):
    with open_store(ready.marts) as store:
        planned, loads = blocks.cut(store, MART, ALWAYS)
        late = simulate(visits=5, seed=9, first="2020-02", last="2020-02")
        store.load(MART, [late], Origin(load_id="late", source="own", use="care"), key=KEY)
        for block in planned:
            rows = blocks.within(store, MART, block, loads=loads, columns=["age"])
            assert sum(map(len, store.engine.batches(rows))) == block.rows


def test_a_second_run_into_the_same_file_is_refused(ready, run):
    run.parts.mkdir()
    handle = os.open(run.parts, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ConflictError, match="another run"):
        run(ready)
    os.close(handle)
    run(ready)


def test_only_a_result_of_its_own_is_replaced(ready, run, tmp_path):
    run(ready)
    run(ready)
    for name in ("notes.txt", "other.parquet"):
        other = tmp_path / name
        parquet.write_table(pa.table({"a": [1]}), other) if "other" in name else other.write_text("Mine")
        before = other.read_bytes()
        with pytest.raises(UsageError, match="no result of caremodels score"):
            run(ready, out=other)
        assert other.read_bytes() == before
    for out in (tmp_path, tmp_path / "nowhere" / "out.parquet"):
        with pytest.raises(UsageError, match="--out"):
            run(ready, out=out)


def test_what_cannot_be_scored(home, narrow, visits, run):
    with pytest.raises(NotFoundError, match="no model 'nothing'"):
        run(home, "nothing")
    with pytest.raises(NotFoundError, match="no version is released"):
        run(home)
    release.publish(home.releases, narrow, model="ed_admission", version="7")
    release.point(home.releases, model="ed_admission", pointer="champion", version="7")
    with pytest.raises(NotEnoughDataError, match="caremodels mart load"):
        run(home)
    load(home.marts, visits)
    with pytest.raises(NotEnoughDataError, match="no row in that period"):
        run(home, period=Period.between("2031-01", "2031-02"))
    assert not run.parts.exists()


@pytest.mark.slow
def test_a_version_that_is_only_registered_is_fetched(ready, tiny, written, run, tmp_path):
    from models import registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's modules warn of themselves
        evidence = tmp_path / "evidence"
        evidence.mkdir()
        new = registry.register(ready, tiny, written, params={}, metrics={}, evidence=evidence)
        assert run(ready, version=new.version).rows == 600
        with pytest.raises(NotFoundError, match="version 99 is not registered"):
            run(ready, version="99")


def test_rows_without_dates_are_cut_by_their_order(marts_url):
    stays = sample(STAYS, 500, seed=2)
    place = stays.column_names.index("discharged_at")
    stays = stays.set_column(place, STAYS.arrow_schema.field(place), pa.nulls(500, pa.timestamp("us")))
    with open_store(marts_url) as store:
        store.load(STAYS, [stays], Origin(load_id="x", source="own", use="care"), key=KEY)
        planned, loads = blocks.cut(store, STAYS, ALWAYS)
        assert [block.rows for block in planned] == [100] * 5
        read = [
            table["encounter_order"].to_pylist()
            for block in planned[1:3]
            for table in store.engine.batches(
                blocks.within(store, STAYS, block, loads=loads, columns=["encounter_order"])
            )
        ]
        assert list(chain(*read)) == list(range(101, 301))
        with pytest.raises(UsageError, match="holds no dates"):
            blocks.cut(store, STAYS, Period.between("2020-01", None))


def test_an_executor_loads_the_version_from_the_bytes_it_was_sent(narrow, visits, monkeypatch):
    answers = tables.Answers.of(narrow, version="7", mart=MART, explain=True, threads=2)
    rows = visits.select(answers.columns)
    here = answers(rows)
    monkeypatch.setattr(tables, "_LOADED", {})
    assert answers(rows).equals(here)
    assert answers(rows.slice(0, 0)).cast(answers.schema(MART)).num_rows == 0


def test_an_explanation_that_does_not_add_up_is_counted_and_its_row_says_so(ready, run, monkeypatch):
    monkeypatch.setattr(artifact, "ADDITIVITY", -1.0)
    monkeypatch.setattr(artifact, "_replay", lambda *_: None)
    counts = run(ready, explain=True)
    assert run.said[-1].startswith(f"{counts.scored} explanations do not add up")
    table = parquet.read_table(run.out)
    for status, reasons in zip(
        *(table[name].to_pylist() for name in ("status", "reasons")), strict=True
    ):
        assert (status == "scored") == (reasons == ["explanation: does not add up to the risk"])


def test_progress_tells_the_rows_and_never_goes_back(ready, run):
    heard = []
    run(ready, stage=lambda name, done: heard.append((name, done)))
    shares = [done for _, done in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "scored: 600 of 600 rows" in [name for name, _ in heard]
