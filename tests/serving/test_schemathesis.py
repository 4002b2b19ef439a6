"""The served OpenAPI document, taken at its word by a machine that makes up requests."""

from __future__ import annotations

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = {GenerationMode.POSITIVE: 40, GenerationMode.NEGATIVE: 60}
BOUNDED = hypothesis.settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


def ask(operation, mode, session):
    """Every answer to what is asked of ``operation`` is as the document says."""

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(BOUNDED, max_examples=EXAMPLES[mode])
    def asked(case):
        response = case.call(session=session, timeout=20)
        case.validate_response(response, checks=CHECKS)

    try:
        asked()
    except Unsatisfiable:  # nothing of this operation can be wrong
        assert mode is GenerationMode.NEGATIVE


@pytest.mark.parametrize("mode", EXAMPLES, ids=lambda mode: mode.value)
def test_no_5xx_and_nothing_that_is_not_documented(served, mode):
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {"/v1/ed_admission/predict", "/v1/outcomes", "/v1/models"} <= {o.path for o in operations}
    failures = []
    with requests.Session() as session:
        for operation in operations:
            try:
                ask(operation, mode, session)
            except Exception as error:  # noqa: BLE001 the others are to be asked too
                failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)
    assert "Traceback" not in served.said
