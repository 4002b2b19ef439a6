"""How the command line declares a command: its name, its help and the options that several share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from data.home import Home

Run = Callable[[argparse.Namespace, Home], int]
"""What a command does; returns the exit code."""


def add(commands: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command below ``commands``, with ``--json``."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def add_for_model(commands: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command on one model."""
    parser = add(commands, name, run, text)
    parser.add_argument("model", metavar="MODEL")
    return parser


def period(parser: argparse.ArgumentParser) -> None:
    """``--from`` and ``--to``."""
    parser.add_argument("--from", dest="first", metavar="YYYY-MM", help="month or day, inclusive")
    parser.add_argument("--to", dest="last", metavar="YYYY-MM", help="month or day, inclusive")


def version(parser: argparse.ArgumentParser, *, default: str) -> None:
    """``--version``, and which one it is without."""
    parser.add_argument("--version", metavar="N", help=f"default: {default}")


def pointer(parser: argparse.ArgumentParser) -> None:
    """``--as``."""
    parser.add_argument("--as", dest="pointer", choices=("champion", "challenger"), default="champion")


def signed(parser: argparse.ArgumentParser) -> None:
    """``--by`` and ``--reason``, of every act that goes into the ledger."""
    parser.add_argument("--by", required=True, type=person, metavar="WHO")
    parser.add_argument("--reason", required=True, metavar="TEXT")


def without_mlflow(parser: argparse.ArgumentParser) -> None:
    """``--no-mlflow``."""
    parser.add_argument(
        "--no-mlflow", dest="mlflow", action="store_false", help="do not ask MLflow, which may be down"
    )


def person(text: str) -> str:
    """The name of who signs: not the one that the ledger gives to a change control plan.

    >>> person("Dr Chen, change control board")
    'Dr Chen, change control board'
    """
    if "".join(text.casefold().split()).startswith("changecontrol("):
        raise argparse.ArgumentTypeError("a change control plan signs so; give a person's name")
    return text


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value
