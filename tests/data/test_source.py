"""From files to rows: whatever a file turns out to be, the error names it and repeats no value."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import source
from data.errors import CaremodelsError, ContractError, NotFoundError, UsageError

CANARY = "canary-8c41"


@pytest.fixture
def visits(tmp_path):
    """Two rows as Parquet."""
    file = tmp_path / "visits.parquet"
    pq.write_table(pa.table({"age": [71, 34], "note": [CANARY, "b"]}), file)
    return file


@pytest.fixture
def query(tmp_path):
    """A source from the text of a query."""

    def make(sql: str) -> source.Source:
        file = tmp_path / "own.sql"
        file.write_bytes(sql.encode() if isinstance(sql, str) else sql)
        return source.from_file(file)

    return make


def refused(kind, match, call, *arguments):
    """The error's text holds what it must and not the value."""
    with pytest.raises(CaremodelsError, match=match) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_known_sources_load_and_an_unknown_one_is_told_them():
    assert "nhamcs_ed" in source.known()
    for name in source.known():
        assert source.load(name).name == name
    refused(NotFoundError, "no source 'mimic'; known: .*nhamcs_ed", source.load, "mimic")


@pytest.mark.parametrize(
    ("head", "use"),
    [
        ("-- use: care", "care"),
        ("-- use: demonstration", "demonstration"),
        ("-- mart: ed_visit\n-- use: demonstration", "demonstration"),
        ("\n-- use: demonstration\r", "demonstration"),
        ("-- Use: Demonstration  ", "demonstration"),
        ("--use:demonstration", "demonstration"),
        ("\ufeff-- use: demonstration", "demonstration"),
        ("SELECT 1; -- no head\n-- use: demonstration", "demonstration"),
        ("-- the terms of use: ask", "care"),
        ("", "care"),
    ],
)
def test_the_head_says_what_the_rows_may_be_used_for(query, head, use):
    assert query(f"{head}\nSELECT 1 AS age").use == use


def test_a_remark_inside_the_query_changes_no_terms(query):
    own = query(
        "-- use: demonstration\n-- terms: ask first\nSELECT 1\n-- use: care\n-- terms: none\n AS age"
    )
    assert (own.use, own.terms, own.attribution) == ("demonstration", "ask first", "")


def test_an_unknown_use_is_refused(query):
    refused(
        UsageError, "own.sql: use is care or demonstration, found 'research'", query, "-- use: research"
    )


def test_a_query_that_cannot_be_read(query, tmp_path):
    refused(UsageError, "cannot read .*none.sql", source.from_file, tmp_path / "none.sql")
    refused(UsageError, "as SQL text: UnicodeDecodeError", query, b"-- \xff\xfe\nSELECT 1")
    refused(UsageError, "as SQL text: IsADirectoryError", source.from_file, tmp_path)


def test_no_file_matches(tmp_path):
    pattern = str(tmp_path / "*.parquet")
    refused(NotFoundError, "no file matches", source.find, pattern)


def test_files_are_found_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "c.parquet"):
        (tmp_path / name).touch()
    assert [file.name for file in source.find(str(tmp_path / "*.csv"))] == ["a.csv", "b.csv"]


def test_a_file_of_text_that_calls_itself_parquet(query, tmp_path):
    file = tmp_path / "visits.parquet"
    file.write_text(f"age,note\n71,{CANARY}\n")
    refused(
        ContractError, "visits.parquet cannot be read as Parquet", source.read, query("SELECT 1"), [file]
    )


@pytest.mark.parametrize("left", [0, 3, 100, -8])
def test_a_truncated_parquet_file_is_named_among_whole_ones(query, visits, tmp_path, left):
    short = tmp_path / "short.parquet"
    short.write_bytes(visits.read_bytes()[:left])
    files = [visits, short]
    refused(
        ContractError, "short.parquet cannot be read as Parquet", source.read, query("SELECT 1"), files
    )


def test_a_folder_that_ends_like_a_file(query, tmp_path):
    folder = tmp_path / "visits.parquet"
    folder.mkdir()
    refused(ContractError, "cannot be read as Parquet", source.read, query("SELECT 1"), [folder])


@pytest.mark.parametrize("names", [["a.csv", "b.parquet"], ["a.xlsx"], ["a"], ["a.gz"]])
def test_files_of_several_or_unknown_kinds(query, tmp_path, names):
    files = [tmp_path / name for name in names]
    refused(UsageError, "all of one kind: .parquet, .csv, ", source.read, query("SELECT 1"), files)


