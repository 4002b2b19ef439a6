"""A card without a server: which predictions show one, how urgent it is, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data import marts
from data.contract import Text
from data.errors import FieldError
from models import catalog
from serving.answers import (
    Abstained,
    Contribution,
    Explanation,
    Fault,
    NamedBand,
    Reason,
    Refused,
    Scored,
)
from serving.cds.cards import LONGEST_SUMMARY, card, indicator, pruned
from serving.scorer import Scorer

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "cds"
PAGE = "https://risk.hospital.example/cds-services/ed_admission-patient-view/model-card"
ID = "019a0000-0000-7000-8000-000000000001"


def scored(band, **more):
    said = {
        "prediction_id": ID,
        "risk": 0.6312,
        "band": NamedBand(band.id, band.label, band.action),
        "explanation": Explanation(
            space="log-odds",
            base_value=-1.84,
            contributions=(
                Contribution("sbp", Text("Systolic blood pressure", "收缩压"), 88, "mm[Hg]", 0.61),
                Contribution("spo2", Text("Oxygen saturation", "血氧饱和度"), 99, "%", -0.3),
                Contribution("age", Text("Age", "年龄"), None, "a", 0.2),
                Contribution("pain", Text("Pain score", "疼痛评分"), 3, "{score}", 0.0),
            ),
            other=1.8,
        ),
        "warnings": (FieldError(field="age", reason="missing"),),
    }
    return Scored(**said | more)


def abstained(rule):
    return Abstained(ID, (Reason(rule, "age", "under 18 years", "未满18岁"),))


def with_cards(scorer, *cards):
    spec = scorer.artifact.spec
    bands = tuple(replace(band, card=shown) for band, shown in zip(spec.bands, cards, strict=True))
    return Scorer(
        artifact=replace(scorer.artifact, spec=replace(spec, bands=bands)), version="1", key=scorer.key
    )


def test_the_band_says_how_urgent_a_card_is_and_whether_there_is_one(scorer):
    declared = (None, "info", "warning", "critical")
    of = with_cards(scorer, *declared)
    bands = of.artifact.spec.bands
    assert tuple(indicator(of.artifact.spec, scored(band)) for band in bands) == declared
    assert card(of, scored(bands[0]), warnings=(), page=PAGE) is None


def test_without_any_declared_the_alert_s_threshold_divides_them(scorer):
    of = with_cards(scorer, None, None, None, None)
    spec = of.artifact.spec
    assert [indicator(spec, scored(band)) for band in spec.bands] == [
        "info", "info", "warning", "warning",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "shown"),
    [("cohort", None), ("missing", "info"), ("novelty", "info"), ("ambiguous", "info")],
)
def test_an_abstention_is_shown_unless_the_model_is_not_for_the_patient(scorer, rule, shown):
    assert indicator(scorer.artifact.spec, abstained(rule)) == shown


def test_a_refused_record_shows_no_card(scorer):
    refused = Refused(ID, (Fault("sbp", "outside 30 to 300 mm[Hg]"),))
    assert card(scorer, refused, warnings=(), page=PAGE) is None


@pytest.mark.parametrize("name", catalog.names())
def test_a_summary_is_short_enough_whatever_the_model_says(scorer, name):
    spec = catalog.load(name)
    if not spec.bands and spec.triage is not None:
        spec = replace(spec, bands=spec.triage.bands((0.1, 0.3, 0.6, 0.9)))
    artifact = replace(scorer.artifact, spec=spec, mart=marts.load(spec.mart))
    of = Scorer(artifact=artifact, version="1", key=scorer.key)
    for band in spec.bands:
        more = {"level": int(band.id)} if spec.triage is not None else {}
        shown = card(of, scored(band, **more), warnings=(), page=PAGE)
        if shown is not None:
            assert 20 < len(shown["summary"]) <= LONGEST_SUMMARY


def test_nothing_empty_is_left():
    assert pruned({"a": None, "b": [], "c": {"d": ""}, "e": 0, "f": [None, False], "g": ("x",)}) == {
        "e": 0, "f": [False], "g": ["x"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["scored", "abstained"])
def test_a_card_reads_as_it_did(scorer, name):
    of = with_cards(scorer, None, "info", "warning", "critical")
    prediction = scored(of.artifact.spec.bands[2]) if name == "scored" else abstained("missing")
    warnings = (FieldError(field="spo2", reason="a limit, not a measurement"),)
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert card(of, prediction, warnings=warnings, page=PAGE) == golden
