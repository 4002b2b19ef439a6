"""The card as one self-contained page, for people."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import jinja2

from models.artifact import LOGISTIC
from models.manifest import NOTICE
from training.documents import facts, hti1, results, tables, tripod, upkeep
from training.documents.bundle import Bundle
from training.documents.field import Field
from training.documents.words import at, count, interval, number, percent

PLOTS = {
    "roc": "ROC curve, beside every comparator",
    "precision_recall": "Precision and recall",
    "calibration": "Observed against predicted risk, with the histogram of risks",
    "decision_curve": "Net benefit over thresholds",
    "subgroups": "AUROC by group, with 95% intervals",
    "subgroups_oe": "Observed over expected by group, with 95% intervals",
    "beeswarm": "Contributions to the risk, by feature",
    "dependence": "Contribution against the value of an input",
    "utility": "Utility over thresholds",
    "levels": "Levels given against the nurse's",
}
CONTENTS = {
    "use": "Use",
    "cautions": "Not for",
    "outcome": "Outcome",
    "bands": "Bands",
    "inputs": "Inputs",
    "missing": "Missing inputs",
    "performance": "Performance",
    "benefit": "Benefit",
    "groups": "Groups",
    "sites": "Sites",
    "sets": "Uncertainty",
    "data": "Data",
    "model": "Model",
    "gate": "Gate",
    "monitoring": "Monitoring",
    "people": "To be written",
    "hti1": "HTI-1",
    "tripod": "TRIPOD+AI",
}
MOST_FEATURES = 15


def render(b: Bundle, fields: Mapping[str, Field], drawn: Mapping[str, bytes]) -> str:
    """HTML that needs no other file. ``drawn``: name -> PNG."""
    environment = jinja2.Environment(
        # The page itself lies beside ``card.py``, its parts beside this file.
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    shown = tables.of(b)
    sites = at(b.figures, "sites", "rows", default=[])
    everything = list(fields.values())
    return environment.get_template("card.html.j2").render(
        spec=b.spec,
        provenance=b.provenance,
        demonstration=b.demonstration,
        notice=NOTICE,
        fields=fields,
        tables=shown,
        contents=CONTENTS.items(),
        tiles=_tiles(b),
        counts=_counts(everything),
        definition=facts.definition(b),
        threshold=facts.alert(b),
        handling=facts.handling(b),
        plan=upkeep.plan(b),
        utility=results.utility(b),
        alert=percent(at(b.figures, "at_threshold", "threshold", default=b.spec.alert_at)),
        resampled=b.resampled,
        more_sites=len(sites) if len(sites) > len(shown["sites"].rows) else 0,
        importance=_importance(b),
        plots=_plots(drawn),
        open=_open(everything),
        written=[f for f in everything if f.anchor == "people" and f.value is not None],
        confirm=[field for field in everything if field.source == "P"],
        hti1=hti1.answered(fields),
        tripod=tripod.answered(fields),
    )


def plots(page: bytes) -> dict[str, bytes]:
    """Name -> PNG of the plots that a card shows, so that it can be told anew without drawing them."""
    found = _Plots()
    found.feed(page.decode())
    return found.drawn


class _Plots(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, bytes] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, source = given.get("data-plot"), given.get("src")
        if tag == "img" and name and source:
            self.drawn[name] = base64.b64decode(source.partition(",")[2])


def _tile(value: str, title: str, note: str) -> dict[str, str]:
    return {"value": value, "title": title, "note": note}


def _tiles(b: Bundle) -> list[dict[str, str]]:
    """What fits on a postcard."""
    figures = b.figures
    chosen = at(figures, "at_threshold", default={})
    auroc, _, spread = interval(figures.get("auroc")).partition(" ")
    reference = number(at(b.comparators, LOGISTIC, "auroc", "value"))
    found = [
        _tile(auroc, f"AUROC {spread}", f"logistic regression {reference}"),
        _tile(
            number(at(figures, "calibration", "oe"), 2),
            "observed over expected",
            f"calibration slope {number(at(figures, 'calibration', 'slope'), 2)}",
        ),
        _tile(
            percent(chosen.get("sensitivity")),
            f"of events found at a risk of {percent(chosen.get('threshold'))}",
            f"{percent(chosen.get('ppv'))} of alerts are right",
        ),
        _tile(
            number(chosen.get("alerts_per_100"), 1),
            "alerts per 100 patients",
            f"{number(chosen.get('nne'), 1)} alerts for one event",
        ),
        _tile(
            count(figures.get("n")),
            "rows never learned from",
            f"{count(figures.get('events'))} with the outcome",
        ),
    ]
    if figures.get("triage"):
        kappa, _, spread = interval(figures["triage"].get("kappa")).partition(" ")
        found.insert(1, _tile(kappa, f"quadratic kappa {spread}", "with the nurse's level"))
    if figures.get("utility"):
        reached, _, spread = interval(figures["utility"]).partition(" ")
        found.insert(1, _tile(reached, f"utility {spread}", "0 is never to alarm, 1 the best"))
    return found


def _open(fields: list[Field]) -> dict[str, list[str]]:
    """Who -> what they still have to write."""
    found: dict[str, list[str]] = {}
    for field in fields:
        if field.value is None:
            found.setdefault(field.who or "", []).append(field.title)
    return found


def _counts(fields: list[Field]) -> dict[str, int]:
    given = [field for field in fields if field.value is not None]
    return {
        "all": len(fields),
        **{source: sum(field.source == source for field in given) for source in ("A", "P")},
        "written": sum(field.source == "H" for field in given),
        "open": len(fields) - len(given),
    }


def _importance(b: Bundle) -> list[dict[str, str]]:
    rows = (b.figures.get("importance") or [])[:MOST_FEATURES]
    most = max((row["mean_abs"] for row in rows), default=0) or 1
    return [
        {
            **row["label"],
            "value": number(row["mean_abs"]),
            "width": f"{100 * row['mean_abs'] / most:.1f}",
        }
        for row in rows
    ]


def _plots(drawn: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Those known first, in the order of ``PLOTS``; another is shown under its name."""
    names = [*(name for name in PLOTS if name in drawn), *(name for name in drawn if name not in PLOTS)]
    return [
        {"name": name, "title": PLOTS.get(name, name), "image": base64.b64encode(drawn[name]).decode()}
        for name in names
    ]