def test_a_csv_with_its_own_query(query, tmp_path):
    (tmp_path / "a.csv").write_text("Alter,Geschlecht\n71,w\n34,m\n")
    (tmp_path / "b.CSV").write_text("Geschlecht,Alter\nm,8\n")
    own = query(
        "SELECT Alter AS age, CASE Geschlecht WHEN 'w' THEN 'female' ELSE 'male' END AS sex FROM source"
    )
    table = source.read(own, [tmp_path / "a.csv", tmp_path / "b.CSV"])
    assert table.to_pydict() == {"age": [71, 34, 8], "sex": ["female", "male", "male"]}


def test_a_csv_in_another_encoding(query, tmp_path):
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    early.write_bytes(f"name,age\ncafé {CANARY},1\n".encode("latin-1"))
    late.write_bytes(b"name,age\n" + b"a,1\n" * 50_000 + f"café {CANARY},1\n".encode("latin-1"))
    everything = query("SELECT * FROM source")
    refused(ContractError, "early.csv cannot be read as CSV", source.read, everything, [early])
    refused(
        CaremodelsError, "source own: the query failed over these files", source.read, everything, [late]
    )


def test_a_csv_whose_numbers_turn_into_words_far_down(query, tmp_path):
    file = tmp_path / "late.csv"
    file.write_text("name,age\n" + "a,1\n" * 50_000 + f"b,{CANARY}\n")
    everything = query("SELECT * FROM source")
    refused(CaremodelsError, "query failed over these files", source.read, everything, [file])


def test_a_csv_without_a_header_gives_no_value_away(query, tmp_path):
    file = tmp_path / "headless.csv"
    file.write_text(f"{CANARY},71\nother,72\n")
    refused(ContractError, '"age" not found', source.read, query("SELECT age FROM source"), [file])


@pytest.mark.parametrize(
    ("sql", "kind", "message"),
    [
        ("SELECT aeg FROM source", ContractError, 'source own: .*"aeg" not found'),
        ("SELECT age FROM sauce", ContractError, "source own: .*sauce"),
        ("SELEC age FROM source", ContractError, "source own: .*syntax error"),
        ("SELECT agee(age) FROM source", ContractError, "source own: .*agee"),
        ("SELECT note::INTEGER AS age FROM source", CaremodelsError, "query failed over these files"),
        ("SELECT strptime(note, '%Y') AS t FROM source", CaremodelsError, "query failed"),
        ("SELECT error(note) AS t FROM source", CaremodelsError, "query failed"),
        ("-- nothing but a remark", ContractError, "gives no rows"),
        ("CREATE TABLE t AS SELECT * FROM source", ContractError, "gives no rows"),
    ],
)
def test_a_query_that_does_not_fit_its_files(query, visits, sql, kind, message):
    refused(kind, message, source.read, query(sql), [visits])


def test_a_quote_in_a_file_name_is_part_of_the_name(query, visits):
    odd = visits.with_name("o'hara.parquet")
    visits.rename(odd)
    assert source.read(query("SELECT age FROM source"), [odd])["age"].to_pylist() == [71, 34]


def test_the_fingerprint_follows_query_and_content_and_not_the_name(query, visits):
    one, two = query("SELECT age FROM source"), query("SELECT note FROM source")
    copy = visits.with_name("copy.parquet")
    copy.write_bytes(visits.read_bytes())
    assert source.fingerprint(one, [visits]) == source.fingerprint(one, [copy])
    assert source.fingerprint(one, [visits]) != source.fingerprint(two, [visits])
    copy.write_bytes(visits.read_bytes() + b"\0")
    assert source.fingerprint(one, [visits]) != source.fingerprint(one, [copy])


def test_reading_fetches_no_extension_from_the_network(query, tmp_path):
    """DuckDB would download what a query asks for; a hospital's server reaches no such place."""
    file = tmp_path / "a.csv"
    file.write_text("age\n71\n")
    own = query("SELECT * FROM read_parquet('https://127.0.0.1:9/a.parquet')")
    refused(CaremodelsError, "source own: ", source.read, own, [file])


def test_importing_reads_and_writes_nothing(tmp_path):
    script = "import data.source, data.contract, data.marts.ed_visit, data.period, data.home, data.units"
    root = os.fspath(source.SOURCES.parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout + done.stderr == ""
    assert list(tmp_path.iterdir()) == []
