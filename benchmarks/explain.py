"""How fast rows are explained, beside XGBoost's own contributions of the same trees.

``make bench`` runs it and keeps the figures in ``bench/explain.json``: for each depth the milliseconds
of one row alone and of a thousand in a batch, of either way, and how many times faster tables are. The
trees are grown on noise that looks like a mart: numbers with gaps, flags, and categories one-hot. One
thread, and seconds of the processor, which no busy machine stretches.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from data.home import Home
from models.explain import Looked, explainer

NUMBERS, FLAGS, CATEGORIES, OF_EACH = 20, 20, 12, 15
COLUMNS = NUMBERS + FLAGS + CATEGORIES * OF_EACH


def drawn(rng: np.random.Generator, rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A matrix and an outcome that depends on it, pairs of columns among it."""
    numbers = rng.normal(size=(rows, NUMBERS)).round(1)
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    flags = rng.random((rows, FLAGS)) < 0.2
    named = [rng.integers(0, OF_EACH, rows)[:, None] == np.arange(OF_EACH) for _ in range(CATEGORIES)]
    matrix = np.hstack([numbers, flags, *named]).astype(np.float32)
    known = np.nan_to_num(matrix)
    felt = known @ rng.normal(0, 0.5, COLUMNS) + known[:, 0] * known[:, 1] + known[:, 2] * known[:, 25]
    return matrix, felt + rng.logistic(size=rows) > 1


def grown(depth: int, trees: int, rng: np.random.Generator) -> xgb.Booster:
    matrix, outcome = drawn(rng, 20_000)
    settings = {
        "objective": "binary:logistic",
        "max_depth": depth,
        "learning_rate": 0.05,
        "min_child_weight": 5,
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "seed": 1,
        "nthread": 1,
    }
    return xgb.train(settings, xgb.DMatrix(matrix, label=outcome), trees)


def milliseconds(work: Callable[[], Any], times: int) -> float:
    """The least of some tries: what else the machine does only ever adds to it."""
    return min(timeit.repeat(work, timer=time.process_time, number=1, repeat=times)) * 1000


def measured(depth: int, trees: int, rows: int) -> dict[str, float]:
    rng = np.random.default_rng(depth)
    booster = grown(depth, trees, rng)
    features = [*range(NUMBERS + FLAGS), *np.repeat(np.arange(CATEGORIES), OF_EACH) + NUMBERS + FLAGS]
    built = milliseconds(lambda: explainer(booster, features), 3)
    found = explainer(booster, features)
    matrix, _ = drawn(rng, rows)
    singles = [matrix[i : i + 1] for i in range(100)]

    def xgboost(some: npt.NDArray[np.float32]) -> Any:
        return booster.predict(xgb.DMatrix(some, nthread=1), pred_contribs=True)

    def each(explain: Callable[[Any], Any]) -> float:
        return milliseconds(lambda: [explain(row) for row in singles], 5) / len(singles)

    one, one_xgboost = each(found.contributions), each(xgboost)
    some = matrix[: max(1, rows // 10)]  # a row takes XGBoost as long in a small batch as in a large one
    many = milliseconds(lambda: found.contributions(matrix), 2) / rows * 1000
    many_xgboost = milliseconds(lambda: xgboost(some), 1) / len(some) * 1000
    starts = np.flatnonzero(np.diff(features, prepend=-1))
    reference = np.add.reduceat(xgboost(some)[:, :-1].astype(np.float64), starts, axis=1)
    apart = found.contributions(some) - reference
    return {
        "build_ms": round(built, 1),
        "megabytes": round(found.tables.numbers.nbytes / 2**20, 2) if isinstance(found, Looked) else 0.0,
        "row_ms": round(one, 4),
        "row_xgboost_ms": round(one_xgboost, 4),
        "row_ratio": round(one_xgboost / one, 1),
        "thousand_ms": round(many, 2),
        "thousand_xgboost_ms": round(many_xgboost, 1),
        "thousand_ratio": round(many_xgboost / many, 1),
        "apart": float(f"{np.abs(apart).max():.2g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 4, 5, 6])
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found: dict[str, Any] = {"trees": options.trees, "rows": options.rows, "columns": COLUMNS}
    for depth in options.depths:
        found[f"depth_{depth}"] = measured(depth, options.trees, options.rows)
        print(f"depth {depth}: {found[f'depth_{depth}']}", flush=True)
    target = Home.from_env().path / "bench" / "explain.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"figures: {target}")


if __name__ == "__main__":
    main()
