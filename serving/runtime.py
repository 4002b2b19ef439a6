"""What the routes of one worker work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sqlalchemy import Engine
from starlette.requests import Request

from data.log.append import LogWriter
from data.log.seal import Keyring
from serving.access.caller import Caller
from serving.access.guard import Guard
from serving.batching import Batcher
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.shadow import Shadow
from serving.tracing import Stages


@dataclass(frozen=True)
class Runtime:
    """Made when the server starts, not when a module is imported."""

    deployed: Deployed
    engine: Engine
    log: LogWriter
    keyring: Keyring
    metrics: Metrics
    guard: Guard

    def unready(self) -> Literal["nothing", "model", "log"] | None:
        """Why requests would be refused: nothing is served, a champion cannot be, or the log cannot be
        written. A challenger makes nothing unready. Blocks while it writes to the log.
        """
        if not self.deployed.scorers:
            return "nothing"
        if not self.deployed.ready:
            return "model"
        return None if self.log.ready() else "log"

    @property
    def key(self) -> bytes:
        return self.deployed.key

    @cached_property
    def batcher(self) -> Batcher:
        return Batcher()

    @cached_property
    def shadow(self) -> Shadow:
        return Shadow(self.deployed, self.log, self.metrics)

    @cached_property
    def stages(self) -> Stages:
        return Stages.start(self.metrics)


def of(request: Request) -> Runtime:
    """The runtime of the worker that answers ``request``."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def asking(request: Request) -> Caller:
    """Who sent ``request``, as the guard found."""
    caller: Caller = request.state.caller
    return caller
