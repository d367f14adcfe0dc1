"""How commands talk: results to stdout, everything about the work to stderr."""

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Read when these libraries are imported, in workers started here too: their warnings are for
# programmers (a missing torchvision, dtypes of modules that we do not cast).
for _library in ("TRANSFORMERS", "DIFFUSERS"):
    os.environ.setdefault(f"{_library}_VERBOSITY", "error")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """A line of result, as it is."""
    out.print(text, markup=False)


def note(text: str) -> None:
    """A line about the work."""
    err.print(text, markup=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, for scripts."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


def show(value: Any, as_json: bool, text: str) -> None:
    """`value` for a script or `text` for a person."""
    if as_json:
        print_json(value)
    else:
        say(text)


def progress_bar() -> Progress:
    """A bar on stderr with count, time gone and time left; silent where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
        disable=not err.is_terminal,
    )
