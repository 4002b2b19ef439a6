"""What is sealed opens again, in its own row and with a key that is here; nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data.errors import IntegrityError, UnavailableError, UsageError
from data.log.seal import KeyReplacedError, SealedError, load_keyring

OLD, NEW = "0b" * 32, "1c" * 32


@pytest.fixture
def keyring(tmp_path):
    return load_keyring(tmp_path)


def mount(path, **keys):
    """The file of a mounted secret, put there as a rename does."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(keys))
    draft.replace(path)
    return path


@pytest.mark.parametrize(
    "text", ["", "{}", '{"sbp": 88}', "汉字 ‐ é", "lone \ud800 surrogate", "x" * 99_999]
)
def test_what_is_sealed_opens_in_its_own_row_alone(keyring, text):
    sealed = keyring.seal(text, bound_to="p1")
    assert keyring.open(sealed, bound_to="p1") == text
    assert text not in sealed or text == ""
    with pytest.raises(SealedError):
        keyring.open(sealed, bound_to="p2")


def test_the_seal_is_aes_256_gcm_with_a_nonce_of_its_own(keyring, tmp_path):
    # By the library alone: key from the file, nonce of 12 bytes, row's id as associated data.
    [(name, key)] = json.loads((tmp_path / "log-keys.json").read_text()).items()
    first, second = (keyring.seal("text", bound_to="p1") for _ in range(2))
    assert first != second
    mark, sealed_by, body = first.split(".")
    content = b64decode(body)
    assert (mark, sealed_by) == ("s1", name)
    assert AESGCM(bytes.fromhex(key)).decrypt(content[:12], content[12:], b"p1") == b"text"
    assert len(bytes.fromhex(key)) == 32


def test_a_text_that_was_touched_does_not_open(keyring):
    sealed = keyring.seal("text", bound_to="p1")
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for wrong in (changed, sealed[:-4], sealed[:20], "s1.nobody." + sealed.split(".")[2]):
        with pytest.raises(SealedError):
            keyring.open(wrong, bound_to="p1")


def test_a_text_of_before_sealing_is_itself(keyring):
    assert keyring.open('{"sbp": 88}', bound_to="p1") == '{"sbp": 88}'


def test_of_a_column_what_cannot_be_opened_is_null_and_counted(keyring):
    sealed = [keyring.seal(str(number), bound_to=str(number)) for number in range(4)]
    column = [sealed[0], None, sealed[1], sealed[3], "{}"]
    assert keyring.open_all(column, "01234") == (["0", None, None, "3", "{}"], 1)


# The file


def test_the_file_is_made_once_for_its_owner_alone(tmp_path):
    home = tmp_path / "new" / "home"
    sealed = load_keyring(home).seal("text", bound_to="p1")
    assert load_keyring(home).open(sealed, bound_to="p1") == "text"
    assert [path.name for path in home.iterdir()] == ["log-keys.json"]
    assert (home / "log-keys.json").stat().st_mode & 0o777 == 0o600


def test_a_new_key_seals_and_the_former_still_opens(keyring, tmp_path):
    former = keyring.seal("text", bound_to="p1")
    key = keyring.add()
    assert keyring.newest == key
    assert keyring.seal("text", bound_to="p1").startswith(f"s1.{key}.")
    assert keyring.open(former, bound_to="p1") == "text"
    assert (tmp_path / "log-keys.json").stat().st_mode & 0o777 == 0o600
    keyring.retire(keyring.ids)
    assert load_keyring(tmp_path).ids == (key,)
    with pytest.raises(SealedError):
        keyring.open(former, bound_to="p1")


def test_another_process_learns_of_a_key_when_it_seals_and_when_it_opens(keyring, tmp_path):
    sealing, opening = load_keyring(tmp_path), load_keyring(tmp_path)
    key = keyring.add()
    with pytest.raises(KeyReplacedError), sealing.sealing():
        pass
    with sealing.sealing() as seal:
        assert seal("text", "p1").startswith(f"s1.{key}.")
    assert opening.open(keyring.seal("text", bound_to="p1"), bound_to="p1") == "text"


