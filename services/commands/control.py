"""`tdm-r1 pause | unpause | stop | set | scale`: a durable command, and what the run answered."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.commands.console import note, show
from services.config_keys import parse_override
from services.run_store import commands
from services.run_store.news import facts_of, news_of
from services.run_store.run_folder import ENDED, find_run

POLL_S = 0.2


def control(
    command: str,
    name: str,
    runs: Path,
    wait: float,
    as_json: bool,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Ask, and wait up to `wait` seconds until it is applied; ValueError if it is refused."""
    folder = find_run(runs, name)
    facts = facts_of(folder)
    if facts["state"] in ENDED:
        raise ValueError(f"run {folder.id} has ended ({facts['state']}); nothing to {command}")
    if facts["state"] == "silent":
        note(f"run {folder.id}: {news_of(facts)}; it may not be there to answer")
    identity = commands.request(folder.path, command, arguments)
    answer = commands.read(folder.path, identity)
    deadline = time.monotonic() + wait
    while answer.state in ("requested", "acknowledged") and time.monotonic() < deadline:
        time.sleep(POLL_S)
        answer = commands.read(folder.path, identity)
    if answer.state == "rejected":
        raise ValueError(f"run {folder.id} refused to {command}: {answer.reason}")
    show(asdict(answer), as_json, f"{command} {folder.id}: {answer.state}")


def values_of(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs as `set` takes them; ValueError for one that is none, or twice there."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, value = parse_override(assignment)
        key = ".".join(path)
        if key in values:
            raise ValueError(f"{key} is there twice; give it one value")
        values[key] = value
    return values
