"""What every test process has."""

import logging
import os
from collections.abc import Iterator

import pytest

# Networks here are tiny: threads that share two cores with clusters and servers wait for each other
# (the toy proofs take a quarter of the time with one). Before torch is imported, which asks once.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """A command that a test ran in this process leaves no handler: its stream is closed by then."""
    kept = [*logging.root.handlers]
    yield
    for handler in [*logging.root.handlers]:
        if handler not in kept:
            logging.root.removeHandler(handler)
