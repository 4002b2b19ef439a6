"""What the chain of the ledger shows, and what its anchors show where the chain has no say."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import asdict, replace
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
    for position in (*range(0, len(whole), 7), len(whole) - 1):
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


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_line_that_was_cut_is_named(book, cut):
    book.write_bytes(book.read_bytes()[:-cut])
    with pytest.raises(IntegrityError, match=r"line 4 was cut: it has no end"):
        ledger.verify(book, KEY)
    with pytest.raises(IntegrityError):
        add(book, 5)


def test_another_end_of_line_is_a_change(book):
    for end in (b"\r\n", b"\r", b"\x0b"):
        whole = book.read_bytes()
        book.write_bytes(whole.replace(b"\n", end, 1))
        with pytest.raises(IntegrityError, match="line 1"):
            ledger.verify(book, KEY)
        book.write_bytes(whole)


def test_a_forged_entry_at_the_end_does_not_follow(book):
    entries = ledger.verify(book, KEY)
    forged = asdict(replace(entries[-1], number=5, version="9", by="dr.wang"))
    book.write_bytes(book.read_bytes() + msgspec.json.encode(forged) + b"\n")
    with pytest.raises(IntegrityError, match="entry 5 does not follow"):
        ledger.verify(book, KEY)


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


def test_a_process_that_is_killed_leaves_the_old_ledger_or_the_new(book, monkeypatch):
    whole = book.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            target = os if name == "fsync" else Path
            patch.setattr(target, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                add(book, 5)
        assert book.read_bytes() == whole
    add(book, 5)
    assert len(ledger.verify(book, KEY)) == 5


def test_the_ledger_keeps_its_place_and_its_mode(book, tmp_path):
    real = tmp_path / "elsewhere.jsonl"
    real.write_bytes(book.read_bytes())
    real.chmod(0o640)
    book.unlink()
    book.symlink_to(real)
    add(book, 5)
    assert book.is_symlink()
    assert len(ledger.verify(real, KEY)) == 5
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_ledger_written_by_an_earlier_version_still_verifies():
    """Golden: a change of the entry or of the hash would make every kept ledger look forged."""
    entries = ledger.verify(GOLDEN, b"golden")
    assert [(entry.number, entry.act, entry.version) for entry in entries] == [
        (1, "promote", "1"),
        (2, "rollback", "1"),
        (3, "promote to champion", "2"),
        (4, "promote to challenger", "3"),
        (5, "override to champion", "3"),
        (6, "roll back", "2"),
        (7, "withdraw champion", "2"),
        (8, "withdraw challenger", "3"),
        (9, "recalibrate", "4"),
    ]
    assert msgspec.to_builtins(entries[0])["evidence"] == {"auroc": 0.8512, "gate": ["slope", "oe"]}
    assert ledger.standing(entries[:6], "ed_admission").present.evidence["champion"]["version"] == "1"
    assert ledger.standing(entries, "ed_admission").withdrawn == "2"


@pytest.fixture
def releases(tmp_path, book):
    """Two releases of the model and one of another, the ledger's fourth entry anchored."""
    folder = tmp_path / "releases"
    for name in ("ed_admission/1", "ed_admission/2", "sepsis/1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
    ledger.anchor(folder, ledger.verify(book, KEY)[-1])
    return folder


def hold(book, releases):
    ledger.hold(ledger.verify(book, KEY), ledger.anchors(releases))


def test_an_entry_is_anchored_in_each_release_of_its_model(book, releases):
    last = ledger.verify(book, KEY)[-1]
    assert ledger.anchors(releases) == [
        ledger.Anchor(place=f"release ed_admission {version}", number=4, mac=last.mac)
        for version in "12"
    ]
    assert not (releases / "sepsis" / "1" / "ledger.json").exists()
    assert {file.name for file in (releases / "ed_admission" / "1").iterdir()} == {
        "manifest.json",
        "ledger.json",
    }
    hold(book, releases)


def test_what_was_added_since_changes_nothing(book, releases):
    """As after a process that was killed between entry and anchor."""
    add(book, 5)
    hold(book, releases)
    with ledger.opened(book, KEY, releases=releases) as held:
        assert len(held.entries) == 5


def test_a_cut_tail_shows_by_its_anchor(book, releases):
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[:-1]))
    assert len(ledger.verify(book, KEY)) == 3
    says = r"ends at 3, and release ed_admission 1 knows of entry 4: entries were removed"
    with pytest.raises(IntegrityError, match=says):
        hold(book, releases)


def test_a_ledger_that_is_gone_shows_by_its_anchor(book, releases):
    book.unlink()
    with pytest.raises(IntegrityError, match=r"empty or gone, and release ed_admission 1"):
        hold(book, releases)


