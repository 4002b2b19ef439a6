"""One page over all that a run judged, from which each model's page is a click away."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.home import Home
from monitoring.page import environment
from monitoring.run import Monitored

NAME = "index.html"


def publish(home: Home, results: Sequence[Monitored], failed: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``reports/index.html``, in one step, and return where."""
    target = home.reports / NAME
    rows = [
        {
            "model": found.model,
            "version": found.version,
            "pointer": found.pointer,
            "window": found.window,
            "verdict": found.verdict,
            "n": found.n,
            "outcomes": found.outcomes,
            "standing": sum(alarm["state"] in ("open", "acknowledged") for alarm in found.alarms),
            "link": os.path.relpath(found.report, home.reports),
        }
        for found in results
    ]
    content = environment().get_template("index.html.j2").render(results=rows, failed=failed)
    home.reports.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(".index.draft")  # one run at a time; a killed one's is written over
    draft.write_text(content, encoding="utf-8")
    draft.replace(target)
    return target
