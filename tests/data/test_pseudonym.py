from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data.errors import IntegrityError, UsageError
from data.pseudonym import keyed_hash, load_key

ROOT = Path(__file__).parents[2]
KEY = b"0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_key_given(monkeypatch):
    monkeypatch.delenv("CAREMODELS_KEY", raising=False)


def test_a_hash_is_the_hmac_of_the_value_under_the_kinds_own_key():
    # printf patient | openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef -> K
    # printf MRN-7 | openssl dgst -sha256 -mac HMAC -macopt hexkey:K
    expected = "88214d3156ed1876fe86cebfcc41a3835f6b0c985e346414594caeac75939353"
    assert keyed_hash(KEY, "MRN-7", kind="patient") == expected


def test_kinds_and_keys_separate():
    hashes = {
        keyed_hash(key, value, kind=kind)
        for key in (KEY, KEY[::-1])
        for kind, value in [("patient", "7"), ("encounter", "7"), ("patien", "t7"), ("", "patient7")]
    }
    assert len(hashes) == 8


@pytest.mark.parametrize("value", ["", "病人七", "a\0b", "lone \ud800 surrogate"])
def test_any_text_can_be_hashed(value):
    assert len(keyed_hash(KEY, value, kind="patient")) == 64


def test_the_environment_comes_first_and_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CAREMODELS_KEY", "a mounted secret, 1\n")
    assert load_key(tmp_path) == b"a mounted secret, 1"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "fifteen letters", " " * 20])
def test_a_short_key_is_refused_and_not_repeated(tmp_path, monkeypatch, value):
    monkeypatch.setenv("CAREMODELS_KEY", value)
    with pytest.raises(UsageError, match=r"CAREMODELS_KEY: expected at least 16 characters") as caught:
        load_key(tmp_path)
    assert not value or value not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_made_once_for_its_owner_alone(tmp_path):
    home = tmp_path / "new" / "home"
    first = load_key(home)
    assert len(first) == 64
    assert load_key(home) == first
    assert [path.name for path in home.iterdir()] == ["key"]
    assert (home / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_the_same_from_file_and_environment(tmp_path, monkeypatch):
    made = load_key(tmp_path)
    monkeypatch.setenv("CAREMODELS_KEY", (tmp_path / "key").read_text())
    assert load_key(tmp_path / "elsewhere") == made


def test_a_cut_key_file_is_not_used(tmp_path):
    (tmp_path / "key").write_text("abc\n")
    with pytest.raises(IntegrityError):
        load_key(tmp_path)


def test_threads_that_start_at_once_end_with_one_key(tmp_path):
    together = threading.Barrier(16)
    found = []

    def start():
        together.wait()
        found.append(load_key(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_processes_that_start_at_once_end_with_one_key(tmp_path):
    home = tmp_path / "home"
    code = (
        "import sys, pathlib; from data.pseudonym import load_key\n"
        "print('here', flush=True); sys.stdin.readline()\n"
        f"print(load_key(pathlib.Path({str(home)!r})).decode())"
    )
    command = [sys.executable, "-c", code]
    workers = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    keys = {worker.communicate(timeout=20)[0] for worker in workers}
    assert len(keys) == 1
    assert keys == {(home / "key").read_text()}
