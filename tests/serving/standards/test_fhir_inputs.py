"""What a model reads out of a patient's record: codes, units, recency, and whose it is."""

from __future__ import annotations

import json
from datetime import date, timedelta

import msgspec
import pytest
from msgspec import Raw

from data.errors import ContractError
from serving.fhir.inputs import inputs
from serving.fhir.record import gather, record
from serving.fhir.types import Reference, born, moment, years


@pytest.fixture
def read(tiny, sepsis, chart):
    """The rows that a model gets out of some resources, as of now."""

    def of(*resources, model="ed_admission", at=None, subject=None, encounter=None):
        sent = [("data", Raw(msgspec.json.encode(chart.bundle(*resources))))]
        about = record(
            gather(sent, chart.now),
            subject=Reference(reference=subject) if subject else None,
            encounter=Reference(reference=encounter) if encounter else None,
        )
        artifact = sepsis if model == "sepsis" else tiny
        return inputs(artifact, about, at or chart.now, site=about.site)

    return of


def rows(found):
    return [json.loads(bytes(instance)) for instance in found.request.instances]


def warned(found):
    return {warning.field: warning.reason for warning in found.warnings}


def refusal(read, *resources, **more):
    with pytest.raises(ContractError) as caught:
        read(*resources, **more)
    [fault] = caught.value.errors
    return fault.field, fault.reason


def test_a_visit_is_read_by_its_codes(read, chart):
    found = read(*chart.visit())
    arrived = chart.encounter()["period"]["start"]
    assert rows(found) == [
        {
            "age": 71.0,
            "sex": "female",
            "arrival_hour": int(arrived[11:13]),
            "arrival_weekday": date.fromisoformat(arrived[:10]).isoweekday(),
            "temperature": 38.4,
            "heart_rate": 124.0,
            "respiratory_rate": 24.0,
            "sbp": 88.0,
            "dbp": 50.0,
            "spo2": 91.0,
        }
    ]
    assert found.warnings == ()
    assert found.basis == (
        "Observation/o-8310-5",
        "Observation/o-8867-4",
        "Observation/o-9279-1",
        "Observation/bp",
        "Observation/o-2708-6",
    )
    [context] = found.request.context
    assert (context.patient_id, context.encounter_id, context.site) == ("p1", "e1", "county-03")
    assert context.at == chart.now


@pytest.mark.parametrize(
    ("code", "value", "unit", "column", "expected"),
    [
        ("8310-5", 101.12, "[degF]", "temperature", 38.4),
        ("8331-1", 38.4, "Cel", "temperature", 38.4),
        ("8480-6", 16, "kPa", "sbp", 120.009869),
        ("59408-5", 0.91, "1", "spo2", 91.0),
        ("8867-4", 124, "{beats}/min", "heart_rate", 124.0),
        ("72514-3", 7, "{score}", "pain", 7.0),
    ],
)
def test_another_code_or_unit_of_the_same_quantity_is_converted(
    read, chart, code, value, unit, column, expected
):
    [row] = rows(read(chart.patient(), chart.observation(code, value, unit)))
    assert row[column] == pytest.approx(expected)


def test_a_unit_without_a_code_is_read_as_people_write_it(read, chart):
    written = chart.observation("8480-6", 0, "x", valueQuantity={"value": 120, "unit": "mmHg"})
    assert rows(read(chart.patient(), written))[0]["sbp"] == 120


