"""Evidently's tests and pages, and the page of our own around them. The only importer of evidently.

What Evidently is given are cells drawn out to rows, never a row of the log: nothing of a patient
can stay in its page, and its time does not grow with the window.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from data import telemetry
from models.artifact import Artifact
from models.manifest import NOTICE
from models.reference import Binned
from monitoring.drift import MIN_ROWS, SCALE, WORDS, Cells, percent, scaled
from monitoring.performance import HELD
from monitoring.window import Window

SHOWN = 8  # columns drawn
BARS = 12  # cells drawn of one
_JUDGED = ("value", "threshold", "drifted")
NEXT_STEPS = {
    "inspect_inputs": "Look at how these inputs are measured and sent",
    "watch": "Watch the next window",
    "recalibrate": "Recalibrate",
}


def drift(cells: Sequence[Cells], limits: Mapping[str, float]) -> tuple[dict[str, float], bytes]:
    """Evidently's PSI of each column, and its page with drift and data summary."""
    evidently, presets = _evidently()
    definition = evidently.DataDefinition(categorical_columns=[found.column for found in cells])
    now, then = (
        evidently.Dataset.from_pandas(frame, definition)
        for frame in (
            _frame({found.column: (found.labels, found.drawn_now) for found in cells}),
            _frame({found.column: (found.labels, found.drawn_then) for found in cells}),
        )
    )
    # Else Evidently calls a window drifted only once half of its columns are.
    preset = presets.DataDriftPreset(
        method="psi", per_column_threshold=dict(limits), drift_share=1 / len(cells)
    )
    asked = evidently.Report([preset, presets.DataSummaryPreset()], include_tests=False)
    found = asked.run(now, then)
    values = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }
    return values, _html(found)


