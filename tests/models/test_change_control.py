"""The plan that people wrote is read as it stands, or refused by name; its bounds are held."""

import hashlib
from datetime import UTC, datetime

import pytest

from data.errors import UsageError
from models import change_control, ledger
from models.change_control import Plan, Rule
from models.ledger import Entry

TEXTS = 'description = "d"\nprotocol = "p"\nimpact = "i"\n'
RECALIBRATE = (
    "without_signature = true\nlargest_shift = 0.5\nfewest_events = 100\nmost_a_year = 4\n" + TEXTS
)
RETRAIN = "without_signature = true\nfewest_events = 500\nauroc_loss = 0.01\nmost_a_year = 2\n" + TEXTS
APPROVED = 'approved_by = "Dr Chen, 2026-11-24"\n'


def read(home, text):
    (home / "change-control.toml").write_text(text)
    return change_control.read(home)


def test_without_a_file_a_person_signs(tmp_path):
    plan = change_control.read(tmp_path)
    assert plan == Plan()
    assert [plan.rule("sepsis", action).without_signature for action in change_control.ACTIONS] == (
        [False] * 3
    )


def test_an_example_in_full(tmp_path):
    text = f"{APPROVED}[default.recalibrate]\n{RECALIBRATE}[ed_admission.retrain]\n{RETRAIN}"
    plan = read(tmp_path, text)
    assert plan.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert plan.rule("sepsis", "recalibrate") == Rule(
        action="recalibrate",
        without_signature=True,
        largest_shift=0.5,
        fewest_events=100,
        most_a_year=4,
        description="d",
        protocol="p",
        impact="i",
    )
    assert plan.rule("ed_admission", "retrain").auroc_loss == 0.01
    assert not plan.rule("sepsis", "retrain").without_signature
    assert plan.evidence("sepsis", "recalibrate") == {
        "file": "change-control.toml",
        "sha256": plan.sha256,
        "approved_by": "Dr Chen, 2026-11-24",
        "largest_shift": 0.5,
        "fewest_events": 100,
        "most_a_year": 4,
    }


def test_a_models_own_rule_stands_instead_of_the_default(tmp_path):
    text = (
        f"{APPROVED}[default.recalibrate]\n{RECALIBRATE}"
        "[sepsis.recalibrate]\nwithout_signature = false\n"
    )
    plan = read(tmp_path, text)
    assert not plan.rule("sepsis", "recalibrate").without_signature
    assert plan.rule("sepsis", "recalibrate").largest_shift is None
    assert plan.rule("ed_triage", "recalibrate").without_signature


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("largest_shift = 0.5\n", "", "default.recalibrate.largest_shift: nothing happens without"),
        ("fewest_events = 100\n", "", "default.recalibrate.fewest_events: nothing happens without"),
        ("most_a_year = 4\n", "", "default.recalibrate.most_a_year: nothing happens without"),
        ("largest_shift = 0.5", "largest_shift = 0", "largest_shift: expected 0.01 to 2"),
        ("largest_shift = 0.5", "largest_shift = -1", "largest_shift: expected 0.01 to 2"),
        ("largest_shift = 0.5", "largest_shift = nan", "largest_shift: expected 0.01 to 2"),
        ("largest_shift = 0.5", "largest_shift = inf", "largest_shift: expected 0.01 to 2"),
        ("largest_shift = 0.5", 'largest_shift = "0.5"', r"recalibrate: Expected `float"),
        ("fewest_events = 100", "fewest_events = 9", "fewest_events: expected 10 to 1e"),
        ("fewest_events = 100", "fewest_events = 99.5", r"recalibrate: Expected `int"),
        ("most_a_year = 4", "most_a_year = 0", "most_a_year: expected 1 to 52"),
        ("most_a_year = 4", "most_a_year = true", r"recalibrate: Expected `int"),
        ("most_a_year = 4", "most_a_year = 4\nauroc_loss = 0.1", "auroc_loss: recalibrate is bound"),
        ("most_a_year = 4", "most_a_yaer = 4", "unknown field `most_a_yaer`"),
        ("without_signature = true", 'without_signature = "yes"', r"Expected `bool`"),
        ("without_signature = true\n", "", "missing required field `without_signature`"),
        ("without_signature = true", 'without_signature = true\nas = "champion"', "'champion'"),
        ('impact = "i"', 'impact = " "', "default.recalibrate.impact: a plan says it"),
        ('protocol = "p"\n', "", "default.recalibrate.protocol: a plan says it"),
        ('approved_by = "Dr Chen, 2026-11-24"\n', "", "approved_by: who approved"),
        ('"Dr Chen, 2026-11-24"', '" "', "approved_by: expected who"),
        ("[default.recalibrate]", "[default.promote]", "default.promote: expected one of recalibrate"),
        ("[default.recalibrate]", "[ed_admision.recalibrate]", "ed_admision: expected approved_by"),
        ("[default.recalibrate]", "default = 3\n[sepsis.recalibrate]", "default: expected tables such"),
        ("[default.recalibrate]", "[default.recalibrate", "Expected ']' at the end of a table"),
        ("[default.recalibrate]", "[default]\nrecalibrate = 3\n[x]", "default.recalibrate: Expected"),
    ],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused_by_name(tmp_path, old, new, says):
    text = f"{APPROVED}[default.recalibrate]\n{RECALIBRATE}"
    assert old in text
    with pytest.raises(UsageError, match=rf"change-control\.toml: .*{says}"):
        read(tmp_path, text.replace(old, new))