def test_a_tail_that_was_written_anew_shows_by_its_anchor(book, releases):
    """Whoever has the key can make a chain that follows; it is not the one that was anchored."""
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[:-1]))
    add(book, 7)
    add(book, 8)
    says = "entry 4 is not the one that release ed_admission 1 knows of"
    with pytest.raises(IntegrityError, match=says):
        hold(book, releases)


def test_nothing_is_added_to_a_ledger_that_its_anchors_contradict(book, releases):
    """Else a new head would be anchored over the one that shows the loss."""
    book.unlink()
    with (
        pytest.raises(IntegrityError, match="gone"),
        ledger.opened(book, KEY, releases=releases) as held,
    ):
        held.append(act="a", model="ed_admission", version="1", by="b", reason="c", evidence={})
    assert not book.exists()
    assert {anchor.number for anchor in ledger.anchors(releases)} == {4}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"number": 4, "mac": "a", "more": 1}', b"\xff"])
def test_an_anchor_that_cannot_be_read_is_named(book, releases, content):
    (releases / "ed_admission" / "2" / "ledger.json").write_bytes(content)
    with pytest.raises(IntegrityError, match="what release ed_admission 2 keeps of it was changed"):
        ledger.anchors(releases)


def test_a_tag_whose_number_was_not_written_any_more_agrees(book):
    """MLflow takes the mac and the number one after the other."""
    entries = ledger.verify(book, KEY)
    ledger.hold(entries, [ledger.Anchor(place="MLflow", number=1, mac=entries[2].mac)])
    with pytest.raises(IntegrityError, match="entry 3 is not the one that MLflow knows of"):
        ledger.hold(entries, [ledger.Anchor(place="MLflow", number=3, mac=entries[1].mac)])


def test_acts_at_once_are_chained_and_anchored(tmp_path, releases, book):
    script = (
        "import sys\nfrom pathlib import Path\nfrom models import ledger\n"
        "book, releases = map(Path, sys.argv[1:])\n"
        "for number in range(10):\n"
        "    with ledger.opened(book, b'a key of this test', releases=releases) as held:\n"
        "        ledger.anchor(releases, held.append(act='a', model='ed_admission', version='1',\n"
        "                                            by='b', reason='r', evidence={}))\n"
    )
    command = [sys.executable, "-c", script, str(book), str(releases)]
    writers = [subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)}) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(ledger.verify(book, KEY)) == 24
    assert {anchor.number for anchor in ledger.anchors(releases)} == {24}
    hold(book, releases)


@pytest.mark.parametrize(
    ("acts", "present", "past", "withdrawn"),
    [
        ("", None, "", None),
        ("+1", "1", "", None),
        ("+1 +2", "2", "1", None),
        ("+1 !2 +3", "3", "12", None),
        ("+1 +1", "1", "", None),  # signed twice
        ("+1 +2 +1", "1", "2", None),  # a version stands in the past once
        ("+1 +2 <", "1", "", None),
        ("+1 +2 +3 < <", "1", "", None),
        ("+1 +2 < +3", "3", "1", None),  # 2 was rolled back from
        ("+1 -1", None, "", "1"),
        ("+1 +2 -2", None, "1", "2"),
        ("+1 +2 -2 <", "1", "", None),
        ("+1 +2 +3 -2", None, "1", "2"),  # by hand the pointer had been at 2
        ("+1 -1 +2", "2", "", None),
        ("+1 *2 +3", "3", "1", None),  # another model's
    ],
)
def test_where_a_pointer_stands_after_each_act(acts, present, past, withdrawn):
    """+ promoted, ! by an override, < rolled back, - withdrawn, * promoted of another model."""
    words = {"+": "promote to champion", "!": "override to champion", "-": "withdraw champion"}
    entries = [
        ledger.Entry(
            number=number,
            at="",
            act=words.get(act[0], "roll back" if act[0] == "<" else "promote to champion"),
            model="sepsis" if act[0] == "*" else "m",
            version=act[1:],
            by="",
            reason="",
        )
        for number, act in enumerate(acts.split(), start=1)
    ]
    found = ledger.standing(entries, "m")
    assert (found.present and found.present.version) == present
    assert "".join(entry.version for entry in found.past) == past
    assert found.withdrawn == withdrawn


def test_the_challenger_stands_apart_from_the_champion():
    entries = [
        ledger.Entry(number=n, at="", act=act, model="m", version=version, by="", reason="")
        for n, (act, version) in enumerate(
            [("promote to champion", "1"), ("promote to challenger", "2"), ("withdraw challenger", "2")],
            start=1,
        )
    ]
    assert ledger.standing(entries, "m").present.version == "1"
    assert ledger.standing(entries[:2], "m", "challenger").present.version == "2"
    assert ledger.standing(entries, "m", "challenger").withdrawn == "2"
