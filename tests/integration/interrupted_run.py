"""A program that trains the toy world until it is told to stop; killed by a test.

Usage: interrupted_run.py FOLDER local|ray
"""

import sys
from pathlib import Path

from services.run_store.run_folder import RunFolder
from services.train import train
from tests.train_cases import toy_run

if __name__ == "__main__":
    folder, runtime = Path(sys.argv[1]), sys.argv[2]
    config = toy_run(folder, run={"iterations": 100_000}, cluster={"runtime": runtime})
    summary = train(config, RunFolder(folder / "run"))
    sys.exit(0 if summary["state"] == "stopped" else 1)
