"""The README is true: its tour runs as it stands, and what it names is there."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import caremodels
from data import marts, source

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_targets_and_files_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    targets = set(re.findall(r"^make (\w+)|`make (\w+)`", README, flags=re.MULTILINE))
    for target in {name for pair in targets for name in pair if name}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"`((?:data|models|training|docs|benchmarks)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path


def typed(text):
    """Each command of the code blocks, without what is said beside it or follows from the shell."""
    for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.findall(r"(?:^\$?\s*|=|\s)(caremodels [a-z].*)", line):
                for part in re.split(r" && |; | \|\| | & | &$", command):
                    words = re.split(r"\s{3,}|\s+#", part.removeprefix("caremodels "))[0]
                    if part.startswith("caremodels ") and "…" not in words:
                        yield words


@pytest.mark.parametrize("file", ["README.md", "docs/operations.md"])
def test_every_command_that_is_typed_is_one(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    commands = list(typed(text))
    assert commands
    for words in commands:
        caremodels.parser().parse_args(shlex.split(words))


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(tmp_path):
    """Every line of the tour, in one shell, in an empty folder; then month by month."""
    tour, monthly = (
        re.search(pattern, README, flags=re.DOTALL)[1]
        for pattern in (r"```bash\n(.*?)```", r"Then, month by month:\n\n```\n(.*?)```")
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = tour.replace("$PWD/.venv/bin", str(Path(sys.executable).parent))
    script = script.replace("--port 3000", f"--port {port}").replace(":3000/", f":{port}/")
    # The month of the tour holds one prediction: "not enough data" is the right answer.
    script += monthly.replace("--to 2021-12\n", "--to 2021-12 || test $? -eq 4\n")

    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "CAREMODELS_HOME": str(tmp_path / "var")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        # The service in the background keeps the pipe open: read until the last command has spoken.
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("report:"):
                break
        printed = "".join(lines)
        assert process.wait(timeout=60) == 0, printed
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.stdout.close()

    assert '"status":"scored"' in printed
    assert '"joined":1' in printed
    assert "verdict: insufficient" in printed
    assert (tmp_path / "var/card/card.html").is_file()


@pytest.mark.slow
def test_rows_of_ones_own_are_brought_in_as_it_says(tmp_path):
    example = re.search(r"```bash\n(cat > export.csv.*?)```", README, flags=re.DOTALL)[1]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "read: 3\nkept: 2\nrefused: 1" in done.stdout
    assert "temperature: outside 25 to 45 Cel: 1" in done.stdout
    assert (tmp_path / "own" / "marts.duckdb").is_file()


def test_every_known_source_and_mart_is_named():
    for name in (*source.known(), *marts.names()):
        assert name in README
