"""The challenger: it answers the same requests, out of the caller's sight and into the log.

Its answers leave after the champion's, in a thread of their own. Where it cannot keep up, or fails,
no caller notices: what it left out is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from data.log.append import Entry, LogWriter
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.schema import PredictRequest
from serving.scorer import Receipt, Scorer

logger = logging.getLogger(__name__)
MOST = 64
"""Requests that may wait for the challenger; of more it is left out."""


class Shadow:
    """One a worker; used from its event loop alone."""

    def __init__(self, deployed: Deployed, log: LogWriter, metrics: Metrics) -> None:
        self._deployed, self._log, self._metrics = deployed, log, metrics
        self._running: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def follow(
        self,
        champion: Scorer,
        request: PredictRequest,
        receipt: Receipt,
        records: Sequence[dict[str, object]],
    ) -> None:
        """Have the challenger, if there is one, answer what ``champion`` answered with ``records``."""
        challenger = self._deployed.challengers.get(champion.name)
        if challenger is None:
            return
        if len(self._running) >= MOST:
            self._metrics.shadow(challenger.name, challenger.version, "left out")
            return
        task = asyncio.create_task(self._answer(challenger, request, receipt, records))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._running)

    async def _answer(
        self,
        challenger: Scorer,
        request: PredictRequest,
        receipt: Receipt,
        records: Sequence[dict[str, object]],
    ) -> None:
        fate = "failed"
        try:
            async with self._turn:  # one thread: it must not take the callers' share
                answered = await asyncio.to_thread(challenger.predict, request, receipt)
            silent = tuple(
                own
                | {
                    "pointer": "challenger",
                    "shadow_of": of["prediction_id"],
                    "channel": of["channel"],
                    "used": "silent",
                }
                for own, of in zip(answered.records, records, strict=True)
            )
            await asyncio.wrap_future(self._log.submit(Entry(predictions=silent)))
            fate = "answered"
        except Exception as error:  # noqa: BLE001 whatever it is, it is the challenger's alone
            what, version = type(error).__name__, challenger.version
            logger.error("challenger %s %s: %s", challenger.name, version, what)
        self._metrics.shadow(challenger.name, challenger.version, fate)