def test_a_file_that_is_no_text_is_said(tmp_path):
    (tmp_path / "change-control.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"change-control\.toml: "):
        change_control.read(tmp_path)


def test_a_rule_that_asks_for_a_signature_needs_no_bounds(tmp_path):
    plan = read(tmp_path, "[default.withdraw]\nwithout_signature = false\n")
    assert not plan.rule("sepsis", "withdraw").without_signature


def test_each_bound_is_held_where_there_is_one():
    rule = Rule(action="recalibrate", largest_shift=0.5, fewest_events=100, auroc_loss=0.01)
    assert rule.broken(shifts={"a": 0.5, "b": -0.5}, events={"a": 100}, auroc_loss=0.01) == []
    assert rule.broken(shifts={"a": 0.501, "b": -0.6}) == [
        "a: a shift of +0.50, largest_shift is 0.5",
        "b: a shift of -0.60, largest_shift is 0.5",
    ]
    assert rule.broken(events={"test period": 99}) == ["test period: 99 events, fewest_events is 100"]
    assert rule.broken(auroc_loss=0.02) == ["AUROC falls by 0.020, auroc_loss is 0.01"]
    assert rule.broken(shifts={"a": float("nan")}) == ["a: a shift of +nan, largest_shift is 0.5"]
    assert Rule(action="recalibrate").broken(shifts={"a": 9.0}, events={"a": 1}, auroc_loss=1.0) == []


def test_a_year_counts_what_was_done_on_that_model_without_a_signature():
    def entry(at, *, model="m", action="recalibrate", plan=None, act=ledger.ALARM_ANSWERED):
        evidence = {"action": action, "change_control": plan}
        return Entry(
            number=1, at=at, act=act, model=model, version="1", by="b", reason="r", evidence=evidence
        )

    plan = {"sha256": "ab"}
    book = [
        entry("2025-11-24T00:00:00+00:00", plan=plan),  # a day and more over a year ago
        entry("2026-01-01T00:00:00+00:00", plan=plan),
        entry("2026-02-01T00:00:00+00:00", plan=plan),
        entry("2026-02-01T00:00:00+00:00"),
        entry("2026-02-01T00:00:00+00:00", plan=plan, model="other"),
        entry("2026-02-01T00:00:00+00:00", plan=plan, action="retrain"),
        entry("2026-02-01T00:00:00+00:00", plan=plan, act="recalibrate"),
    ]
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert change_control.spent(book, "m", "recalibrate", now=now) == 2
