"""The page of a window: what a governance reviewer opens once a month. Self-contained, no script."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from data import marts
from models.artifact import Artifact
from models.manifest import NOTICE
from monitoring import charts, curve_charts
from monitoring.breaches import bounds
from monitoring.charts import Point
from monitoring.counting import MIN_ROWS
from monitoring.drift import Cells, percent
from monitoring.lines import RISK, Line, in_order
from monitoring.strata import SITE
from monitoring.summary import STEPS, head, kind, standing, summary

SHOWN = 8
"""Columns drawn."""
ROWS = 10
"""Lines of a long table that stand open."""
REASONS = 12
"""Features shown."""
TRENDS = (
    ("oe", "Observed / expected events", "{:.2f}"),
    ("auroc", "AUROC", "{:.2f}"),
    ("slope", "Calibration slope", "{:.2f}"),
    ("net_benefit", "Net benefit at the alert's threshold", "{:.3f}"),
)
MEASURES = (
    ("oe", "Observed / expected events", "best 1", "{:.2f}"),
    ("auroc", "AUROC: ranks the one with the outcome higher", "best 1, chance 0.5", "{:.3f}"),
    ("sensitivity", "Sensitivity: of those with the outcome, alerted", "best 1", "{:.2f}"),
    ("specificity", "Specificity: of those without, not alerted", "best 1", "{:.2f}"),
    ("ppv", "Positive predictive value: of the alerts, right", "best 1", "{:.2f}"),
    ("nne", "Alerts answered for each patient found", "best 1", "{:.1f}"),
    ("alerts_per_100", "Alerts per 100 patients", "", "{:.1f}"),
    ("net_benefit", "Net benefit of the alert", "above 0 and alerting on all", "{:.3f}"),
    ("slope", "Calibration slope: over 1 risks too alike, under 1 too extreme", "best 1", "{:.2f}"),
    ("intercept", "Calibration in the large, in log-odds", "best 0", "{:.2f}"),
    ("ici", "Integrated calibration index: mean distance of risk and truth", "best 0", "{:.3f}"),
    ("brier", "Brier score: mean squared error of the risk", "best 0", "{:.3f}"),
    ("brier_skill", "Brier skill: better than telling everybody the mean", "best 1", "{:.2f}"),
    ("auprc", "AUPRC: precision over all thresholds", "best 1", "{:.3f}"),
)
OF_LEVELS = (
    ("kappa", "Kappa: quadratic, with the level that was right", "best 1", "{:.2f}"),
    (
        "under_urgent",
        "Under-triage: of the urgent, given no urgent level",
        "trauma: under 5 %",
        "{:.3f}",
    ),
    (
        "over_urgent",
        "Over-triage: of the others, given an urgent level",
        "trauma: under 35 %",
        "{:.3f}",
    ),
    ("under_triage", "Of all, given a less urgent level", "best 0", "{:.3f}"),
    ("over_triage", "Of all, given a more urgent level", "best 0", "{:.3f}"),
)
OF_HOURS = (("utility", "Utility of the alerts, of whole stays", "best 1, never to alert 0", "{:.2f}"),)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def environment() -> jinja2.Environment:
    """Templates of this folder; what is not there is an error, and all text is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(
    monitored: Mapping[str, Any],
    loaded: Artifact,
    cells: Sequence[Cells],
    quality: Mapping[str, Any],
    *,
    links: Sequence[str],
) -> bytes:
    """``index.html``, the same for the same window. ``monitored``: as ``report.json`` holds it."""
    told: dict[str, Any] = _finite(monitored)
    lines = in_order(told["columns"], cells)
    # Each column once: over all sites if it moved there, else at the site where it moved most.
    first = sorted(lines, key=lambda line: line.cells.site is not None)
    drifted = list({line.cells.column: line for line in reversed(first) if line.drifted}.values())
    drifted.sort(key=lambda line: -line.ratio)
    together = [line for line in lines if line.cells.site is None]
    open_rows = max(ROWS, sum(line.over for line in together))
    risks = [line for line in together if line.cells.column == RISK]
    limits = bounds(loaded.spec, "calibration", loaded.spec.limits.oe)
    stands = standing(told["alarms"])
    several = len(told["trend"]) > 1
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            **told,
            share_opened=told["share"],
            spec=loaded.spec,
            notice=NOTICE if loaded.manifest.provenance.use == "demonstration" else None,
            head=head(told),
            summary=summary(told, quality, loaded),
            standing=stands,
            closed=[alarm for alarm in told["alarms"] if alarm["state"] == "closed"],
            together=(together[:open_rows], together[open_rows:]),
            drawn=(drifted or risks)[:SHOWN],
            any_drifted=bool(drifted),
            own_sites=[_site(row, lines, told["columns"]) for row in quality["sites"]],
            measures=_measures(told, loaded),
            curves=_curves(told["performance"].get("curves"), loaded),
            # Of one window the tables say it all.
            plots=_plots(told, loaded) if several else [],
            labels=[_window(row) for row in told["trend"]],
            small=_small(told["trend"], limits, {alarm["site"] for alarm in stands}) if several else [],
            groups=[
                _groups(told, names, bound, loaded)
                for names, bound in (((SITE,), limits), (None, loaded.spec.limits.subgroup_oe))
            ],
            tasks=_tasks(told, loaded),
            driving=told["reasons"][:REASONS],
            quality=quality,
            links=links,
            steps=STEPS,
            kind=kind,
            min_rows=MIN_ROWS,
            percent=percent,
            dated=dated,
        )
        .encode()
    )


