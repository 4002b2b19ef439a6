"""``caremodels key …`` as a script uses it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

import caremodels
from data.key_commands import _end

CREATE = ("key", "create", "--name", "ward", "--by", "Dr Chen")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def key(home, capsys):
    """Run ``caremodels key``; its exit code, and what it printed."""

    def run(*words: str):
        code = caremodels.main([*words, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return run


def test_a_key_is_shown_once(key):
    code, made, said = key(*CREATE, "--scope", "predict,outcome", "--scope", "read", "--site", "a")
    assert code == 0
    assert re.fullmatch(r"cm_[0-9a-f]{12}_[\w-]{43}", made["key"])
    assert made["scopes"] == ["outcome", "predict", "read"]
    assert (made["sites"], made["state"], made["expires_at"]) == (["a"], "active", None)
    assert "only a hash of it is stored" in said
    code, listed, _ = key("key", "list")
    del made["key"]
    assert (code, listed) == (0, {"keys": [made]})


def test_a_key_is_revoked(key):
    _, made, _ = key(*CREATE, "--scope", "predict")
    code, ended, _ = key("key", "revoke", made["id"], "--by", "Wang", "--reason", "lost")
    assert code == 0
    assert (ended["state"], ended["revoked_by"], ended["revoked_for"]) == ("revoked", "Wang", "lost")
    [listed] = key("key", "list")[1]["keys"]
    assert listed == ended


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*CREATE, "--scope", "all"), 2, "unknown scope 'all'"),
        ((*CREATE, "--scope", "read", "--expires", "0"), 2, "--expires"),
        ((*CREATE, "--scope", "read", "--expires", "tomorrow"), 2, "--expires"),
        ((*CREATE, "--scope", "read", "--expires", "2020-01-01"), 2, "is past"),
        ((*CREATE, "--scope", "read", "--expires", "9999-12-31"), 2, "--expires"),
        (("key", "revoke", "nobody", "--by", "x", "--reason", "y"), 1, "no such key"),
    ],
)
def test_what_makes_no_sense_is_said(key, words, code, said):
    found, printed, error = key(*words)
    assert (found, printed) == (code, None)
    assert said in error


def test_a_key_ends_after_days_or_with_a_day():
    assert _end(None, NOON) is None
    assert _end("90", NOON) == NOON + timedelta(days=90)
    assert _end("2026-12-31", NOON) == datetime(2027, 1, 1, tzinfo=UTC)
