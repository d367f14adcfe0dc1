"""`tdm-r1 status` and `tdm-r1 logs`: read run folders, and never mistake silence for life."""

import time
from pathlib import Path
from typing import Any

from services.commands.console import out, print_json, say
from services.run_store.news import facts_of, news_of
from services.run_store.run_folder import ENDED, RunFolder, find_run, list_runs
from services.run_store.tail import Tail

POLL_S = 0.5


def status(name: str | None, runs: Path, as_json: bool) -> None:
    """One run in full, or a table of all."""
    if name is not None:
        folder = find_run(runs, name)
        facts = facts_of(folder) | {"metrics": newest_metrics(folder)}
        if as_json:
            print_json(facts)
        else:
            _show_one(facts)
        return
    found = [facts_of(folder) for folder in list_runs(runs)]
    if as_json:
        print_json(found)
    elif found:
        out.print(_table(found))
    else:
        say(f"no runs in {runs.absolute()}; `tdm-r1 demo` makes one")


def _show_one(facts: dict[str, Any]) -> None:
    metrics, alerts = facts.pop("metrics"), facts.pop("alerts", [])
    for name, value in facts.items():
        if name == "error":
            continue
        say(f"{name:18} {value}")
    if facts["state"] == "silent":
        say(
            f"{news_of(facts).capitalize()}: the run has died or hangs. See `tdm-r1 logs "
            f"{facts['run_id']}`; if its process {facts.get('pid')} on {facts.get('node')} is "
            "gone, start the run again."
        )
    for name, value in sorted(metrics.items()):
        if name.startswith(("reward/", "evaluation/")):
            say(f"{name:40} {value:.4f}" if isinstance(value, float) else f"{name:40} {value}")
    for alert in alerts:
        say(f"ALERT since iteration {alert['step']}: {alert['title']}")
        say(f"  {alert['detail']}; {alert['remedy']}")
    if "error" in facts:
        say(str(facts["error"]))


def _table(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("run", "state", "iteration", "version", "news from")
    for facts in found:
        total = f" of {facts['iterations']}" if "iterations" in facts else ""
        age = "not known" if facts["age_s"] is None else f"{facts['age_s']:.0f} s ago"
        table.add_row(
            facts["run_id"],
            facts["state"] + (" (alert)" if facts.get("alerts") else ""),
            f"{facts.get('iteration', '-')}{total}",
            str(facts.get("policy_version", "-")),
            age,
        )
    return table


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl; a last line still being written is left out."""
    return Tail(path).read_all()


def newest_metrics(folder: RunFolder) -> dict[str, Any]:
    """Each number as it was last written."""
    newest: dict[str, Any] = {}
    for line in read_metrics(folder.metrics):
        newest.update(line)
    return newest


def logs(name: str, runs: Path, lines: int, follow: bool, metrics: bool) -> None:
    """The newest lines, then new ones until the run ends."""
    folder = find_run(runs, name)
    path = folder.metrics if metrics else folder.events
    text = path.read_text() if path.exists() else ""
    for line in text.splitlines()[-lines:] if lines else text.splitlines():
        say(line)
    while follow:
        ended = facts_of(folder)["state"] in (*ENDED, "silent")
        grown = path.read_text() if path.exists() else ""
        if len(grown) > len(text):
            out.out(grown[len(text) :], end="")
            text = grown
        elif ended:
            return
        time.sleep(POLL_S)