def dated(text: str) -> str:
    """``text`` as HTML, its days kept in one line.

    >>> dated("a < b since 2021-09-01")
    'a &lt; b since <span class="nw">2021-09-01</span>'
    """
    return _DATE.sub(lambda day: f'<span class="nw">{day[0]}</span>', escape(text))


def _finite(value: Any) -> Any:
    """The same, as JSON would tell it: what is no finite number is None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _window(row: Mapping[str, Any]) -> str:
    """A month by its name, any other window by its first day."""
    month = row["from"].endswith("-01") and row["to"][8:] in ("28", "29", "30", "31")
    return str(row["from"][:7] if month and row["from"][:7] == row["to"][:7] else row["from"])


def _plots(told: Mapping[str, Any], loaded: Artifact) -> list[dict[str, Any]]:
    """Each measure over the windows: the picture, and the numbers in it."""
    spec, then = loaded.spec, told["performance"]["at_promotion"] or {}
    limits: dict[str, Sequence[float | None]] = {
        "oe": bounds(spec, "calibration", spec.limits.oe),
        "slope": bounds(spec, "slope", spec.limits.slope),
        "auroc": (spec.limits.auroc,),
        "net_benefit": (0.0,),
    }
    found = []
    for name, title, form in TRENDS:
        points = [
            Point(
                label=_window(row),
                estimate=(row["estimate"] or {}).get(name),
                truth=(row["truth"] or {}).get(name),
            )
            for row in told["trend"]
        ]
        reference = (_known(then, name) or {}).get("value")
        drawn = charts.trend(
            points,
            title=f"{title} by window: estimate as a band, what came true as dots",
            limits=limits[name],
            reference=reference,
            form=form.format,
        )
        if drawn:
            rows = [(point.label, point.estimate, point.truth) for point in points]
            known = [limit for limit in limits[name] if limit is not None]
            found.append(
                {
                    "title": title,
                    "svg": drawn,
                    "rows": rows,
                    "form": form,
                    "limits": known,
                    "reference": reference,
                }
            )
    return found


def _curves(rows: Mapping[str, Any] | None, loaded: Artifact) -> dict[str, Any] | None:
    """The calibration curve and the decision curve of this window, with the numbers in them."""
    if rows is None:
        return None
    known = {name: [row for row in part if None not in row.values()] for name, part in rows.items()}
    benefit = curve_charts.net_benefit(
        known["net_benefit"],
        alert_at=loaded.spec.alert_at,
        title="Net benefit by the threshold from which one acts",
    )
    return {
        **known,
        "drawn": (
            curve_charts.calibration(known["calibration"], title="Observed share by the risk given"),
            benefit,
        ),
    }


def _small(
    trend: Sequence[Mapping[str, Any]], limits: tuple[float, float], called: set[str | None]
) -> list[dict[str, Any]]:
    """Observed/expected and requests of each site, on one axis; those ``called`` by an alarm first."""
    names = [row["site"] for row in trend[-1]["sites"]] if trend else []
    nothing = {"n": 0, "oe": None}
    of = [{site["site"]: site for site in row["sites"]} for row in trend]
    series = {name: [sites.get(name, nothing) for sites in of] for name in names}
    reach = charts.extent((site["oe"] for sites in series.values() for site in sites), limits)
    labels = [_window(row) for row in trend]
    found = [
        {
            "site": name,
            "alarm": name in called,
            "last": sites[-1],
            "rows": list(zip(labels, sites, strict=True)),
            "svg": charts.site(
                [(label, site["n"], site["oe"]) for label, site in zip(labels, sites, strict=True)],
                title=f"{name}: observed/expected and requests by window",
                reach=reach,
                limits=limits,
            ),
        }
        for name, sites in series.items()
        if any(site["n"] for site in sites)
    ]
    return sorted(found, key=lambda one: not one["alarm"]) if len(found) > 1 else []


def _groups(
    told: Mapping[str, Any],
    names: Sequence[str] | None,
    limits: tuple[float, float],
    loaded: Artifact,
) -> dict[str, Any]:
    """Figures of this window by site (``names``), or by every other attribute (None).

    An attribute of one level alone says what is said of all. ``left``: how many are under 20 patients.
    """
    attributes: dict[str, list[Mapping[str, Any]]] = {}
    for row in told["performance"]["groups"] or ():
        if (row["group"] in names) if names is not None else row["group"] != SITE:
            attributes.setdefault(row["group"], []).append(row)
    several = {name: rows for name, rows in attributes.items() if len(rows) > 1}
    shown = [row for rows in several.values() for row in rows if not row["suppressed"]]
    spans = {id(row): _span(row, told["trend"]) for row in shown}
    reach = charts.extent(spans.values(), limits)
    return {
        "limits": limits,
        "scale": charts.scale(reach),
        "left": sum(row["suppressed"] for rows in several.values() for row in rows),
        "parts": [
            (
                _attribute(name, loaded),
                [
                    {
                        **row,
                        "oe": spans[id(row)],
                        "svg": charts.interval(spans[id(row)], reach=reach, limits=limits),
                        "sensitivity": _known(row, "sensitivity"),
                        "alerts_per_100": _known(row, "alerts_per_100"),
                    }
                    for row in rows
                    if not row["suppressed"]
                ],
            )
            for name, rows in several.items()
            if any(not row["suppressed"] for row in rows)
        ],
    }


def _span(row: Mapping[str, Any], trend: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Observed/expected of a group; of a site that of the picture, lest the page say two things."""
    drawn = {site["site"]: site["oe"] for site in trend[-1]["sites"]} if trend else {}
    if row["group"] == SITE and drawn.get(row["level"]):
        return dict(drawn[row["level"]])
    return {"value": row["oe"], **row["intervals"]["oe"]}


