"""A hospital's server phones nobody."""

import os

SWITCHES = {
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",  # evidently, and whoever else honours it
}


def off() -> None:
    """Switch off every dependency's usage reports. To be called before they are imported."""
    os.environ.update(SWITCHES)