def test_a_score_needs_no_unit(read, chart):
    scored = chart.observation("72514-3", 0, "x")
    del scored["valueQuantity"]
    assert rows(read(chart.patient(), scored | {"valueInteger": 6}))[0]["pain"] == 6


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"valueQuantity": {"value": 3, "system": "http://unitsofmeasure.org", "code": "kg"}},
         "unit cannot be converted to Cel"),
        ({"valueQuantity": {"value": 38.4, "system": "http://unitsofmeasure.org", "code": "C"}},
         "unit cannot be converted to Cel"),
        ({"valueQuantity": {"value": 38.4, "system": "http://snomed.info/sct", "code": "258710007"}},
         "unit not in UCUM"),
        ({"valueQuantity": {"value": 38.4}},
         "without a unit: Cel, or one that can be converted to it"),
        ({"valueInteger": 38}, "without a unit: Cel, or one that can be converted to it"),
        ({"valueString": "38.4 Cel"}, "not a quantity"),
        ({"valueRange": {"low": {"value": 38}}}, "not a quantity"),
        ({"valueQuantity": {"value": 38.4, "code": "Cel", "comparator": "ad"}},
         "with a comparator that is none of <, <=, >=, >"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_right_refuses_the_record(read, chart, value, reason):
    measured = chart.observation("8310-5", 0, "x")
    del measured["valueQuantity"]
    assert refusal(read, chart.patient(), measured | value) == ("temperature", reason)


def test_a_limit_counts_as_the_value_and_says_so(read, chart):
    limit = {"value": 100, "comparator": ">", "code": "%", "system": "http://unitsofmeasure.org"}
    found = read(chart.patient(), chart.observation("2708-6", 0, "%", valueQuantity=limit))
    assert rows(found)[0]["spo2"] == 100
    assert warned(found) == {"spo2": "a limit, not a measurement"}


@pytest.mark.parametrize(
    "timed",
    [
        lambda at: {"effectiveDateTime": at},
        lambda at: {"effectiveDateTime": None, "effectiveInstant": at},
        lambda at: {"effectiveDateTime": None, "effectivePeriod": {"start": "2020-01-01", "end": at}},
        lambda at: {"effectiveDateTime": None, "issued": at},
    ],
)
def test_the_latest_observation_wins_wherever_its_time_stands(read, chart, timed):
    older = chart.observation("8867-4", 80, "/min", "old", **timed(chart.ago(hours=3)))
    newer = chart.observation("8867-4", 124, "/min", "new", **timed(chart.ago(hours=1)))
    for order in ((older, newer), (newer, older)):
        found = read(chart.patient(), *order)
        assert rows(found)[0]["heart_rate"] == 124
        assert found.basis == ("Observation/new",)


def test_times_at_other_offsets_are_compared_as_moments(read, chart):
    utc = (chart.now - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    earlier = chart.observation("8867-4", 80, "/min", effectiveDateTime=chart.ago(hours=2))
    later = chart.observation("8867-4", 124, "/min", effectiveDateTime=utc)
    assert rows(read(chart.patient(), later, earlier))[0]["heart_rate"] == 124


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"effectiveDateTime": "OLD"}, "older than 24 h"),
        ({"effectiveDateTime": None}, "of an unknown time"),
        ({"effectiveDateTime": "FUTURE"}, "later than the time asked about"),
        ({"valueQuantity": None, "dataAbsentReason": {"coding": [{"code": "unknown"}]}},
         "recorded without a value"),
        ({"valueQuantity": None}, "recorded without a value"),
    ],
)  # fmt: skip
def test_what_does_not_stand_for_the_present_is_missing_and_said(read, chart, more, reason):
    times = {"OLD": chart.ago(hours=24.5), "FUTURE": chart.ago(hours=-1)}
    own = {key: times.get(str(value), value) for key, value in more.items()}
    found = read(chart.patient(), chart.observation("8867-4", 124, "/min", **own))
    assert "heart_rate" not in rows(found)[0]
    assert warned(found) == {"heart_rate": reason}
    assert found.basis == ()


def test_the_latest_wins_even_without_a_value(read, chart):
    measured = chart.observation("8867-4", 80, "/min", effectiveDateTime=chart.ago(hours=2))
    absent = chart.observation("8867-4", 0, "/min", valueQuantity=None)
    assert "heart_rate" not in rows(read(chart.patient(), measured, absent))[0]


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "registered", "unknown"])
def test_what_is_no_measurement_is_passed_over(read, chart, status):
    good = chart.observation("8867-4", 80, "/min", effectiveDateTime=chart.ago(hours=2))
    bad = chart.observation("8867-4", 124, "/min", status=status)
    assert rows(read(chart.patient(), good, bad))[0]["heart_rate"] == 80


def test_a_preliminary_value_counts_and_says_so(read, chart):
    found = read(chart.patient(), chart.observation("8867-4", 99, "/min", status="preliminary"))
    assert rows(found)[0]["heart_rate"] == 99
    assert warned(found) == {"heart_rate": "preliminary"}


