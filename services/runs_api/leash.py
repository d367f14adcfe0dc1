"""`python -m services.runs_api.leash COMMAND...` runs a command while its standard input is open:
whatever ends the process that holds it, even a kill, ends the command's whole group."""

import os
import signal
import subprocess
import sys
import threading


def _end_with_input() -> None:
    os.read(0, 1)  # nobody writes: it returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """The command's exit status; this process leads the group that is killed."""
    os.nice(5)  # pages are answered first
    threading.Thread(target=_end_with_input, daemon=True).start()
    return subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