def _attribute(name: str, loaded: Artifact) -> str:
    """What a person calls it; the artifact's own mart holds its inputs alone."""
    declared = marts.load(loaded.spec.mart).by_name
    return declared[name].label.en if name in declared else name.replace("_", " ").capitalize()


def _site(
    row: Mapping[str, Any], lines: Sequence[Line], columns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    mine = [line for line in lines if line.cells.site == row["site"]]
    refused = [
        found["column"]
        for found in columns
        if found["site"] == row["site"] and found["statistic"] == "refused_share" and found["drifted"]
    ]
    return {**row, "lines": mine, "drifted": [line for line in mine if line.over], "over": refused}


def _known(measured: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """A measure with its interval, wherever it stands among the figures."""
    if not measured:
        return None
    value, intervals = measured.get(name), measured.get("intervals")
    for place in ("calibration", "at_threshold", "triage"):
        if value is None and measured.get(place):
            value = measured[place].get(name)
            intervals = measured[place].get("intervals", intervals)
    if isinstance(value, Mapping):
        return dict(value)
    return {"value": value, **((intervals or {}).get(name) or {})}


def _measures(told: Mapping[str, Any], loaded: Artifact) -> list[dict[str, Any]]:
    """One line a measure: now, foreseen, at promotion, what is good; none if nothing is told of now."""
    measured, foreseen, spec = told["performance"], told["estimate"], loaded.spec
    if measured["reason"] and foreseen["reason"]:
        return []
    limits: dict[str, tuple[float | None, float | None]] = {
        "oe": bounds(spec, "calibration", spec.limits.oe),
        "slope": bounds(spec, "slope", spec.limits.slope),
        "auroc": (spec.limits.auroc, None),
    }
    rows = []
    own = (*(OF_LEVELS if spec.triage else ()), *(OF_HOURS if spec.lookback else ()))
    for name, title, ideal, form in (*own, *MEASURES):
        now = None if measured["reason"] else _known(measured, name)
        low, high = limits.get(name, (None, None))
        value = (now or {}).get("value")
        rows.append(
            {
                "name": title,
                "good": ideal + _limits(low, high),
                "form": form,
                "now": now,
                "foreseen": foreseen.get(name),
                "then": _known(measured["at_promotion"], name),
                "outside": value is not None and not _within(value, low, high),
            }
        )
    return rows


def _tasks(told: Mapping[str, Any], loaded: Artifact) -> list[dict[str, Any]]:
    """What only a model of levels, or of hourly alerts, is measured by: chief measures by group."""
    found = []
    for name, title, measures in (
        ("triage", "Levels", OF_LEVELS[:3]),
        ("utility", "What the alerts were worth", (("value", *OF_HOURS[0][1:]),)),
    ):
        if (of := told["performance"][name]) is None:
            continue
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for row in of["groups"]:
            groups.setdefault(row["group"], []).append(row)
        levels = [level.value for level in loaded.spec.triage.levels] if loaded.spec.triage else []
        found.append(
            {
                "title": title,
                "reason": of["reason"],
                "levels": levels,
                "table": of.get("table"),
                "measures": [(key, label.split(":")[0], form) for key, label, _, form in measures],
                "counted": "stays" if name == "utility" else "n",
                "unit": "Stays" if name == "utility" else "Answers",
                "parts": [
                    (_attribute(group, loaded), rows) for group, rows in groups.items() if len(rows) > 1
                ],
            }
        )
    return found


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _limits(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f"; at least {low:g}" if high is None else f"; limits {low:g} to {high:g}"
