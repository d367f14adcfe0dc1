"""What people ask of a run while it runs: commands, signals, a limit of time; and its status."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Any

from services.run_store import commands
from services.run_store.commands import Command
from services.run_store.run_folder import RunFolder
from services.run_store.vitals import Vitals
from services.runtime.waiting import Changes

log = logging.getLogger(__name__)

POLL_S = 0.5
STATUS_S = 5.0
"""A status older than a few of these is of a run that died."""


class RunControl:
    """Reads the inbox beside the loops; the controller obeys between iterations."""

    def __init__(
        self,
        folder: RunFolder,
        changes: Changes,
        facts: Callable[[], dict[str, Any]],
        max_seconds: float | None = None,
    ) -> None:
        """`facts` gives what the status says besides the state, its workers among it."""
        self.folder, self.changes, self.max_seconds = folder, changes, max_seconds
        self.facts = facts
        self._vitals = Vitals()
        self.state = "starting"
        self.ending = ""
        self.hurried = False
        self.paused = False
        self.unheeded: list[Command] = []
        self.started = time.monotonic()

    @property
    def wants_attention(self) -> bool:
        """Whether the learners should come back to the gate between iterations."""
        return bool(self.unheeded or self.ending or self.paused)

    def enter(self, state: str) -> None:
        """Change the state and say so."""
        if state != self.state:
            log.info("%s", state)
            self.state = state
            self.write_status()

    def write_status(self, **more: Any) -> None:
        """Replace status.json."""
        facts = self.facts()
        vitals = self._vitals.note(facts["workers"])
        self.folder.write_status({"state": self.state, **facts, **vitals, **more})

    def end(self, reason: str, hurried: bool = False) -> None:
        """Ask for a clean end; a hurried one does without the last evaluation."""
        self.ending = self.ending or reason
        self.hurried = self.hurried or hurried
        log.info("the run will end: %s", reason)
        self.changes.tell()

    async def watch(self) -> None:
        """Read the inbox, mind the clock, keep the status young; never returns."""
        written = 0.0
        while True:
            self._read_inbox()
            elapsed = time.monotonic() - self.started
            if self.max_seconds is not None and elapsed >= self.max_seconds and not self.ending:
                self.end(f"run.max_seconds={self.max_seconds:g} have passed")
            if time.monotonic() - written >= STATUS_S:
                self.write_status()
                written = time.monotonic()
            await asyncio.sleep(POLL_S)

    def _read_inbox(self) -> None:
        known = {command.id for command in self.unheeded}
        for command in commands.unanswered(self.folder.path):
            if command.id not in known:
                command = commands.answer(self.folder.path, command, "acknowledged")
                self.unheeded.append(command)
                self.changes.tell()

    def answer(self, command: Command, state: commands.State, reason: str = "") -> None:
        """Record what became of a command."""
        log.info("command %s %s: %s %s", command.type, command.id, state, reason)
        commands.answer(self.folder.path, command, state, reason)

    def heed_signals(self) -> None:
        """The first Ctrl-C or SIGTERM ends the run cleanly, the second at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def ignore_signals(self) -> None:
        """Back to the default."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        self.ignore_signals()
        self.end(f"{number.name}; a second one ends it at once", hurried=True)
