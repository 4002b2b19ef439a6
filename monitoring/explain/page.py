"""The pages of explanations: of a window, which holds no patient's row, and of one prediction.

Self-contained, without a script. The page of a prediction holds a patient's values: it is written only
where somebody asks for it, and for that user's eyes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from models.artifact import Artifact
from models.manifest import NOTICE
from monitoring.drift import WORDS, percent
from monitoring.explain import draw
from monitoring.explain.drivers import Driven
from monitoring.explain.waterfall import Reason, Waterfall
from monitoring.page import environment

SHOWN = 12
"""Features that are drawn; the table has them all."""
ACROSS = 8
"""Features of the table of groups: more columns would not fit a page."""
STEPS = 20
"""Steps of a waterfall; what is smaller stands together in one."""


def window(driven: Driven, loaded: Artifact) -> bytes:
    """``index.html`` of a window."""
    found = asdict(driven)
    rows = [row for row in found["features"] if row["share"]]
    top = rows[:SHOWN]
    labels = {row["feature"]: row["label"]["en"] for row in found["features"]}
    bars = [
        (row["label"]["en"], *(row["share"][name] for name in ("value", "low", "high")), row["training"])
        for row in top
    ]
    return _rendered(
        "window",
        loaded,
        **found,
        rows=rows,
        bars=draw.shares(bars, title="Share of the explanations by feature") if bars else "",
        courses=_courses(found["months"], top),
        effects=_effects(found["values"]),
        across=[row["feature"] for row in top[:ACROSS]],
        most=SHOWN,
        labels=labels,
        shade=_shade,
    )


def prediction(found: Waterfall, loaded: Artifact) -> bytes:
    """The page of one prediction."""
    steps = [(_step(reason), reason.contribution) for reason in found.reasons]
    if len(steps) > STEPS:
        rest = steps[STEPS - 1 :]
        together = sum(contribution for _, contribution in rest)
        steps = [*steps[: STEPS - 1], (f"{len(rest)} others together", together)]
    drawn = (
        draw.waterfall(steps, base=found.base_value, title="What the risk is made of, in log-odds")
        if found.base_value is not None
        else ""
    )
    return _rendered("prediction", loaded, **asdict(found), drawn=drawn, said=said, stood=stood)


def said(value: Any, unit: str | None = None) -> str:
    """A value for a person.

    >>> said(88, "mm[Hg]"), said(True), said(None), said(2, "{level}")
    ('88 mm[Hg]', 'yes', 'not recorded', '2')
    """
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    if isinstance(value, float):
        value = f"{value:.4g}"
    # What UCUM puts into braces is a remark, and 1 is no unit.
    return f"{value} {unit}" if unit and unit != "1" and not unit.startswith("{") else str(value)


def stood(reason: Mapping[str, Any]) -> str:
    """Where a value stands among the training patients.

    >>> stood({"percentile": (89.6, 100.0), "share": 0.1})
    'percentile 90 to 100'
    >>> stood({"percentile": None, "share": 0.034})
    '3.4% have the same'
    """
    if reason["percentile"] is not None:
        low, high = reason["percentile"]
        return f"percentile {low:.0f} to {high:.0f}"
    return "" if reason["share"] is None else f"{percent(reason['share'])} have the same"


def _step(reason: Reason) -> str:
    return f"{reason.label['en']}: {said(reason.value, reason.unit)}"


def _courses(
    months: Sequence[Mapping[str, Any]], top: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Each feature's share over the months, all on the same axis; of one month there is no course."""
    if len(months) < 2:
        return []
    series = [
        (
            row,
            [
                (month["month"], month["shares"][row["feature"]]["value"] if month["shares"] else None)
                for month in months
            ],
        )
        for row in top[:ACROSS]
    ]
    shares = [share for _, points in series for _, share in points if share is not None]
    most = max([*shares, *(row["training"] or 0.0 for row, _ in series)], default=1.0)
    return [
        {
            "label": row["label"]["en"],
            "svg": draw.course(
                points,
                title=f"{row['label']['en']}: share of the explanations by month",
                most=most,
                then=row["training"],
            ),
        }
        for row, points in series
    ]


def _effects(values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the values of each feature add, all on the same axis."""
    shown = [row for row in values if len(row["cells"]) > 1]
    reach = max((abs(cell["mean"]) for row in shown for cell in row["cells"]), default=1.0)
    return [
        {
            "label": row["label"]["en"],
            "unit": row["unit"],
            "svg": draw.effects(
                [(WORDS.get(cell["label"], cell["label"]), cell["mean"]) for cell in row["cells"]],
                title=f"What the values of {row['label']['en']} add, in log-odds",
                reach=reach,
            ),
        }
        for row in shown
    ]


def _shade(share: float, everywhere: float) -> str:
    """How strongly a cell of the table of groups is tinted: red above the share of all, blue below."""
    apart = max(-1.0, min(1.0, (share - everywhere) / max(everywhere, 0.02)))
    colour = "179, 38, 30" if apart > 0 else "74, 127, 181"
    return f"rgba({colour}, {abs(apart) * 0.45:.2f})"


def _rendered(name: str, loaded: Artifact, **given: Any) -> bytes:
    demonstration = loaded.manifest.provenance.use == "demonstration"
    template = environment().get_template(f"explain/{name}.html.j2")
    return template.render(
        **given, spec=loaded.spec, notice=NOTICE if demonstration else None, percent=percent
    ).encode()
