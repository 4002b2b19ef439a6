"""A window of a million predictions: seconds, memory, and whether its verdicts are those of all rows.

``drifted.py`` makes the log, once. Each in a process of its own:

- verdicts of the sample in repeated draws, against those with every row opened: ``seconds``,
  ``peak_mib`` and ``agreement`` are theirs, from the log on the disk to every column judged;
- the command ``monitor`` on the million, which also measures outcomes and writes pages; its stages; with
  a log that the system holds nothing of; and the last month alone, with the others as its past;
- some 100,000 rows judged, through ``monitor``, and through Evidently as they are.

Figures go to ``bench/drift.json``, and no row does. On a busy machine the processor's seconds tell more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data import telemetry
from data.home import Home
from data.log import read as log
from data.log.schema import connect
from data.log.seal import load_keyring
from data.marts.ed_visit import MART
from data.period import Period
from models import artifact
from models.artifact import Artifact
from monitoring import drift, window
from monitoring.run import monitor

MODEL = "ed_admission"
FIRST, LAST = "2022-01", "2022-05"
"""Of the million."""
SOME = ("2022-01-01", "2022-01-18")
"""Of the days that stand in a log of their own."""
COMPARED, DRAWS = 100_000, 20
NEAR = 0.2
"""A test is near its threshold within this share of it."""

Key = tuple[str, str | None, str]


def run(home: Path, *words: str, expect: tuple[int, ...] = (0,)) -> dict[str, float]:
    """Type a command; its seconds and its peak of memory."""
    print("$ caremodels", *words, file=sys.stderr, flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "caremodels", *words, "--json"],
        env={**os.environ, "CAREMODELS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if (code := os.waitstatus_to_exitcode(status)) not in expect:
        raise SystemExit(f"caremodels {' '.join(words)} ended with {code}")
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def released(home: Path) -> tuple[Artifact, dict[str, Any]]:
    """The version, and its figures at promotion."""
    folder = home / "releases" / MODEL / "1"
    return artifact.load(folder), json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def by_stage(home: Path, first: str, last: str, kept: str = "log.db") -> dict[str, Any]:
    """Seconds of each stage of ``monitor``; what is imported once is told apart."""
    os.environ["CAREMODELS_LOG"] = f"sqlite:///{home / kept}"
    clock = Clock()
    from monitoring.report import _evidently

    _evidently()
    imported = clock.spent()
    loaded, at_promotion = released(home)
    stages: dict[str, Clock] = {}
    spent: dict[str, dict[str, float]] = {}

    def stage(name: str, done: float) -> None:
        del done
        if name not in stages:
            spent.update({last: clock.spent() for last, clock in stages.items() if last not in spent})
            stages[name] = Clock()

    clock, period = Clock(), Period.between(first, last)
    found = monitor(Home(home), loaded, "1", period, at_promotion=at_promotion, stage=stage)
    return {
        "rows": found.n,
        **clock.spent(),
        "peak_mib": peak_mib(),
        "stages": spent,
        "importing_evidently": imported,
    }


class Clock:
    """Seconds on the wall and of the processor, which no busy machine stretches."""

    def __init__(self) -> None:
        self.began, self.used = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self.began, 1),
            "processor_seconds": round(time.process_time() - self.used, 1),
        }


def peak_mib() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def verdicts(
    home: Path, first: str = FIRST, last: str = LAST, kept: str = "log.db", **settings: Any
) -> dict[str, Any]:
    """Every test of an input, at its key: the value, the threshold, drifted; and the shares opened."""
    loaded, _ = released(home)
    engine, clock = connect(home / kept), Clock()
    period = Period.between(first, last)
    read = window.read(engine, loaded, "1", period, keyring=load_keyring(home), **settings)
    engine.dispose()
    _, findings = drift.findings(read, loaded)
    spent = {
        "rows": read.whole.rows,
        **clock.spent(),
        "peak_mib": peak_mib(),
        "opened": int(read.answers.drawn.sum()),
    }
    tests = {
        (one.column, one.site, one.statistic): (one.value, one.threshold or 0.0, one.drifted)
        for one in findings
        if one.statistic in ("psi", "missing") and one.column != "risk"
    }
    found = read.answers
    shares = {
        name: float(found.drawn[found.scored & (found.site == place)].mean())
        for place, name in enumerate(found.sites)
    }
    return {"tests": tests, "shares": {"": read.share, **shares}, "spent": spent}


def agreement(whole: Mapping[str, Any], draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """In what share of tests the draws say what all rows say: of all, of sampled ones, of near ones."""
    truth: Mapping[Key, tuple[float, float, bool]] = whole["tests"]
    near = {key for key, (value, limit, _) in truth.items() if abs(abs(value) / limit - 1) < NEAR}
    shares = draws[0]["shares"]
    sampled = {key for key in truth if shares[key[1] or ""] < 1}
    groups = {"all": set(truth), "sampled": sampled, "near": near & sampled}
    differ: dict[Key, int] = {}
    for draw in draws:
        found = draw["tests"]
        for key in truth.keys() | found.keys():
            if key not in truth or key not in found or truth[key][2] != found[key][2]:
                differ[key] = differ.get(key, 0) + 1
    told: dict[str, Any] = {
        "draws": len(draws),
        **{name: float(np.median([draw["spent"][name] for draw in draws])) for name in whole["spent"]},
        "rows": whole["spent"]["rows"],
        "of_all_rows": whole["spent"],
        "tests": {name: len(keys) for name, keys in groups.items()},
        "drifted": sum(drifted for _, _, drifted in truth.values()),
        "agreement": {
            name: round(1 - sum(differ.get(key, 0) for key in keys) / len(keys) / len(draws), 5)
            for name, keys in groups.items()
            if keys
        },
        "worst_draw": round(
            min(
                np.mean([found["tests"].get(key, (0, 0, None))[2] == truth[key][2] for key in truth])
                for found in draws
            ),
            5,
        ),
        "differed": [
            {
                "test": " ".join(str(part) for part in key if part),
                "draws": times,
                "value": round(truth[key][0], 4),
                "threshold": round(truth[key][1], 4),
            }
            for key, times in sorted(differ.items(), key=lambda item: -item[1])
            if key in truth
        ],
    }
    return told


def plainly(home: Path, first: str, last: str) -> dict[str, Any]:
    """Evidently's preset as it comes, on the raw rows that were scored; reading them is not counted."""
    loaded, _ = released(home)
    names = [binned.column for binned in loaded.reference.columns]
    now, then = _scored(home, names, first, last), _training(home, names)
    telemetry.off()
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in names if MART[name].kind in ("number", "integer")]
    others = [name for name in names if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=others)
    clock = Clock()
    sides = [Dataset.from_pandas(frame, definition) for frame in (now, then)]
    page = home / "plain.html"
    Report([DataDriftPreset()]).run(*sides).save_html(str(page))
    spent = clock.spent()
    page.unlink()
    return {
        "rows": len(now),
        "reference_rows": len(then),
        "columns": len(names),
        **spent,
        "peak_mib": peak_mib(),
    }


