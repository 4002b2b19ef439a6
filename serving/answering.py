"""The one way from a request to a recorded answer, whatever transport brought it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from data.log.append import Answer, Entry, Replay
from serving.answers import Abstained, Prediction, Refused, Scored
from serving.runtime import Runtime
from serving.schema import PredictRequest
from serving.scorer import Answered, Receipt, Scorer

logger = logging.getLogger(__name__)
Channel = Literal["rest", "cds-hooks", "fhir"]
Used = Literal["silent", "answered", "card"]


def handed_over(_: Prediction) -> Used:
    """The application got it; what it does with it is not ours to know."""
    return "answered"


async def answer(
    runtime: Runtime,
    scorer: Scorer,
    asked: PredictRequest,
    receipt: Receipt,
    *,
    channel: Channel = "rest",
    used: Callable[[Prediction], Used] = handed_over,
    keep: Callable[[Answered], Answer | None] = lambda _: None,
) -> Answered | Replay:
    """Answer ``asked``; when this returns, the answer is on disk and may be sent.

    ``used`` says of each prediction how it will be used. ``keep`` makes what is stored under an
    Idempotency-Key; where that was used before, what was answered then is returned and nothing is
    written. Raises ContractError for a request that makes no sense, UnavailableError where the log
    cannot be written.
    """
    stage, metrics = runtime.stages, runtime.metrics
    about = (scorer.name, scorer.version)
    with stage("score", *about):
        answered = await runtime.batcher.score(scorer, asked, receipt)
    if answered.not_additive:
        metrics.breach(*about, answered.not_additive)
        logger.error("%s %s: an explanation does not add up", *about)
    records = tuple(
        record | {"channel": channel, "used": used(prediction)}
        for record, prediction in zip(answered.records, answered.predictions, strict=True)
    )
    # Refused instances are recorded too: a monitor that never saw them could not tell of them.
    entry = Entry(predictions=records, answer=keep(answered))
    with stage("log", *about):
        written = await asyncio.wrap_future(runtime.log.submit(entry))
    if isinstance(written, Replay):
        return written
    runtime.shadow.follow(scorer, asked, receipt, records)
    for prediction in answered.predictions:
        match prediction:
            case Scored(band=band):
                metrics.prediction(*about, "scored", band=band.id)
            case Abstained(reasons=reasons):
                metrics.prediction(*about, "abstained", rules={reason.rule for reason in reasons})
            case Refused():
                metrics.prediction(*about, "refused")
    return answered