def test_a_key_that_comes_in_the_middle_is_told_of(keyring, tmp_path):
    other = load_keyring(tmp_path)

    def seal():
        with other.sealing():
            keyring.add()
            other.refresh()  # as another thread may, for a text that it opens

    with pytest.raises(KeyReplacedError):
        seal()
    with other.sealing():
        keyring.retire(keyring.ids[:1])


def test_a_file_that_breaks_or_goes_leaves_the_keys_in_memory(keyring, tmp_path, caplog):
    file = tmp_path / "log-keys.json"
    whole = file.read_text()
    file.write_text(whole[:20])
    keyring.refresh()
    with keyring.sealing() as seal:
        sealed = seal("text", "p1")
    file.unlink()
    assert keyring.open(sealed, bound_to="p1") == "text"
    assert "the former keys stay in use" in caplog.text
    assert not any(value in caplog.text for value in json.loads(whole).values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '"text"',
        '{"a": 1}',
        '{"a": "0b"}',
        f'{{"a b": "{OLD}"}}',
        f'{{"a": "{OLD}", "a": "{NEW}"}}',
        f'{{"a": "{OLD}"',
    ],
)
def test_what_is_no_keyring_is_refused_and_not_repeated(tmp_path, monkeypatch, text):
    (tmp_path / "log-keys.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"log-keys\.json in the home: expected") as caught:
        load_keyring(tmp_path)
    assert OLD not in str(caught.value)
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", text)
    with pytest.raises(UsageError, match="CAREMODELS_LOG_KEYS: expected"):
        load_keyring(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


# The environment


def test_the_environment_comes_first_and_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", json.dumps({"old": OLD, "new": NEW}))
    keyring = load_keyring(tmp_path)
    assert (keyring.ids, keyring.newest) == (("old", "new"), "new")
    assert list(tmp_path.iterdir()) == []
    for change in (keyring.add, lambda: keyring.retire(["old"])):
        with pytest.raises(UsageError, match="given by CAREMODELS_LOG_KEYS"):
            change()


def test_a_mounted_file_is_read_again_when_it_changes(tmp_path, monkeypatch):
    file = mount(tmp_path / "secret", old=OLD)
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", f"{file}\n")
    keyring = load_keyring(tmp_path / "home")
    former = keyring.seal("text", bound_to="p1")
    mount(file, old=OLD, new=NEW)
    keyring.refresh()
    with keyring.sealing() as seal:
        assert seal("text", "p1").startswith("s1.new.")
    assert keyring.open(former, bound_to="p1") == "text"
    with pytest.raises(UsageError):
        keyring.add()


def test_a_file_that_was_not_mounted_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setenv("CAREMODELS_LOG_KEYS", str(tmp_path / "nothing"))
    with pytest.raises(UnavailableError, match="No such file"):
        load_keyring(tmp_path)


# At once


def test_threads_that_start_at_once_end_with_one_key(tmp_path):
    together = threading.Barrier(16)
    found = []

    def start():
        together.wait()
        found.append(load_keyring(tmp_path).newest)

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log-keys.json"]


def test_processes_that_start_at_once_end_with_one_key(tmp_path, pytestconfig):
    code = (
        "import sys, pathlib; from data.log.seal import load_keyring\n"
        "print('here', flush=True); sys.stdin.readline()\n"
        f"print(load_keyring(pathlib.Path({str(tmp_path)!r})).newest)"
    )
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=pytestconfig.rootpath,
            env=os.environ,
            text=True,
            stdin=pipe,
            stdout=pipe,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert {worker.communicate(timeout=20)[0].strip() for worker in workers} == {
        load_keyring(tmp_path).newest
    }
