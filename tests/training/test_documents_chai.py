"""The Applied Model Card as XML: the order of its elements, and what they hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from training import card
from training.documents import chai
from training.documents.bundle import Bundle
from training.documents.questions import answers

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "card"
NAMESPACE = "{https://mc.chai.org/v0.2/schema.xsd}"

# Each element, the deeper the further in; "?" may be left out, "*" stands any number of times, "+" at
# least once. Written from the published schema, v0.2.
ORDER = """
BasicInfo
  ModelName
  ModelDeveloper
  DeveloperContact
ReleaseInfo
  ReleaseStage
  ReleaseDate
  ReleaseVersion
  GlobalAvailability
  EHRCompatibility?
    EHR*
  RegulatoryApproval?
ModelSummary
  Summary
  Keywords
    Keyword*
UsesAndDirections
  IntendedUseAndWorkflow
  PrimaryIntendedUsers
  HowToUse
  TargetedPatientPopulation
  CautionedOutOfScopeSettings
Warnings
  KnownRisksAndLimitations
  KnownBiasesOrEthicalConsiderations
  ClinicalRiskLevel
TrustIngredients
  AISystemFacts
    OutcomesAndOutputs
    ModelType
    FoundationModels?
    InputDataSource
    OutputAndInputDataTypes
    DevelopmentDataCharacterization
    BiasMitigationApproaches
    OngoingMaintenance
    Security?
    Transparency?
  TransparencyInformation
    FundingSource
    ThirdPartyInformation?
    StakeholdersConsulted
KeyMetrics
  UsefulnessUsabilityEfficacy
    MetricGoal
    Results
      MetricResult+
        Label
        ValueJson
    Interpretation
    TestType
    TestingDataDescription
    ValidationProcessAndJustification
  FairnessEquity
    MetricGoal
    Results
      MetricResult+
        Label
        ValueJson
    Interpretation
    TestType
    TestingDataDescription
    ValidationProcessAndJustification
  SafetyReliability
    MetricGoal
    Results
      MetricResult+
        Label
        ValueJson
    Interpretation
    TestType
    TestingDataDescription
    ValidationProcessAndJustification
Resources
  EvaluationReferences?
  ClinicalTrial?
  PeerReviewedPublications
  ReimbursementStatus?
  PatientConsentOrDisclosure
Bibliography
"""


def nested(lines: list[str]) -> list[tuple[str, list]]:
    """The order as a tree."""
    tree: list[tuple[str, list]] = []
    for line in lines:
        level, place = (len(line) - len(line.lstrip())) // 2, tree
        for _ in range(level):
            place = place[-1][1]
        place.append((line.strip(), []))
    return tree


def follows(element: ET.Element, order: list[tuple[str, list]]) -> None:
    """Hold the children of ``element`` to the order, and theirs to its next level."""
    children = list(element)
    if order:
        assert not (element.text or "").strip(), element.tag
    for wanted, inner in order:
        name = NAMESPACE + wanted.rstrip("?*+")
        found = []
        while children and children[0].tag == name:
            found.append(children.pop(0))
        fewest, most = {"?": (0, 1), "*": (0, 99), "+": (1, 99)}.get(wanted[-1], (1, 1))
        assert fewest <= len(found) <= most, name
        for child in found:
            if inner:
                follows(child, inner)
            else:
                assert len(child) == 0
                assert (child.text or "").strip(), name
    assert [child.tag for child in children] == []


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return msgspec.json.decode((GOLDEN / "bundle.json").read_bytes(), type=Bundle)


def parsed(bundle: Bundle) -> ET.Element:
    return ET.fromstring(chai.xml(bundle, answers(bundle)))


OPTIONAL = {
    "ehr": "Record system A\n\n Record system B ",
    "regulatory_approval": "Class II",
    "security": "Behind the firewall.",
    "evaluation_references": "A report.",
    "clinical_trial": "None yet.",
    "reimbursement": "None.",
}


def test_the_card_is_the_one_that_is_kept(bundle):
    made = card.of_bundle(bundle, {})["card.chai.xml"]
    assert made.decode() == (GOLDEN / "card.chai.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("people", [{}, OPTIONAL], ids=["nothing written", "all options written"])
def test_the_elements_stand_in_the_order_of_the_schema(bundle, people):
    root = parsed(replace(bundle, people=people))
    assert root.tag == NAMESPACE + "AppliedModelCard"
    follows(root, nested(ORDER.strip().splitlines()))


def test_the_order_is_held_against_every_element():
    root = ET.fromstring(f"<A xmlns='{NAMESPACE[1:-1]}'><C>x</C><B>x</B></A>")
    with pytest.raises(AssertionError):
        follows(root, nested(["B", "C"]))
    follows(root, nested(["C", "B", "D?"]))


def test_an_element_that_may_be_left_out_is_so_while_nobody_wrote_it(bundle):
    bare = parsed(replace(bundle, people={}))
    for name in ("EHRCompatibility", "RegulatoryApproval", "Security", "ClinicalTrial"):
        assert bare.find(f".//{NAMESPACE}{name}") is None
    full = parsed(replace(bundle, people=OPTIONAL))
    assert [e.text for e in full.iter(NAMESPACE + "EHR")] == ["Record system A", "Record system B"]
    assert full.findtext(f".//{NAMESPACE}Security") == "Behind the firewall."


def test_a_required_element_that_nobody_wrote_says_who_must(bundle):
    root = parsed(replace(bundle, people={}))
    assert root.findtext(f".//{NAMESPACE}ModelDeveloper") == "to be written by the developer"
    assert root.findtext(f".//{NAMESPACE}Bibliography") == "to be written by the developer"


def test_each_result_is_a_figure_as_json(bundle):
    results = {
        element.findtext(NAMESPACE + "Label"): json.loads(element.findtext(NAMESPACE + "ValueJson"))
        for element in parsed(bundle).iter(NAMESPACE + "MetricResult")
    }
    assert results["AUROC"] == {
        "kind": "estimate_ci",
        "estimate": 0.85,
        "lower": 0.82,
        "upper": 0.88,
        "level": 95,
    }
    assert results["specificity at the alert"] == {"kind": "single", "value": 0.88}
    assert results["AUROC of Nurse's acuity"]["estimate"] == 0.67
    assert results["groups not shown, under 20 people"] == {"kind": "single", "value": 1}
    assert not any("race B" in label for label in results)


def test_a_metric_without_figures_still_has_a_result(bundle):
    follows(parsed(replace(bundle, figures={})), nested(ORDER.strip().splitlines()))


def test_markup_and_characters_that_xml_cannot_hold_are_text(bundle):
    written = replace(bundle, people={"developer": "<b>A & B</b> \x0b\ud800"})
    made = chai.xml(written, answers(written))
    assert ET.fromstring(made).findtext(f".//{NAMESPACE}ModelDeveloper") == "<b>A & B</b> \ufffd\ufffd"
