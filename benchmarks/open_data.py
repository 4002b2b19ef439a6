"""How good the five models are on open data, beside what they must beat.

``make bench`` runs it and keeps the figures in ``bench/models.json``: model -> metric -> value, and each
comparator's metrics under its name. The commands are typed as a data scientist would type them, in a
home of their own; ``CAREMODELS_DATA`` says where the data lie. ``--models`` picks some.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data.home import Home

ROOT = Path(__file__).resolve().parents[1]
# A split by the hash of an identifier follows the key that hashed it: a key of its own for the bench.
KEY = "0123456789abcdef0123456789abcdef"
MARTS = {
    "ed_visit": ("nhamcs_ed", "nhamcs_ed/ed*.parquet"),
    "inpatient_stay": ("diabetes130", "diabetes130/dataset_diabetes.zip"),
    "icu_hour": ("physionet2019", "physionet2019/training_setA.parquet"),
}
YEARS = ("--train-to", "2019-12", "--validate-to", "2020-12", "--test-to", "2021-12")
MODELS = {
    "ed_admission": ("ed_visit", YEARS),
    "ed_critical_care": ("ed_visit", YEARS),
    "ed_triage": ("ed_visit", YEARS),
    "readmission_30d": ("inpatient_stay", ()),
    "sepsis": ("icu_hour", ()),
}


def run(home: Path, *words: str) -> dict[str, Any]:
    """Type a command; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "caremodels", *words, "--json"],
        env={**os.environ, "CAREMODELS_HOME": str(home), "CAREMODELS_KEY": KEY},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"caremodels {' '.join(words)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The headline of one model, flat; each comparator's under its name."""
    kappa, utility = metrics["triage"], metrics["utility"]
    found: dict[str, Any] = {
        "n": metrics["n"],
        "events": metrics["events"],
        **_common(metrics),
    }
    if kappa:
        found |= {
            "kappa": kappa["kappa_best"]["value"],
            "kappa_at_cost": kappa["kappa"]["value"],
            "sensitivity_12": kappa["sensitivity_urgent"]["value"],
            "over_triage_12": kappa["over_urgent"],
            "under_triage": kappa["under_triage"],
            "over_triage": kappa["over_triage"],
            "harm_missed": kappa["harm"]["missed"]["value"],
            "harm_missed_by_nurse": kappa["harm"]["nurse_missed"]["value"],
        }
    if utility:
        found |= {name: utility[name] for name in ("threshold",)}
        found |= {"utility": utility["value"], "utility_low": utility["low"]}
    for name, row in metrics["comparators"].items():
        gain = row["model_minus_this"]["auroc"]
        found[name] = {
            **_common(row),
            "model_minus_this": gain["value"],
            "model_minus_this_low": gain["low"],
            "model_minus_this_high": gain["high"],
        }
    return found


def _common(row: dict[str, Any]) -> dict[str, float]:
    line = row.get("calibration") or {}
    return {
        "auroc": row["auroc"]["value"],
        "auroc_low": row["auroc"]["low"],
        "auroc_high": row["auroc"]["high"],
        "auprc": row["auprc"]["value"],
        "slope": line.get("slope"),
        "oe": line.get("oe"),
    }


def measure(home: Path, data: Path, models: list[str], *, ablations: bool) -> dict[str, Any]:
    """Load what is not there yet, train each model, and return the figures."""
    found = {}
    for model in models:
        mart, dates = MODELS[model]
        name, files = MARTS[mart]
        run(home, "mart", "load", mart, "--source", name, "--files", str(data / files))
        began = time.perf_counter()
        options = [] if ablations else ["--no-ablations"]
        trained = run(home, "train", model, *dates, *options)
        seconds = round(time.perf_counter() - began)
        found[model] = figures(trained["metrics"]) | {"seconds": seconds}
        _show(model, found[model])
    return found


def _show(model: str, row: dict[str, Any]) -> None:
    plain = {name: value for name, value in row.items() if isinstance(value, int | float)}
    print(f"{model}: " + ", ".join(f"{name} {value:.4g}" for name, value in plain.items()))
    for name, other in row.items():
        if isinstance(other, dict):
            gain = [other[f"model_minus_this{end}"] for end in ("", "_low", "_high")]
            shown = "{:.3f} ({:.3f} to {:.3f})".format(*gain)
            print(f"  {name}: AUROC {other['auroc']:.3f}, the model's less this: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--no-ablations", action="store_true")
    options = parser.parse_args()
    data = Path(os.environ.get("CAREMODELS_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        raise SystemExit(f"no open data at {data}: set CAREMODELS_DATA")
    home = Home.from_env().path
    found = measure(home / "models-bench", data, options.models, ablations=not options.no_ablations)
    target = home / "bench" / "models.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"figures: {target}")


if __name__ == "__main__":
    main()