def test_codes_of_no_known_system_mean_nothing(read, chart):
    local = chart.observation("8867-4", 124, "/min")
    local["code"]["coding"][0]["system"] = "http://hospital.example/codes"
    assert "heart_rate" not in rows(read(chart.patient(), local))[0]


def test_columns_without_a_standard_code_are_sent_under_the_project_s_own(read, chart):
    told = {"coding": [{"system": "urn:caremodels:reason_1", "code": "dyspnoea"}]}
    [row] = rows(
        read(
            chart.patient(),
            chart.own("ed_visit", "acuity", valueInteger=2),
            chart.own("ed_visit", "ambulance", valueBoolean=True),
            chart.own("ed_visit", "reason_1", valueCodeableConcept=told),
            chart.own("ed_visit", "disposition", valueString="admitted"),
        )
    )
    assert (row["acuity"], row["ambulance"], row["reason_1"]) == (2, True, "dyspnoea")
    assert "disposition" not in row
    unknown = chart.own("ed_visit", "reason_1", valueString="vapours")
    assert refusal(read, chart.patient(), unknown) == ("reason_1", "not an allowed value")


def test_a_confirmed_condition_sets_its_flag_and_none_unsets_any(read, chart):
    confirmed = {"verificationStatus": {"coding": [{"code": "confirmed"}]}}
    found = read(chart.patient(), chart.condition("N18.6", **confirmed), chart.condition("E11.900"))
    told = {name: value for name, value in rows(found)[0].items() if value is True}
    assert set(told) == {"chronic_kidney_disease", "end_stage_renal_disease", "diabetes_type_2"}
    assert found.basis == ("Condition/c-N18.6", "Condition/c-E11.900")
    assert False not in rows(found)[0].values()


@pytest.mark.parametrize(
    "doubt",
    [
        {"verificationStatus": {"coding": [{"code": "refuted"}]}},
        {"verificationStatus": {"coding": [{"code": "entered-in-error"}]}},
        {"verificationStatus": {"coding": [{"code": "provisional"}]}},
        {"verificationStatus": {"text": "perhaps"}},
        {"recordedDate": "2999-01-01"},
        {"code": {"coding": [{"system": "http://hospital.example", "code": "I50"}]}},
        {"code": {"text": "I50"}},
    ],
)
def test_a_condition_in_doubt_says_nothing(read, chart, doubt):
    assert "heart_failure" not in rows(read(chart.patient(), chart.condition("I50.9", **doubt)))[0]


def test_a_condition_may_carry_several_codings(read, chart):
    several = [
        {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "Z00.0"},
        {"system": "http://snomed.info/sct", "code": "84114007"},
    ]
    found = read(chart.patient(), chart.condition("x", code={"coding": several}))
    assert rows(found)[0]["heart_failure"] is True


def test_an_arrival_in_utc_has_no_local_hour(read, chart):
    visit = chart.encounter(period={"start": "2026-11-23T08:15:00Z"})
    found = read(chart.patient(), visit)
    assert not {"arrival_hour", "arrival_weekday"} & set(rows(found)[0])
    assert warned(found)["arrival_hour"] == "told in UTC: the local time is not known"


def test_an_admission_source_says_where_from(read, chart):
    system = "http://terminology.hl7.org/CodeSystem/admit-source"
    source = {"admitSource": {"coding": [{"system": system, "code": "hosp-trans"}]}}
    for named in ("hospitalization", "admission"):  # R4, R5
        [row] = rows(read(chart.patient(), chart.encounter(**{named: source})))
        assert row["transferred_in"] is True
        assert "nursing_home" not in row


def test_the_period_of_an_encounter_is_read_in_either_release(read, chart):
    start = {"start": "2026-11-23T08:15:00+08:00"}
    later = chart.encounter(period=None, actualPeriod=start)
    [row] = rows(read(chart.patient(), later))
    assert (row["arrival_hour"], row["arrival_weekday"]) == (8, 1)


