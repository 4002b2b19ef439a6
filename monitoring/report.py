"""Evidently's tests, pages and workspace, and how a folder of pages is put in its place.

What Evidently is given are cells drawn out to rows, never a row of the log: nothing of a patient
can stay in its page, and its time does not grow with the window.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from data import telemetry
from data.home import Home
from models.reference import Binned
from monitoring.drift import SCALE, Cells, scaled
from monitoring.window import Window

CHAMPION, CHALLENGER = "champion", "challenger"


def drift(
    cells: Sequence[Cells],
    limits: Mapping[str, float],
    *,
    tags: Sequence[str] = (),
    at: datetime | None = None,
) -> tuple[dict[str, float], bytes, Any]:
    """Evidently's PSI of each column, its page with drift and data summary, and its run.

    ``tags`` and the time ``at`` are what its workspace knows the run by.
    """
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
    found = asked.run(now, then, timestamp=at, tags=list(tags), name=" ".join(tags) or None)
    values = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }
    return values, _html(found), found


def keep(home: Home, model: str, key: str, run: Any) -> None:
    """Put ``run`` into the workspace of the home, which ``evidently ui`` serves: a project a model.

    ``key`` names version, window and pointer: the same window again replaces its run, so that the
    pages show each window once. Project and run have numbers that follow from their names, and are
    written without opening the workspace: Evidently would read every run of it, megabytes each.
    """
    telemetry.off()
    from evidently.ui.storage.local.base import LocalState

    state, project = LocalState(str(home.evidently)), uuid.uuid5(uuid.NAMESPACE_OID, model)
    if not (home.evidently / str(project) / "metadata.json").exists():
        _project(state, project, model)
    snapshot = run.to_snapshot_model()
    silent = key.endswith(f"_{CHALLENGER}")
    snapshot.tags = [*snapshot.tags, CHALLENGER if silent else CHAMPION]
    state.write_snapshot(project, uuid.uuid5(project, key), snapshot)


def _project(state: Any, number: uuid.UUID, model: str) -> None:
    """A project whose first page says where its runs are.

    Evidently draws a line for each set of thresholds, and ours go with the window's size: nothing over
    time is left to draw there that the reports do not draw better.
    """
    from evidently.sdk.models import DashboardModel, ProjectModel
    from evidently.sdk.panels import text_panel

    said = "Drift by window, all sites together"
    panel = text_panel(
        said,
        "Under “Reports” is a run for each window. Verdict, trends and sites stand in its own page.",
    )
    state.write_project(ProjectModel(id=number, name=model, description=said))
    state.write_dashboard(number, DashboardModel(tabs=[], panels=[panel]))


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
