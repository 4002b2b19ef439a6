"""Whatever a file, a query or a database does, the command says in one line what is wrong with which.

Never a traceback, a cell's value or a password; and what the mart held before is still there.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from data.contract import Column, Mart, Text
from data.engine import open_engine
from data.errors import CaremodelsError, UsageError
from data.marts.ed_visit import MART as ED_VISIT
from data.pseudonym import keyed_hash
from data.simulate import simulate
from data.source import Origin
from data.store import Slice, open_store

ROOT = Path(__file__).resolve().parents[2]
KEY = b"0123456789abcdef"
CANARY = "canary-8c41"
EVERY = "SELECT * FROM source"
OF_AGE = "SELECT * REPLACE ({} AS age) FROM source"

# One process for many commands: each would take seconds to start.
COMMANDS = """
import contextlib, io, json, os, sys, traceback
import caremodels

for words, settings in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(settings)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = caremodels.main(words)
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
            code = -1
    os.environ.clear()
    os.environ.update(before)
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}))
"""


def environment(folder, **more):
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CAREMODELS_HOME": str(folder / "home"),
        "CAREMODELS_KEY": KEY.decode(),
        **more,
    }


def answers(folder, commands):
    """What each of the command lines, with settings of its own, ended with and said."""
    asked = [
        ([str(word).replace("HERE", str(folder)) for word in words], settings)
        for words, settings in commands
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(asked),
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def hold(folder, cases):
    """Each case (words, settings, code, text) answers so, between two looks at an untouched mart."""
    look = (["mart", "check", "ed_visit", "--max-refused", "1", "--json"], {})
    found = answers(folder, [look, *((words, settings) for words, settings, *_ in cases), look])
    for (words, _, code, says), answer in zip(cases, found[1:-1], strict=True):
        assert answer["code"] == code, (words, answer)
        assert says in answer["err"], (words, answer)
        assert len(answer["err"].splitlines()) == 1, (words, answer)
        assert "Traceback" not in answer["err"]
        assert CANARY not in answer["err"] + answer["out"], words
    assert found[0]["code"] == 0
    assert json.loads(found[0]["out"])["kept"] == 50
    assert found[0] == found[-1]


def files(name):
    return ["mart", "load", "ed_visit", "--sql", "HERE/own.sql", "--files", f"HERE/{name}", "--json"]


def query(name):
    return ["mart", "load", "ed_visit", "--sql", f"HERE/{name}.sql", "--files", "HERE/good.parquet"]


def database(url):
    return ["mart", "load", "ed_visit", "--sql", "HERE/own.sql", "--from", url]


@pytest.fixture
def folder(tmp_path):
    """Fifty good visits in a file and in the mart."""
    visits = simulate(visits=50, seed=5, first="2019-01", last="2021-12")
    pq.write_table(visits, tmp_path / "good.parquet")
    (tmp_path / "own.sql").write_text(EVERY, encoding="utf-8")
    with open_store(f"duckdb://{tmp_path / 'home' / 'marts.duckdb'}") as store:
        store.load(ED_VISIT, [visits], Origin(load_id="before", source="own", use="care"), key=KEY)
    return tmp_path


@pytest.mark.slow
def test_files_that_are_not_what_they_say(folder):
    good = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(good[:-500])
    (folder / "hole.parquet").write_bytes(good[:2000] + b"\xff" * 3000 + good[5000:])
    (folder / "empty.parquet").write_bytes(b"")
    pc.write_csv(pq.read_table(folder / "good.parquet"), folder / "latin.csv")
    text = (folder / "latin.csv").read_bytes()
    (folder / "latin.csv").write_bytes(text.replace(b"male", "m\xe2le".encode("latin1")))
    (folder / "empty.csv").write_bytes(b"")
    (folder / "folder").mkdir()
    hold(
        folder,
        [
            (files("cut.parquet"), {}, 1, "cut.parquet cannot be read as Parquet"),
            (files("hole.parquet"), {}, 1, "source own: the query failed over these files"),
            (files("empty.parquet"), {}, 1, "empty.parquet cannot be read as Parquet"),
            (files("latin.csv"), {}, 1, "latin.csv cannot be read as CSV"),
            (files("empty.csv"), {}, 1, "column missing: visit_id"),
            (files("none*"), {}, 1, "no file matches"),
            (files("folder"), {}, 1, "no file in "),
            (files("own.sql"), {}, 2, "files must be all of one kind"),
            (query("gone"), {}, 2, "gone.sql as SQL text: FileNotFoundError"),
        ],
    )


@pytest.mark.slow
def test_queries_that_do_not_fit(folder):
    queries = {
        "type": OF_AGE.format(f"'{CANARY}'"),
        "cast": OF_AGE.format(f"CAST('{CANARY}' || visit_id AS DOUBLE)"),
        "missing": "SELECT * EXCLUDE (age) FROM source",
        "extra": "SELECT *, 1 AS wait FROM source",
        "twice": "SELECT *, age FROM source",
        "syntax": f"SELEC * FROM source WHERE site = '{CANARY}'",
        "unknown": f"SELECT nosuch FROM source WHERE site = '{CANARY}'",
        "nothing": "",
        "makes": "CREATE TABLE x AS SELECT 1",
        "refused": OF_AGE.format("999.0"),
    }
    for name, sql in queries.items():
        (folder / f"{name}.sql").write_text(sql, encoding="utf-8")
    (folder / "latin.sql").write_bytes("SELECT 'é'".encode("latin1"))
    hold(
        folder,
        [
            (query("type"), {}, 1, "column age: expected number, found string"),
            (query("cast"), {}, 1, "source cast: the query failed over these files (ConversionError)"),
            (query("missing"), {}, 1, "column missing: age"),
            (query("extra"), {}, 1, "does not declare: wait"),
            (query("twice"), {}, 1, "column that stands twice: age"),
            (query("syntax"), {}, 1, 'source syntax: Parser Error: syntax error at or near "SELEC"'),
            (query("unknown"), {}, 1, 'Referenced column "nosuch" not found'),
            (query("nothing"), {}, 1, "the query gives no rows: write one SELECT"),
            (query("makes"), {}, 1, "the query gives no rows: write one SELECT"),
            (query("latin"), {}, 2, "latin.sql as SQL text: UnicodeDecodeError"),
        ],
    )
    (answer, checked) = answers(
        folder, [(query("refused"), {}), (["mart", "check", "ed_visit", "--json"], {})]
    )
    assert answer["code"] == 1
    assert answer["err"] == "caremodels: every row was refused\n"
    assert "refused: 50" in answer["out"]
    assert checked["code"] == 3
    assert checked["err"] == "caremodels: 50.0% of the rows were refused\n"
    assert json.loads(checked["out"])["reasons"] == {"age: outside 0 to 120 a": 50}


@pytest.mark.slow
def test_databases_that_are_not_there(folder):
    known = "known: duckdb://FILE, postgresql://HOST/DATABASE, spark://HOST:PORT/FOLDER"
    secret = f"u:{CANARY}"

    def marts(url):
        return {"CAREMODELS_MARTS": url}

    good = files("good.parquet")
    cases = [
        (database(f"mysql://{secret}@h/x"), {}, 2, f"no engine for mysql://; {known}"),
        (database(CANARY), {}, 2, f"no engine for that://; {known}"),
        (database(f"postgresql://u:7{CANARY}/x@h/x"), {}, 2, "a password are percent-encoded"),
        (database(f"postgresql://{secret}@[h/x"), {}, 2, "a password are percent-encoded"),
        (database(f"postgresql://{secret}@h:99999/x"), {}, 2, "a password are percent-encoded"),
        (database("spark://127.0.0.1/x"), {}, 2, "master, port and folder are needed"),
        (database("duckdb://"), {}, 2, "the file is missing"),
        (database("duckdb://HERE/none.db"), {}, 4, "there are no marts at"),
        (database("duckdb://HERE/home/marts.duckdb"), {}, 1, "this command has it open already"),
        (good, marts(f"oracle://{secret}@h/x"), 2, f"no engine for oracle://; {known}"),
        (good, marts("duckdb:///dev/null/x"), 1, "/dev/null"),
        (["mart", "check", "nope"], {}, 1, "no mart 'nope'; known: ed_visit"),
    ]
    for engine, says in {
        "psycopg": (
            f"postgresql://{secret}@127.0.0.1:1/x",
            "postgresql://127.0.0.1:1/x cannot be reached",
        ),
        "pyspark": ("spark://127.0.0.1:1/x", "the Spark master 127.0.0.1:1 cannot be reached"),
    }.items():
        pytest.importorskip(engine)
        cases.append((database(says[0]), {}, 1, says[1]))
        cases.append((good, marts(says[0]), 1, says[1]))
    hold(folder, cases)


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_the_mart_as_it_was(folder):
    many = simulate(visits=5_000, seed=6, first="2019-01", last="2021-12")
    pq.write_table(many, folder / "many.parquet")

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    command = [sys.executable, "-m", "caremodels", *files("many.parquet")]
    command = [word.replace("HERE", str(folder)) for word in command]
    full, roomy = (
        subprocess.run(
            command,
            env=environment(folder, TMPDIR=str(folder)),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
        )
        for limit in (small_disk, None)
    )

    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr == "caremodels: the marts cannot be written: the disk is full\n"
    assert json.loads(roomy.stdout)["kept"] == 5_000
    with open_store(f"duckdb://{folder / 'home' / 'marts.duckdb'}", write=False) as store:
        assert len(store.read(ED_VISIT)) == 5_050


@pytest.mark.slow
def test_a_mart_that_another_process_holds_and_a_home_that_cannot_be_written(folder):
    with duckdb.connect(folder / "home" / "marts.duckdb"):
        held = answers(folder, [(files("good.parquet"), {}), (["mart", "check", "ed_visit"], {})])
    for answer in held:
        assert answer["code"] == 1
        assert answer["err"].endswith("cannot be opened: another process has it open\n")
    (folder / "file").write_text("", encoding="utf-8")
    (answer,) = answers(folder, [(files("good.parquet"), {"CAREMODELS_HOME": str(folder / "file")})])
    assert answer["code"] == 1
    assert len(answer["err"].splitlines()) == 1
    assert str(folder / "file") in answer["err"]


def test_a_query_over_a_database_may_not_write(postgres_url):
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("CREATE TABLE visit (age int)")
        server.execute("INSERT INTO visit VALUES (71)")
        writes = (
            "INSERT INTO visit VALUES (1) RETURNING age",
            "SELECT 1; DELETE FROM visit",
            "WITH gone AS (DELETE FROM visit RETURNING age) SELECT * FROM gone",
            "DROP TABLE visit",
            "SELECT 1) AS asked LIMIT 0; DELETE FROM visit; SELECT * FROM (SELECT 1",
            "SET default_transaction_read_only = off",
            f"SELECT CAST('{CANARY}' AS int)",
        )
        for sql in writes:
            with open_engine(postgres_url, write=False) as engine:
                with pytest.raises(CaremodelsError) as caught:
                    list(engine.rows(sql))
                assert CANARY not in str(caught.value)
                assert engine.rows("SELECT age FROM visit").__next__().to_pydict() == {"age": [71]}


@pytest.mark.parametrize(
    ("module", "blocked", "extra"),
    [("postgres", "psycopg", "postgres"), ("spark", "pyspark", "spark")],
)
def test_an_extra_that_is_not_installed_is_named(monkeypatch, module, blocked, extra):
    monkeypatch.delitem(sys.modules, f"data.engine.{module}", raising=False)
    for name in [name for name in sys.modules if name == blocked or name.startswith(f"{blocked}.")]:
        monkeypatch.delitem(sys.modules, name)

    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] == blocked:
                raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(sys, "meta_path", [Blocker(), *sys.meta_path])
    url = {"postgres": "postgresql://h/x", "spark": "spark://h:1/x"}[module]
    with pytest.raises(UsageError, match=rf"pip install 'caremodels\[{extra}\]'"):
        open_engine(url).__enter__()


def column(name: str, kind: str, role: str = "input", **more: object) -> Column:
    return Column(name=name, kind=kind, role=role, available="arrival", label=Text("", ""), **more)


ODD = Mart(
    name="odd",
    row=Text("", ""),
    key=("visit",),
    encounter="visit",
    patient="patient",
    site="site",
    time="at",
    columns=(
        column("visit", "text", "id", identity="encounter", required=True),
        column("patient", "text", "id", identity="patient"),
        column("site", "text", "id"),
        column("at", "time", "id"),
        column("amount", "number"),
        column("count", "integer"),
        column("note", "text", "audit"),
    ),
)
VALUES = {
    "note": [
        *("", " ", None, "x" * 1_000_000, "😀👩‍⚕️", "中文", "\u202e\ufeff", "e\u0301"),
        *("a'b\"c\\d", ",", '""', "\\N", "\\.", "NULL", "line\nline\r\nline\tline", "\r", "\n"),
    ],
    "amount": [
        *(0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1e-300, 1e22, None),
        *(0.1 + 0.2, 1 / 3, 123456789.123456789, 9007199254740993.0),
    ],
    "count": [0, -1, 2**53 - 1, -(2**53), None],
    "at": [
        datetime(1, 1, 1),  # noqa: DTZ001
        datetime(9999, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
        datetime(1582, 10, 10),  # noqa: DTZ001 a day that the calendar passed over
        datetime(1969, 12, 31, 23, 59, 59, 5),  # noqa: DTZ001
        datetime(2021, 3, 28, 2, 30),  # noqa: DTZ001 an hour that summer time passed over
    ],
}


def odd(name: str, values: list[object]) -> pa.Table:
    rows = [
        {"visit": f"{name}{number}", "site": "a", "at": datetime(2021, 1, 1), name: value}  # noqa: DTZ001
        for number, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=ODD.arrow_schema)


def test_every_engine_gives_back_what_it_was_given_to_the_bit(marts_url):
    infinite = odd("amount", [float("inf"), float("-inf"), float("nan")])
    with open_store(marts_url) as store:
        tables = [odd(name, values) for name, values in VALUES.items()]
        report = store.load(
            ODD, [*tables, infinite], Origin(load_id="one", source="own", use="care"), key=KEY
        )
        found = {row["visit"]: row for row in store.read(ODD, Slice(loads=["one"])).to_pylist()}

    assert report.reasons == {"amount: not a number": 3}
    for name, values in VALUES.items():
        for number, value in enumerate(values):
            row = found[keyed_hash(KEY, f"{name}{number}", kind="encounter")]
            assert repr(row[name]) == repr(value)  # in which -0.0 is not 0.0


def test_a_nul_character_refuses_its_row_on_every_engine(tmp_path):
    with open_store(f"duckdb://{tmp_path / 'marts.duckdb'}") as store:
        report = store.load(
            ODD, [odd("note", ["a\0b", "ok"])], Origin(load_id="one", source="own", use="care"), key=KEY
        )
    assert report.reasons == {"note: holds a NUL character": 1}