def test_age_is_counted_in_whole_years_at_the_bedside():
    on = date(2026, 11, 24)
    assert years(date(2008, 11, 24), on) == 18
    assert years(date(2008, 11, 25), on) == 17
    assert years(date(2026, 5, 24), on) == 0.5
    assert born("2008-02-30") is None
    assert born("about 1950") is None


def test_a_birth_that_is_known_by_its_year_says_so(read, chart):
    found = read(chart.patient(birthDate=str(chart.now.year - 60)))
    assert rows(found)[0]["age"] in (59, 60)
    assert warned(found) == {"age": "the day of birth is not known"}
    future = chart.patient(birthDate=str(chart.now.date() + timedelta(days=40)))
    assert refusal(read, future) == ("Patient.birthDate", "later than the time asked about")


@pytest.mark.parametrize("gender", ["other", "unknown", None])
def test_a_sex_that_no_model_knows_is_missing(read, chart, gender):
    assert "sex" not in rows(read(chart.patient(gender=gender)))[0]


def test_moments_need_a_date_or_a_time_with_an_offset(chart):
    assert moment("2026-11-23T08:15:30.123456789Z", chart.now).microsecond == 123456
    assert moment("2026-11-23", chart.now).hour == 0
    for wrong in ("2026-11-23T08:15:00", "2026", "2026-13-01", "20261123T081500Z", "now", "",
                  "0001-01-01T00:00:00+14:00", "2026-11-23T08:15:60Z"):  # fmt: skip
        assert moment(wrong, chart.now) is None


def test_hours_of_a_stay_are_rows_of_one_series(read, chart):
    stay = chart.encounter(period={"start": chart.ago(hours=5, minutes=30)})

    def lactate(value, hours, **more):
        return chart.observation(
            "2524-7", value, "mmol/L", f"l{value}", effectiveDateTime=chart.ago(hours=hours), **more
        )

    found = read(
        chart.patient(),
        stay,
        lactate(1.5, 5.2),  # hour 1
        lactate(2.5, 3.0),  # hour 3
        lactate(3.5, 2.6),  # hour 3, later
        lactate(9.5, 6.0),  # before the stay
        chart.observation("8867-4", 124, "/min", effectiveDateTime=chart.ago(minutes=1)),
        model="sepsis",
    )
    hours = [
        {name: row[name] for name in row if name in ("icu_hour", "lactate", "heart_rate")}
        for row in rows(found)
    ]
    assert hours == [
        {"icu_hour": 1, "lactate": 1.5},
        {"icu_hour": 3, "lactate": 3.5},
        {"icu_hour": 6, "heart_rate": 124.0},
    ]
    assert all(row["age"] == 71 for row in rows(found))
    assert found.request.context[0].series_id == "e1"


def test_a_series_leaves_out_what_the_model_does_not_look_back_on(read, chart):
    stay = chart.encounter(period={"start": chart.ago(hours=20)})
    early = chart.observation("2524-7", 4, "mmol/L", effectiveDateTime=chart.ago(hours=19))
    assert [row["icu_hour"] for row in rows(read(chart.patient(), stay, early, model="sepsis"))] == [21]


def test_the_hour_of_a_series_is_counted_and_never_sent(read, chart):
    claimed = chart.own("icu_hour", "icu_hour", valueInteger=90)
    found = read(chart.patient(), chart.encounter(), claimed, model="sepsis")
    assert [row["icu_hour"] for row in rows(found)] == [2]


def test_a_series_needs_a_beginning(read, chart):
    wanted = ("Encounter.period.start", "required: hours are counted from it")
    assert refusal(read, chart.patient(), model="sepsis") == wanted
    assert refusal(read, chart.patient(), chart.encounter(period=None), model="sepsis") == wanted


def test_laboratory_values_in_moles_are_converted(read, chart, sepsis):
    stay = chart.encounter()
    mass = chart.observation("2524-7", 18.0156, "mg/dL")
    assert rows(read(chart.patient(), stay, mass, model="sepsis"))[0]["lactate"] == pytest.approx(2.0)


# Whose it is.


