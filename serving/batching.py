"""Requests that are here at the same moment are scored in one call.

Nobody waits for others to come: a call holds what the event loop has already read when it gets
to it. Most of what a row costs is the same for ten, so that under load this is worth more than any
other thing here.
"""

from __future__ import annotations

import asyncio

from data.errors import ContractError
from serving.schema import PredictRequest
from serving.scorer import Answered, Ask, Receipt, Scorer

MANY = 8
"""Instances from which on a request is scored in a thread, so that it does not hold up the others."""
MOST = 32
"""Requests of one call: what else has come waits its turn, and the answers before it leave first."""

Waiting = list[tuple[Ask, asyncio.Future[Answered]]]


class Batcher:
    """One a worker; used from its event loop alone."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Scorer, Waiting]] = {}

    async def score(self, scorer: Scorer, request: PredictRequest, receipt: Receipt) -> Answered:
        """What ``scorer`` answers. Raises ContractError for a request that makes no sense."""
        if len(request.instances) > MANY:
            return await asyncio.to_thread(scorer.predict, request, receipt)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        # By identity: a promotion between two requests gives them each its own version.
        if id(scorer) not in self._waiting:
            self._waiting[id(scorer)] = (scorer, [])
            loop.call_soon(self._flush, id(scorer))
        self._waiting[id(scorer)][1].append((Ask(request=request, receipt=receipt), future))
        return await future

    def _flush(self, which: int) -> None:
        scorer, waiting = self._waiting.pop(which)
        if len(waiting) > MOST:
            self._waiting[which] = (scorer, waiting[MOST:])
            asyncio.get_running_loop().call_soon(self._flush, which)
            waiting = waiting[:MOST]
        # Who hung up is answered no more, and leaves no record.
        asked = [(ask, future) for ask, future in waiting if not future.done()]
        try:
            answers = scorer.predict_all([ask for ask, _ in asked])
        except Exception as error:  # noqa: BLE001 each of them must learn of it
            for _, future in asked:
                future.set_exception(error)
            return
        for (_, future), answered in zip(asked, answers, strict=True):
            if isinstance(answered, ContractError):
                future.set_exception(answered)
            else:
                future.set_result(answered)
