"""An application in this process that speaks the standards, and FHIR resources of nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from data.log.append import LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring
from models import artifact, release
from serving.access.guard import Guard
from serving.app import make_app
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.runtime import Runtime


@dataclass
class Talk:
    """An application in this process with a model of each kind: ``ask`` it, look into its log."""

    runtime: Runtime
    ask: Callable[..., httpx.Response]

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self.runtime.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def logged(self, prediction_id: str) -> dict[str, Any]:
        [row] = self.rows("SELECT * FROM prediction WHERE prediction_id = :id", id=prediction_id)
        return row

    def inputs(self, prediction_id: str) -> dict[str, Any]:
        """What the log keeps of what was sent, opened."""
        sealed = self.logged(prediction_id)["inputs"]
        return json.loads(self.runtime.keyring.open(sealed, bound_to=prediction_id))

    def count(self) -> int:
        return self.rows("SELECT count(*) AS n FROM prediction")[0]["n"]


@pytest.fixture(scope="module")
def talk(versions, triage, sepsis, tmp_path_factory) -> Iterator[Talk]:
    folder = tmp_path_factory.mktemp("talk")
    releases = folder / "releases"
    folders = {"ed_admission": versions["1"]}
    for kind in (triage, sepsis):
        folders[kind.spec.name] = folder / kind.spec.name
        artifact.write(folder / kind.spec.name, kind, evidence={"card.html": b"<p>A card.</p>\n"})
    for model, made in folders.items():
        release.publish(releases, made, model=model, version="1")
        release.point(releases, model=model, pointer="champion", version="1")
    deployed = Deployed(releases=releases, key=b"0123456789abcdef", demo=True)
    deployed.refresh()
    engine = connect(folder / "log.db")
    keyring = load_keyring(folder)
    runtime = Runtime(
        deployed=deployed,
        engine=engine,
        log=LogWriter(engine, keyring),
        keyring=keyring,
        metrics=Metrics(),
        guard=Guard(),
    )
    app = make_app(lambda: runtime)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    async def request(method: str, path: str, **more: Any) -> httpx.Response:
        return await client.request(method, path, **more)

    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        yield Talk(runtime, lambda *of, **more: runner.run(request(*of, **more)))
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(client.aclose())
    engine.dispose()


UCUM = "http://unitsofmeasure.org"
VITALS = {
    "8310-5": (38.4, "Cel"),
    "8867-4": (124, "/min"),
    "9279-1": (24, "/min"),
    "2708-6": (91, "%"),
}


def of_its_kind(model: str, resource: dict[str, Any]) -> dict[str, Any]:
    """An Encounter in the class that ``model`` is for; any other resource as it is."""
    stay = model == "sepsis" and resource["resourceType"] == "Encounter"
    return resource | {"class": {"code": "IMP"}} if stay else resource


class Chart:
    """FHIR resources of nobody, around ``now``."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def ago(self, **span: float) -> str:
        """A time before now, at the offset of China."""
        return (self.now - timedelta(**span)).astimezone(timezone(timedelta(hours=8))).isoformat()

    def patient(self, **more: Any) -> dict[str, Any]:
        birth = f"{self.now.year - 71}-01-01"
        own = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": birth}
        return own | more

    def encounter(self, **more: Any) -> dict[str, Any]:
        return {
            "resourceType": "Encounter",
            "id": "e1",
            "status": "in-progress",
            "class": {"code": "EMER"},
            "subject": {"reference": "Patient/p1"},
            "period": {"start": self.ago(hours=1)},
            "serviceProvider": {"reference": "Organization/county-03"},
        } | more

    def observation(
        self, code: str, value: float, unit: str, name: str = "", /, **more: Any
    ) -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "id": name or f"o-{code}",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": self.ago(minutes=20),
            "valueQuantity": {"value": value, "system": UCUM, "code": unit, "unit": unit},
        } | more

    def pressure(self, systolic: float, diastolic: float, **more: Any) -> dict[str, Any]:
        parts = []
        for code, value in (("8480-6", systolic), ("8462-4", diastolic)):
            whole = self.observation(code, value, "mm[Hg]")
            parts.append({"code": whole["code"], "valueQuantity": whole["valueQuantity"]})
        panel = self.observation("85354-9", 0, "1", "bp")
        del panel["valueQuantity"]
        return panel | {"component": parts} | more

    def condition(self, icd10: str, /, **more: Any) -> dict[str, Any]:
        return {
            "resourceType": "Condition",
            "id": f"c-{icd10}",
            "subject": {"reference": "Patient/p1"},
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": icd10}]},
        } | more

    def vitals(self) -> list[dict[str, Any]]:
        measured = [self.observation(code, *said) for code, said in VITALS.items()]
        return [*measured, self.pressure(88, 50)]

    def visit(self) -> list[dict[str, Any]]:
        return [self.patient(), self.encounter(), *self.vitals()]

    def own(self, mart: str, column: str, /, **value: Any) -> dict[str, Any]:
        """An Observation of a column that has no standard's code."""
        whole = self.observation("0-0", 0, "1", f"own-{column}")
        del whole["valueQuantity"]
        coding = [{"system": f"urn:caremodels:{mart}", "code": column}]
        return whole | {"code": {"coding": coding}} | value

    def bundle(self, *resources: dict[str, Any], **more: Any) -> dict[str, Any]:
        entries = [{"resource": resource} for resource in resources]
        return {"resourceType": "Bundle", "type": "collection", "entry": entries} | more

    def parameters(self, model: str, /, *resources: dict[str, Any], **named: Any) -> dict[str, Any]:
        """``named``: further parameters, each as the field that it stands in."""
        own: dict[str, Any] = {"model": {"valueCode": model}, "subject": {}}
        own["subject"] = {"valueReference": {"reference": "Patient/p1"}}
        own["data"] = {"resource": self.bundle(*(of_its_kind(model, one) for one in resources))}
        said = [{"name": name, **value} for name, value in (own | named).items() if value]
        return {"resourceType": "Parameters", "parameter": said}


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart()
