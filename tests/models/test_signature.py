"""An act has a name and a reason, and a second person is another one."""

import pytest

from data.errors import UsageError
from models.signature import Signature

FIRST = Signature(by="Dr Chen", reason="pilot")


def test_a_signature_is_kept_as_it_was_given():
    assert Signature.of("  Dr Chen ", "pilot\n") == FIRST


@pytest.mark.parametrize(
    ("by", "reason", "option"),
    [("", "b", "--by"), (" \t", "b", "--by"), ("\u200b", "b", "--by"), ("a", " ", "--reason")],
)
def test_nobody_and_nothing_sign_nothing(by, reason, option):
    with pytest.raises(UsageError, match=f"{option}: "):
        Signature.of(by, reason)


@pytest.mark.parametrize(
    "by",
    [
        "Dr Chen",
        "dr chen",
        " DR  CHEN ",
        "DrChen",
        "Dr\u00a0Chen",  # a space that does not break
        "Dr\u200b Chen",  # one of no width
        "Ｄｒ　Ｃｈｅｎ",  # full width
    ],
)
def test_the_same_person_is_no_second(by):
    with pytest.raises(UsageError, match="a second person's"):
        FIRST.second(by, "because")


@pytest.mark.parametrize(
    ("name", "same"),
    [("Stra\u00dfe", "STRASSE"), ("Zo\u00eb", "Zoe\u0308"), ("陈医生", "陈 医生"), ("\u00c5", "\u212b")],
)
def test_one_name_in_two_spellings_of_unicode_is_one_person(name, same):
    with pytest.raises(UsageError, match="a second person's"):
        Signature(by=name, reason="pilot").second(same, "because")


def test_another_person_is_a_second():
    assert FIRST.second("Dr Wang", "a small year") == Signature(by="Dr Wang", reason="a small year")


def test_without_a_second_there_is_none():
    assert FIRST.second(None, None) is None


@pytest.mark.parametrize(("by", "reason"), [("Dr Wang", None), (None, "x"), ("Dr Wang", " "), ("", "")])
def test_half_an_override_is_refused(by, reason):
    with pytest.raises(UsageError, match="--override-"):
        FIRST.second(by, reason)
