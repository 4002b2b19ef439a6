"""A hospital's server phones nobody: asked of each library in its own words, and watched on the wire."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORTING = ("bentoml", "evidently", "mlflow")
"""The dependencies that report usage unless told not to."""

PROBE = """
import ipaddress, json, socket, subprocess, sys, time

reached = []
def outside(host):
    host = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "None", "")

def guard(real, host_of):
    def call(*arguments, **options):
        host = host_of(arguments)
        if host is not None and outside(host):
            reached.append(str(host))
            raise OSError("nobody is to be phoned")
        return real(*arguments, **options)
    return call

def peer(arguments):
    return arguments[1][0] if isinstance(arguments[1], tuple) else None

for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guard(getattr(socket.socket, name), peer))
socket.getaddrinfo = guard(socket.getaddrinfo, lambda arguments: arguments[0])
started = subprocess.Popen
class Popen(started):  # evidently sends from a process of its own
    def __init__(self, command, *arguments, **options):
        if "requests" in str(command):
            reached.append("a process that posts")
            raise OSError("nobody is to be phoned")
        super().__init__(command, *arguments, **options)
subprocess.Popen = Popen

off = sys.argv[1] == "off"
if off:
    from data import telemetry
    telemetry.off()

import bentoml, evidently, mlflow
from bentoml._internal.utils.analytics import usage_stats
from bentoml._internal.utils.analytics.schemas import CliEvent
from evidently.telemetry import event_logger
from mlflow.telemetry.client import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled

sends = {
    "bentoml": not usage_stats.do_not_track(),
    "mlflow": not is_telemetry_disabled() or get_telemetry_client() is not None,
    "evidently": event_logger.is_enabled(),
}
if off:  # do what each of them would tell its maker
    usage_stats.track(CliEvent(cmd_group="cli", cmd_name="build"))
    event_logger.send_event("report", "run")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.create_experiment("probe")
    with mlflow.start_run():
        mlflow.log_metric("auroc", 0.85)
    time.sleep(2)
print(json.dumps({"sends": sends, "reached": reached}))
"""


def probe(mode: str, folder: Path) -> dict[str, object]:
    """What the libraries say in a fresh process in which nobody has set anything."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, mode],
        cwd=folder,
        # No CI variable, no pytest variable: some libraries are silent for those alone.
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_with_our_switch_no_dependency_reports(tmp_path):
    found = probe("off", tmp_path)
    assert found == {"sends": dict.fromkeys(REPORTING, False), "reached": []}


@pytest.mark.slow
def test_without_it_each_of_them_would(tmp_path):
    """The control: the questions above are the right ones. The guard keeps this process silent too."""
    found = probe("on", tmp_path)
    assert found["sends"] == dict.fromkeys(REPORTING, True)


def test_the_switch_is_thrown_before_any_of_them_is_imported():
    importers = []
    for file in sorted(ROOT.glob("*.py")) + [
        file for room in ("data", "models", "training", "serving", "monitoring")
        for file in sorted((ROOT / room).rglob("*.py"))
    ]:  # fmt: skip
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found = [node.lineno for node in ast.walk(tree) if imported(node) & set(REPORTING)]
        if found:
            importers.append(file.relative_to(ROOT).as_posix())
            thrown = [node.lineno for node in ast.walk(tree) if ast.unparse(node) == "telemetry.off()"]
            assert thrown, f"{file} never calls telemetry.off()"
            assert min(thrown) < min(found), f"{file} imports before telemetry.off()"
    assert importers == ["models/registry.py", "serving/service.py", "monitoring/report.py"]


def imported(node: ast.AST) -> set[str]:
    """The top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()
