"""The BentoML shell: workers, health, the mounted application.

A Bento brings its releases along and keeps its log outside itself: there CAREMODELS_HOME must be
set, because BentoML changes the working directory into the Bento.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from data import telemetry

telemetry.off()

# Who a proxy speaks for is said in issuers.toml: Uvicorn would believe any program on this machine.
os.environ["FORWARDED_ALLOW_IPS"] = ""

_IN_WORKER = getattr(sys.modules["__main__"].__spec__, "name", "") == "_bentoml_impl.worker.service"
if _IN_WORKER:
    gc.disable()  # until everything is loaded: what is imported now is never garbage
    # The process manager and its sockets, which a worker only imports: 0.2 s and 10 MiB.
    _manager = ModuleType("_bentoml_impl.server.serving")
    _manager.__dict__["serve_http"] = None
    sys.modules.setdefault(_manager.__name__, _manager)

import bentoml  # noqa: E402 only after telemetry is off
import click  # noqa: E402
from bentoml.exceptions import BentoMLException  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from data.errors import CaremodelsError, UsageError  # noqa: E402
from data.home import Home  # noqa: E402
from data.log.schema import connect  # noqa: E402
from data.log.seal import load_keyring  # noqa: E402
from data.pseudonym import load_key  # noqa: E402
from serving import logs  # noqa: E402
from serving.access import heads  # noqa: E402

if TYPE_CHECKING:  # XGBoost takes a second to import, and only workers need it
    from serving.runtime import Runtime

if _IN_WORKER:
    heads.bound()

logger = logging.getLogger(__name__)
_SOURCE = Path(__file__).resolve().parents[1]
_FROZEN = _SOURCE / "var" / "releases"
"""Where ``bentoml build`` copies the releases."""
_IN_BENTO = (_SOURCE.parent / "bento.yaml").is_file()


def start() -> Runtime:
    """Open the log, load and verify the champions. Raises an error that says what is wrong."""
    from data.log.append import LogWriter
    from data.log.read import opens
    from serving.access.guard import Guard
    from serving.deployed import Deployed
    from serving.metrics import Metrics
    from serving.runtime import Runtime

    home = _home()
    deployed = Deployed(
        releases=_FROZEN if _IN_BENTO else home.releases,
        key=load_key(home.path),
        demo=os.environ.get("CAREMODELS_DEMO") == "1",
    )
    deployed.refresh()
    engine = connect(home.log)
    keyring = load_keyring(home.path)
    if not opens(engine, keyring):
        logger.error("what the log holds is sealed with a key that is not here (CAREMODELS_LOG_KEYS)")
    return Runtime(
        deployed=deployed,
        engine=engine,
        log=LogWriter(engine, keyring),
        keyring=keyring,
        metrics=Metrics(),
        guard=Guard.start(engine, deployed.key, home.path),
    )


def _home() -> Home:
    if _IN_BENTO and not os.environ.get("CAREMODELS_HOME"):
        raise UsageError("CAREMODELS_HOME must name a folder outside the Bento, for its log")
    home = Home.from_env()
    if home.path.is_relative_to(_SOURCE.parent) and _IN_BENTO:
        raise UsageError("CAREMODELS_HOME lies inside the Bento: its log would go when the Bento does")
    home.path.mkdir(parents=True, exist_ok=True)
    return home


def _check_callers(home: Home) -> None:
    """Say who may call. Raises UsageError where that would be anybody from anywhere."""
    from data.log import access
    from serving.access import limits, listening, trust

    limits.rate()
    issuers = trust.reviewed(home.path).trust.issuers
    engine = connect(home.log)
    try:
        closed = bool(access.keys(engine) or issuers)
        # Started from Python there is no such context; then each request is held to this machine.
        context = click.get_current_context(silent=True)
        host = context.params.get("host") if context else None
        if host:
            listening.place(home, host)
    finally:
        engine.dispose()
    to = "closed but to API keys and trusted tokens" if closed else "open to this machine only"
    sys.stderr.write(f"caremodels: {to}{'' if closed else ' (no API key exists)'}\n")


def _prepare_xgboost() -> None:
    """Import XGBoost as a server wants it; to be called before anything else imports it."""
    # A row is too little work to share: threads that wait for each other took it from 4 to 18 ms.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # It imports scikit-learn, and that pandas, for wrappers that nothing here uses: 1.5 s, 140 MiB.
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # that is how an import is barred
    try:
        import xgboost  # noqa: F401
    finally:
        del sys.modules["sklearn"]


@asynccontextmanager
async def _working(app: Starlette) -> AsyncIterator[None]:
    """In a worker only: the process that starts the workers needs none of it."""
    _prepare_xgboost()
    from serving.app import make_app

    inner = make_app(start)
    app.router.routes.append(Mount("/", app=inner))
    orphaned = asyncio.create_task(_end_with(os.getppid()))
    async with inner.router.lifespan_context(inner):
        app.state.runtime = inner.state.runtime
        served = (f"{name} {one.version}" for name, one in app.state.runtime.deployed.scorers.items())
        logger.info("ready: %s", ", ".join(served) or "nothing is served")
        yield
    orphaned.cancel()


async def _end_with(parent: int) -> None:
    """Workers that outlived a killed parent would hold the port and answer, watched by nobody."""
    while os.getppid() == parent:  # noqa: ASYNC110 the kernel raises no event for it
        await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


app = Starlette(lifespan=_working)


# A request's path and headers are the caller's own words: no access log, metric or trace of BentoML's.
@bentoml.service(
    name="caremodels",
    workers=int(os.environ.get("CAREMODELS_WORKERS", "1")),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
    # BentoML keeps a timer of each request until it would be over, so that a long one takes memory.
    traffic={"timeout": 20},
)
@bentoml.asgi_app(app, path="/")
class CareModels:
    """Liveness and readiness; everything else is the mounted application's."""

    def __init__(self) -> None:
        logs.set_up()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # it has none
    @staticmethod
    def check() -> None:
        """Refuse to start rather than let workers die one after the other."""
        logs.set_up()
        try:
            home = _home()
            load_key(home.path)
            load_keyring(home.path)
            _check_callers(home)
        except CaremodelsError as error:
            raise BentoMLException(str(error)) from None

    def __is_ready__(self) -> bool:
        """Ready when the log can be written and every released model is loaded and verified.

        No coroutine: BentoML then asks in a thread, and a slow disk holds up no request.
        """
        runtime: Runtime | None = getattr(app.state, "runtime", None)
        if runtime is None:
            return False
        why = runtime.unready()
        if why:
            runtime.metrics.unready(why)
        return why is None
