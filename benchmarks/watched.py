"""A model on real visits, trained to 2017 and watched month by month from 2018 to 2021.

The survey's hospitals change every year, so that a site here is a region of the United States: the
mart is loaded with a query of its own. The visits of 2018 to 2021 are answered as the service would
answer them, into a log of their own; their outcomes are joined, and each month is monitored in its
turn. Then an intercept is learned for each region, and both versions are held to the months since.
Figures go to ``bench/watched.json``, and no row does. All that a person would type is typed.
``CAREMODELS_DATA`` says where the data lie; ``--home`` where it works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from data import source
from data.home import Home
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import load_key
from models import artifact
from monitoring import every
from serving.schema import Context, PredictRequest
from serving.scorer import Receipt, Scorer

ROOT = Path(__file__).resolve().parents[1]
MODEL = "ed_admission"
LIMITS = ("--train-to", "2015-12", "--validate-to", "2016-12", "--test-to", "2017-12")
FIRST, LAST = "2018-01", "2021-12"
TAUGHT = "2018-01", "2019-12"
BLOCK = 500
FILES = "nhamcs_ed/ed*.parquet"
REGIONS = ("midwest", "northeast", "south", "west")
QUERY = "nhamcs_by_region.sql"
SITE = "format('{}-{}', YEAR, HOSPCODE) AS site"
REGION = """CASE REGION WHEN 1 THEN 'northeast' WHEN 2 THEN 'midwest' WHEN 3 THEN 'south'
        WHEN 4 THEN 'west' END AS site"""


def run(home: Path, *words: str, expect: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Type a command; what it prints as JSON."""
    print("$ caremodels", *words, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "caremodels", *words, "--json"],
        env={**os.environ, "CAREMODELS_HOME": str(home)},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in expect:
        raise SystemExit(f"caremodels {' '.join(words)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prepare(home: Path, files: str) -> None:
    """The mart with a region as the site, a version trained to 2017, and its promotion."""
    home.mkdir(parents=True, exist_ok=True)
    place = home / QUERY
    place.write_text(by_region(), encoding="utf-8")
    run(home, "mart", "load", MART.name, "--sql", str(place), "--files", files)
    run(home, "train", MODEL, *LIMITS, "--no-ablations")
    signed = ("--by", "Bench", "--reason", "trained to 2017")
    run(home, "promote", MODEL, "--version", "1", *signed)


def by_region() -> str:
    """The survey's query, with the region as the site."""
    sql = (ROOT / "data" / "sources" / "nhamcs_ed.sql").read_text(encoding="utf-8")
    if SITE not in sql:
        raise SystemExit("the survey's query names its site in another way")
    return sql.replace(SITE, REGION)


def visits(home: Path, files: str, first: str, last: str) -> pa.Table:
    """Visits of the months ``first`` to ``last``, in order, as the front desks would send them."""
    query = source.from_file(home / QUERY)
    table = source.read(query, source.find(files))
    month = pc.strftime(table["arrived_at"], format="%Y-%m")
    within = pc.and_(pc.greater_equal(month, first), pc.less_equal(month, last))
    return table.filter(within).sort_by("arrived_at")


def answer(home: Path, version: str, rows: pa.Table) -> int:
    """Answer ``rows`` into the log, as the service would; returns how many were given a risk."""
    scorer = Scorer(
        artifact=artifact.load(home / "releases" / MODEL / version, threads=2),
        version=version,
        key=load_key(home),
    )
    inputs = [column.name for column in MART.columns if column.role == "input"]
    engine, scored = connect(Home(home).log), 0
    with LogWriter(engine, load_keyring(home)) as writer:
        for start in range(0, len(rows), BLOCK):
            block = rows.slice(start, BLOCK).to_pylist()
            asked = PredictRequest(
                instances=[
                    msgspec.Raw(msgspec.json.encode({n: row[n] for n in inputs})) for row in block
                ],
                context=[_context(row) for row in block],
            )
            records = scorer.predict(asked, Receipt.now()).records
            writer.submit(Entry(predictions=records)).result()
            scored += sum(record["status"] == "scored" for record in records)
    engine.dispose()
    return scored


def _context(row: dict[str, Any]) -> Context:
    groups = {"region": row["region"], "race": row["race"], "ethnicity": row["ethnicity"]}
    return Context(
        encounter_id=row["visit_id"],
        site=row["site"],
        at=row["arrived_at"].replace(tzinfo=UTC),
        groups={name: value for name, value in groups.items() if value} or None,
    )


def watched(home: Path, version: str) -> list[dict[str, Any]]:
    """Each month's result, as ``monitor --json`` prints it. What stands already is not judged again."""
    months = every.months(Period.between(FIRST, LAST))
    place = Home(home).reports / MODEL / version
    files = [place / "_".join(month.days) / "report.json" for month in months]
    if not all(file.exists() for file in files):
        words = ("monitor", MODEL, "--version", version, "--from", FIRST, "--to", LAST)
        run(home, *words, "--every", "month", expect=(0, 3, 4))
    return [json.loads(file.read_bytes()) for file in files]


def taught(results: list[dict[str, Any]]) -> tuple[str, str]:
    """The months that teach new intercepts: from the first calibration alarm's first day to its window,
    or, where none was raised, the first two years.
    """
    for found in results:
        since = [one["since"] for one in found["alarms"] if one["response"] == "recalibrate"]
        if since:
            return min(since)[:7], found["window"]["to"][:7]
    return TAUGHT


def recalibrated(home: Path, first: str, last: str) -> dict[str, Any]:
    """An intercept of each region, learned from ``first`` to ``last``, and calibration after that.

    Both versions are evaluated on the same visits of the months since.
    """
    version, shifts = "1", {}
    for site in REGIONS:
        done = run(
            home, "recalibrate", MODEL, "--version", version, "--site", site,
            "--from", first, "--to", last, "--by", "Bench", "--reason", "calibration by region",
        )  # fmt: skip
        version, shifts[site] = done["version"], done["shift"] - done["previous"]
    later = following(last)
    return {
        "taught": [first, last],
        "version": version,
        "shifts": shifts,
        "from": later,
        "before": calibration(home, "1", later),
        "after": calibration(home, version, later),
    }


def calibration(home: Path, version: str, first: str) -> dict[str, Any]:
    """Observed/expected of a version from month ``first`` on, over all and in each region."""
    found = run(home, "evaluate", MODEL, "--version", version, "--from", first, "--to", LAST)
    sites = {row["site"]: row["oe"] for row in found["sites"]["rows"]}
    return {"n": found["n"], "all": found["calibration"]["oe"], **sites}


def following(month: str) -> str:
    """The month after YYYY-MM.

    >>> following("2019-12")
    '2020-01'
    """
    return f"{Period.between(month, month).end:%Y-%m}"


def told(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A month a row: what was measured, what it was foreseen to be, what rose. Counts and no row."""
    opened: set[tuple[Any, ...]] = set()
    rows = []
    for found in results:
        measured = found["performance"]
        new = []
        for alarm in found["alarms"]:
            key = tuple(alarm[name] for name in ("what", "column", "site", "group"))
            if key not in opened:
                new.append(alarm["message"])
            opened.add(key)
        sites = {row["level"]: row["oe"] for row in measured["groups"] or [] if row["group"] == "site"}
        rows.append(
            {
                "month": found["window"]["from"][:7],
                "n": found["n"],
                "outcomes": found["outcomes"],
                "verdict": found["verdict"],
                "auroc": (measured["auroc"] or {}).get("value"),
                "oe": (measured["calibration"] or {}).get("oe"),
                "oe_interval": (measured["intervals"] or {}).get("oe"),
                "oe_foreseen": (found["estimate"] or {}).get("oe"),
                "oe_by_site": sites,
                "drifted": sorted({row["column"] for row in found["columns"] if row["drifted"]}),
                "kinds": sorted({alarm["what"] for alarm in found["alarms"]}),
                "alarms": len(found["alarms"]),
                "new_alarms": new,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.from_env().path / "watched")
    home = parser.parse_args().home.resolve()
    files = str(Path(os.environ.get("CAREMODELS_DATA", ROOT.parent / "shared" / "data")) / FILES)
    if not (home / "releases").exists():
        prepare(home, files)
    rows = visits(home, files, FIRST, LAST)
    if not (home / "log.db").exists():
        print(f"{answer(home, '1', rows):,} visits were given a risk", file=sys.stderr)
        run(home, "outcomes", "load", MART.name)
    before = watched(home, "1")
    figures: dict[str, Any] = {"model": MODEL, "trained_to": "2017-12", "months": told(before)}
    figures["recalibrated"] = recalibrated(home, *taught(before))
    bench = Home.from_env().bench
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "watched.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    for row in figures["months"]:
        print(row["month"], row["verdict"], row["n"], row["auroc"], row["oe"], *row["kinds"], sep="  ")
    print(json.dumps(figures["recalibrated"], indent=1))


if __name__ == "__main__":
    main()
