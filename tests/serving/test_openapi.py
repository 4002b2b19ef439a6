"""The OpenAPI document: whole, and true to what is asked and answered."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest

from serving.app import ROUTES
from serving.openapi import document
from serving.schema import read_predict
from serving.scorer import Receipt


def resolve(document: dict, reference: str) -> object:
    node = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def references(node: object):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        yield from itertools.chain.from_iterable(map(references, node.values()))
    elif isinstance(node, list):
        yield from itertools.chain.from_iterable(map(references, node))


def test_openapi_is_whole(tiny):
    described = document([tiny])
    assert described["openapi"].startswith("3.1")
    assert set(described["info"]) >= {"title", "version"}
    for reference in references(described):
        assert resolve(described, reference)
    for path, item in described["paths"].items():
        assert path.startswith("/")
        for operation in item.values():
            assert all(status.isdigit() for status in operation["responses"])
            assert all(answer["description"] for answer in operation["responses"].values())
    asked = described["paths"]["/v1/ed_admission/predict"]["post"]
    statuses = {200, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503}
    assert set(asked["responses"]) == {str(status) for status in statuses}
    assert described["security"] == [{"bearer": []}]
    assert described["paths"]["/openapi.json"]["get"]["security"] == []
    # JSON has no NaN and no infinity: the document survives a strict reader.
    assert json.dumps(described, allow_nan=False)


def test_openapi_says_unit_range_and_categories_of_each_field(tiny):
    fields = document([tiny])["components"]["schemas"]["ed_admission_instance"]
    assert fields["required"] == ["age"]
    assert fields["additionalProperties"] is False
    sbp = fields["properties"]["sbp"]
    assert (sbp["minimum"], sbp["maximum"], sbp["x-unit"], sbp["x-loinc"]) == (
        30, 300, "mm[Hg]", "8480-6",
    )  # fmt: skip
    assert sbp["type"] == ["number", "null"]
    assert fields["properties"]["sex"]["enum"] == ["female", "male", None]


def test_openapi_describes_what_is_answered(scorer, tiny, visit):
    schemas = document([tiny])["components"]["schemas"]
    asked = [visit, visit | {"age": 3}, visit | {"sbp": 1}]
    body = json.dumps({"instances": asked}).encode()
    answered = scorer.predict(read_predict(body), Receipt.now())
    own = {"scored": "ed_admission_scored", "abstained": "Abstained", "refused": "Refused"}
    for answer in msgspec.to_builtins(answered.predictions):
        name = own[answer["status"]]
        assert set(answer) == set(schemas[name]["properties"]) >= set(schemas[name]["required"])
    assert schemas["ed_admission_prediction_set"]["properties"]["set"]["items"]["enum"] == [0, 1]
    assert "series_id" not in schemas["ed_admission_context"]["properties"]


def test_openapi_tells_the_levels_of_an_ordinal_model(tiny, triage):
    schemas = document([tiny, triage])["components"]["schemas"]
    scored = schemas["ed_triage_scored"]
    assert scored["properties"]["level"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert {"level", "probabilities"} <= set(scored["required"])
    chances = scored["properties"]["probabilities"]
    assert chances["minItems"] == chances["maxItems"] == 5
    assert schemas["ed_triage_prediction_set"]["properties"]["set"]["items"]["enum"] == [1, 2, 3, 4, 5]
    assert not {"level", "probabilities"} & set(schemas["ed_admission_scored"]["properties"])


def test_openapi_tells_how_a_series_is_asked(tiny, sepsis):
    described = document([tiny, sepsis])
    schemas = described["components"]["schemas"]
    asked = schemas["sepsis_request"]["properties"]
    assert "icu_hour rising" in asked["instances"]["description"]
    assert "6 h" in asked["instances"]["description"]
    assert asked["instances"]["items"] == {"$ref": "#/components/schemas/sepsis_instance"}
    contexts = asked["context"]["anyOf"][0]
    assert (contexts["minItems"], contexts["maxItems"]) == (1, 1)
    assert contexts["items"] == {"$ref": "#/components/schemas/sepsis_context"}
    assert "series_id" in schemas["sepsis_context"]["properties"]
    assert schemas["sepsis_instance"]["required"] == ["icu_hour"]


@pytest.mark.parametrize("several", [1, 2, 3])
def test_openapi_is_whole_with_models_of_every_kind(tiny, triage, sepsis, several):
    described = document([tiny, triage, sepsis][:several])
    schemas = described["components"]["schemas"]
    for reference in references(described):
        assert resolve(described, reference)
    for name in ("ed_admission", "ed_triage", "sepsis")[:several]:
        answer = described["paths"][f"/v1/{name}/predict"]["post"]["responses"]["200"]["content"]
        assert answer == {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{name}_answer"}}
        }
        items = schemas[f"{name}_answer"]["properties"]["predictions"]["items"]
        assert items["discriminator"]["mapping"]["scored"] == f"#/components/schemas/{name}_scored"
        assert {"$ref": f"#/components/schemas/{name}_scored"} in items["anyOf"]
    assert "Scored" not in schemas


def test_every_route_is_in_the_document(tiny, triage):
    described = document([tiny, triage])["paths"]
    for route in ROUTES:
        if route.method == "OPTIONS" or route.path.endswith("/model-card"):
            continue  # a browser's own question, and a page
        path = route.path.replace("{model}", "ed_triage").replace("{id}", "ed_triage-patient-view")
        said = described[path][route.method.lower()]
        assert (said.get("security") == []) == (route.needs is None), path
