"""The model card and the plots: what a reviewer reads, from one set of figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np

from models import metrics, plots
from models.artifact import Artifact
from models.cohort import NOBODY, Cohort
from models.manifest import NOTICE
from training.evaluate import comparators

THRESHOLDS = np.linspace(0.01, 0.6, 60)


def write(folder: Path, fitted: Artifact, figures: Mapping[str, Any], *, cohort: Cohort) -> None:
    """``card.html``, ``evaluation.json`` and one PNG a plot, in the new ``folder``."""
    folder.mkdir(parents=True)
    drawn = draw(fitted, cohort)
    for name, png in drawn.items():
        (folder / f"{name}.png").write_bytes(png)
    (folder / "evaluation.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    (folder / "card.html").write_text(render(fitted, figures, drawn, cohort), encoding="utf-8")


def draw(fitted: Artifact, cohort: Cohort) -> dict[str, bytes]:
    """Each plot as PNG, the comparators beside the model."""
    y = cohort.outcome
    risks = {fitted.spec.name: fitted.risk(cohort.rows), **comparators(fitted, cohort)}
    figures = {
        "roc": plots.roc(
            {name: metrics.roc_curve(y, risk) for name, risk in risks.items()},
            values={name: metrics.auroc(y, risk) for name, risk in risks.items()},
        ),
        "precision_recall": plots.precision_recall(
            {name: metrics.pr_curve(y, risk) for name, risk in risks.items()},
            values={name: metrics.auprc(y, risk) for name, risk in risks.items()},
            prevalence=float(y.mean()),
        ),
        "calibration": plots.calibration(
            {name: metrics.calibration_curve(y, risk) for name, risk in risks.items()},
            histograms={name: metrics.risk_histogram(y, risk) for name, risk in risks.items()},
            smooth={name: metrics.smoothed_calibration(y, risk) for name, risk in risks.items()},
        ),
        "decision_curve": plots.decision_curve(
            {name: metrics.net_benefit(y, risk, THRESHOLDS) for name, risk in risks.items()}
        ),
    }
    return {name: _png(figure) for name, figure in figures.items()}


def render(
    fitted: Artifact, figures: Mapping[str, Any], drawn: Mapping[str, bytes], cohort: Cohort
) -> str:
    """The card as one self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    provenance = fitted.manifest.provenance
    rows = {fitted.spec.name: figures, **figures["comparators"]}
    if figures["weighted"]:
        rows[f"{fitted.spec.name}, weighted to the population"] = figures["weighted"]
    return environment.get_template("card.html.j2").render(
        spec=fitted.spec,
        demonstration=provenance.use == "demonstration",
        notice=NOTICE,
        figures=figures,
        rows=rows,
        provenance=provenance,
        periods=provenance.periods,
        cluster="patients" if (cohort.patient != NOBODY).any() else "sites",
        columns=fitted.mart.columns,
        plots={name: base64.b64encode(png).decode() for name, png in drawn.items()},
        number=_number,
        interval=_interval,
        percent=lambda share: f"{share:.0%}",
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, float | None]) -> str:
    if row["value"] is None or row["low"] is None:
        return _number(row["value"])
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
