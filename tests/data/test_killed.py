"""A load that is killed leaves the mart as it was, and the same command then completes it.

The process is a real one that runs the command; it stops by itself at the place to be tried, so that
the kill meets it there and not by luck.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.marts.ed_visit import MART
from data.simulate import simulate

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("duckdb", "postgresql", "spark")
KEY = "0123456789abcdef"

DRIVER = '''
"""DRIVER WHERE MARK COMMAND...: each command but the last runs; the last stops at WHERE."""
import hashlib, json, os, sys, time
from contextlib import contextmanager
from pathlib import Path

import caremodels
from data import source, store
from data.engine import collect
from data.marts.ed_visit import MART

where, mark, steps = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
last = False


def pause(here):
    if last and where == here:
        mark.touch()
        time.sleep(600)


batches, open_engine = source.batches, store.open_engine


def in_pieces(*arguments):
    for table in batches(*arguments):
        for start in range(0, len(table), 400):
            if start == 400:
                pause("reading")
            yield table.slice(start, 400)


@contextmanager
def watched(url, *, write=True):
    with open_engine(url, write=write) as engine:
        append = engine.append

        def appended(name, rows):
            append(name, rows)
            if name == "loads":
                pause("all written")

        engine.append = appended
        if hasattr(engine, "_files"):
            move = engine._files.move

            def moved(place, target):
                if target.startswith("loads"):
                    pause("all moved but the load")
                move(place, target)

            engine._files.move = moved
        yield engine


source.batches, store.open_engine = in_pieces, watched


def state():
    with store.open_store(os.environ["CAREMODELS_MARTS"], write=False) as marts:
        kept = marts.read(MART).to_pylist()
        refused = collect(marts.engine, marts.engine.table("ed_visit_refused")).to_pylist()
        loads = collect(marts.engine, marts.engine.table("loads")).drop_columns(["loaded_at"])
        found = [kept, sorted(map(repr, refused)), sorted(map(repr, loads.to_pylist()))]
        digest = hashlib.sha256(repr(found).encode()).hexdigest()
        return {"rows": len(kept), "tables": sorted(marts.engine.tables()), "digest": digest}


for number, step in enumerate(steps):
    last = number == len(steps) - 1
    if step == "state":
        print(json.dumps(state()), flush=True)
    else:
        query = str(Path(step).with_name("own.sql"))
        code = caremodels.main(["mart", "load", "ed_visit", "--sql", query, "--files", step, "--json"])
        if code:
            sys.exit(code)
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of visits of which the second repeats some of the first and has bad ones."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "own.sql").write_text("SELECT * FROM source", encoding="utf-8")
    (folder / "driver.py").write_text(DRIVER, encoding="utf-8")
    visits = simulate(visits=1_000, seed=5, first="2019-01", last="2021-12")
    bad = visits.slice(0, 9).set_column(
        visits.column_names.index("age"), "age", pa.nulls(9, pa.float64())
    )
    pq.write_table(visits.slice(0, 300), folder / "first.parquet")
    pq.write_table(pa.concat_tables([bad, visits.slice(250)]), folder / "second.parquet")
    assert visits.column_names == [column.name for column in MART.columns]
    return folder


@pytest.fixture(params=ENGINES)
def databases(request, tmp_path):
    """Two empty databases on one engine, each in turn."""
    with ExitStack() as stack:
        match request.param:
            case "duckdb":
                yield [f"duckdb://{tmp_path / name}.duckdb" for name in "ab"]
            case "postgresql":
                import psycopg

                server = request.getfixturevalue("postgres_server")
                names = [f"killed_{name}_{time.monotonic_ns()}" for name in "ab"]
                with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
                    for name in names:
                        connection.execute(f"CREATE DATABASE {name}")
                        stack.callback(connection.execute, f"DROP DATABASE {name} WITH (FORCE)")
                    yield [f"{server}/{name}" for name in names]
                    stack.close()
            case "spark":
                master = request.getfixturevalue("spark_master")
                yield [f"{master}{tmp_path / name}" for name in "ab"]


def until(reached, process):
    for _ in range(3_000):
        if reached():
            return
        assert process.poll() is None, "it ended before it came there"
        time.sleep(0.05)
    pytest.fail("it never came there")


def started(files, url, home, *words):
    environment = {
        **os.environ,
        "CAREMODELS_HOME": str(home),
        "CAREMODELS_MARTS": url,
        "CAREMODELS_KEY": KEY,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, str(files / "driver.py"), *map(str, words)],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def killed(files, url, home, place, how, *steps):
    """What the process said before it stopped at ``place`` and was ended by the signal ``how``."""
    mark = home / "mark"
    process = started(files, url, home, place, mark, *steps)
    until(mark.exists, process)
    if how is signal.SIGKILL:  # with all its children, as a machine that loses its power
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    out, err = process.communicate(timeout=60)
    mark.unlink()
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def test_a_load_that_is_killed_is_no_load_and_the_next_run_completes(databases, files, tmp_path):
    first, second = files / "first.parquet", files / "second.parquet"
    disturbed, calm = databases
    report, _, expected = lines(started(files, calm, tmp_path, "nowhere", "-", first, second, "state"))[
        -3:
    ]
    # On Spark each place takes a minute, and this one is the nearest to a load that counts.
    spark = calm.startswith("spark")
    places = ["all moved but the load"] if spark else ["reading", "all written"]
    before = None

    for place in places:
        steps = [second] if before else [first, "state", second]
        code, said, err = killed(files, disturbed, tmp_path, place, signal.SIGKILL, *steps)
        assert code == -signal.SIGKILL, err
        before = before or said[1]
        (after,) = lines(started(files, disturbed, tmp_path, "nowhere", "-", "state"))
        assert after == before, place

    assert report["kept"] == before["rows"] == 300
    done = lines(started(files, disturbed, tmp_path, "nowhere", "-", second, "state"))
    assert done[0] == {
        "load_id": done[0]["load_id"],
        "mart": "ed_visit",
        "read": 759,
        "kept": 700,
        "refused": 59,
        "reasons": {"age: required": 9, "visit_id: already in the mart": 50},
    }
    assert done[1] == expected
    assert not [path for path in tmp_path.rglob("*") if "loading" in str(path) and path.is_file()]


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 128 + signal.SIGINT), (signal.SIGTERM, None)])
def test_a_load_that_is_interrupted_is_no_load_and_says_no_traceback(
    databases, files, tmp_path, how, code
):
    if databases[0].startswith("spark"):
        pytest.skip("eight processes that each start Spark, for what the kill shows as well")
    first, second = files / "first.parquet", files / "second.parquet"
    ended, (_, before), err = killed(
        files, databases[0], tmp_path, "reading", how, first, "state", second
    )

    assert ended in ({code} if code else {-how, 128 + how})
    assert "Traceback" not in err
    after, done, complete = lines(
        started(files, databases[0], tmp_path, "nowhere", "-", "state", second, "state")
    )
    assert after == before
    assert (done["kept"], complete["rows"]) == (700, 1_000)