def _scored(home: Path, names: Sequence[str], first: str, last: str) -> pd.DataFrame:
    period = Period.between(first, last)
    engine = connect(Home(home).log)
    rows = [
        msgspec.json.decode(inputs)
        for batch in log.batches(
            engine, keyring=load_keyring(home), model=MODEL, start=period.start, end=period.end
        )
        for inputs in batch.filter(pc.equal(batch["status"], "scored"))["inputs"].to_pylist()
    ]
    engine.dispose()
    return _frame({name: [row[name] for row in rows] for name in names})


def _training(home: Path, names: list[str]) -> pd.DataFrame:
    table = pq.read_table(home / "training.parquet", columns=names).slice(0, COMPARED)
    return _frame({name: table[name].to_pylist() for name in names})


def _frame(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=float if MART[name].kind in ("number", "integer") else object)
            for name, values in columns.items()
        }
    )


def forget(file: Path) -> None:
    """Let the system drop what it holds of ``file`` in memory: a log is read once a month."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _apart(work: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Do it in another process: a child's peak of memory begins with what its parent held."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **settings).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.from_env().path / "drift")
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    home = options.home.resolve()
    made = [sys.executable, str(Path(__file__).with_name("drifted.py")), "--home", str(home)]
    subprocess.run(made, check=True)
    words = ("monitor", MODEL, "--from", FIRST, "--to", LAST)
    command: dict[str, Any] = _apart(by_stage, home, FIRST, LAST)
    command["typed"] = run(home, *words, expect=(0, 3))
    forget(home / "log.db")
    command["typed_cold"] = run(home, *words, expect=(0, 3))
    command["with_a_past"] = _apart(by_stage, home, LAST, LAST)
    _show("monitor", command)
    some = {
        "ours": _apart(verdicts, home, *SOME, "some.db")["spent"],
        "monitor": _apart(by_stage, home, *SOME, "some.db"),
        "evidently": _apart(plainly, home, *SOME),
    }
    for name, found in some.items():
        _show(f"{SOME[0]} to {SOME[1]}, {name}", found)
    whole = _apart(verdicts, home, most=10**9)
    draws = [_apart(verdicts, home, salt=salt) for salt in range(1, options.draws + 1)]
    judged = agreement(whole, draws)
    _show("verdicts", judged)
    figures = {
        **{name: judged[name] for name in ("rows", "seconds", "processor_seconds", "peak_mib")},
        "agreement": judged["agreement"]["all"],
        "verdicts": judged,
        "monitor": command,
        "at_100000": some,
    }
    bench = Home.from_env().bench
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "drift.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _show(title: str, figures: Mapping[str, Any]) -> None:
    print(title)
    for name, value in figures.items():
        for part, of in (value if isinstance(value, dict) else {"": value}).items():
            if not isinstance(of, list):
                shown = ", ".join(f"{k} {v}" for k, v in of.items()) if isinstance(of, dict) else of
                print(f"  {name.replace('_', ' '):<20} {part.replace('_', ' '):<24} {shown}", flush=True)


if __name__ == "__main__":
    main()
