"""A client of caremodels: nothing of it installed, only httpx and the service's own OpenAPI document.

    echo '{"age": 71, "sbp": 88, "temperature": 101.1}' |
        python docs/client.py http://127.0.0.1:3000 ed_admission --unit 'temperature=[degF]'

reads which fields the model takes and holds the input to it before it leaves; predicts; prints the
risk, its band and the reasons; with ``--outcome 1`` also reports what happened. An API key is taken from
CAREMODELS_API_KEY. Exit codes: 0 done, 1 refused by the service, 2 an input that does not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import httpx

TYPES = {"number": (int, float), "integer": (int,), "boolean": (bool,), "string": (str,)}


def faults(schema: dict[str, Any], instance: dict[str, Any], units: dict[str, str]) -> list[str]:
    """What is wrong with ``instance``, by the JSON Schema of the model's inputs."""
    fields = schema["properties"]
    found = [f"{name}: required" for name in schema["required"] if instance.get(name) is None]
    found += [
        f"{name}: no number has a unit here" for name in units if "x-unit" not in fields.get(name, {})
    ]
    for name, value in instance.items():
        field = fields.get(name)
        if field is None:
            found.append(f"{name}: unknown field")
        elif value is not None:
            kinds = [field["type"]] if isinstance(field["type"], str) else field["type"]
            fits = tuple(kind for name in kinds for kind in TYPES.get(name, ()))
            if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits):
                found.append(f"{name}: expected {kinds[0]}")
            elif value not in field.get("enum", [value]):
                found.append(f"{name}: expected one of {', '.join(map(str, field['enum']))}")
            # Of a number in another unit the service judges the range, once it is converted.
            elif name not in units and "minimum" in field:
                low, high = field["minimum"], field["maximum"]
                if not low <= value <= high:
                    found.append(f"{name}: expected {low} to {high} {field.get('x-unit', '')}".rstrip())
    return found


def answered(response: httpx.Response) -> Any:
    """The answer, or the end: a problem document (RFC 9457) names fields and rules."""
    said = response.json()
    if response.is_success:
        return said
    reasons = [f"  {error['field']}: {error['reason']}" for error in said.get("errors", [])]
    raise SystemExit("\n".join([f"{said['status']} {said['title']}: {said['detail']}", *reasons]))


def told(prediction: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """The prediction in lines for a person."""
    if prediction["status"] != "scored":
        return ["no risk is given:", *(f"  {reason['reason']}" for reason in prediction["reasons"])]
    lines = [f"risk {prediction['risk']:.1%}, {prediction['band']['label']['en']}"]
    lines.append(prediction["band"]["action"]["en"])
    for reason in prediction["explanation"]["contributions"]:
        unit = schema["properties"].get(reason["feature"], {}).get("x-unit", "")
        value = "not measured" if reason["value"] is None else f"{reason['value']} {unit}".rstrip()
        lines.append(f"  {reason['contribution']:+.2f}  {reason['label']['en']}: {value}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="ask caremodels for one patient's risk")
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--unit", action="append", default=[], metavar="FIELD=UCUM")
    parser.add_argument("--outcome", type=int, choices=(0, 1), help="report what happened")
    options = parser.parse_args()
    instance = json.load(sys.stdin)
    units = dict(unit.split("=", 1) for unit in options.unit)
    key = os.environ.get("CAREMODELS_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=options.url, headers=headers, timeout=10) as client:
        document = answered(client.get("/openapi.json"))
        path = f"/v1/{options.model}/predict"
        if path not in document["paths"]:
            raise SystemExit(f"{options.url} does not serve {options.model}")
        schema = document["components"]["schemas"][f"{options.model}_instance"]
        if wrong := faults(schema, instance, units):
            sys.stderr.write("\n".join(wrong) + "\n")
            return 2
        asked = {"instances": [instance], "units": units, "top": 5}
        [prediction] = answered(client.post(path, json=asked))["predictions"]
        sys.stdout.write("\n".join(told(prediction, schema)) + "\n")
        if options.outcome is not None:
            happened = {"prediction_id": prediction["prediction_id"], "outcome": options.outcome}
            report = [{**happened, "observed_at": datetime.now(UTC).isoformat()}]
            [result] = answered(client.post("/v1/outcomes", json=report))["results"]
            sys.stdout.write(f"outcome {result['status']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
