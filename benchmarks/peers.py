"""What ``over_http.py`` measures caremodels against, each as somebody would write it with BentoML.

``Native`` and ``Mounted`` do nothing: they read a request and send a short answer. ``Naive`` gives the
same risk as caremodels and explains it, with pandas and ``shap.TreeExplainer``; it records nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

ANSWER = {"risk": 0.5}
LIKE_OURS: dict[str, Any] = {
    "workers": int(os.environ.get("PEER_WORKERS", "2")),
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
    "tracing": {"excluded_urls": ".*"},
}
"""As caremodels sets BentoML: without a line of log a request, which would slow only the others."""


@bentoml.service(**LIKE_OURS)
class Native:
    @bentoml.api(route="/predict")
    async def predict(self, instances: list[dict[str, Any]]) -> dict[str, float]:
        del instances
        return ANSWER


async def _nothing(request: Request) -> JSONResponse:
    await request.json()
    return JSONResponse(ANSWER)


@bentoml.service(**LIKE_OURS)
@bentoml.asgi_app(Starlette(routes=[Route("/predict", _nothing, methods=["POST"])]), path="/")
class Mounted:
    """Nothing of its own."""


@bentoml.service(**LIKE_OURS)
class Naive:
    """The released trees, a frame a request, and an explanation from the shap package."""

    def __init__(self) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import shap

        from models import artifact

        self._artifact = artifact.load(Path(os.environ["PEER_MODEL"]))
        self._explainer = shap.TreeExplainer(self._artifact.booster)

    @bentoml.api(route="/predict")
    def predict(self, instances: list[dict[str, Any]]) -> dict[str, Any]:
        import pandas as pd
        import pyarrow as pa
        import xgboost as xgb

        from data.contract import check
        from models.calibration import sigmoid

        own = self._artifact
        frame = pd.DataFrame(instances, columns=list(own.mart.by_name))
        rows = check(own.mart.columns, pa.Table.from_pandas(frame, preserve_index=False)).rows
        matrix = pd.DataFrame(own.features.matrix(rows))
        margin = own.booster.predict(xgb.DMatrix(matrix), output_margin=True)
        explained = self._explainer.shap_values(matrix)
        risk = sigmoid(own.calibration.log_odds(margin.astype(float)))
        return {"risk": risk.tolist(), "contributions": explained.tolist()}
