"""How long a training takes, and what a search for settings costs beside the same fits without one.

``make bench`` runs it and keeps the figures in ``bench/search.json``. The training is typed as a command
on simulated visits; then 30 trials are searched, and each trial's settings fitted again by themselves,
on the same rows in the same process. Seconds are of the processor, which no busy machine stretches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data import marts
from data.contract import Mart
from data.home import Home
from data.store import Slice
from models import catalog
from models.features import FeatureMap
from models.spec import ModelSpec
from training import build, fit, rows, search, split

MODEL = "ed_admission"
SEED = 1


def typed(home: Path, *words: str) -> float:
    """Seconds by the wall clock of a command."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "caremodels", *words],
        env={**os.environ, "CAREMODELS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return round(time.perf_counter() - began, 1)


def searched(home: Home, spec: ModelSpec, mart: Mart, trials: int) -> dict[str, float]:
    """Processor seconds of a search, and of its trials' settings fitted whole and by themselves."""
    features = FeatureMap.of(mart, spec.features)
    monotone = features.constraints(spec.monotone)
    with rows.read(home, spec, mart, Slice()) as (cohort, _):
        parts = split.of(spec.split, cohort, ())
        with build.pairs(cohort, parts, features, gaps=True, seed=SEED, scratch=home.scratch) as pairs:
            folder = home.path / "searches"
            began = time.process_time()
            found = search.search(
                *pairs,
                spec.boosting,
                monotone=monotone,
                seed=SEED,
                trials=trials,
                storage=folder,
                key=spec.name,
            )
            spent = time.process_time() - began
            (place,) = folder.glob(f"{spec.name}*.json")
            began = time.process_time()
            for trial in search.trials_in(place):
                fit.boosted(*pairs, settings=trial.settings, monotone=monotone, seed=SEED)
            bare = time.process_time() - began
    return {
        "trials": found.trials,
        "pruned": found.pruned,
        "search_seconds": round(spent, 1),
        "bare_seconds": round(bare, 1),
        "ratio": round(spent / bare, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spec = catalog.load(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        typed(home.path, "mart", "simulate", "--visits", str(options.visits), "--seed", str(SEED))
        found: dict[str, float] = {
            "visits": options.visits,
            "train_seconds": typed(home.path, "train", MODEL, "--no-ablations"),
        }
        found |= searched(home, spec, marts.load(spec.mart), options.trials)
    for name, value in found.items():
        print(f"{name}: {value:g}")
    target = Home.from_env().path / "bench" / "search.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"figures: {target}")


if __name__ == "__main__":
    main()