def test_two_patients_are_never_mixed(read, chart):
    other = chart.patient(id="p2")
    assert refusal(read, chart.patient(), other)[1] == "a second patient"
    theirs = chart.observation("8867-4", 124, "/min", subject={"reference": "Patient/p2"})
    assert refusal(read, chart.patient(), theirs) == (
        "data.entry[1].resource.subject",
        "of another patient than the one asked about",
    )
    for kind in (chart.encounter, lambda **more: chart.condition("I50", **more)):
        with pytest.raises(ContractError):
            read(chart.patient(), kind(subject={"reference": "Patient/p2"}))


def test_a_search_may_bring_the_same_patient_twice(read, chart):
    assert rows(read(chart.patient(), chart.patient()))[0]["age"] == 71


@pytest.mark.parametrize(
    ("url", "reference", "same"),
    [
        (None, "Patient/p1", True),
        (None, "Patient/p1/_history/2", True),
        (None, "http://one.example/fhir/Patient/p1", True),
        ("http://one.example/fhir/Patient/p1", "Patient/p1", True),
        ("http://one.example/fhir/Patient/p1", "http://one.example/fhir/Patient/p1", True),
        ("http://one.example/fhir/Patient/p1", "http://two.example/fhir/Patient/p1", False),
        ("urn:uuid:9f0c", "urn:uuid:9f0c", True),
        ("urn:uuid:9f0c", "Patient/p1", True),
        (None, "urn:uuid:9f0c", False),
        (None, "Patient/p10", False),
        (None, "Group/p1", False),
        (None, "#p1", False),
        (None, "p1", False),
    ],
)
def test_a_reference_names_the_patient_in_any_of_its_forms(chart, url, reference, same):
    entries = [
        {"fullUrl": url, "resource": chart.patient()},
        {"resource": chart.observation("8867-4", 124, "/min", subject={"reference": reference})},
    ]
    sent = [("data", Raw(msgspec.json.encode({"resourceType": "Bundle", "entry": entries})))]
    gathered = gather(sent, chart.now)
    if same:
        assert record(gathered, subject=None, encounter=None).patient_id == "p1"
    else:
        with pytest.raises(ContractError, match="cannot be used"):
            record(gathered, subject=None, encounter=None)


def test_a_patient_may_be_named_by_an_identifier(read, chart):
    mrn = {"system": "http://hospital.example/mrn", "value": "77"}
    known = chart.patient(identifier=[mrn])
    theirs = chart.observation("8867-4", 124, "/min", subject={"identifier": mrn})
    assert rows(read(known, theirs))[0]["heart_rate"] == 124
    strange = chart.observation("8867-4", 124, "/min", subject={"identifier": mrn | {"value": "78"}})
    assert refusal(read, known, strange)[1] == "of another patient than the one asked about"


def test_a_subject_must_be_the_patient_that_was_sent(read, chart):
    assert refusal(read, chart.patient(), subject="Patient/p2") == (
        "subject",
        "another patient than the one in data",
    )
    assert refusal(read, chart.observation("8867-4", 124, "/min")) == (
        "subject",
        "required: whom is it about?",
    )


def test_one_encounter_among_several_must_be_named(read, chart):
    both = [chart.encounter(), chart.encounter(id="e2", serviceProvider=None)]
    assert refusal(read, chart.patient(), *both) == (
        "encounter",
        "required: the record holds several",
    )
    found = read(chart.patient(), *both, encounter="Encounter/e2")
    assert found.request.context[0].encounter_id == "e2"


@pytest.mark.parametrize(
    ("patient", "encounter", "site"),
    [
        ({}, {"serviceProvider": {"identifier": {"value": "s1"}, "reference": "Organization/x"}}, "s1"),
        ({}, {"serviceProvider": None, "location": [
            {"location": {"reference": "Location/a"}, "status": "completed"},
            {"location": {"reference": "Location/b"}, "status": "active"}]}, "b"),
        ({"managingOrganization": {"reference": "Organization/m"}}, {"serviceProvider": None}, "m"),
        ({}, {"serviceProvider": None}, None),
    ],
)  # fmt: skip
def test_the_site_is_told_by_the_encounter_or_else_the_patient(read, chart, patient, encounter, site):
    found = read(chart.patient(**patient), chart.encounter(**encounter))
    assert found.request.context[0].site == site
