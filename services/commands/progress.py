"""A live view of a run from its folder: a panel on a terminal, plain lines anywhere else.

It reads status.json and metrics.jsonl, as anybody may; the run does not know of it.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.commands.console import err, note
from services.commands.status import read_metrics
from services.run_store.news import waits_of
from services.run_store.run_folder import RunFolder

BARS = " .:-=+*#"
CURVE_POINTS = 60
REFRESH_PER_S = 2
PLAIN_EVERY_S = 10.0
SHOWN = {
    "advantage/zero_signal": "groups without contrast",
    "surrogate/preference": "preference loss",
    "fake_score/matching": "fake score's loss",
    "replay/fresh": "groups waiting",
    "rollout/images_per_s": "images a second",
    "seconds/iteration": "seconds an iteration",
}


class Watch:
    """Shows a run while the body of the `with` runs it."""

    def __init__(self, folder: RunFolder, iterations: int) -> None:
        self.folder, self.iterations = folder, iterations
        self.started = time.monotonic()
        self._live: Live | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        if err.is_terminal:
            self._live = Live(
                get_renderable=self.view, console=err, refresh_per_second=REFRESH_PER_S
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._tell, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()

    def view(self) -> RenderableType:
        """The panel."""
        status, lines = self.folder.status(), read_metrics(self.folder.metrics)
        iteration = int(status.get("iteration", 0))
        elapsed = time.monotonic() - self.started
        table = Table.grid(padding=(0, 2))
        for name, value in _numbers(lines):
            table.add_row(name, value)
        for wait in waits_of(status):
            table.add_row("waiting for", wait)
        return Group(
            Text(f"{self.folder.id}  {status.get('state', 'starting')}  {elapsed:.0f} s"),
            ProgressBar(total=max(self.iterations, 1), completed=iteration, width=CURVE_POINTS),
            Text(f"iteration {iteration} of {self.iterations}"),
            *(Text(f"{name} {curve}") for name, curve in _curves(lines)),
            table,
        )

    def _tell(self) -> None:
        """A line when the state changes and every ten seconds in which something happened."""
        state, step, last = "", -1, -PLAIN_EVERY_S
        while not self._done.wait(1 / REFRESH_PER_S):
            status = self.folder.status()
            lines = read_metrics(self.folder.metrics)
            newest = lines[-1]["step"] if lines else 0
            now = time.monotonic() - self.started
            changed = status.get("state", "") != state
            if changed or (newest != step and now - last >= PLAIN_EVERY_S):
                state, step, last = status.get("state", ""), newest, now
                numbers = ", ".join(f"{name} {value}" for name, value in _numbers(lines)[:3])
                note(f"{now:5.0f} s  {state}, iteration {newest} of {self.iterations}  {numbers}")


def _numbers(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What people look at, as it was last written: rewards first, then `SHOWN`."""
    newest: dict[str, Any] = {}
    for line in lines:
        newest.update({name: value for name, value in line.items() if value is not None})
    rewards = [name for name in newest if name.startswith("reward/") and name.endswith("/mean")]
    named = {name: name.removesuffix("/mean") for name in rewards} | SHOWN
    return [(named[name], f"{newest[name]:.4g}") for name in named if name in newest]


def _curves(lines: list[Mapping[str, Any]] | list[dict[str, Any]]) -> list[tuple[str, str]]:
    """One line of text a reward: its mean over the run, drawn in ASCII."""
    names = sorted({n for line in lines for n in line if n.startswith("reward/")})
    shown = [name for name in names if name.endswith("/mean")]
    return [(name, sparkline([line.get(name) for line in lines])) for name in shown]


def sparkline(values: list[float | None], width: int = CURVE_POINTS) -> str:
    """Values as characters of growing ink, averaged down to `width`; None is left out."""
    present = [value for value in values if value is not None]
    if not present:
        return ""
    size = max(1, -(-len(present) // width))
    means = [_mean(present[i : i + size]) for i in range(0, len(present), size)]
    low, high = min(means), max(means)
    span = high - low
    heights = [(mean - low) / span if span else 0.5 for mean in means]
    drawn = "".join(BARS[round(height * (len(BARS) - 1))] for height in heights)
    return f"{means[0]:.3f} |{drawn}| {means[-1]:.3f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
