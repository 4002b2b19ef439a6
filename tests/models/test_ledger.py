"""What the chain of the ledger shows, and the one thing that it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from data.errors import IntegrityError
from models import ledger

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "ledger.jsonl"
KEY = b"a key of this test"


def add(path: Path, number: int, key: bytes = KEY) -> ledger.Entry:
    return ledger.append(
        path,
        key,
        act="promote",
        model="ed_admission",
        version=str(number),
        by="dr.chen",
        reason=f"通过评审 {number}",
        evidence={"auroc": 0.85, "files": {"card.html": "ab12"}, "slope": None},
    )


@pytest.fixture
def book(tmp_path):
    """Four entries."""
    path = tmp_path / "home" / "ledger.jsonl"
    for number in range(1, 5):
        add(path, number)
    return path


def test_entries_are_numbered_and_read_back(book):
    entries = ledger.verify(book, KEY)
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert [entry.version for entry in entries] == ["1", "2", "3", "4"]
    assert entries[0].evidence == {"auroc": 0.85, "files": {"card.html": "ab12"}, "slope": None}
    assert entries[2].reason == "通过评审 3"
    assert entries[0].at.endswith("+00:00")
    assert len({entry.mac for entry in entries}) == 4


def test_no_ledger_holds_no_entries(tmp_path):
    assert ledger.verify(tmp_path / "ledger.jsonl", KEY) == []


def test_a_change_of_any_byte_breaks_the_chain(book):
    whole = book.read_bytes()
    for position in range(0, len(whole) - 1, 7):
        changed = bytearray(whole)
        changed[position] ^= 1
        book.write_bytes(changed)
        with pytest.raises(IntegrityError, match="ledger: "):
            ledger.verify(book, KEY)


@pytest.mark.parametrize(
    ("order", "broken"),
    [
        ([0, 2, 3], 2),  # one removed in the middle
        ([1, 2, 3], 1),  # the first removed
        ([0, 2, 1, 3], 2),  # two swapped
        ([0, 1, 1, 2, 3], 3),  # one told twice
        ([0, 1, 2, 3, 0], 5),  # an old one told again at the end
    ],
)
def test_a_removal_reordering_or_repetition_names_the_first_that_does_not_follow(book, order, broken):
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(IntegrityError, match=f"entry {broken} does not follow from the one before"):
        ledger.verify(book, KEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"by":"dr.chen"', b'"by":"dr.wang","by":"dr.chen"'),  # a reader that takes the first is fooled
        (b'"act":"promote"', b'"note":"approved","act":"promote"'),
        (b'"act":"promote"', b'"act": "promote"'),
    ],
)
def test_an_entry_that_was_added_to_is_not_read_over(book, old, new):
    book.write_bytes(book.read_bytes().replace(old, new, 1))
    with pytest.raises(IntegrityError, match="line 1 is not as it was written"):
        ledger.verify(book, KEY)


def test_renumbering_does_not_mend_a_removal(book):
    lines = book.read_bytes().splitlines()
    forged = lines[2].replace(b'"number":3', b'"number":2')
    book.write_bytes(b"\n".join([lines[0], forged]) + b"\n")
    with pytest.raises(IntegrityError, match="entry 2"):
        ledger.verify(book, KEY)


def test_nobody_without_the_key_writes_or_verifies(book, tmp_path):
    with pytest.raises(IntegrityError, match="entry 1"):
        ledger.verify(book, b"another key")
    forged = tmp_path / "forged.jsonl"
    add(forged, 1, key=b"another key")
    with pytest.raises(IntegrityError, match="entry 1"):
        ledger.verify(forged, KEY)


def test_a_cut_tail_does_not_show_here(book):
    """The chain has no end of its own: releases hold the number and mac of the entry made for them."""
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[:-1]))
    assert len(ledger.verify(book, KEY)) == 3


def test_nothing_is_added_to_a_broken_chain(book):
    book.write_bytes(book.read_bytes().replace(b"dr.chen", b"dr.wang", 1))
    broken = book.read_bytes()
    with pytest.raises(IntegrityError):
        add(book, 5)
    assert book.read_bytes() == broken


@pytest.mark.parametrize("line", [b"{}\n", b"not json\n", b"\n", b'{"number":1}\n', b"\xff\n"])
def test_a_line_that_is_no_entry_is_named_and_not_repeated(book, line):
    book.write_bytes(book.read_bytes() + line)
    with pytest.raises(IntegrityError, match=r"ledger: line 5 is no entry$"):
        ledger.verify(book, KEY)


def test_processes_that_write_at_once_take_turns(tmp_path):
    path = tmp_path / "ledger.jsonl"
    script = (
        "import sys\nfrom pathlib import Path\nfrom models import ledger\n"
        "for number in range(15):\n"
        "    ledger.append(Path(sys.argv[1]), b'key', act='a', model='m', version=str(number), by='b',\n"
        "                  reason='r', evidence={})\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], env={"PYTHONPATH": str(ROOT)})
        for _ in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(ledger.verify(path, b"key")) == 45


def test_a_ledger_written_by_an_earlier_version_still_verifies():
    """Golden: a change of the entry or of the hash would make every kept ledger look forged."""
    entries = ledger.verify(GOLDEN, b"golden")
    assert [(entry.number, entry.act, entry.version) for entry in entries] == [
        (1, "promote", "1"),
        (2, "rollback", "1"),
    ]
    assert msgspec.to_builtins(entries[0])["evidence"] == {"auroc": 0.8512, "gate": ["slope", "oe"]}
