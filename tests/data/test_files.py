"""Every form in which a file may come, whole and broken, read through a query as a load does."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
import tempfile
import zipfile
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import files, source
from data.errors import CaremodelsError, ContractError, NotFoundError, UsageError

CANARY = "canary-8c41"


@pytest.fixture
def query(tmp_path):
    def make(sql: str = "SELECT * FROM source") -> source.Source:
        file = tmp_path / "own.sql"
        file.write_text(sql)
        return source.from_file(file)

    return make


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where loads unpack; whatever happens, nothing may be left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def zipped(tmp_path):
    def make(members: dict[str, bytes | str], name: str = "set.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return tmp_path / name

    return make


def refused(kind, match, own, *paths):
    with pytest.raises(CaremodelsError, match=match) as caught:
        source.read(own, list(paths))
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def stata(path, frame, **more):
    frame.to_stata(path, write_index=False, **more)
    return path


def transport(name: str, numbers: list[int], texts: list[str]) -> bytes:
    """A SAS transport file of two columns, by the layout that SAS publishes (TS-140)."""

    def ibm(number: int) -> bytes:
        if number == 0:
            return bytes(8)
        digits = (number.bit_length() + 3) // 4
        return bytes([64 + digits]) + (number << (56 - 4 * digits)).to_bytes(7, "big")

    def column(kind: int, width: int, place: int, name: str, at: int) -> bytes:
        head = struct.pack(">hhhh8s40s8shhh2s8shhl", kind, 0, width, place, name.encode().ljust(8),
                           b" " * 40, b" " * 8, 0, 0, 0, b"  ", b" " * 8, 0, 0, at)  # fmt: skip
        return head.ljust(140, b"\0")

    def header(word: str, digits: str = "0" * 30) -> bytes:
        return f"HEADER RECORD*******{word:<8}HEADER RECORD!!!!!!!{digits}  ".encode()

    when = b"16FEB26:10:07:55"
    software = b"9.4     " + b"Linux   " + b" " * 24 + when
    lines = [
        header("LIBRARY"), b"SAS     SAS     SASLIB  " + software, when.ljust(80),
        header("MEMBER", "000000000000000001600000000140"), header("DSCRPTR"),
        b"SAS     " + name.encode().ljust(8) + b"SASDATA " + software, when.ljust(80),
        header("NAMESTR", "000000000200000000000000000000"),
        (column(1, 8, 1, "AGE", 0) + column(2, 8, 2, "NOTE", 8)).ljust(320),
        header("OBS"),
    ]  # fmt: skip
    data = b"".join(ibm(n) + t.encode().ljust(8) for n, t in zip(numbers, texts, strict=True))
    return b"".join(lines) + data.ljust(-(-len(data) // 80) * 80)


FRAME = pd.DataFrame({"age": [71, 34, 8], "note": ["a", "b", "c"]})
CSV = "age,note\n71,a\n34,b\n8,c\n"
FORMS = {
    "a.parquet": FRAME.to_parquet,
    "a.csv": lambda path: path.write_text(CSV),
    "A.CSV.GZ": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "a.psv": lambda path: path.write_text(CSV.replace(",", "|")),
    "a.psv.gz": lambda path: path.write_bytes(gzip.compress(CSV.replace(",", "|").encode())),
    "a.dta": lambda path: stata(path, FRAME),
    "a.xpt": lambda path: path.write_bytes(transport("A", [71, 34, 8], ["a", "b", "c"])),
}


@pytest.mark.parametrize("packed", [False, True], ids=["bare", "zipped"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(query, tmp_path, name, packed):
    path = tmp_path / name
    FORMS[name](path)
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(path, f"folder/{name}")
            archive.writestr("folder/LICENSE.txt", "CC BY 4.0")
            archive.writestr(f"__MACOSX/folder/._{name}", "\0")
        path = tmp_path / "set.zip"
    own = query(
        "SELECT CAST(age AS INTEGER) AS age, note AS note, lower(source_file) AS file FROM source"
    )
    wanted = {"age": [71, 34, 8], "note": ["a", "b", "c"], "file": ["a"] * 3}
    assert source.read(own, [path]).to_pydict() == wanted


def test_stata_is_read_piece_by_piece_and_a_gap_in_one_changes_no_other(query, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 2)
    frame = pd.DataFrame({"n": [1.0, 2.0, 3.0, None, 5.0], "word": ["", "", "", "", "z"]})
    frame["n"] = frame["n"].astype("Int16")
    one, two = stata(tmp_path / "b.dta", frame), stata(tmp_path / "a.dta", frame.iloc[:1])
    table = source.read(query("SELECT n, word, source_file AS file FROM source"), [one, two])
    assert table["n"].to_pylist() == [1, 2, 3, None, 5, 1]
    assert table["file"].to_pylist() == ["b"] * 5 + ["a"]


def test_value_labels_stay_codes(query, tmp_path):
    frame = pd.DataFrame({"sex": pd.Categorical(["female", "male"])})
    assert source.read(query("SELECT sex FROM source"), [stata(tmp_path / "a.dta", frame)])[
        "sex"
    ].to_pylist() == [0, 1]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.9])
def test_a_cut_file_is_named_or_lacks_its_last_rows(query, tmp_path, name, left):
    path = tmp_path / name
    FORMS[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    try:
        table = source.read(query("SELECT age, note FROM source"), [path])
    except ContractError:
        return
    # Text, and SAS's records, have no end that could be missed.
    assert name in ("a.csv", "a.psv", "a.xpt")
    assert table.num_rows < 3


def test_psv_files_may_have_different_headers(query, tmp_path):
    (tmp_path / "p1.psv").write_text("HR|Temp\n97|NaN\n")
    (tmp_path / "p2.psv").write_text("Temp|HR|SBP\n36.5|NaN|120\n")
    for head in ("", "-- cells: text\n"):
        own = query(
            f"{head}SELECT source_file AS p, CAST(HR AS DOUBLE) AS hr, CAST(Temp AS DOUBLE) AS temp, SBP"
            " FROM source"
        )
        first, second = source.read(own, source.find(str(tmp_path / "*.psv"))).to_pylist()
        assert (first["p"], first["hr"], first["SBP"]) == ("p1", 97, None)
        assert (second["p"], second["temp"], str(second["SBP"])) == ("p2", 36.5, "120")


def test_cells_may_be_left_as_text(query, tmp_path):
    (tmp_path / "a.csv").write_text("code,note\n007,?\n038,x\n")
    own = query("-- cells: text\nSELECT code, nullif(note, '?') AS note FROM source")
    assert source.read(own, [tmp_path / "a.csv"]).to_pylist() == [
        {"code": "007", "note": None},
        {"code": "038", "note": "x"},
    ]


@pytest.mark.parametrize("name", ["p.psv", "p.csv"])
def test_a_text_file_in_another_encoding_or_with_a_short_line(query, tmp_path, name):
    bar = "|" if name == "p.psv" else ","
    (tmp_path / name).write_bytes(f"HR{bar}note\n97{bar}café {CANARY}\n".encode("latin-1"))
    (tmp_path / "q.psv").write_text(f"HR|note\n97|{CANARY}\n98|b|c|d\n")
    refused(ContractError, f"{name} cannot be read as", query("SELECT * FROM source"), tmp_path / name)
    text = query("-- cells: text\nSELECT * FROM source")
    refused(CaremodelsError, "query failed over these files", text, tmp_path / "q.psv")


def test_a_member_is_chosen_by_the_head_of_the_query(query, zipped):
    file = zipped({"d/data.csv": CSV, "d/mapping.csv": "id,name\n1,x\n", "d/data.dta": b""})
    own = "SELECT age FROM source"
    assert source.read(query(f"-- member: *DATA.csv\n{own}"), [file]).num_rows == 3
    refused(UsageError, r"set.zip holds files of several kinds: .*-- member", query(own), file)
    refused(
        ContractError, r"set.zip holds no file like '\*.psv'", query(f"-- member: *.psv\n{own}"), file
    )


def test_two_kinds_in_two_files(query, zipped, tmp_path):
    (tmp_path / "a.parquet").touch()
    refused(UsageError, "all of one kind", query(), zipped({"a.csv": CSV}), tmp_path / "a.parquet")


def test_a_zip_that_cannot_be_read(query, zipped, tmp_path):
    good = zipped({"a.csv": CSV * 100}).read_bytes()
    for bad in (good[: len(good) // 2], b"", b"PK", good[:60] + bytes(40) + good[100:]):
        (tmp_path / "bad.zip").write_bytes(bad)
        refused(ContractError, "bad.zip cannot be read as a zip", query(), tmp_path / "bad.zip")
    refused(ContractError, "none.zip cannot be read .FileNotFound", query(), tmp_path / "none.zip")
    refused(ContractError, "set.zip holds no file that ends in .parquet", query(), zipped({}))
    refused(ContractError, "set.zip holds no file", query(), zipped({"a.txt": CANARY, "b/": ""}))


def test_an_encrypted_zip_says_so(query, zipped):
    file = zipped({"a.csv": CSV})
    content = bytearray(file.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    refused(ContractError, "set.zip is encrypted", query(), file)


@pytest.mark.parametrize(
    "name", ["../../evil.csv", "/etc/evil.csv", "..\\evil.csv", "C:\\evil.csv", "a/../../evil.csv"]
)
def test_a_members_own_path_leads_nowhere(query, zipped, tmp_path, name):
    before = {path for path in tmp_path.rglob("*") if path.suffix != ".sql"}
    own = query("SELECT age, source_file AS file FROM source")
    table = source.read(own, [zipped({name: CSV})])
    assert table["file"].to_pylist() == ["evil"] * 3
    after = {path for path in tmp_path.rglob("*") if path.suffix != ".sql"}
    assert after - before == {tmp_path / "set.zip"}


def test_members_of_one_name_do_not_overwrite_each_other(query, zipped):
    file = zipped({"a/x.csv": "age\n1\n", "b/x.csv": "age\n2\n"})
    assert source.read(query("SELECT age FROM source"), [file])["age"].to_pylist() == [1, 2]


def test_a_zip_larger_than_the_free_disk_is_not_unpacked(query, zipped, monkeypatch):
    bomb = zipped({"a.csv": b"0" * 10_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=15_000_000))
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: pytest.fail("unpacked"))
    refused(CaremodelsError, "unpacks to 0.0 GB, more than half of .* set TMPDIR", query(), bomb)


@pytest.mark.parametrize("form", ["zip", "dta"])
def test_a_full_disk_is_told_as_such(query, zipped, tmp_path, monkeypatch, form):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr(pq, "write_table", full)
    file = zipped({"a.csv": CSV}) if form == "zip" else stata(tmp_path / "a.dta", FRAME)
    refused(CaremodelsError, "disk for temporary files is full", query(), file)


def test_a_folder_stands_for_the_files_in_it(query, tmp_path):
    folder = tmp_path / "set"
    (folder / "training").mkdir(parents=True)
    (folder / ".cache").mkdir()
    with pytest.raises(NotFoundError, match=r"no file in .*set ends in \.parquet"):
        source.find(str(folder))
    for name in ("training/b.csv", "a.csv", ".cache/c.csv", ".d.csv", "README.md"):
        (folder / name).write_text("age\n1\n")
    found = source.find(str(folder))
    assert [str(path.relative_to(folder)) for path in found] == ["a.csv", "training/b.csv"]
    assert source.find(str(folder / "**")) != []
    before = source.fingerprint(query(), found)
    (folder / "training/b.csv").write_text("age\n2\n")
    assert source.fingerprint(query(), source.find(str(folder))) != before


def test_a_file_name_is_no_pattern(query, tmp_path):
    for name in ("a[1].csv", "a1.csv", "a*.csv", "ab?.csv"):
        (tmp_path / name).write_text(f"name\n{name}\n")
        assert source.read(query("SELECT name FROM source"), [tmp_path / name])["name"].to_pylist() == [
            name
        ]


TABLES = "-- tables: person, visit_occurrence\n"
JOIN = TABLES + "SELECT v.day, p.year FROM visit_occurrence v JOIN person p USING (person_id) ORDER BY 1"


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zipped"])
def test_a_source_of_several_tables(query, zipped, tmp_path, packed):
    content = {
        "PERSON.csv": "person_id,year\n1,1950\n2,1980\n",
        "visit_occurrence.csv": "person_id,day\n1,5\n2,3\n",
        "note.csv": CANARY,
        "concept.parquet": "not ours to read",
    }
    if packed:
        paths = [zipped(content)]
    else:
        for name, text in content.items():
            (tmp_path / name).write_text(text)
        paths = [tmp_path / name for name in content]
    table = source.read(query(JOIN), paths)
    assert table.to_pylist() == [{"day": 3, "year": 1980}, {"day": 5, "year": 1950}]


def test_a_table_without_a_file_is_named(query, tmp_path):
    (tmp_path / "person.csv").write_text("person_id,year\n1,1950\n")
    (tmp_path / "x.csv").touch()
    person, other = tmp_path / "person.csv", tmp_path / "x.csv"
    refused(ContractError, "source own: no file for the table visit_occurrence", query(JOIN), person)
    refused(ContractError, "no file for any of the tables person, visit_occ", query(JOIN), other)
    with pytest.raises(UsageError, match="tables are names between commas"):
        query('-- tables: person"; DROP\nSELECT 1')
    with pytest.raises(UsageError, match="cells are typed or text, found 'raw'"):
        query("-- cells: raw\nSELECT 1")


def test_rows_come_in_batches_in_the_order_of_the_files(query, tmp_path):
    for place in range(3):
        pq.write_table(
            pa.table({"n": range(place * 70_000, (place + 1) * 70_000)}), tmp_path / f"{place}.parquet"
        )
    own = query("SELECT n FROM source WHERE n % 7 <> 3")
    tables = list(source.batches(own, source.find(str(tmp_path / "*.parquet"))))
    assert max(map(len, tables)) <= 65_536
    assert len(tables) > 1
    assert pa.concat_tables(tables)["n"].to_pylist() == [n for n in range(210_000) if n % 7 != 3]


def test_a_query_that_finds_nothing_still_shows_its_columns(query, tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (table,) = source.batches(query("SELECT age, note FROM source WHERE age > 99"), [tmp_path / "a.csv"])
    assert (table.num_rows, table.column_names) == (0, ["age", "note"])


def test_a_failure_in_mid_stream_repeats_no_value_and_leaves_nothing(query, tmp_path):
    (tmp_path / "a.csv").write_text("n\n" + "1\n" * 300_000 + f"{CANARY}\n")
    rows = source.batches(
        query("-- cells: text\nSELECT CAST(n AS INTEGER) AS n FROM source"), [tmp_path / "a.csv"]
    )
    assert next(rows)["n"][0].as_py() == 1
    with pytest.raises(
        CaremodelsError, match=r"query failed over these files \(ConversionError\)"
    ) as caught:
        list(rows)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_reader_that_stops_early_leaves_nothing(query, zipped):
    rows = source.batches(query(), [zipped({"a.csv": CSV})])
    next(rows)
    rows.close()
