"""When the inputs support no risk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.contract import check
from models import catalog, support
from models.spec import Support

WELL = {
    "age": 54,
    "sex": "male",
    "temperature": 36.8,
    "heart_rate": 74,
    "respiratory_rate": 16,
    "sbp": 128,
    "dbp": 78,
    "spo2": 98,
    "reason_1": "headache",
}


def asked(tiny, *instances):
    checked = check(tiny.mart.columns, instances)
    assert checked.kept.all()
    matrix = tiny.features.matrix(checked.rows)
    return checked.rows, matrix, tiny.margin(matrix)


def declaring(tiny, **rules):
    return replace(tiny, spec=replace(tiny.spec, support=Support(**rules)))


@pytest.mark.parametrize(
    ("known", "withheld"),
    [
        ((), True),
        (("sbp",), True),
        (("reason_1",), True),
        (("sbp", "heart_rate"), False),
        (("sbp", "reason_1"), False),
        (("pain", "acuity"), True),  # neither is among those asked for
    ],
)
def test_too_little_is_measured(tiny, known, withheld):
    instance = {"age": 54} | {name: {**WELL, "pain": 3, "acuity": 3}[name] for name in known}
    rows, matrix, margin = asked(tiny, instance)
    rules = support.broken(tiny, rows, matrix, margin)
    assert rules["missing"].tolist() == [withheld]
    why = support.reasons(tiny, rows, {"missing": rules["missing"]})
    if withheld:
        assert [(one.rule, one.field) for one in why[0]] == [("missing", "instance")]
        assert "at least 2 must be" in why[0][0].why.en
    else:
        assert why == {}


def test_strange_inputs_are_named_and_only_in_their_row(tiny):
    odd = {**WELL, "temperature": 44.5, "spo2": 45, "sbp": 32, "dbp": 12}
    model = declaring(tiny, novelty=0.99)
    rows, matrix, margin = asked(model, WELL | {"arrival_hour": 11}, odd)
    strange = np.array([0.5, 0.9999])
    rules = support.broken(model, rows, matrix, margin, novelty=strange)
    assert rules["novelty"].tolist() == [False, True]
    why = support.reasons(model, rows, rules)
    assert list(why) == [1]
    assert "temperature" in {one.field for one in why[1]}
    assert {one.rule for one in why[1]} == {"novelty"}


def test_a_set_that_rules_too_little_out(tiny):
    model = declaring(tiny, largest_set=1)
    rows, matrix, margin = asked(model, WELL, WELL, WELL)
    sets = np.array([[True, True], [True, False], [False, False]])
    rules = support.broken(model, rows, matrix, margin, sets=sets)
    assert rules["ambiguous"].tolist() == [True, False, False]
    (one,) = support.reasons(model, rows, rules)[0]
    assert (one.rule, one.field) == ("ambiguous", "conformal")


def test_without_rules_everybody_is_answered(tiny):
    model = declaring(tiny)
    assert support.broken(model, *asked(model, {"age": 54})) == {}


@pytest.mark.parametrize("name", catalog.names())
def test_every_model_of_the_catalog_says_when_it_gives_no_risk(name):
    declared = catalog.load(name).support
    assert 0 < declared.at_least <= len(declared.measured)
    assert 0.999 <= declared.novelty < 1
