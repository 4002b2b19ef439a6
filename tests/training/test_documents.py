"""What each document holds, for one small bundle that is kept as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from data.contract import Column, Text
from data.errors import ContractError
from models.ledger import RECALIBRATE, Entry
from models.spec import Support
from training import card, gate
from training.documents import facts, hti1, people, results, rows, tables, tripod
from training.documents.bundle import Bundle
from training.documents.field import Field
from training.documents.questions import KEYS, QUESTIONS, answers
from training.documents.words import at

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "card"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return msgspec.json.decode((GOLDEN / "bundle.json").read_bytes(), type=Bundle)


@pytest.fixture(scope="module")
def unwritten(bundle) -> dict[str, Field]:
    """The fields while nobody has written anything."""
    return answers(replace(bundle, people={}))


@pytest.mark.parametrize("name", ["card.json", "card.hti1.json", "card.tripod.json"])
def test_a_document_is_the_one_that_is_kept(bundle, name):
    made = card.of_bundle(bundle, {"roc": b"png"})[name]
    assert made.decode() == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_same_bundle_gives_the_same_bytes(bundle):
    drawn = {"roc": b"png"}
    again = msgspec.json.decode(msgspec.json.encode(bundle), type=Bundle)
    assert card.of_bundle(bundle, drawn) == card.of_bundle(again, drawn)


def test_what_the_evidence_answers_is_filled(unwritten):
    filled = [field for field in unwritten.values() if field.source in ("A", "P")]
    assert len(filled) > 60
    assert [field.id for field in filled if not field.value or not field.value.strip()] == []
    assert [field.id for field in filled if "None" in field.text] == []


def test_what_a_person_must_write_names_that_person_and_nothing_else(unwritten):
    asked = [field for field in unwritten.values() if field.source == "H" and field.id != "intended_use"]
    assert len(asked) > 30
    for field in asked:
        assert field.value is None
        assert field.text == field.state == f"to be written by {field.who}"


def test_what_a_person_confirms_names_that_person(unwritten):
    for field in unwritten.values():
        assert (field.who is None) == (field.source == "A"), field.id
        if field.source == "P":
            assert field.state == f"pre-filled, to be confirmed by {field.who}"


def test_what_a_person_wrote_takes_the_place_of_what_was_pre_filled(bundle):
    field = answers(bundle)["known_risks"]
    assert (field.source, field.text) == ("H", "Never tried at night.")
    assert field.state == "written by a person"


def test_nobody_overwrites_the_evidence(bundle):
    written = replace(bundle, people={"validity": "The best of all.", "intended_use": "Anything."})
    assert answers(written) == answers(replace(bundle, people={}))


def test_each_field_is_asked_once_and_answers_some_document(bundle):
    names = [question.id for question in QUESTIONS]
    assert len(names) == len(set(names))
    made = card.of_bundle(bundle, {})
    page, xml = made["card.html"].decode(), made["card.chai.xml"].decode()
    asked = {name for attribute in hti1.ATTRIBUTES for name in attribute.asks}
    asked |= {name for _, _, ids in tripod.ITEMS for name in ids}
    asked |= {"keywords", "ehr"}  # lists in the model card
    for field in answers(bundle).values():
        shown = field.title in page or field.text[:30] in page or field.text[:30] in xml
        assert field.id in asked or shown, field.id


# A: filled from the evidence, P: pre-filled and to be confirmed, H: for a person to write; by parts.
SOURCES = "HHPA HHHH PP AAAP HP AHAP AAAAH AAAA AP"


def test_the_source_attributes_are_the_31_in_the_order_of_the_rule(unwritten):
    found = hti1.attributes(unwritten)
    assert [row["number"] for row in found] == list(range(1, 32))
    assert "".join(row["source"] for row in found) == SOURCES.replace(" ", "")


def test_a_source_attribute_of_two_fields_waits_for_both(bundle):
    first = hti1.attributes(answers(bundle))[0]
    assert first["value"] == (
        "Developer: Department of Medical Informatics; Contact: to be written by the developer"
    )
    nothing = hti1.attributes(answers(replace(bundle, people={})))[0]
    assert nothing["value"] is None
    assert nothing["state"] == "to be written by the developer"


def test_the_checklist_has_27_items_in_order(unwritten):
    numbers = [int(row["item"].rstrip("abcdefg")) for row in tripod.checklist(unwritten)]
    assert sorted(set(numbers)) == list(range(1, 28))
    assert numbers == sorted(numbers)
    by_item = {row["item"]: row["fields"] for row in tripod.checklist(unwritten)}
    assert "outside its plausible range" in by_item["27a"][0]["value"]


def input_named(name: str, *, label: str, available: str = "arrival") -> Column:
    return Column(name=name, kind="text", role="input", available=available, label=Text(label, label))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (input_named("race", label="Race"), "race: yes (Race)"),
        (input_named("ethnic_group", label="Group"), "ethnicity: yes (Group)"),
        (input_named("spoken", label="Preferred language"), "language: yes (Preferred language)"),
        (input_named("gender", label="Gender"), "gender identity: yes (Gender)"),
        (input_named("birth_date", label="Born"), "date of birth: yes (Born)"),
        (input_named("payer", label="Payer"), "social determinants of health: yes (Payer)"),
        (
            input_named("lactate", label="Lactate", available="triage"),
            "health status: yes (1 inputs: Lactate)",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Column) else "",
)
def test_a_personal_attribute_among_the_inputs_is_told(bundle, column, told):
    mart = replace(bundle.mart, columns=(column,))
    text = rows.personal_inputs(replace(bundle, mart=mart, inputs=(column.name,)))
    assert told in text
    assert text.count("yes") == 1


def test_what_is_recorded_but_not_read_is_told_apart(bundle):
    text = rows.personal_inputs(bundle)
    assert "race: no, recorded only to compare groups" in text
    assert "ethnicity: no;" in text
    assert "date of birth: only as age" in text
    assert "social determinants of health: yes (Lives in a nursing home)" in text
    assert "health status: yes (2 inputs: Heart rate, Nurse's acuity)" in text


def test_no_document_for_people_tells_how_few_a_small_group_has(bundle):
    made = card.of_bundle(bundle, {})
    for name in ("card.html", "card.chai.xml", "card.hti1.json", "card.tripod.json"):
        text = made[name].decode()
        assert 'class="n">12<' not in text
        assert "B 12" not in text
    assert "B fewer than 20 people: not shown" in rows.tested_groups(bundle)
    line = next(row for row in tables.of(bundle)["groups"].rows if row[1] == "B")
    assert line == ("", "B", "fewer than 20 people: not shown", *[""] * 7)


def test_a_site_of_a_few_rows_is_not_listed(bundle):
    assert [row[0] for row in tables.of(bundle)["sites"].rows] == ["county-01", "county-02"]


def test_training_rows_are_counted_where_the_attribute_is_an_input(bundle):
    assert rows.development_groups(bundle) == (
        "Training rows: age: a quarter under 30, half under 50, three quarters under 70; sex: female"
        " 1,600 (53%), male 1,380 (46%), missing 20 (0.67%). Test rows: race: A 988 (99%), B fewer than"
        " 20 people: not shown."
    )


def test_the_net_benefit_says_over_which_range_and_how_often_it_is_best(bundle):
    assert results.benefit(bundle) == (
        "For thresholds from 10% to 50% the net benefit is above that of treating all and of treating"
        " none at 3 of 3 thresholds."
    )
    table = tables.of(bundle)["benefit"]
    assert table.head[:4] == ("Net benefit at", "This model", "Treat all", "Treat none")
    assert table.rows[1] == ("30%", "0.083", "-0.143", "0.000", "0.020", "0.020", "0.020")


def test_the_gate_shows_what_it_finds_in_these_figures(bundle):
    found = gate.judge(bundle.figures, bundle.spec)
    shown = tables.of(bundle)["gate"].rows
    assert [row[:2] for row in shown] == [(one.criterion, one.limit) for one in found]
    figures = {row[0]: row[2:] for row in shown}
    assert figures["events in the test period"] == ("200", "met")
    assert figures["AUROC"] == ("0.850", "met")
    strict = replace(bundle.spec, limits=replace(bundle.spec.limits, auroc=0.9))
    figures = {row[0]: row[2:] for row in tables.of(replace(bundle, spec=strict))["gate"].rows}
    assert figures["AUROC"] == ("0.850", "not met")


def test_a_site_that_it_was_recalibrated_for_is_told_before_and_after(bundle):
    assert tables.of(bundle)["recalibration"].rows == ()
    note = {"n": 400, "events": 60, "before": {"oe": 1.414}, "after": {"oe": 1.02}}
    figures = {**bundle.figures, "recalibration": {"county-09": note}}
    found = tables.of(replace(bundle, figures=figures))["recalibration"].rows
    assert found == (("county-09", "400", "60", "1.41", "1.02"),)


def test_patients_split_without_dates_are_told_so(bundle):
    spec = replace(bundle.spec, split="patient_hash")
    provenance = replace(bundle.provenance, periods={})
    undated = replace(bundle, spec=spec, provenance=provenance, patients=None)
    assert rows.dates(undated).startswith("Without dates")
    assert "By a hash of the patient's identifier" in rows.partition(undated)
    assert "somebody may stand in two parts" in rows.partition(undated)
    assert "Nobody stands in two parts" in rows.partition(replace(undated, patients=7))
    assert undated.resampled == "sites"
    assert card.of_bundle(undated, {})


@pytest.mark.parametrize("figures", [{}, "only n", "all null"])
def test_figures_that_are_absent_or_null_are_left_out(bundle, figures):
    if figures == "only n":
        figures = {"n": 10, "events": 2}
    elif figures == "all null":
        figures = dict.fromkeys(bundle.figures)
    bare = replace(bundle, figures=figures, people={})
    made = card.of_bundle(bare, {})
    assert b"None" not in made["card.html"]
    assert all(field.value for field in answers(bare).values() if field.source in ("A", "P"))


def act(number: int, what: str) -> Entry:
    return Entry(
        number=number,
        at=f"2022-0{number}-01T09:00:00+00:00",
        act=what,
        model="ward_admission",
        version="3",
        by="Dr Chen",
        reason="reviewed",
    )


def test_the_day_of_release_is_that_of_the_last_act_that_pointed_to_it(bundle):
    care = replace(bundle, provenance=replace(bundle.provenance, use="care"), ledger=())
    assert (facts.stage(care), facts.release_date(care)) == (
        "Registered, not released.",
        "not released",
    )
    acts = (act(1, "promote to champion"), act(2, RECALIBRATE))
    released = replace(care, ledger=acts)
    assert facts.stage(released) == "Last act: promote to champion."
    assert facts.release_date(released) == "2022-01-01"
    withdrawn = replace(care, ledger=(*acts, act(3, "withdraw champion")))
    assert facts.stage(withdrawn) == "Last act: withdraw champion."
    assert facts.release_date(withdrawn) == "2022-01-01"


def test_a_demonstration_is_never_called_released(bundle):
    assert facts.stage(bundle) == "Demonstration, not for care."


def test_nothing_is_read_where_there_is_no_file(tmp_path):
    assert people.read(tmp_path / "ward_admission.toml", KEYS) == {}


def test_an_empty_text_is_one_not_yet_written(tmp_path):
    path = tmp_path / "ward_admission.toml"
    path.write_text('developer = "  "\nfunding = "None."\nethics = """\n批准\n"""\n', encoding="utf-8")
    assert people.read(path, KEYS) == {"funding": "None.", "ethics": "批准"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('developr = "A"', r"ward_admission\.toml: no field is called developr"),
        ('validity = "A"', "no field is called validity"),
        ('intended_use = "A"', "no field is called intended_use"),
        ("developer = 7", "developer must be a text in quotes"),
        ("developer = A", "is no TOML"),
    ],
)
def test_a_key_that_no_document_asks_for_is_an_error(tmp_path, text, said):
    path = tmp_path / "ward_admission.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ContractError, match=said):
        people.read(path, KEYS)


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    path = tmp_path / "ward_admission.toml"
    path.write_bytes(b'developer = "\xff"')
    with pytest.raises(ContractError, match="is no TOML"):
        people.read(path, KEYS)


@pytest.mark.parametrize("path", sorted((ROOT / "models/catalog").glob("*.toml")), ids=lambda p: p.stem)
def test_each_file_of_the_catalog_is_that_of_a_model_and_asks_what_the_documents_ask(path):
    assert path.with_suffix(".py").is_file()
    people.read(path, KEYS)


def test_the_template_explains_every_key():
    lines = people.place("ed_admission").read_text(encoding="utf-8").splitlines()
    asked = [line.split(" = ")[0] for line in lines if " = " in line and not line.startswith("#")]
    assert sorted(asked) == sorted(KEYS)


def test_a_figure_below_an_absent_one_is_absent():
    assert at({"a": {"b": 0}}, "a", "b") == 0
    assert at({"a": None}, "a", "b", default="-") == "-"
    assert at({"a": 3}, "a", "b") is None


def test_the_card_says_when_no_risk_is_given_and_how_it_fares_with_less(bundle):
    declared = Support(
        measured=("heart_rate", "shock_index"), at_least=1, novelty=0.99997, largest_set=1
    )
    told = {
        "rows": 500,
        "abstained": {"any": 0.04, "missing": 0.03, "novelty": 0.01, "ambiguous": 0.0},
        "withheld": [{"share": 0.5, "answered": 0.9, "auroc": 0.791, "oe": 0.86}],
    }
    figures = {**bundle.figures, "poor_inputs": told}
    said = facts.handling(replace(bundle, figures=figures, spec=replace(bundle.spec, support=declared)))
    assert any("fewer than 1 of heart rate, shock_index" in line and "(3.0%" in line for line in said)
    assert any("99.997% of the training rows (1.0%" in line for line in said)
    assert any("more than 1 classes (0%" in line for line in said)
    assert any("With 50% of the inputs" in line and "0.791" in line and "90%" in line for line in said)
