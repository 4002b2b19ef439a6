"""The OpenAPI document: whole, and true to what is asked and answered."""

from __future__ import annotations

import itertools
import json

import msgspec

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
    assert set(asked["responses"]) == {"200", "404", "409", "413", "415", "422", "500", "503"}
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
    for answer in msgspec.to_builtins(answered.predictions):
        name = {"scored": "Scored", "abstained": "Abstained", "refused": "Refused"}[answer["status"]]
        assert set(answer) == set(schemas[name]["properties"]) >= set(schemas[name]["required"])
