"""The BentoML shell: workers, health, the mounted application.

A Bento brings its releases along and keeps its log outside itself: there CAREMODELS_HOME must be
set, because BentoML changes the working directory into the Bento.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from data import telemetry

telemetry.off()

import bentoml  # noqa: E402 only after telemetry is off

from data.errors import UsageError  # noqa: E402
from data.home import Home  # noqa: E402
from data.log.append import LogWriter  # noqa: E402
from data.log.schema import connect  # noqa: E402
from data.pseudonym import load_key  # noqa: E402
from serving.app import Runtime, make_app  # noqa: E402
from serving.deployed import Deployed  # noqa: E402

_SOURCE = Path(__file__).resolve().parents[1]
_FROZEN = _SOURCE / "var" / "releases"
"""Where ``bentoml build`` copies the releases."""


def start() -> Runtime:
    """Open the log, load and verify the champions. Raises an error that says what is wrong."""
    in_bento = (_SOURCE.parent / "bento.yaml").is_file()
    if in_bento and not os.environ.get("CAREMODELS_HOME"):
        raise UsageError("CAREMODELS_HOME must name a folder outside the Bento, for its log")
    home = Home.from_env()
    home.path.mkdir(parents=True, exist_ok=True)
    deployed = Deployed(
        releases=_FROZEN if in_bento else home.releases,
        key=load_key(home.path),
        demo=os.environ.get("CAREMODELS_DEMO") == "1",
    )
    deployed.refresh()
    engine = connect(home.log)
    return Runtime(deployed=deployed, engine=engine, log=LogWriter(engine))


logging.getLogger("serving").setLevel(logging.INFO)
app = make_app(start)


# A request's path and headers are the caller's own words: no access log of BentoML's.
@bentoml.service(
    name="caremodels",
    workers=int(os.environ.get("CAREMODELS_WORKERS", "1")),
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class CareModels:
    """Liveness and readiness; everything else is the mounted application's."""

    async def __is_ready__(self) -> bool:
        """Ready when the log can be written and every released model is loaded and verified."""
        runtime: Runtime | None = getattr(app.state, "runtime", None)
        return runtime is not None and runtime.deployed.ready and runtime.log.ready()