def outcomes(window: Window, risk: Binned, *, threshold: float) -> bytes:
    """Evidently's page of classification quality, each risk rounded to the mean of its cell."""
    evidently, presets = _evidently()
    codes = risk.assign(window.risk)
    cells, code = np.unique(codes * 2 + window.outcome.astype(np.intp), return_inverse=True)
    rows = np.bincount(code)
    rows = scaled(rows.astype(np.float64)) if rows.sum() > SCALE else rows
    mean = np.bincount(codes, window.risk) / np.maximum(np.bincount(codes), 1)
    frame = pd.DataFrame(
        {"outcome": np.repeat(cells % 2, rows), "risk": np.repeat(mean[cells // 2].round(4), rows)}
    )
    asked = evidently.BinaryClassification(target="outcome", prediction_probas="risk", pos_label=1)
    definition = evidently.DataDefinition(
        classification=[asked], numerical_columns=["risk"], categorical_columns=["outcome"]
    )
    preset = presets.ClassificationQuality(
        probas_threshold=threshold, conf_matrix=True, pr_curve=True, pr_table=True
    )
    made = evidently.Report([preset], include_tests=False)
    return _html(made.run(evidently.Dataset.from_pandas(frame, definition), None))


def _evidently() -> tuple[ModuleType, ModuleType]:
    """Evidently and its presets, which take seconds to import and are quiet about it here."""
    telemetry.off()
    with warnings.catch_warnings():
        # Its own use of names that numpy and litestar have moved, nothing that we could change.
        warnings.simplefilter("ignore", DeprecationWarning)
        import evidently
        from evidently import presets
    return evidently, presets


def _frame(columns: Mapping[str, tuple[Sequence[str], Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Categorical.from_codes(np.repeat(np.arange(len(labels)), rows), list(labels))
            for name, (labels, rows) in columns.items()
        }
    )


def _html(run: Any) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "page.html")
        run.save_html(str(file))
        return file.read_bytes()


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One tested column, for a person. ``bars``: label, share at training, share now."""

    cells: Cells
    value: float
    threshold: float
    drifted: bool

    @property
    def ratio(self) -> float:
        return self.value / self.threshold

    @property
    def bars(self) -> list[tuple[str, float, float]]:
        """Of many categories those that moved most."""
        labels = [WORDS.get(label, label) for label in self.cells.labels]
        bars = list(zip(labels, *(side.tolist() for side in self.cells.shares), strict=True))
        if len(bars) <= BARS:
            return bars
        most = sorted(bars, key=lambda bar: -abs(bar[2] - bar[1]))[:BARS]
        return [bar for bar in bars if bar in most]


def page(
    monitored: Mapping[str, Any],
    loaded: Artifact,
    cells: Sequence[Cells],
    quality: Mapping[str, Any],
    *,
    links: Sequence[str],
) -> bytes:
    """``index.html``: self-contained, no script, the same for the same window."""
    lines = _lines(monitored["columns"], cells)
    # Each column once: over all sites if it moved there, else at the site where it moved most.
    first = sorted(lines, key=lambda line: line.cells.site is not None)
    drifted = list({line.cells.column: line for line in reversed(first) if line.drifted}.values())
    drifted.sort(key=lambda line: -line.ratio)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("report.html.j2")
        .render(
            **monitored,
            spec=loaded.spec,
            notice=NOTICE if loaded.manifest.provenance.use == "demonstration" else None,
            summary=summary(monitored, quality, loaded),
            together=[line for line in lines if line.cells.site is None],
            drawn=(drifted or [line for line in lines if line.cells.column == "risk"][:1])[:SHOWN],
            any_drifted=bool(drifted),
            sites=[_site(row, lines, monitored["columns"]) for row in quality["sites"]],
            measures=_measures(monitored["performance"], loaded),
            quality=quality,
            links=links,
            steps=NEXT_STEPS,
            min_rows=MIN_ROWS,
            percent=percent,
        )
        .encode()
    )


def summary(monitored: Mapping[str, Any], quality: Mapping[str, Any], loaded: Artifact) -> str:
    """The window in two or three sentences."""
    status = quality["status"]
    counted = (
        f"Of {monitored['n']:,} requests, {status['scored']:,} were given a risk, "
        f"{status['abstained']:,} were outside the model's patients and {status['refused']:,} "
        "were refused for bad input."
    )
    said = [counted]
    tests = sum(row["threshold"] is not None for row in monitored["columns"])
    if monitored["verdict"] == "insufficient":
        said.append("That is too little to judge: " + monitored["alarms"][0]["message"] + ".")
    elif monitored["verdict"] == "alarm":
        count = len(monitored["alarms"])
        said.append(f"{count} thing{'s' if count > 1 else ''} need{'' if count > 1 else 's'} a look.")
    else:
        said.append(
            f"Inputs and risks look as they did at training: of {tests:,} tests none is over its limit."
        )
    measured = monitored["performance"]
    if measured["reason"] is None:
        oe = measured["calibration"]["oe"]
        said.append(
            f"In the {measured['n']:,} whose outcome is known it came about {measured['events']:,} "
            f"times and was expected {measured['events'] / oe:,.0f} times."
        )
    elif monitored["outcomes"]:
        said.append(f"{monitored['outcomes']:,} outcomes are known, too few to judge the risks by.")
    else:
        said.append(f"No outcome is known yet ({loaded.spec.outcome.label.en.lower()}).")
    new = [
        f"{row['site']} ({percent(row['rows'] / monitored['n'])} of the requests)"
        for row in quality["sites"]
        if loaded.reference.sites and row["training_rows"] is None and row["rows"] >= MIN_ROWS
    ]
    if new:
        said.append(f"Without enough rows in training to be held to: {', '.join(new)}.")
    return " ".join(said)


def _lines(columns: Sequence[Mapping[str, Any]], cells: Sequence[Cells]) -> list[_Line]:
    """The tests of drift, the furthest over its limit first."""
    of = {(row["column"], row["site"]): row for row in columns if row["statistic"] == "psi"}
    lines = [
        _Line(cells=found, **{name: of[found.column, found.site][name] for name in _JUDGED})
        for found in cells
    ]
    return sorted(lines, key=lambda line: (-line.ratio, line.cells.column, line.cells.site or ""))


def _site(
    row: Mapping[str, Any], lines: Sequence[_Line], columns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    mine = [line for line in lines if line.cells.site == row["site"]]
    refused = [
        found["column"]
        for found in columns
        if found["site"] == row["site"] and found["statistic"] == "refused_share" and found["drifted"]
    ]
    return {**row, "lines": mine, "drifted": [line for line in mine if line.drifted], "over": refused}


def _measures(measured: Mapping[str, Any], loaded: Artifact) -> list[dict[str, Any]]:
    """One line a measure: now, at promotion, what is good."""
    then = measured["at_promotion"] or {}
    limits = loaded.spec.limits
    good = {
        "oe": "1; limits {:g} to {:g}".format(*limits.oe),
        "slope": "1; limits {:g} to {:g}".format(*limits.slope),
    }
    rows = [
        {"name": name, "good": ideal, "now": measured[key], "then": then.get(key)}
        for key, name, ideal in (
            ("auroc", "AUROC: ranks the sicker patient higher", "1; 0.5 is chance"),
            ("auprc", "AUPRC: precision over all thresholds", "1"),
            ("brier", "Brier score: mean squared error of the risk", "0"),
        )
    ]
    names = {"oe": "Observed / expected events", "slope": "Calibration slope"}
    for key in HELD:
        now, before = (
            {"value": side["calibration"][key], **((side.get("intervals") or {}).get(key) or {})}
            if side.get("calibration")
            else None
            for side in (measured, then)
        )
        rows.append({"name": names[key], "good": good[key], "now": now, "then": before})
    return rows


def publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put ``files`` at ``folder``, whole: what stood there before goes once they are written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (folder.with_name(f".{folder.name}.{name}.{os.getpid()}") for name in ("new", "old"))
    try:
        draft.mkdir()
        for name, content in files.items():
            (draft / name).write_bytes(content)
        while True:
            if folder.exists():
                folder.rename(old)
            try:
                draft.rename(folder)
                break
            except OSError:
                # Another run of the same window was between our two renames.
                if not folder.exists():
                    raise
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
